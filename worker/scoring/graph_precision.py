"""Rewrites the towers' ONNX graph for TensorRT.

TensorRT's networks are strongly typed and have no precision flags any more. So the graph itself is changed in two ways:
pixels are cast at the input (TensorRT does not move uint8), and casts set what is computed in half precision.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper, shape_inference

from worker.scoring.model import Model
from worker.scoring.onnx_file import GraphError
from worker.scoring.precision import Precision

_TYPES: Mapping[str, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_LARGEST: Mapping[int, float] = {TensorProto.FLOAT16: 65504.0, TensorProto.BFLOAT16: 3.38e38}

MOVES = {"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile"} | {
    "Transpose",
    "Unsqueeze",
    "Shape",
    "Size",
}
"""Operators that pass values on unchanged or read only their shape, so a cast may come before them."""

PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators that take most of the time: always in the low precision."""

ISLANDS = {"LayerNormalization", "GroupNormalization", "InstanceNormalization"}
"""Operators that compute in float32; their results are rounded."""

SENSITIVE = {"Exp", "Log", "LpNormalization", "Pow", "Reciprocal", "Sqrt"} | {
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSumExp", "Mean", "Prod", "Sum", "SumSquare")
}
"""Operators that compute in float32, as does everything after them up to the next product: a mean over thousands of
positions, and its variance, lose too much in half precision.
"""

_OWN_PRECISION = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Resize"}
"""Operators with inputs that must stay float32, where the casts below would be wrong."""


def prepare_graphs(model: Model, precision: Precision) -> list[bytes]:
    """A model's towers and, where it judges prompts, its text tower, each prepared. Raises GraphError."""
    prompt = model.judging_prompts
    return [prepare_graph(graph, precision) for graph in (model.graph, *([] if prompt is None else [prompt.text]))]


