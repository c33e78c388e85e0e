"""The GPU engine's own logic, on a GPU that is none: batches, graphs, buffers, errors."""

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.unit.trt_build.fake_gpu import Error, FakeCuda, FakeTensorRt, StrictCuda
from tests.unit.trt_build.towers import CONTEXT, FEATURES, SIZE, TOKEN_FEATURES, write_model
from worker.scoring.cuda_device import CudaDevice, DeviceLost, NoDevice, OutOfDeviceMemory
from worker.scoring.engine import PROMPT, BatchFailed, EngineError
from worker.scoring.engine_record import BatchProfile, EngineMismatch, EngineRecord, Target, TensorRtBackend
from worker.scoring.manifest import FileSpec, ModelManifest, load_manifest
from worker.scoring.model import Model, load_model
from worker.scoring.tensorrt_engine import BadEngine, CompiledText, TensorRtEngine
from worker.scoring.token_ids import lengths

TENSORS: dict[str, tuple[tuple[int, ...], str]] = {
    "whole": ((-1, SIZE, SIZE, 3), "uint8"),
    "coarse": ((-1, FEATURES), "float32"),
    "fine": ((-1, FEATURES), "float32"),
}


TEXT: dict[str, tuple[tuple[int, ...], str]] = {
    "tokens": ((-1, CONTEXT), "int32"),
    "text": ((-1, CONTEXT, TOKEN_FEATURES), "float32"),
}


@pytest.fixture(scope="module")
def prompting(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(write_model(tmp_path_factory.mktemp("prompting"), prompts=True)))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return load_manifest(write_model(tmp_path_factory.mktemp("model")))


Start = Callable[..., TensorRtEngine]


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def start(manifest: ModelManifest, cuda: FakeCuda) -> Start:
    def start(
        data: bytes = b"engine",
        *,
        backend: TensorRtBackend = "tensorrt",
        tensors: dict[str, tuple[tuple[int, ...], str]] = TENSORS,
        on: FakeCuda = cuda,
        trt: FakeCuda | None = None,
        prompts: Model | None = None,
        **changes: Any,
    ) -> TensorRtEngine:
        judged = manifest if prompts is None else prompts.manifest
        fields = {
            "schema": "sluice.engine/1",
            "target": Target(backend=backend, compute_capability="8.9", precision="fp16"),
            "backend_version": "11.4.0",
            "model": judged.digest,
            "profile": BatchProfile(smallest=1, best=4, largest=12),
            "files": (FileSpec(path="x.engine", sha256="0" * 64),),
            "bytes": 1,
            "built_at": datetime(2026, 1, 1, tzinfo=UTC),
            "build_seconds": 1,
        }
        record = EngineRecord(**cast(dict[str, Any], fields | changes))
        parts = None if prompts is None else prompts.judging_prompts
        text = None if parts is None else CompiledText(b"text", parts)
        binding = FakeTensorRt(trt or on, tensors, TEXT)
        return TensorRtEngine(judged, record, data, text=text, device=CudaDevice(runtime=on), binding=binding)

    return start


def pixels(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"whole": np.random.default_rng(seed).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)}


def check(views: dict[str, np.ndarray], features: Any) -> None:
    mean = views["whole"].reshape(len(views["whole"]), -1).mean(axis=1)
    for name in ("coarse", "fine"):
        np.testing.assert_allclose(features[name], np.repeat(mean[:, None], FEATURES, axis=1), rtol=1e-5)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8, 11, 12])
def test_a_batch_of_any_size_gives_its_own_rows(start: Start, backend: TensorRtBackend, batch: int) -> None:
    engine = start(backend=backend)
    for seed in range(3):
        views = pixels(batch, seed)
        check(views, engine.infer(views))


def test_under_tensorrt_every_batch_is_one_graph(start: Start, cuda: FakeCuda) -> None:
    engine = start()
    warmed_up = cuda.launches
    assert warmed_up == 2 * 5  # on both lanes 1, 2, 4, 8 and 12, each tried before it is served by
    for batch in (1, 3, 7, 12):
        engine.infer(pixels(batch))
    assert cuda.launches - warmed_up == 4


