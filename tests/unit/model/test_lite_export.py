"""What serving computes from the exported files is what the network computes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnx", reason="exporting needs the extra `train`")

from worker.model.backbone import EfficientNetLite0  # noqa: E402
from worker.model.evaluate import AgreementReport  # noqa: E402
from worker.model.export import export_model  # noqa: E402
from worker.model.network import (  # noqa: E402
    DESCRIPTION,
    STREAMS,
    VIEWS,
    WINDOW,
    MstLite,
    PositionsJudge,
    StatisticsJudge,
    describe_streams,
)
from worker.model.onnx_graph import maps_graph  # noqa: E402
from worker.scoring.model import load_model  # noqa: E402
from worker.scoring.openvino_engine import OpenVinoEngine  # noqa: E402


@pytest.fixture(scope="module")
def network() -> MstLite:
    """A network of random weights whose norms have seen some data, so that folding them matters."""
    torch.manual_seed(3)
    statistics = StatisticsJudge(torch.rand(20, 2 * DESCRIPTION))
    network = MstLite(EfficientNetLite0(), PositionsJudge(), statistics, (1.0, 1.0))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def windows() -> Iterator[np.ndarray]:
    count = sum(view.crops for view in VIEWS.values())
    return np.random.default_rng(0).integers(0, 256, (2, count, WINDOW, WINDOW, 3), dtype=np.uint8)


def run_in_float32(graph: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    core = ov.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {name: values for port, values in compiled(inputs).items() for name in port.get_names()}


@torch.no_grad()
def test_the_backbones_graph_gives_the_networks_maps(network: MstLite, windows: np.ndarray) -> None:
    ours = network.maps(torch.from_numpy(windows[0])).numpy()
    theirs = run_in_float32(maps_graph(network.backbone), {"windows": windows[0]})["maps"]
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4 * np.abs(ours).max())


@torch.no_grad()
def test_exported_files_score_as_the_network_does(network: MstLite, windows: np.ndarray, tmp_path: Path) -> None:
    report = AgreementReport("some", 10, 0.7, 0.6, 0.8, 0.7, 0.4, None, None, None)
    export_model(network, [report], tmp_path)
    model = load_model(str(tmp_path))
    maps = network.maps(torch.from_numpy(windows).flatten(0, 1)).unflatten(0, windows.shape[:2])
    expected = network(maps).numpy()

    split = np.split(windows, np.cumsum([VIEWS[view].crops for view in STREAMS.values()])[:-1], axis=1)
    views = {
        view: np.ascontiguousarray(part.reshape(2, *VIEWS[view].shape))
        for view, part in zip(STREAMS.values(), split, strict=True)
    }
    features = run_in_float32(model.graph, views)
    assert [scores.quality for scores in model.heads.score(features)] == pytest.approx(expected.tolist(), abs=1e-3)

    engine = OpenVinoEngine(model, threads=1)
    served = [scores.quality for scores in model.heads.score(engine.infer(views))]
    engine.close()
    assert served == pytest.approx(expected.tolist(), abs=0.05)


@torch.no_grad()
def test_joined_judges_say_nearly_the_mean_of_what_each_says(network: MstLite, windows: np.ndarray) -> None:
    maps = network.maps(torch.from_numpy(windows).flatten(0, 1)).unflatten(0, windows.shape[:2])
    seen = (maps, describe_streams(maps))
    judges = (network.positions, network.statistics)
    norms = tuple(float(judge.fuse(each).norm(dim=1).mean()) for judge, each in zip(judges, seen, strict=True))
    joined = MstLite(network.backbone, network.positions, network.statistics, norms).eval()

    apart = [judge(each) for judge, each in zip(judges, seen, strict=True)]
    assert (apart[0] - apart[1]).abs().max() > 0.05
    assert joined(maps).tolist() == pytest.approx(((apart[0] + apart[1]) / 2).tolist(), abs=0.02)
