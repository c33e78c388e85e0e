"""The torch engine against other readers of the same graph: as it is, in bfloat16, and compiled."""

from contextlib import closing
from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch.fx.experimental.proxy_tensor import make_fx

from tests.unit.trt_build.towers import SIZE, convolution_towers, write_model
from worker.scoring.cuda_device import NoDevice, OutOfDeviceMemory
from worker.scoring.engine import PROMPT, BatchFailed, EngineError
from worker.scoring.model import Model, load_model
from worker.scoring.onnx_file import GraphError
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.torch_engine import TorchEngine
from worker.scoring.torch_graph import read_graph


def views(model: Model, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.integers(0, 256, (batch, *view.shape), np.uint8) for name, view in model.manifest.views.items()
    }


def test_the_shipped_model_gives_the_same_features_in_torch_as_in_openvino() -> None:
    model = load_model("mst-lite")
    images = views(model, 3)
    expected = OpenVinoEngine(model, precision="f32").infer(images)
    found = TorchEngine(model).infer(images)
    assert set(found) == set(expected)
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, atol=1e-4 * np.abs(rows).max())


def test_a_model_gives_what_the_specifications_own_evaluator_gives(tmp_path: Path) -> None:
    model = load_model(str(write_model(tmp_path)))
    images = views(model, 2)
    expected = ReferenceEvaluator(onnx.load_from_string(convolution_towers())).run(None, dict(images))
    found = TorchEngine(model).infer(images)
    for name, rows in zip(("coarse", "fine"), expected, strict=True):
        np.testing.assert_allclose(found[name], rows, atol=1e-5 * np.abs(rows).max())


def test_prompts_are_judged_the_same_in_torch_as_in_openvino(tmp_path: Path) -> None:
    model = load_model(str(write_model(tmp_path, prompts=True)))
    images, prompts = views(model, 3), ["a cat", None, "a dog"]
    expected = OpenVinoEngine(model, precision="f32").infer(images, prompts)[PROMPT]
    np.testing.assert_allclose(TorchEngine(model).infer(images, prompts)[PROMPT], expected, atol=1e-5)
    lowered = TorchEngine(model, precision="bf16").infer(images, prompts)[PROMPT]
    np.testing.assert_allclose(lowered, expected, atol=0.05)