def test_rows_with_a_prompt_are_judged_by_its_tokens_and_the_others_left(start: Start, prompting: Model) -> None:
    assert prompting.prompt is not None
    assert prompting.prompt.heads is not None
    engine = start(prompts=prompting)
    views = pixels(3)
    features = engine.infer(views, ["a cat", None, "dog"])
    check(views, features)

    ids = prompting.prompt.tokenizer(["a cat", "dog"])
    tokens = np.repeat(ids[..., None].astype(np.float32), TOKEN_FEATURES, axis=2)  # what the fake text tower gives
    rows = {name: features[name][[0, 2]] for name in ("coarse", "fine")}
    expected = prompting.prompt.heads.score(rows, tokens, lengths(ids))
    np.testing.assert_allclose(features[PROMPT][[0, 2]], expected, rtol=1e-5)
    assert np.isnan(features[PROMPT][1]).all()
    assert PROMPT not in engine.infer(views)


def test_an_engine_without_the_models_text_tower_is_refused(start: Start, prompting: Model) -> None:
    towers_only = Model(prompting.manifest, prompting.heads, prompting.graph)
    with pytest.raises(BadEngine, match="no text tower"):
        start(prompts=towers_only)


def test_closing_frees_the_text_tower_too(start: Start, prompting: Model, cuda: FakeCuda) -> None:
    start(prompts=prompting).close()
    assert cuda.leaked == 0


def test_rtx_is_left_to_capture_graphs_itself(start: Start, cuda: FakeCuda) -> None:
    engine = start(backend="tensorrt-rtx")
    engine.infer(pixels(3))
    assert cuda.launches == 0
    assert {config.cuda_graph_strategy for config in cuda.configs} == {"whole"}
    assert {config.dynamic_shapes_kernel_specialization_strategy for config in cuda.configs} == {"eager"}
    assert len({config.cache() for config in cuda.configs}) == 1  # kernels are compiled once for both lanes


def test_every_call_to_cuda_fits_the_real_bindings(start: Start, cuda: FakeCuda) -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="the CUDA bindings are not installed")
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("there is a GPU here, which make gpu-test drives for real")
    strict = StrictCuda(cuda, real)
    engine = start(on=cast(FakeCuda, strict), trt=cuda)
    views = pixels(3)
    check(views, engine.infer(views))
    engine.close()
    assert cuda.leaked == 0
    assert strict.called >= {"cudaMemcpyAsync", "cudaGraphLaunch", "cudaGraphExecDestroy", "cudaFreeHost", "cudaMalloc"}


def test_features_stay_when_the_next_batch_comes(start: Start) -> None:
    engine = start()
    first = pixels(2, 1)
    features = engine.infer(first)
    for seed in range(2, 6):
        engine.infer(pixels(2, seed))
    check(first, features)


def test_many_threads_get_each_their_own_features(start: Start) -> None:
    engine = start()

    def work(seed: int) -> None:
        views = pixels(1 + seed % 12, seed)
        check(views, engine.infer(views))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64)))


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_closing_gives_everything_back(start: Start, cuda: FakeCuda, backend: TensorRtBackend) -> None:
    engine = start(backend=backend)
    assert cuda.leaked > 0
    engine.close()
    assert (cuda.leaked, cuda.misused) == (0, [])


def test_a_closed_engine_says_so_and_waits_for_nothing(start: Start) -> None:
    engine = start()
    engine.close()
    for _ in range(2):
        with pytest.raises(EngineError, match="closed"):
            engine.infer(pixels(1))


def test_closing_waits_for_the_batch_under_way(start: Start, cuda: FakeCuda) -> None:
    engine = start(backend="tensorrt-rtx")
    entered, go_on = threading.Event(), threading.Event()

    def hold(_cuda: FakeCuda) -> None:
        entered.set()
        assert go_on.wait(60)

    cuda.refused = hold
    with ThreadPoolExecutor(2) as pool:
        batch = pool.submit(engine.infer, pixels(1))
        assert entered.wait(60)
        closing = pool.submit(engine.close)
        assert not wait([closing], timeout=0.2).done
        assert cuda.leaked > 0
        go_on.set()
        closing.result(60)
        with pytest.raises(EngineError, match="TensorRT failed"):
            batch.result(60)
    assert cuda.leaked == 0


