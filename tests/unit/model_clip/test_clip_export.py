from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

from worker.model.clip.checkpoint import load_checkpoint  # noqa: E402
from worker.model.clip.export import ExportError, export_model  # noqa: E402
from worker.model.clip.towers import Encoder  # noqa: E402
from worker.scoring.model import load_model  # noqa: E402
from worker.scoring.openvino_engine import OpenVinoEngine  # noqa: E402

PAIR = Encoder("sluice-test-32", None), Encoder("sluice-test-16", None)


@pytest.fixture
def served(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> tuple[Any, Path]:
    network = load_checkpoint(save_checkpoint(make_reference().state_dict()), *PAIR)
    export_model(network, tmp_path / "model", version="1", license="MIT", training_data=("a test",))
    return network, tmp_path / "model"


@torch.no_grad()
def test_serving_scores_an_imported_checkpoint_as_the_network_does(served: tuple[Any, Path]) -> None:
    import onnx.reference

    network, folder = served
    model = load_model(str(folder))
    pixels = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels)
    coarse, fine = network.coarse(tensor), network.fine(tensor)
    expected = network.quality(coarse, fine)

    graph = onnx.reference.ReferenceEvaluator(str(folder / model.manifest.graph.path))
    exact = dict(zip(("coarse", "fine"), graph.run(["coarse", "fine"], {"image": pixels}), strict=True))
    scores = model.heads.score(exact)
    np.testing.assert_allclose([score.quality for score in scores], expected, atol=1e-4)

    engine = OpenVinoEngine(model, threads=1)
    try:
        features = engine.infer({"image": pixels})
    finally:
        engine.close()
    # The engine computes in bfloat16 where the processor can.
    for name, wanted in (("coarse", coarse), ("fine", fine)):
        assert np.abs(features[name] - wanted.numpy()).max() < 0.02 * np.abs(wanted.numpy()).max()


def test_both_towers_share_one_view_as_clip_wants_it(served: tuple[Any, Path]) -> None:
    manifest = load_model(str(served[1])).manifest
    (view,) = manifest.views.values()

    assert (view.size, view.resize, view.crop, view.interpolation) == (64, "shortest_side", "center", "bicubic")
    assert view.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert [tower.features for tower in manifest.towers] == [64, 64]


def test_a_prompt_head_alone_is_not_served_and_says_so(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    network = load_checkpoint(save_checkpoint(make_reference("prompt").state_dict()), *PAIR)

    with pytest.raises(ExportError, match="prompt head only"):
        export_model(network, tmp_path / "model", version="1", license="MIT", training_data=())
    assert not (tmp_path / "model").exists()