def test_an_operator_that_is_not_known_is_named() -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["a"], ["b"])],
        "one",
        [info("a", TensorProto.FLOAT, ["n"])],
        [info("b", TensorProto.FLOAT, ["n"])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    model = load_model("mst-lite")
    with pytest.raises(GraphError, match="does not support the operator Tanh"):
        TorchEngine(Model(model.manifest, model.heads, data))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_towers_give_what_the_plain_ones_give_for_every_batch(
    tmp_path: Path, precision: Literal["fp32", "bf16"]
) -> None:
    model = load_model(str(write_model(tmp_path)))
    with (
        closing(TorchEngine(model, precision=precision)) as plain,
        closing(TorchEngine(model, precision=precision, compiled=True, fixed_batches=(2, 4))) as compiled,
    ):
        assert compiled.max_batch == 4
        for batch in (1, 2, 3, 4):
            images = views(model, batch)
            expected = plain.infer(images)
            for name, rows in compiled.infer(images).items():
                assert rows.shape == expected[name].shape
                np.testing.assert_allclose(rows, expected[name], atol=0.02 * np.abs(expected[name]).max())
        with pytest.raises(EngineError, match="a batch has 1 to 4"):
            compiled.infer(views(model, 5))


def test_steering_by_the_batchs_own_shape_is_worked_out_before_compiling() -> None:
    """As exporters write a class token: expanded to a size that is read off the batch, and indexed away at the end."""
    node, info = helper.make_node, helper.make_tensor_value_info
    integers = {"zero": [0], "one": [1], "size": [3], "first": 0, "shape": [0, 0, -1]}
    graph = helper.make_graph(
        [
            node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
            node("Shape", ["pixels"], ["all"]),
            node("Slice", ["all", "zero", "one", "zero"], ["batch"]),
            node("Concat", ["batch", "one", "size"], ["wanted"], axis=0),
            node("Expand", ["token", "wanted"], ["tokens"]),
            node("Concat", ["tokens", "values"], ["sequence"], axis=1),
            node("Reshape", ["sequence", "shape"], ["again"]),
            node("Gather", ["again", "first"], ["one_row"], axis=1),
            node("ReduceMean", ["again", "one"], ["mean"], keepdims=0),
            node("Add", ["one_row", "mean"], ["features"]),
        ],
        "tokens",
        [info("pixels", TensorProto.UINT8, ["batch", 2, 3])],
        [info("features", TensorProto.FLOAT, ["batch", 3])],
        [
            *(numpy_helper.from_array(np.array(values, np.int64), name) for name, values in integers.items()),
            numpy_helper.from_array(np.array([[[0.5, 1.5, 2.5]]], np.float32), "token"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    [expected] = ReferenceEvaluator(model).run(None, {"pixels": pixels})
    module = read_graph(model.SerializeToString())
    given = torch.from_numpy(pixels)
    fixed = module.fixed(given)
    program = torch.export.export(fixed, (given,), strict=False).module()
    for towers in (module, fixed, program):
        [found] = towers(given)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 1, 2], [0, 1, 1, 2]])
def test_a_convolution_pads_as_the_specification_says(pads: list[int]) -> None:
    random = np.random.default_rng(0)
    kernel = numpy_helper.from_array(random.normal(size=(2, 3, 3, 3)).astype(np.float32), "kernel")
    graph = _graph([helper.make_node("Conv", ["a", "kernel"], ["b"], pads=pads, strides=[2, 1])], [kernel])
    pixels = random.normal(size=(2, 3, 8, 9)).astype(np.float32)
    [expected] = ReferenceEvaluator(graph).run(None, {"a": pixels})
    [found] = read_graph(graph.SerializeToString())(torch.from_numpy(pixels))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_transposed_batch_is_multiplied_by_a_matrix_in_one_product() -> None:
    """As attention's projections are: as many products as tokens, of a few rows each, leave a GPU half idle."""
    random = np.random.default_rng(0)
    matrix = numpy_helper.from_array(random.normal(size=(4, 5)).astype(np.float32), "matrix")
    nodes = [
        helper.make_node("Transpose", ["a"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["turned", "matrix"], ["b"]),
    ]
    graph = _graph(nodes, [matrix])
    rows = random.normal(size=(2, 3, 4)).astype(np.float32)
    [expected] = ReferenceEvaluator(graph).run(None, {"a": rows})
    module = read_graph(graph.SerializeToString())
    np.testing.assert_allclose(module(torch.from_numpy(rows))[0].numpy(), expected, atol=1e-5)
    traced = make_fx(module)(torch.from_numpy(rows))
    called = {str(node.target) for node in traced.graph.nodes}
    assert "aten.mm.default" in called
    assert "aten.bmm.default" not in called


@pytest.mark.parametrize("also_reads", [None, "scores", "weights"])
def test_attention_is_torchs_own_once_shapes_are_fixed_unless_its_inside_is_read(also_reads: str | None) -> None:
    """Its own writes no scores to memory: those of 197 tokens and 12 heads are four times an image's activations."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["a"], ["keys"], perm=[0, 1, 3, 2]),
        node("MatMul", ["a", "keys"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "a"], ["b" if also_reads is None else "attended"]),
    ]
    if also_reads is not None:
        nodes += [node("ReduceMean", [also_reads], ["mean"], keepdims=1), node("Add", ["attended", "mean"], ["b"])]
    graph = _graph(nodes, [])
    tokens = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    [expected] = ReferenceEvaluator(graph).run(None, {"a": tokens})
    given = torch.from_numpy(tokens)
    fixed = read_graph(graph.SerializeToString()).fixed(given)
    np.testing.assert_allclose(fixed(given)[0].numpy(), expected, atol=1e-5)
    program = torch.export.export(fixed, (given,), strict=False)
    called = {str(node.target) for node in program.graph.nodes}
    assert ("aten.scaled_dot_product_attention.default" in called) == (also_reads is None)


def _graph(nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> onnx.ModelProto:
    """From `a` to `b`."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "b")]
    graph = helper.make_graph(nodes, "part", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_where_torch_sees_no_gpu_it_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(NoDevice, match="sees no GPU here"):
        TorchEngine(load_model(str(write_model(tmp_path))), device="cuda")


def test_memory_that_runs_out_and_a_failed_batch_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(write_model(tmp_path)))
    images = views(model, 1)
    with closing(TorchEngine(model)) as engine:
        expected = engine.infer(images)
        for error, kind, message in (
            (torch.OutOfMemoryError("CUDA out of memory"), OutOfDeviceMemory, "use a smaller batch"),
            (RuntimeError("shapes do not fit"), BatchFailed, "torch failed: shapes"),
        ):
            with monkeypatch.context() as once:
                once.setattr(TorchEngine, "_run", Mock(side_effect=error))
                with pytest.raises(kind, match=message) as caught:
                    engine.infer(images)
            assert type(caught.value) is kind
        np.testing.assert_array_equal(engine.infer(images)["coarse"], expected["coarse"])


def test_a_batch_without_a_view_is_an_engine_error(tmp_path: Path) -> None:
    engine = TorchEngine(load_model(str(write_model(tmp_path))))
    with pytest.raises(EngineError, match="the model needs"):
        engine.infer({"other": np.zeros((1, SIZE, SIZE, 3), np.uint8)})
