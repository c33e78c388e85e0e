"""What becomes of a graph on its way to TensorRT."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from tests.unit.trt_build.towers import SIZE, convolution_towers
from worker.scoring.graph_precision import PRODUCTS, Precision, prepare_graph
from worker.scoring.model import load_model
from worker.scoring.onnx_file import GraphError

HALVES: list[Precision] = ["fp16", "bf16"]
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def load(data: bytes) -> tuple[onnx.ModelProto, dict[str, int]]:
    """The graph with the type of every value. Not strict: opset 18's convolutions know no bfloat16, TensorRT's do."""
    model = shape_inference.infer_shapes(onnx.load_from_string(data))
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return model, types


def transformer() -> bytes:
    """One block as CLIP's towers have it: layer norm, attention, residual."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in {"scale": (8,), "shift": (8,), "q": (8, 8), "k": (8, 8), "v": (8, 8)}.items()
    ]
    node = helper.make_node
    nodes = [
        node("Cast", ["tokens"], ["x"], to=TensorProto.FLOAT),
        node("MatMul", ["x", "v"], ["embedded"]),
        node("LayerNormalization", ["embedded", "scale", "shift"], ["norm"]),
        node("MatMul", ["norm", "q"], ["queries"]),
        node("MatMul", ["norm", "k"], ["keys"]),
        node("Transpose", ["keys"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["queries", "turned"], ["logits"]),
        node("Softmax", ["logits"], ["attention"]),
        node("MatMul", ["attention", "norm"], ["attended"]),
        node("Add", ["embedded", "attended"], ["out"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "block",
        [info("tokens", TensorProto.UINT8, ["batch", 4, 8])],
        [info("out", TensorProto.FLOAT, ["batch", 4, 8])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("graph", [convolution_towers(), load_model("mst-lite").graph, transformer()])
def test_products_compute_in_the_precision_asked_for_and_ends_stay_as_they_were(
    graph: bytes, precision: Precision
) -> None:
    before, _ = load(graph)
    after, types = load(prepare_graph(graph, precision))
    for node in after.graph.node:
        if node.op_type in PRODUCTS:
            assert {types[name] for name in node.input} == {TYPES[precision]}, node
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)


@pytest.mark.parametrize("precision", HALVES)
def test_statistics_are_computed_in_float32(precision: Precision) -> None:
    model, types = load(prepare_graph(convolution_towers(), precision))
    by_output = {node.output[0]: node for node in model.graph.node}
    for name in ("normal", "mean", "deviation", "square", "variance", "spread", "both", "description"):
        floats = [value for value in by_output[name].input if types[value] != TensorProto.INT64]
        assert {types[value] for value in floats} == {TensorProto.FLOAT}, name


def test_layer_norms_are_computed_in_float32_and_the_residual_stream_is_not() -> None:
    model, types = load(prepare_graph(transformer(), "fp16"))
    [norm] = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    [residual] = [node for node in model.graph.node if node.op_type == "Add"]
    assert {types[name] for name in norm.input} == {TensorProto.FLOAT}
    assert {types[name] for name in residual.input} == {TensorProto.FLOAT16}


def test_no_value_is_cast_twice_the_same_way() -> None:
    model, _ = load(prepare_graph(load_model("mst-lite").graph, "fp16"))
    casts = [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]
    assert len(set(casts)) == len(casts)


def test_pixels_are_cast_before_anything_moves_them() -> None:
    model, types = load(prepare_graph(load_model("mst-lite").graph, "fp32"))
    for node in model.graph.node:
        if any(types.get(name) == TensorProto.UINT8 for name in node.input):
            assert node.op_type == "Cast"


def test_in_fp32_the_graph_gives_what_it_gave() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    expected = ReferenceEvaluator(onnx.load_from_string(convolution_towers())).run(None, {"whole": pixels})
    prepared = onnx.load_from_string(prepare_graph(convolution_towers(), "fp32"))
    for before, after in zip(expected, ReferenceEvaluator(prepared).run(None, {"whole": pixels}), strict=True):
        np.testing.assert_array_equal(before, after)


def test_in_fp16_the_graph_gives_nearly_what_it_gave_and_is_half_as_large() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    expected = ReferenceEvaluator(onnx.load_from_string(convolution_towers())).run(None, {"whole": pixels})
    prepared = onnx.load_from_string(prepare_graph(convolution_towers(), "fp16"))
    for before, after in zip(expected, ReferenceEvaluator(prepared).run(None, {"whole": pixels}), strict=True):
        assert after.dtype == np.float32
        np.testing.assert_allclose(after, before, atol=5e-3 * np.abs(before).max())
        assert not np.array_equal(after, before)
    shipped = load_model("mst-lite").graph
    assert len(prepare_graph(shipped, "fp16")) < 0.55 * len(shipped)


def test_a_weight_that_half_precision_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(GraphError, match=r"weight kernel reaches \d\S*, beyond float16; build it in bf16 or fp32"):
        prepare_graph(convolution_towers(scale=1e6), "fp16")
    prepare_graph(convolution_towers(scale=1e6), "bf16")


def one_node(operator: str, kind: int, **attributes: object) -> bytes:
    info = helper.make_tensor_value_info
    node = helper.make_node(operator, ["a", "b"], ["c"], **attributes)
    graph = helper.make_graph(
        [node], "one", [info("a", kind, ["n", 4]), info("b", kind, ["n", 4])], [info("c", kind, ["n", 4])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (b"no graph at all", "not valid ONNX"),
        (one_node("Add", TensorProto.UINT8), "Add works on uint8"),
        (one_node("Add", TensorProto.FLOAT16), "its precision is already set"),
        (one_node("Add", TensorProto.DOUBLE), "a is DOUBLE"),
    ],
)
def test_a_graph_that_cannot_be_lowered_is_refused(graph: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        prepare_graph(graph, "fp16")
