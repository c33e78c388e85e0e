"""The torch engine's own logic on a GPU that is none: streams, memory, errors."""

import subprocess
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.unit.scoring import fake_torch_gpu
from tests.unit.scoring.fake_torch_gpu import FakeTorchGpu
from tests.unit.trt_build.towers import write_model
from worker.scoring import torch_engine
from worker.scoring.cuda_device import DeviceLost, OutOfDeviceMemory
from worker.scoring.engine import PROMPT, BatchFailed, EngineError
from worker.scoring.model import Model, load_model
from worker.scoring.torch_engine import TorchEngine
from worker.scoring.torch_graph import TorchGraph, read_graph


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(write_model(tmp_path_factory.mktemp("model"), prompts=True)))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeTorchGpu:
    return fake_torch_gpu.put_in(monkeypatch)


def views(model: Model, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 256, (batch, *view.shape), np.uint8) for name, view in model.manifest.views.items()
    }


def test_batches_of_many_threads_come_out_as_on_the_processors(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ["a cat", None, "a dog"]
    batches = [views(model, 3, seed) for seed in range(24)]
    with closing(TorchEngine(model)) as plain:
        expected = [plain.infer(batch, prompts) for batch in batches]
    gpu = fake_torch_gpu.put_in(monkeypatch)
    with closing(TorchEngine(model)) as engine, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: engine.infer(batch, prompts), batches))
    for one, other in zip(found, expected, strict=True):
        for name in (*(tower.name for tower in model.manifest.towers), PROMPT):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)
    assert len(gpu.uploaded) == len(batches) * len(model.manifest.views)
    assert gpu.unrecorded == 0


@pytest.mark.parametrize(
    "error",
    [
        "CUDA error: an illegal memory access was encountered",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "CUDA driver error: unspecified launch failure",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
@pytest.mark.parametrize("lasts", [True, False])
def test_a_gpu_is_lost_when_it_stays_so_whoever_says_it_in_whatever_words(
    model: Model, gpu: FakeTorchGpu, monkeypatch: pytest.MonkeyPatch, error: str, lasts: bool
) -> None:
    def fail(*_pixels: torch.Tensor) -> None:
        engine._copying.lost = "CUDA error: an illegal memory access was encountered" if lasts else None
        raise RuntimeError(error)

    engine = TorchEngine(model)
    expected = engine.infer(views(model, 1))
    with monkeypatch.context() as once:
        once.setattr(TorchGraph, "forward", fail)
        with pytest.raises(EngineError, match="restart it" if lasts else "torch failed") as caught:
            engine.infer(views(model, 1))
    assert type(caught.value) is (DeviceLost if lasts else BatchFailed)
    if lasts:
        with pytest.raises(DeviceLost, match="restart it"):
            engine.infer(views(model, 1))
        engine.close()  # though nothing can be given back any more
        assert gpu.emptied == 0
    else:
        np.testing.assert_array_equal(engine.infer(views(model, 1))["coarse"], expected["coarse"])


@pytest.mark.parametrize("words", ["CUDA out of memory", "Triton Error [CUDA]: out of memory"])
def test_weights_that_do_not_fit_on_the_gpu_are_told_as_a_want_of_memory(
    model: Model, gpu: FakeTorchGpu, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:  # so that what takes the best engine that starts takes another
    def fail(*_where: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(TorchGraph, "to", fail)
    with pytest.raises(OutOfDeviceMemory, match="fewer engines on this GPU"):
        TorchEngine(model)


def test_a_text_tower_that_the_gpu_fails_on_is_an_engine_error(
    model: Model, gpu: FakeTorchGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(model)
    monkeypatch.setattr(torch, "from_numpy", lambda _array: fail())

    def fail() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(EngineError, match="illegal memory access"):
        engine.infer(views(model, 1), ["a cat"])


def test_a_compiler_that_is_missing_is_an_engine_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are made when the engine starts; what takes the best engine that starts then takes another."""

    def fail(*_arguments: object) -> None:
        raise subprocess.CalledProcessError(1, ["gcc", "main.c"])

    monkeypatch.setattr(TorchEngine, "_compile", fail)
    with pytest.raises(EngineError, match="gcc"):
        TorchEngine(model, compiled=True, fixed_batches=(1,))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_closed_engine_leaves_its_memory_to_others(
    model: Model, gpu: FakeTorchGpu, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """At once: another model may be about to start. Whoever holds the engine still holds none of its weights."""
    weights: list[weakref.ref[torch.Tensor]] = []

    def read(data: bytes) -> TorchGraph:
        module = read_graph(data)
        weights.extend(weakref.ref(weight) for weight in module.buffers())
        return module

    monkeypatch.setattr(torch_engine, "read_graph", read)
    monkeypatch.setattr(torch, "compile", lambda program, **_options: program)
    engine = TorchEngine(model, compiled=compiled, fixed_batches=(1,))
    engine.infer(views(model, 1), ["a cat"])
    assert len([weight for weight in weights if weight() is not None]) > 5
    engine.close()
    assert [weight for weight in weights if weight() is not None] == []
    assert gpu.emptied == 1


def test_constants_among_the_nodes_go_where_the_weights_go() -> None:
    """On a GPU torch refuses to add what lies on the host; `meta` stands in for it and refuses too."""
    node, info = helper.make_node, helper.make_tensor_value_info
    shift = numpy_helper.from_array(np.array([1, 2, 3], np.float32))
    graph = helper.make_graph(
        [node("Constant", [], ["shift"], value=shift), node("Add", ["values", "shift"], ["sum"])],
        "shifted",
        [info("values", TensorProto.FLOAT, ["batch", 3])],
        [info("sum", TensorProto.FLOAT, ["batch", 3])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    onnx.checker.check_model(data)
    module = read_graph(data)
    np.testing.assert_array_equal(module(torch.zeros(1, 3))[0].numpy(), [[1, 2, 3]])
    assert module.to("meta")(torch.zeros(2, 3, device="meta"))[0].shape == (2, 3)


def test_all_of_the_shipped_towers_computes_on_one_device() -> None:
    module = read_graph(load_model("mst-lite").graph).to("meta")
    specs = load_model("mst-lite").manifest.views
    blank = [torch.zeros((2, *specs[name].shape), dtype=torch.uint8, device="meta") for name in module.inputs]
    assert {values.device.type for values in module(*blank)} == {"meta"}
