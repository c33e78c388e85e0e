"""int8 and fp8 for TensorRT: quantisation nodes (Q/DQ) in the graph, scaled by what calibration images give."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import openvino as ov
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from trt_build.errors import BuildError
from trt_build.openvino_build import ImageViews
from worker.scoring.graph_precision import PRODUCTS, name_constants, prepare_graph
from worker.scoring.precision import Precision, Quantised

Array = NDArray[Any]

OPSET = 19
"""The first whose Q/DQ nodes know fp8, and scales in half precision."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A type to quantise to, and the largest of its values that is used."""

    element: int
    largest: float


_FORMATS: Mapping[Quantised, _Format] = {
    "int8": _Format(TensorProto.INT8, 127.0),
    "fp8": _Format(TensorProto.FLOAT8E4M3FN, 448.0),
}


def quantise_graph(
    graph: bytes,
    kind: Quantised,
    rest: Precision,
    calibration: Iterable[ImageViews],
    report: Callable[[int], object] = lambda _done: None,
) -> bytes:
    """The towers' graph as TensorRT takes it, its products by weights quantised, all else as `prepare_graph` makes it
    in `rest`.

    Symmetric, as TensorRT wants it: weights by the largest of each output channel, what comes in by the largest that
    any calibration image gives. `report` is called with the images done. Raises BuildError.
    """
    graph = _at_opset(graph)
    largest = _largest_inputs(graph, calibration, report)
    model = onnx.load_from_string(prepare_graph(graph, rest))
    _insert(model.graph, largest, _FORMATS[kind])
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _at_opset(graph: bytes) -> bytes:
    try:
        model = onnx.load_from_string(graph)
        own = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        converted = model if own >= OPSET else version_converter.convert_version(model, OPSET)
    except (DecodeError, RuntimeError, StopIteration) as error:
        raise BuildError(f"the graph cannot be converted to opset {OPSET}, which int8 and fp8 need: {error}") from error
    data: bytes = converted.SerializeToString()
    return data


def _quantisable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Products of values by weights, in their order, which lowering keeps."""
    weights = {weight.name for weight in graph.initializer}
    return [
        node
        for node in graph.node
        if node.op_type in PRODUCTS - {"ConvTranspose"} and node.input[1] in weights and node.input[0] not in weights
    ]


def _largest_inputs(graph: bytes, calibration: Iterable[ImageViews], report: Callable[[int], object]) -> list[float]:
    """The largest magnitude that enters each product, over all images."""
    model = onnx.load_from_string(graph)
    name_constants(model.graph)
    products = _quantisable(model.graph)
    if not products:
        raise BuildError("the graph has no products by weights, so there is nothing to quantise")
    outputs = []
    for number, node in enumerate(products):
        magnitude, top = f"calibration/{number}/abs", f"calibration/{number}"
        model.graph.node.append(helper.make_node("Abs", [node.input[0]], [magnitude]))
        model.graph.node.append(helper.make_node("ReduceMax", [magnitude], [top], keepdims=0))
        outputs.append(helper.make_tensor_value_info(top, TensorProto.FLOAT, []))
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    run = ov.Core().compile_model(
        ov.Core().read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    largest = np.zeros(len(products))
    done = 0
    for views in calibration:
        given = run({name: pixels[None] for name, pixels in views.items()})
        largest = np.maximum(largest, [float(given[output.name]) for output in outputs])
        done += 1
        report(done)
    if not done:
        raise BuildError("int8 and fp8 need images to calibrate with; give some")
    if not np.isfinite(largest).all():
        raise BuildError("the model gives values that are not finite for the calibration images")
    return [float(value) for value in largest]


def _insert(graph: onnx.GraphProto, largest: Sequence[float], form: _Format) -> None:
    products = _quantisable(graph)
    if len(products) != len(largest):
        raise BuildError(
            "lowering changed the graph's products, so the calibration does not fit; export the model again"
        )
    weights = {weight.name: weight for weight in graph.initializer}
    tops = {id(node): top for node, top in zip(products, largest, strict=True)}
    added: dict[str, TensorProto] = {}
    nodes: list[onnx.NodeProto] = []

    def dequantised(name: str, scale: Array, axis: int | None) -> None:
        inputs = [f"{name}/quantised", f"{name}/scale", f"{name}/zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}/dequantised"], axis=axis))
        added[inputs[1]] = numpy_helper.from_array(scale, inputs[1])
        added[inputs[2]] = helper.make_tensor(inputs[2], form.element, scale.shape, [0] * scale.size)

    for node in graph.node:
        if id(node) in tops:
            value, weight = node.input[0], node.input[1]
            kind = helper.tensor_dtype_to_np_dtype(weights[weight].data_type)
            if f"{weight}/quantised" not in added:
                axis = _channels(node, len(weights[weight].dims))
                stored, scale = _quantise(numpy_helper.to_array(weights[weight]), axis, form, kind)
                added[f"{weight}/quantised"] = numpy_helper.from_array(stored, f"{weight}/quantised")
                dequantised(weight, scale, axis)
            if f"{value}/scale" not in added:
                inputs = [value, f"{value}/scale", f"{value}/zero"]
                nodes.append(helper.make_node("QuantizeLinear", inputs, [f"{value}/quantised"]))
                dequantised(value, _scale(np.array(tops[id(node)]), form, kind), None)
            node.input[0], node.input[1] = f"{value}/dequantised", f"{weight}/dequantised"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in (*weights.values(), *added.values()) if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _channels(node: onnx.NodeProto, rank: int) -> int:
    """The axis of the weights that makes the output's channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return rank - 2 if transposed else rank - 1


def _quantise(weight: Array, axis: int, form: _Format, kind: np.dtype[Any]) -> tuple[Array, Array]:
    """The weights' steps in the type they are stored in, and the size of a step for each channel."""
    values = weight.astype(np.float32)
    others = tuple(number for number in range(values.ndim) if number != axis)
    scale = _scale(np.abs(values).max(axis=others), form, kind)
    steps = np.clip(values / np.expand_dims(scale.astype(np.float32), others), -form.largest, form.largest)
    if form.element == TensorProto.INT8:
        steps = np.rint(steps)
    return steps.astype(helper.tensor_dtype_to_np_dtype(form.element)), scale


def _scale(largest: Array, form: _Format, kind: np.dtype[Any]) -> Array:
    """A step's size in the type that it is given in, never so small that this type has it as zero."""
    steps: Array = np.maximum(largest.astype(np.float32) / np.float32(form.largest), np.float32(1e-7)).astype(kind)
    return steps