def prepare_graph(graph: bytes, precision: Precision) -> bytes:
    """The towers' graph as TensorRT takes it; the same inputs (uint8) and outputs (float32).

    In `fp16` and `bf16` the products compute in that precision, and what comes before the first product (the
    normalisation of pixels), layer norms and statistics in float32. Raises GraphError for a graph this cannot be done
    to without changing what it means.
    """
    try:
        model = onnx.load_from_string(graph)
        model = shape_inference.infer_shapes(model, strict_mode=True)
    except (DecodeError, shape_inference.InferenceError) as error:
        raise GraphError(f"the graph is not valid ONNX: {error}; export the model again") from error
    if model.functions or any(a.type == onnx.AttributeProto.GRAPH for n in model.graph.node for a in n.attribute):
        raise GraphError("the graph has functions or branches, which are not supported; export the model without them")
    name_constants(model.graph)
    _cast_pixels_first(model.graph)
    model = shape_inference.infer_shapes(_without_value_info(model), strict_mode=True)
    if precision != "fp32":
        _lower(model.graph, precision)
        model = _without_value_info(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _without_value_info(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.value_info[:]
    return model


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    """Name of every value → its element type."""
    types = {weight.name: weight.data_type for weight in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _cast_pixels_first(graph: onnx.GraphProto) -> None:
    """Casts every uint8 input to float32 at once. All that follows until the graph's own cast only moves values, which
    is as exact in float32, and that cast has nothing left to do."""
    types = _types(graph)
    pixels = {value.name for value in graph.input if types[value.name] == TensorProto.UINT8}
    nodes = [helper.make_node("Cast", [name], [f"{name}/float"], to=TensorProto.FLOAT) for name in sorted(pixels)]
    for node in graph.node:
        if any(types.get(name) == TensorProto.UINT8 for name in node.input):
            if node.op_type == "Cast" and types[node.output[0]] == TensorProto.FLOAT:
                node.op_type = "Identity"
                del node.attribute[:]
            elif node.op_type in _OWN_PRECISION:
                raise GraphError(
                    f"{node.op_type} makes or reads uint8, and TensorRT quantises to int8 only; quantise the graph to "
                    "signed, symmetric int8 (or fp8)"
                )
            elif node.op_type not in MOVES:
                raise GraphError(
                    f"{node.op_type} works on uint8, which TensorRT does not; cast the pixels to float first"
                )
            node.input[:] = [f"{name}/float" if name in pixels else name for name in node.input]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def name_constants(graph: onnx.GraphProto) -> None:
    """Turns constant nodes into weights."""
    nodes = []
    for node in graph.node:
        tensors = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and tensors:
            tensors[0].name = node.output[0]
            graph.initializer.append(tensors[0])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


class _Lowering:
    """Rewrites a graph's nodes, so that each gets its inputs in the precision in which it computes, with one cast per
    value.
    """

    def __init__(self, graph: onnx.GraphProto, low: int) -> None:
        self._low = low
        self._suffix = TensorProto.DataType.Name(low).lower()
        self._types = _types(graph)
        self._weights = {weight.name: weight for weight in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._lowered: set[str] = set()
        self._made: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        low = self._computes_low(node)
        node.input[:] = [
            self._read(name, low and self._is_float(name)) if name in self._weights or self._is_float(name) else name
            for name in node.input
        ]
        casts = []
        for index, name in enumerate(node.output):
            if self._is_float(name):
                wanted = (low or node.op_type in ISLANDS) and name not in self._outputs
                if wanted != low:
                    node.output[index] = f"{name}/raw"
                    casts.append(self._cast(node.output[index], name, wanted))
                if wanted:
                    self._lowered.add(name)
        self.nodes += [node, *casts]

    def _computes_low(self, node: onnx.NodeProto) -> bool:
        if node.op_type in PRODUCTS:
            return True
        values = [name for name in node.input if self._is_float(name) and name not in self._weights]
        return node.op_type not in SENSITIVE | ISLANDS and bool(values) and self._lowered.issuperset(values)

    def _is_float(self, name: str) -> bool:
        return self._types.get(name) == TensorProto.FLOAT

    def _read(self, name: str, low: bool) -> str:
        if name not in self._weights and low == (name in self._lowered):
            return name
        target = name if name in self._weights and not low else f"{name}/{self._suffix if low else 'float'}"
        if target not in self._made:
            self._made.add(target)
            if name in self._weights:
                self.weights.append(self._rounded(self._weights[name], target) if low else self._weights[name])
            else:
                self.nodes.append(self._cast(name, target, low))
        return target

    def _cast(self, name: str, target: str, low: bool) -> onnx.NodeProto:
        return helper.make_node("Cast", [name], [target], to=self._low if low else TensorProto.FLOAT)

    def _rounded(self, weight: TensorProto, name: str) -> TensorProto:
        values = numpy_helper.to_array(weight)
        largest = float(np.abs(values).max(initial=0))
        if not largest <= _LARGEST[self._low]:
            raise GraphError(
                f"weight {weight.name} reaches {largest:g}, beyond {self._suffix}; build it in bf16 or fp32"
            )
        return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(self._low)), name)


def _lower(graph: onnx.GraphProto, precision: Precision) -> None:
    _refuse_mixed(graph.node, _types(graph), precision)
    lowering = _Lowering(graph, _TYPES[precision])
    for node in graph.node:
        lowering.add(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(lowering.nodes)
    graph.initializer.extend(lowering.weights)


def _refuse_mixed(nodes: Iterable[onnx.NodeProto], types: Mapping[str, int], precision: str) -> None:
    advice = f"its precision is already set: build it in fp32 instead of {precision}"
    for node in nodes:
        if node.op_type in _OWN_PRECISION:
            raise GraphError(f"the graph has {node.op_type}; {advice}")
        for name in (*node.input, *node.output):
            if types.get(name) in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
                raise GraphError(f"{name} is {TensorProto.DataType.Name(types[name])}; {advice}")
            if name and name not in types:
                raise GraphError(f"the type of {name}, which {node.op_type} uses, is unknown; export the model again")
