"""What only a machine with an NVIDIA GPU can show: engines built, run, compared and timed. `make gpu-test`.

What cannot run says why: TensorRT for RTX has no engines for Hopper, and a backend that is not installed is named.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trt_build.compile import Compiler
from worker.cli.main import app
from worker.scoring.compiled import open_compiled
from worker.scoring.cuda_device import CudaDevice, NoDevice
from worker.scoring.engine import Engine
from worker.scoring.engine_record import Target, TensorRtBackend
from worker.scoring.model import Model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.repository import Repository, Version
from worker.scoring.stores import FolderStore
from worker.scoring.tensorrt_binding import BindingMissing

pytestmark = pytest.mark.gpu

BATCHES = (1, 8, 64)


@pytest.fixture(scope="module")
def capability() -> str:
    try:
        return CudaDevice().compute_capability
    except NoDevice as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest, capability: str) -> TensorRtBackend:
    name: TensorRtBackend = request.param
    try:
        known = Compiler(name).compute_capabilities()
    except BindingMissing as error:
        pytest.skip(str(error))
    if known is not None and capability not in known:
        pytest.skip(f"{name} has no engines for compute capability {capability}, only for {', '.join(known)}")
    return name


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mst-lite")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def pixels(model: Model, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 256, (batch, *view.shape), np.uint8) for name, view in model.manifest.views.items()
    }


@pytest.fixture(scope="module")
def engine(backend: TensorRtBackend, capability: str, model: Model, place: Path) -> Engine:
    """Built and opened as a user would, but for the gate, which has a test of its own."""
    done = CliRunner().invoke(app, ["build", "mst-lite", "--repository", str(place), "--backend", backend])
    assert done.exit_code == 0, done.output
    version = Version(model.manifest.name, model.manifest.version)
    target = Target(backend=backend, compute_capability=capability, precision="fp16")
    return open_compiled(Repository(FolderStore(place)), version, target, model, verified=False)


def test_the_build_report_has_the_engines_own_layers(engine: Engine, place: Path) -> None:
    pages = list(place.rglob("build.json"))
    assert pages
    assert all('"layers_of": "engine"' in page.read_text() for page in pages)


def test_the_engine_passes_the_gate(engine: Engine, backend: TensorRtBackend, capability: str, place: Path) -> None:
    name = Target(backend=backend, compute_capability=capability, precision="fp16").name
    done = CliRunner().invoke(app, ["verify", "mst-lite", "--repository", str(place), "--engine", name])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16, 33, 64])
def test_a_batch_of_any_size_gives_the_features_of_its_own_images(engine: Engine, model: Model, batch: int) -> None:
    views = pixels(model, batch, batch)
    found = engine.infer(views)
    for row in {0, batch - 1}:
        alone = engine.infer({name: rows[row : row + 1] for name, rows in views.items()})
        for tower, rows in found.items():
            np.testing.assert_allclose(rows[row], alone[tower][0], rtol=0.02, atol=0.02 * np.abs(rows).max())


def rate(run: Callable[[Mapping[str, np.ndarray]], object], views: Mapping[str, np.ndarray]) -> float:
    """Images a second, the best of five runs of ten batches."""
    batch = len(next(iter(views.values())))
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(10):
            run(views)
        best = max(best, 10 * batch / (time.perf_counter() - started))
    return best


@pytest.mark.parametrize("batch", BATCHES)
def test_the_engine_is_faster_than_the_cpus(
    engine: Engine, model: Model, batch: int, record_property: Callable[[str, object], None]
) -> None:
    views = pixels(model, batch)
    gpu = rate(engine.infer, views)
    cpu = OpenVinoEngine(model)
    started = time.perf_counter()
    cpu.infer(views)
    slow = batch / (time.perf_counter() - started)
    record_property("images_per_second", round(gpu, 1))
    print(f"batch {batch}: {gpu:,.0f} images/s on the GPU, {slow:,.0f} on the CPU")
    if batch > 1:
        assert gpu > slow
