"""int8 and fp8 for TensorRT, decided in the graph: what is quantised, how, and that it still computes the same."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.unit.trt_build.towers import SIZE, convolution_towers
from trt_build.errors import BuildError
from trt_build.quantise import quantise_graph
from worker.scoring.precision import Precision, Quantised

Pixels = dict[str, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def images() -> list[Pixels]:
    random = np.random.default_rng(0)
    return [{"whole": random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)} for _ in range(4)]


def run(graph: bytes, image: Pixels) -> Mapping[str, NDArray[np.float32]]:
    """As written: the optimiser of ONNX Runtime merges Q/DQ nodes with scales in half precision wrongly."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: rows[None] for name, rows in image.items()}), strict=True))


@pytest.mark.parametrize(("kind", "element", "error"), [("int8", TensorProto.INT8, 0.02), ("fp8", 17, 0.08)])
def test_every_product_by_weights_is_quantised_and_gives_nearly_the_same(
    images: list[Pixels], kind: Quantised, element: int, error: float
) -> None:
    plain = convolution_towers()
    graph = quantise_graph(plain, kind, "fp16", images)
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    made = {name: node for node in model.graph.node for name in node.output}
    stored = {weight.name: weight.data_type for weight in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(products) == 3
    for product in products:
        value, weight = (made[name] for name in product.input[:2])
        assert (value.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert made[value.input[0]].op_type == "QuantizeLinear"
        assert stored[weight.input[0]] == element
    for image in images:
        before, after = run(plain, image), run(graph, image)
        for name, expected in before.items():
            assert np.abs(after[name] - expected).mean() < error * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("rest", ["fp16", "bf16"])
def test_ranges_are_the_largest_that_an_image_and_a_channel_give(images: list[Pixels], rest: Precision) -> None:
    model = onnx.load_from_string(quantise_graph(convolution_towers(), "int8", rest, images))
    arrays = {weight.name: numpy_helper.to_array(weight).astype(np.float64) for weight in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    [convolution] = [node for node in model.graph.node if node.op_type == "Conv"]
    value, weight = (made[name] for name in convolution.input[:2])
    brightest = max(int(image["whole"].max()) for image in images)
    assert arrays[value.input[1]] == pytest.approx(brightest / 255 / 127, rel=0.01)
    kernel = numpy_helper.to_array(
        next(each for each in onnx.load_from_string(convolution_towers()).graph.initializer if each.name == "kernel")
    )
    assert arrays[weight.input[1]] == pytest.approx(np.abs(kernel).max(axis=(1, 2, 3)) / 127, rel=0.01)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    assert [attribute.i for attribute in made[gemm.input[1]].attribute if attribute.name == "axis"] == [1]
    # One Q/DQ pair for what two products read.
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2


def test_each_image_is_reported_as_it_is_done(images: list[Pixels]) -> None:
    seen: list[int] = []
    quantise_graph(convolution_towers(), "int8", "fp16", images, seen.append)
    assert seen == [1, 2, 3, 4]


def test_what_cannot_be_quantised_is_refused_in_words(images: list[Pixels]) -> None:
    with pytest.raises(BuildError, match="need images to calibrate with"):
        quantise_graph(convolution_towers(), "int8", "fp16", [])
    nodes = [helper.make_node("Cast", ["whole"], ["coarse"], to=TensorProto.FLOAT)]
    ends = [
        helper.make_tensor_value_info(name, kind, ["batch", SIZE, SIZE, 3])
        for name, kind in (("whole", TensorProto.UINT8), ("coarse", TensorProto.FLOAT))
    ]
    bare = helper.make_model(helper.make_graph(nodes, "bare", ends[:1], ends[1:]), ir_version=10)
    with pytest.raises(BuildError, match="nothing to quantise"):
        quantise_graph(bare.SerializeToString(), "fp8", "fp16", images)
    with pytest.raises(BuildError, match="opset 19"):
        quantise_graph(b"no graph", "fp8", "fp16", images)
