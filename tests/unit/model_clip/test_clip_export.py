from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

from trt_build.compile import BuildOptions, Compiler  # noqa: E402
from worker.model.clip.checkpoint import CheckpointError, check_same_towers, load_checkpoint  # noqa: E402
from worker.model.clip.export import ExportError, export_model  # noqa: E402
from worker.model.clip.towers import Encoder  # noqa: E402
from worker.scoring.engine import PROMPT  # noqa: E402
from worker.scoring.engine_record import BatchProfile  # noqa: E402
from worker.scoring.graph_precision import Precision, prepare_graph  # noqa: E402
from worker.scoring.model import load_model  # noqa: E402
from worker.scoring.openvino_engine import OpenVinoEngine  # noqa: E402
from worker.scoring.torch_engine import TorchEngine  # noqa: E402

PAIR = Encoder("sluice-test-32", None), Encoder("sluice-test-16", None)
TEMPLATE = {"head.temperature": torch.tensor(90.0)}


def load(state: dict[str, Any], folder: Path) -> Any:
    file = folder / "checkpoint.pt"
    torch.save(state, file)
    return load_checkpoint(file, *PAIR)


@pytest.fixture(scope="module")
def served(make_reference: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A network with a template head, one with a prompt head on the same towers, and the model made of both."""
    folder = tmp_path_factory.mktemp("clip")
    state = make_reference("prompt").state_dict()
    prompted = load(state, folder)
    template = load({**{k: v for k, v in state.items() if not k.startswith("head.")}, **TEMPLATE}, folder)
    export_model(
        template,
        folder / "model",
        version="1",
        license="MIT",
        training_data=("a test",),
        prompts={"correspondence": prompted},
    )
    return template, prompted, folder / "model"


@pytest.fixture
def pixels() -> Any:
    return np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@torch.no_grad()
def test_serving_scores_an_imported_checkpoint_as_the_network_does(served: tuple[Any, Any, Path], pixels: Any) -> None:
    import onnx.reference

    network, _, folder = served
    model = load_model(str(folder))
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


@torch.no_grad()
def test_serving_judges_prompts_as_the_network_does(served: tuple[Any, Any, Path], pixels: Any) -> None:
    _, network, folder = served
    prompts = ["a cat", None, "a lighthouse in a storm, oil on canvas, 8k, 山の上の城 " * 20]
    engine = OpenVinoEngine(load_model(str(folder)), threads=1, precision="f32")
    try:
        found = engine.infer({"image": pixels}, prompts)[PROMPT][:, 0]
    finally:
        engine.close()
    tensor = torch.from_numpy(pixels)
    expected = network.prompted(network.coarse(tensor), network.fine(tensor), [prompt or "" for prompt in prompts])

    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-4)
    assert np.isnan(found[1])
    assert abs(expected[0] - expected[2]) > 1e-3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_text_tower_compiles_for_a_gpu_in_low_precision(
    served: tuple[Any, Any, Path], precision: Precision
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    prompt = load_model(str(served[2])).prompt
    assert prompt is not None
    graph = prepare_graph(prompt.text, precision)
    built = Compiler("tensorrt-rtx").compile(graph, BuildOptions(BatchProfile(best=4, largest=8), "8.9"))

    assert len(built.engine) > 0.9 * len(graph)
    products = {layer.precision for layer in built.layers if layer.kind == "matrix_multiply"}
    assert products == {"half" if precision == "fp16" else "bf16"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.no_grad()
def test_prompts_are_judged_by_torch_on_the_models_own_graphs_too(
    served: tuple[Any, Any, Path], pixels: Any, precision: Literal["fp32", "bf16"]
) -> None:
    _, network, folder = served
    prompts = ["a cat", "a very long prompt", "x"]
    tensor = torch.from_numpy(pixels)
    expected = network.prompted(network.coarse(tensor), network.fine(tensor), prompts)
    found = TorchEngine(load_model(str(folder)), precision=precision).infer({"image": pixels}, prompts)[PROMPT][:, 0]

    np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "fp32" else 0.05)


def test_the_manifest_names_what_prompts_are_judged_with(served: tuple[Any, Any, Path]) -> None:
    manifest = load_model(str(served[2])).manifest
    assert manifest.prompt is not None
    assert (manifest.prompt.scores, manifest.prompt.context, manifest.prompt.features) == (("correspondence",), 77, 64)
    assert {spec.path for spec in manifest.files} == {path.name for path in served[2].iterdir()} - {"manifest.json"}


def test_both_towers_share_one_view_as_clip_wants_it(served: tuple[Any, Any, Path]) -> None:
    manifest = load_model(str(served[2])).manifest
    (view,) = manifest.views.values()

    assert (view.size, view.resize, view.crop, view.interpolation) == (64, "shortest_side", "center", "bicubic")
    assert view.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert [tower.features for tower in manifest.towers] == [64, 64]


def test_a_prompt_head_alone_is_no_model_and_says_so(
    make_reference: Callable[..., Any], save_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    network = load_checkpoint(save_checkpoint(make_reference("prompt").state_dict()), *PAIR)

    with pytest.raises(ExportError, match="only a prompt head; a model also needs a template head"):
        export_model(network, tmp_path / "model", version="1", license="MIT", training_data=())
    assert not (tmp_path / "model").exists()


def test_a_prompt_head_of_other_towers_is_refused_by_the_tower(
    served: tuple[Any, Any, Path], make_reference: Callable[..., Any], tmp_path: Path
) -> None:
    other = load(make_reference("prompt", seed=2).state_dict(), tmp_path)

    with pytest.raises(CheckpointError, match=r"other.pt: .* of its coarse tower differs from the model"):
        check_same_towers(Path("other.pt"), other, served[0])
