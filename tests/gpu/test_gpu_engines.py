"""What only a machine with an NVIDIA GPU can show: engines built, run, compared and timed. `make gpu-test`.

What cannot run is skipped with the reason, and pytest lists all of them at the end: TensorRT for RTX has no engines for
Hopper, and a backend that is not installed is named, with what installs it.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from typer.testing import CliRunner

from ops.benchmarks.engines_benchmark import OnnxRuntimeEngine
from ops.benchmarks.inputs import clip_sized_model
from tests.unit.trt_build.towers import write_model
from trt_build.compile import Compiler
from worker.cli.main import app
from worker.scoring.compiled import open_compiled
from worker.scoring.cuda_device import CudaDevice, NoDevice, OutOfDeviceMemory
from worker.scoring.engine import PROMPT, Engine, EngineError
from worker.scoring.engine_record import Target, TensorRtBackend
from worker.scoring.model import Model, load_model
from worker.scoring.opening import open_engine
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.repository import Repository, Version
from worker.scoring.stores import FolderStore
from worker.scoring.tensorrt_binding import BindingMissing
from worker.scoring.torch_engine import TorchEngine
from worker.settings import Settings

# TensorRT measures every kernel when it builds, and torch compiles for each size of a batch: minutes each.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

BATCHES = (1, 8, 64)

PRECISION: Literal["bf16"] = "bf16"
"""What mst-lite was measured in, so what sluice build makes of it."""


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
    if float(capability) < 8:
        pytest.skip(f"these engines are in bfloat16, which compute capability {capability} does not compute in")
    return name


@pytest.fixture(scope="module")
def torch_gpu(capability: str) -> str:
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU, of compute capability {capability}")
    return "cuda"


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


def sluice(*arguments: str) -> None:
    """As a user would."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output


def built(backend: TensorRtBackend, capability: str, place: Path, model: Model) -> Engine:
    """The engine that was built there, though it was not compared with the reference yet."""
    version = Version(model.manifest.name, model.manifest.version)
    target = Target(backend=backend, compute_capability=capability, precision=PRECISION)
    return open_compiled(Repository(FolderStore(place)), version, target, model, verified=False)


@pytest.fixture(scope="module")
def engine(backend: TensorRtBackend, capability: str, model: Model, place: Path) -> Iterator[Engine]:
    sluice("build", "mst-lite", "--repository", str(place), "--backend", backend)
    with closing(built(backend, capability, place, model)) as engine:
        yield engine


def test_what_was_captured_is_done_again_at_each_launch(capability: str) -> None:
    """The CUDA runtime alone, as the engines of TensorRT use it; so it is tried where TensorRT is not."""
    device = CudaDevice()
    stream = device.stream()
    given, found = (device.pinned((4, 3), np.uint8) for _ in range(2))
    memory = device.allocate(given.nbytes)
    with device.capture(stream) as graph:
        device.upload(memory, given, stream)
        device.download(found, memory, stream)
    for value in (3, 250):
        given[:] = value
        device.launch(graph, stream)
        device.synchronize(stream)
        assert (found == value).all()
    device.destroy_graph(graph)
    device.free(memory)
    device.unpin(given)
    device.unpin(found)
    device.destroy_stream(stream)


def test_memory_that_the_gpu_does_not_have_is_refused_and_no_more_than_that(capability: str) -> None:
    device = CudaDevice()
    with pytest.raises(OutOfDeviceMemory, match="use a smaller batch"):
        device.allocate(1 << 46)
    device.free(device.allocate(1 << 20))


LOSE_THE_GPU = """
import os, numpy as np, torch
from worker.scoring.torch_engine import TorchEngine
from worker.scoring.cuda_device import CudaDevice, DeviceLost
from worker.scoring.model import load_model

model = load_model("mst-lite")
blank = {name: np.zeros((1, *view.shape), np.uint8) for name, view in model.manifest.views.items()}
engine, device = TorchEngine(model, device="cuda"), CudaDevice()
stream = device.stream()
engine.infer(blank)
torch.zeros(2, device="cuda")[torch.tensor([5], device="cuda")]  # an assertion fails on the GPU
for again in (lambda: engine.infer(blank), lambda: engine.infer(blank), lambda: device.synchronize(stream)):
    try:
        again()
        print("well", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
os._exit(0)
"""


def test_a_gpu_that_is_lost_is_known_to_be_lost(torch_gpu: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOSE_THE_GPU], capture_output=True, text=True, check=False)
    told = done.stdout.split("\n")[-4:-1]
    # Memory that torch cannot give back on such a GPU may end the process, which helps as well.
    assert set(told) == {"DeviceLost"}, done.stdout + done.stderr
    assert len(told) == 3 or done.returncode < 0, done.stdout + done.stderr


