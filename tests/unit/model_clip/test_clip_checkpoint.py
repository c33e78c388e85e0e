from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")

from worker.model.clip.checkpoint import CheckpointError, check_same_towers, load_checkpoint  # noqa: E402
from worker.model.clip.network import MstClip  # noqa: E402
from worker.model.clip.towers import Encoder, WeightsError  # noqa: E402

PAIR = Encoder("sluice-test-32", None), Encoder("sluice-test-16", None)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pictures(size: int, number: int = 4) -> Any:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 256, (number, size, size, 3), dtype=np.uint8))


def normalised(pixels: Any) -> Any:
    scaled = (pixels.numpy() / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def quality(network: MstClip, pixels: Any) -> Any:
    return network.quality(network.coarse(pixels), network.fine(pixels))


@torch.no_grad()
def test_a_template_checkpoint_scores_as_the_network_that_wrote_it(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    reference = make_reference()
    network = load_checkpoint(save_checkpoint(reference.state_dict()), *PAIR)
    pixels = pictures(64)
    expected = reference.template_quality(normalised(pixels))

    assert expected.std() > 1e-3
    torch.testing.assert_close(quality(network, pixels), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_prompt_checkpoint_scores_each_image_by_its_own_prompt(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    reference = make_reference("prompt")
    network = load_checkpoint(save_checkpoint(reference.state_dict()), *PAIR)
    pixels = pictures(64, 3)
    prompts = ["a cat", "a very long prompt about a lighthouse in a storm, oil on canvas", ""]
    expected = reference.prompt_score(normalised(pixels), prompts)
    found = network.prompted(network.coarse(pixels), network.fine(pixels), prompts)

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    other = network.prompted(network.coarse(pixels), network.fine(pixels), ["a dog", *prompts[1:]])
    assert abs(other[0] - found[0]) > 1e-5
    torch.testing.assert_close(other[1:], found[1:])


def as_published(state: dict[str, Any], *, transformers: int = 5) -> dict[str, Any]:
    """The keys of github.com/YMlinfeng/MST-CLIPIQA, which keeps the text tower in the head: a CLIPTextModel beside a
    prompt head, one with projection beside a template head."""
    coarse, text = "mstfe.encoder_coarse.", "head.text_encoder."
    prompted = "head.temperature" not in state
    found = {}
    for key, value in state.items():
        if key.endswith("logit_scale") or key.startswith("mstfe.encoder_fine.text_"):
            continue
        if prompted and key == f"{coarse}text_projection.weight":
            continue
        below = f"{coarse}text_model." if prompted and transformers >= 5 else coarse
        found[key.replace(below, text) if key.startswith(f"{coarse}text_") else key] = value
    if not prompted:
        found["head.quality_scores"] = torch.arange(1.0, 6.0)
    return found


@torch.no_grad()
def test_the_authors_template_checkpoint_brings_its_text_tower_and_anchors(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    reference = make_reference()
    state = as_published(reference.state_dict())
    pixels = pictures(64)
    expected = reference.template_quality(normalised(pixels))
    by_text = load_checkpoint(save_checkpoint(state), *PAIR)
    assert by_text.head is not None
    torch.testing.assert_close(quality(by_text, pixels), expected, atol=1e-4, rtol=0)

    state["head.text_features"] = torch.nn.functional.normalize(by_text.head.anchors, dim=1)
    by_anchors = load_checkpoint(save_checkpoint(state), *PAIR)
    torch.testing.assert_close(quality(by_anchors, pixels), expected, atol=1e-4, rtol=0)
    state["head.text_features"] = state["head.text_features"].flip(0)
    turned = load_checkpoint(save_checkpoint(state), *PAIR)
    torch.testing.assert_close(quality(turned, pixels), 6 - expected, atol=1e-4, rtol=0)
    with pytest.raises(CheckpointError, match=r"head.quality_scores are \[0.0, 1.0.*expected 1, 2, 3, 4, 5"):
        load_checkpoint(save_checkpoint(state | {"head.quality_scores": torch.arange(5.0)}), *PAIR)


@torch.no_grad()
@pytest.mark.parametrize("transformers", [4, 5])
def test_the_authors_prompt_checkpoint_needs_no_projection_of_its_text_tower(
    transformers: int, make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    reference = make_reference("prompt")
    state = as_published(reference.state_dict(), transformers=transformers)
    assert any(key.startswith("head.text_encoder.embeddings.") for key in state) == (transformers == 5)
    network = load_checkpoint(save_checkpoint(state), *PAIR)
    pixels = pictures(64, 2)
    prompts = ["a cat", "a lighthouse in a storm, oil on canvas"]
    found = network.prompted(network.coarse(pixels), network.fine(pixels), prompts)
    torch.testing.assert_close(found, reference.prompt_score(normalised(pixels), prompts), atol=1e-4, rtol=0)

    # Beside a model whose text tower has its projection, the towers count as the same.
    check_same_towers(Path("b.pt"), network, load_checkpoint(save_checkpoint(reference.state_dict()), *PAIR))


@torch.no_grad()
def test_the_real_shapes_convert_exactly(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    reference = make_reference(real=True)
    network = load_checkpoint(save_checkpoint(reference.state_dict()))
    pixels = pictures(224, 2)

    expected = reference.template_quality(normalised(pixels))
    torch.testing.assert_close(quality(network, pixels), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_safetensors_and_wrapped_dictionaries_load_too(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    state = make_reference().state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "c.safetensors")
    wrapped = save_checkpoint({"epoch": 3, "state_dict": state})
    pixels = pictures(64, 1)
    first, second = (load_checkpoint(file, *PAIR) for file in (tmp_path / "c.safetensors", wrapped))

    torch.testing.assert_close(quality(first, pixels), quality(second, pixels))


def test_a_checkpoint_without_text_tower_asks_whose_to_use(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    state = {key: value for key, value in make_reference().state_dict().items() if "text_" not in key}

    with pytest.raises(CheckpointError, match=r"holds no text tower \(head.text_encoder.*mstfe.encoder_coarse"):
        load_checkpoint(save_checkpoint(state), *PAIR)


@torch.no_grad()
def test_a_text_tower_can_come_from_a_file_of_open_clip(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path]
) -> None:
    from worker.model.clip.towers import build_clip

    reference = make_reference()
    whole = load_checkpoint(save_checkpoint(reference.state_dict()), *PAIR)
    clip: Any = build_clip(PAIR[0])
    clip.text.load_state_dict(whole.text.text.state_dict())
    weights = save_checkpoint(clip.state_dict(), "clip.pt")
    state = {key: value for key, value in reference.state_dict().items() if "text_" not in key}
    network = load_checkpoint(save_checkpoint(state), *PAIR, text_weights=str(weights))
    pixels = pictures(64, 2)

    torch.testing.assert_close(quality(network, pixels), quality(whole, pixels))


PATCH = "mstfe.encoder_fine.vision_model.embeddings.patch_embedding.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("gff.W_c.bias"), r"no gff\.W_c\.bias; expected shape \[64\]"),
        (lambda s: s.update({PATCH: torch.zeros(128, 3, 8, 8)}), r"patch_embedding.weight has shape \[128, 3, 8, 8\], "
         r"expected \[128, 3, 16, 16\] of sluice-test-16"),
        (lambda s: s.update({"gff.W_g.weight": torch.zeros(64, 100)}), r"gff.W_g.weight has shape \[64, 100\], "
         r"expected \[64, 128\]"),
        (lambda s: s.pop("mstfe.encoder_coarse.vision_model.encoder.layers.1.self_attn.k_proj.bias"),
         r"no mstfe\.encoder_coarse.*k_proj.bias; expected shape \[128\] of sluice-test-32"),
        (lambda s: s.update({"head.extra.weight": torch.zeros(2)}), r"unknown keys head.extra.weight"),
        (lambda s: s.pop("head.temperature"), r"neither head.temperature \(shape \[1\], a template head\)"),
        (lambda s: s["gff.W_h.bias"].fill_(float("nan")), r"gff.W_h.bias holds values that are not finite"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_shape_is_refused_by_key(
    spoil: Callable[[dict[str, Any]], object],
    message: str,
    make_reference: Callable[..., Any],
    save_checkpoint: Callable[..., Path],
) -> None:
    state = make_reference().state_dict()
    spoil(state)

    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save_checkpoint(state), *PAIR)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "c.pt")

    with pytest.raises(CheckpointError, match="run its author's code"):
        load_checkpoint(tmp_path / "c.pt", *PAIR)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken", b"\x80\x02broken"])
@pytest.mark.parametrize("name", ["c.pt", "c.safetensors"])
def test_other_files_are_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=name) as caught:
        load_checkpoint(tmp_path / name, *PAIR)
    assert name.endswith("safetensors") or content[:1] == b"\x80" or "run code" not in str(caught.value)


def test_weights_that_cannot_be_fetched_can_be_brought_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip.factory

    from worker.model.clip.towers import build_network

    def unreachable(*_args: object, **_kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(
        WeightsError, match=r"no route to host.*by hand.*open_clip_model.safetensors of timm/.*its path"
    ):
        build_network()


def test_unknown_architectures_and_weights_are_named() -> None:
    from worker.model.clip.towers import build_network

    with pytest.raises(WeightsError, match="'ViT-Q' is not an architecture"):
        build_network(Encoder("ViT-Q"))
    with pytest.raises(
        WeightsError, match="'mine' is neither a file nor weights of ViT-B-32-quickgelu; those are openai"
    ):
        build_network(Encoder("ViT-B-32-quickgelu", "mine"))