def test_an_engine_that_cannot_be_captured_runs_without_graphs(start: Start, cuda: FakeCuda) -> None:
    cuda.capturable = False
    engine = start()
    views = pixels(5)
    check(views, engine.infer(views))
    assert cuda.launches == 0


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_start_that_fails_midway_waits_for_what_it_began_and_keeps_nothing(
    start: Start, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Upload, upload of the capture and so on: what came before is under way, or half a graph."""
    copies = 0

    def copy(*arguments: Any) -> Any:
        nonlocal copies
        copies += 1
        if copies == failing:
            return (Error.cudaErrorMemoryAllocation,)
        return FakeCuda.cudaMemcpyAsync(cuda, *arguments)

    monkeypatch.setattr(cuda, "cudaMemcpyAsync", copy)
    with pytest.raises(OutOfDeviceMemory):
        start()
    gc.collect()
    assert (cuda.leaked, cuda.misused) == (0, [])


@pytest.mark.parametrize("best", [3, 6])
def test_a_batch_of_the_size_that_the_engine_is_tuned_for_is_not_filled_up(
    start: Start, cuda: FakeCuda, best: int
) -> None:
    engine = start(profile=BatchProfile(smallest=1, best=best, largest=12))
    check(views := pixels(best), engine.infer(views))
    assert best in cuda.runs


def test_a_failure_is_told_in_its_own_words_and_not_in_those_of_another_batch(start: Start, cuda: FakeCuda) -> None:
    engine = start(backend="tensorrt-rtx")
    first_spoke, second_failed = threading.Event(), threading.Event()

    def refuse(_cuda: FakeCuda) -> None:
        cuda.log("out of memory" if not first_spoke.is_set() else "bad luck")
        if not first_spoke.is_set():
            first_spoke.set()
            assert second_failed.wait(60)

    cuda.refused = refuse
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(engine.infer, pixels(1))
        assert first_spoke.wait(60)
        with pytest.raises(EngineError, match="TensorRT failed on a batch of 1: bad luck") as second:
            engine.infer(pixels(1))
        assert type(second.value) is BatchFailed
        second_failed.set()
        with pytest.raises(OutOfDeviceMemory, match="out of memory"):
            first.result(60)


def test_a_version_compatible_engine_may_bring_its_runtime_along_and_no_other(start: Start) -> None:
    views = pixels(2)
    check(views, start(b"lean", version_compatible=True).infer(views))
    with pytest.raises(BadEngine, match="host code is not allowed"):
        start(b"lean")


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({}, "got the views"),
        (pixels(13), "1 to 12"),
        ({"whole": np.zeros((0, SIZE, SIZE, 3), np.uint8)}, "1 to 12"),
        ({"whole": np.zeros((1, SIZE, SIZE, 3), np.float32)}, "the model needs uint8"),
        ({"whole": np.zeros((1, SIZE, SIZE, 4), np.uint8)}, "the model needs uint8"),
    ],
)
def test_views_that_do_not_fit_are_refused(start: Start, views: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        start().infer(views)


def test_a_file_that_is_no_engine_is_refused_with_tensorrts_words(start: Start) -> None:
    with pytest.raises(BadEngine, match="tensorrt-sm89-fp16 does not load: Magic tag does not match"):
        start(b"x")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"whole": TENSORS["whole"]}, "the manifest names"),
        (TENSORS | {"fine": ((-1, 7), "float32")}, r"tensor fine of the engine is float32\[-1, 7\]"),
        (TENSORS | {"whole": ((-1, SIZE, SIZE, 3), "float32")}, "tensor whole of the engine is float32"),
    ],
)
def test_an_engine_of_other_towers_is_refused(
    start: Start, tensors: dict[str, tuple[tuple[int, ...], str]], message: str
) -> None:
    with pytest.raises(BadEngine, match=message):
        start(tensors=tensors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "sha256:other"}, "it is of model sha256:other"),
        ({"backend_version": "10.16.1"}, r"built by tensorrt 10\.16\.1, this is 11\.4\.0"),
        (
            {"target": Target(backend="tensorrt", compute_capability="9.0", precision="fp16")},
            r"built for compute capability 9\.0, this is 8\.9",
        ),
    ],
)
def test_an_engine_for_something_else_never_starts(start: Start, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineMismatch, match=message):
        start(**changes)


def test_a_gpu_without_room_is_told_and_nothing_stays_allocated(start: Start) -> None:
    small = FakeCuda(memory=60_000)
    with pytest.raises(OutOfDeviceMemory, match="use a smaller batch"):
        start(on=small)
    assert small.leaked == 0


def test_weights_without_room_are_told_as_a_want_of_memory(start: Start, cuda: FakeCuda) -> None:
    cuda.out_of_memory = True
    with pytest.raises(OutOfDeviceMemory, match=r"OutOfMemory.*use a smaller batch"):
        start()


def test_a_device_that_tensorrt_only_says_it_failed_on_is_known_to_be_lost(start: Start, cuda: FakeCuda) -> None:
    engine = start(backend="tensorrt-rtx")

    def lose(cuda: FakeCuda) -> None:
        cuda.failure = Error.cudaErrorIllegalAddress

    cuda.refused = lose
    with pytest.raises(DeviceLost, match="restart it"):
        engine.infer(pixels(1))


def test_a_lost_device_stays_lost_and_says_what_helps(start: Start, cuda: FakeCuda) -> None:
    engine = start()
    cuda.failure = Error.cudaErrorIllegalAddress
    with pytest.raises(DeviceLost, match="restart it"):
        engine.infer(pixels(1))
    cuda.failure = Error.cudaSuccess
    with pytest.raises(DeviceLost):
        engine.infer(pixels(1))


def test_a_fault_of_one_batch_does_not_end_the_engine(
    start: Start, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()
    with monkeypatch.context() as once:
        once.setattr(cuda, "cudaGraphLaunch", lambda *_: (Error.cudaErrorInvalidValue,))
        with pytest.raises(EngineError, match="cudaErrorInvalidValue") as caught:
            engine.infer(pixels(1))
    assert type(caught.value) is BatchFailed
    views = pixels(5)
    check(views, engine.infer(views))


def test_an_error_that_no_code_describes_and_that_lasts_is_a_lost_device(start: Start, cuda: FakeCuda) -> None:
    """As when a GPU falls off its bus: a batch that is tried again would be blamed for it."""
    engine = start()
    cuda.failure = Error.cudaErrorUnknown
    for _ in range(2):
        with pytest.raises(DeviceLost, match=r"cudaErrorUnknown.*restart it"):
            engine.infer(pixels(1))


@pytest.mark.parametrize(
    "failure", [Error.cudaErrorInsufficientDriver, Error.cudaErrorDevicesUnavailable, Error.cudaErrorUnknown]
)
def test_a_machine_whose_gpu_cannot_be_used_is_told_so(failure: Error) -> None:
    """No driver, a GPU that another process has to itself, a module of the kernel that is not loaded."""
    cuda = FakeCuda()
    cuda.failure = failure
    with pytest.raises(NoDevice, match=f"{failure.name}.*check nvidia-smi"):
        CudaDevice(runtime=cuda)


def test_every_error_that_cuda_says_a_process_does_not_survive_is_a_lost_device() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="the CUDA bindings are not installed")
    final = [code for code in real.cudaError_t if "terminated and relaunched" in " ".join((code.__doc__ or "").split())]
    assert len(final) > 5
    for code in final:
        runtime = SimpleNamespace(
            cudaError_t=real.cudaError_t,
            cudaGetErrorString=real.cudaGetErrorString,
            cudaSetDevice=lambda _index, code=code: (code,),
        )
        with pytest.raises(DeviceLost, match=code.name):
            CudaDevice(runtime=runtime)


def test_a_gpu_that_others_have_filled_is_not_taken_for_none() -> None:
    cuda = FakeCuda()
    cuda.failure = Error.cudaErrorMemoryAllocation
    with pytest.raises(OutOfDeviceMemory, match="fewer engines on this GPU"):
        CudaDevice(runtime=cuda)


def test_a_host_without_room_for_the_gpus_buffers_is_not_told_that_the_gpu_has_none(start: Start) -> None:
    small = FakeCuda(host_memory=10_000)
    with pytest.raises(OutOfDeviceMemory, match="pinned host memory cannot be allocated"):
        start(on=small)
    assert small.leaked == 0


def test_rtx_makes_its_graphs_before_the_first_batch(start: Start, cuda: FakeCuda) -> None:
    """It captures a shape once its kernels are there, so no earlier than when that shape comes again."""
    start(backend="tensorrt-rtx")
    assert set(cuda.runs.values()) == {2 * 2}  # of each size, on both lanes