def test_the_build_report_has_the_engines_own_layers(engine: Engine, place: Path) -> None:
    pages = list(place.rglob("build.json"))
    assert pages
    assert all('"layers_of": "engine"' in page.read_text() for page in pages)


def test_the_engine_passes_the_gate(engine: Engine, backend: TensorRtBackend, capability: str, place: Path) -> None:
    name = Target(backend=backend, compute_capability=capability, precision=PRECISION).name
    sluice("verify", "mst-lite", "--repository", str(place), "--engine", name)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16, 33, 64])
def test_a_batch_of_any_size_gives_the_features_of_its_own_images(engine: Engine, model: Model, batch: int) -> None:
    views = pixels(model, batch, batch)
    found = engine.infer(views)
    for row in {0, batch - 1}:
        alone = engine.infer({name: rows[row : row + 1] for name, rows in views.items()})
        for tower, rows in found.items():
            np.testing.assert_allclose(rows[row], alone[tower][0], rtol=0.02, atol=0.02 * np.abs(rows).max())


def test_prompts_are_judged_as_on_the_cpu(backend: TensorRtBackend, capability: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", prompts=True)
    sluice("build", str(folder), "--repository", str(tmp_path), "--backend", backend, "--precision", "fp32")
    model = load_model(str(folder))
    target = Target(backend=backend, compute_capability=capability, precision="fp32")
    repository, version = Repository(FolderStore(tmp_path)), Version(model.manifest.name, model.manifest.version)
    views, prompts = pixels(model, 3), ["a cat", None, "a dog"]
    with closing(open_compiled(repository, version, target, model, verified=False)) as gpu:
        found = gpu.infer(views, prompts)[PROMPT]
    with closing(OpenVinoEngine(model, precision="f32")) as cpu:
        expected = cpu.infer(views, prompts)[PROMPT]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_torchs_engine_for_this_gpu_passes_the_gate(torch_gpu: str, capability: str, tmp_path: Path) -> None:
    name = Target(backend="torch", compute_capability=capability, precision=PRECISION).name
    sluice("build", "mst-lite", "--repository", str(tmp_path), "--backend", "torch")
    sluice("verify", "mst-lite", "--repository", str(tmp_path), "--engine", name)


def test_many_threads_get_from_compiled_torch_what_it_gives_on_the_cpu(torch_gpu: str, model: Model) -> None:
    batches = [pixels(model, 1 + seed % 8, seed) for seed in range(24)]
    with closing(TorchEngine(model, precision="bf16")) as plain:
        expected = [plain.infer(batch) for batch in batches]
    with (
        closing(
            TorchEngine(model, device=torch_gpu, precision="bf16", compiled=True, fixed_batches=(4, 8))
        ) as compiled,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
    ):
        for found, wanted in zip(pool.map(compiled.infer, batches), expected, strict=True):
            for name, rows in wanted.items():
                np.testing.assert_allclose(found[name], rows, atol=0.05 * np.abs(rows).max())


def test_torch_judges_prompts_as_on_the_cpu(torch_gpu: str, tmp_path: Path) -> None:
    model = load_model(str(write_model(tmp_path, prompts=True)))
    views, prompts = pixels(model, 3), ["a cat", None, "a dog"]
    with closing(TorchEngine(model)) as cpu, closing(TorchEngine(model, device=torch_gpu)) as gpu:
        found, expected = gpu.infer(views, prompts)[PROMPT], cpu.infer(views, prompts)[PROMPT]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_closed_engines_of_torch_leave_no_weights_on_the_gpu(torch_gpu: str, model: Model) -> None:
    import torch

    left = []
    for _ in range(4):
        engine = TorchEngine(model, device=torch_gpu, precision="bf16", compiled=True, fixed_batches=(4,))
        engine.infer(pixels(model, 3))
        engine.close()
        left.append(torch.cuda.memory_allocated())
    assert left[3] - left[1] < len(model.graph) // 2  # the first leaves what CUDA's libraries work in


def test_what_auto_takes_on_this_gpu_runs(torch_gpu: str, model: Model) -> None:
    with closing(open_engine(Settings(), model)) as engine:
        assert isinstance(engine, TorchEngine)
        assert np.isfinite(engine.infer(pixels(model, 3))["coarse"]).all()


IN_FLIGHT = 4
"""Batches that an intake replica keeps with the engine: while one computes, others travel."""

CLIP_FLOPS = 2 * (4.37e9 + 17.56e9)
"""Of an image in ViT-B/32 and ViT-B/16 at 224 pixels, a multiplication and an addition counted as two."""

GOAL = 0.5
"""Share of its bfloat16 peak that the GPU reaches on CLIP's towers, uploads and normalisation included."""

EAGER, COMPILED, ONNXRUNTIME = "torch eager fp32", "torch compiled bf16", "onnxruntime"


def rate(run: Callable[[Mapping[str, np.ndarray]], object], views: Mapping[str, np.ndarray]) -> float:
    """Images a second, the best of five runs of twenty batches, with as many in flight as in service."""
    batch = len(next(iter(views.values())))
    best = 0.0
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(run, [views] * 20))
            best = max(best, 20 * batch / (time.perf_counter() - started))
    return best


@pytest.fixture(scope="module")
def peak(torch_gpu: str) -> float:
    """Operations a second of this GPU in bfloat16, as its largest matrix products reach them."""
    import torch

    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=torch_gpu) for _ in range(2))
    best = 0.0
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        best = max(best, 10 * 2 * 8192**3 / (time.perf_counter() - started))
    print(f"{torch.cuda.get_device_name()}: {best / 1e12:,.0f} TFLOP/s in bfloat16")
    return best


class Contest:
    """Images a second of engines on CLIP's towers, in batches of 64; each is timed once, and has the GPU to itself."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._speeds: dict[str, float] = {}

    def speed(self, name: str, make: Callable[[], Engine] | None = None) -> float:
        """Skips the test where ONNX Runtime has no GPU, and says so."""
        if name not in self._speeds:
            make = make or {EAGER: self._eager, COMPILED: self._compiled, ONNXRUNTIME: self._onnxruntime}[name]
            with closing(make()) as engine:
                self._speeds[name] = rate(engine.infer, pixels(self.model, 64))
            print(f"CLIP's towers, batch 64, {name}: {self._speeds[name]:,.0f} images/s")
        return self._speeds[name]

    def _eager(self) -> Engine:
        return TorchEngine(self.model, device="cuda")

    def _compiled(self) -> Engine:
        return TorchEngine(self.model, device="cuda", precision="bf16", compiled=True, fixed_batches=(64,))

    def _onnxruntime(self) -> Engine:
        try:
            return OnnxRuntimeEngine(self.model, providers=["CUDAExecutionProvider"])
        except EngineError as error:
            pytest.skip(f"not timed: {error}; install onnxruntime-gpu in onnxruntime's place")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def contest(torch_gpu: str, clip_folder: Path) -> Contest:
    return Contest(clip_sized_model(clip_folder))


Record = Callable[[str, object], None]


def reaches_the_goal(name: str, speed: float, peak: float, record_property: Record) -> None:
    share = speed * CLIP_FLOPS / peak
    record_property("share of the bf16 peak", round(share, 3))
    print(f"CLIP's towers, batch 64, {name}: {share:.0%} of the bf16 peak, uploads and normalisation included")
    assert share >= GOAL


@pytest.mark.parametrize("other", [EAGER, ONNXRUNTIME])
def test_compiled_torch_is_faster_on_clips_towers_than(other: str, contest: Contest, record_property: Record) -> None:
    speeds = {name: contest.speed(name) for name in (other, COMPILED)}
    for name, speed in speeds.items():
        record_property(name, round(speed, 1))
    assert speeds[COMPILED] > speeds[other]


def test_compiled_torch_reaches_the_goal(contest: Contest, peak: float, record_property: Record) -> None:
    reaches_the_goal(COMPILED, contest.speed(COMPILED), peak, record_property)


@pytest.fixture(scope="module")
def speed(backend: TensorRtBackend, capability: str, contest: Contest, clip_folder: Path, place: Path) -> float:
    """Of the backend's engine on CLIP's towers."""
    sluice("build", str(clip_folder), "--repository", str(place), "--backend", backend, "--precision", PRECISION)
    return contest.speed(backend, lambda: built(backend, capability, place, contest.model))


@pytest.mark.parametrize("other", [EAGER, COMPILED, ONNXRUNTIME])
def test_the_engine_is_as_fast_on_clips_towers_as(
    other: str, backend: TensorRtBackend, speed: float, contest: Contest, record_property: Record
) -> None:
    record_property(backend, round(speed, 1))
    record_property(other, round(contest.speed(other), 1))
    assert speed > 0.9 * contest.speed(other)


def test_the_engine_reaches_the_goal(
    backend: TensorRtBackend, speed: float, peak: float, record_property: Record
) -> None:
    reaches_the_goal(backend, speed, peak, record_property)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_engine_is_faster_than_the_cpus(engine: Engine, model: Model, batch: int, record_property: Record) -> None:
    views = pixels(model, batch)
    gpu = rate(engine.infer, views)
    with closing(OpenVinoEngine(model)) as cpu:
        started = time.perf_counter()
        cpu.infer(views)
        slow = batch / (time.perf_counter() - started)
    record_property("images_per_second", round(gpu, 1))
    print(f"batch {batch}: {gpu:,.0f} images/s on the GPU, {slow:,.0f} on the CPU")
    if batch > 1:
        assert gpu > slow
