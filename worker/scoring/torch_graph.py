"""Converts a model's ONNX graph to a torch module, node by node."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from worker.scoring.onnx_file import GraphError

Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Any], Attributes], Any]
Step = tuple[Operator, Sequence[str], Sequence[str], Attributes]
"""One operation: its inputs, its outputs and the torch function."""

_TYPES: Mapping[int, torch.dtype] = {
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.BOOL: torch.bool,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
}


class TorchGraph(torch.nn.Module):
    """Runs the graph's steps over values by name.

    Weights are buffers, so they move with the module. Small integers (shapes, axes, indices) control the steps and stay
    on the CPU. `fixed` computes those that depend only on the inputs' shapes once, so that a compiler sees only tensors
    and plain numbers.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        inputs: Sequence[str],
        outputs: Sequence[str],
        weights: Mapping[str, Tensor],
        steering: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self._steps = list(steps)
        self._steering = dict(steering)
        self._buffers_of = {name: f"weight_{number}" for number, name in enumerate(weights)}
        for name, buffer in self._buffers_of.items():
            self.register_buffer(buffer, weights[name])

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs for its inputs, in the graph's order."""
        values = self._values(given)
        for step in self._steps:
            values.update(_results(step, values))
        return tuple(values[name] for name in self.outputs)

    def fixed(self, *given: Tensor) -> "TorchGraph":
        """The same graph with the same weights, for inputs of exactly these shapes."""
        values: dict[str, Any] = {
            name: value.to("meta") if isinstance(value, Tensor) and not _steers(value) else value
            for name, value in self._values(given).items()
        }
        values |= {name: value.to("meta") for name, value in zip(self.inputs, given, strict=True)}
        steps = []
        known = dict(self._steering)
        for step in self._steps:
            made = _results(step, values)
            values |= made
            if all(isinstance(value, Tensor) and value.device.type == "meta" for value in made.values()):
                steps.append(step)
            else:
                known |= made
        weights = {name: self.get_buffer(buffer) for name, buffer in self._buffers_of.items()}
        plain = {name: _plain(value) for name, value in known.items()}
        return TorchGraph(_attending(steps, self.outputs, values), self.inputs, self.outputs, weights, plain)

    def _values(self, given: Sequence[Tensor]) -> dict[str, Any]:
        values: dict[str, Any] = {"": None, **dict(zip(self.inputs, given, strict=True)), **self._steering}
        return values | {name: self.get_buffer(buffer) for name, buffer in self._buffers_of.items()}


def read_graph(graph: bytes) -> TorchGraph:
    """Converts an ONNX graph. Raises GraphError for an unsupported operator."""
    model = onnx.load_from_string(graph)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    steps = [(_operator(node), list(node.input), list(node.output), _attributes(node)) for node in nodes]
    # Constant nodes are weights too, and must move with the others.
    tensors = {weight.name: _tensor(weight) for weight in model.graph.initializer}
    tensors |= {node.output[0]: _constant(node) for node in model.graph.node if node.op_type == "Constant"}
    return TorchGraph(
        steps,
        [value.name for value in model.graph.input],
        [value.name for value in model.graph.output],
        {name: value for name, value in tensors.items() if not _steers(value)},
        {name: value for name, value in tensors.items() if _steers(value)},
    )


def _results(step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
    operator, inputs, outputs, attributes = step
    result = operator([values[name] for name in inputs], attributes)
    return dict(zip(outputs, result if isinstance(result, tuple) else (result,), strict=False))


def _attending(steps: Sequence[Step], outputs: Sequence[str], values: Mapping[str, Any]) -> Sequence[Step]:
    """The steps, with each softmax(q kᵀ) v replaced by torch's fused attention, which does not write the scores to
    memory. `values` have the shapes of all values.
    """
    reads = Counter(name for _, inputs, _, _ in steps for name in inputs) + Counter(outputs)
    made = {step[2][0]: step for step in steps}
    replaced: dict[int, Step | None] = {}
    for step in steps:
        operator, (weighed, *others), results, _ = step
        softmax = made.get(weighed)
        if operator is not _product or softmax is None or softmax[0] is not _softmax or softmax[3].get("axis") != -1:
            continue
        product = made.get(softmax[1][0])
        if product is None or product[0] is not _product or reads[weighed] > 1 or reads[softmax[1][0]] > 1:
            continue
        parts = [*product[1], *others]
        if len({tuple(values[name].shape[:-2]) for name in parts}) == 1 and values[parts[0]].ndim == 4:
            replaced |= {id(product): None, id(softmax): None, id(step): (_attention, parts, results, {})}
    return [kept for step in steps if (kept := replaced.get(id(step), step)) is not None]


def _steers(value: Tensor) -> bool:
    return not value.is_floating_point()


def _plain(value: Any) -> Any:
    """A control value as Python numbers if it has at most one axis."""
    if not isinstance(value, Tensor) or value.ndim > 1:
        return value
    return value.item() if value.ndim == 0 else tuple(value.tolist())


def _tensor(weight: TensorProto) -> Tensor:
    if weight.data_type == TensorProto.BFLOAT16:  # NumPy has no such type of its own
        return torch.from_numpy(numpy_helper.to_array(weight).astype(np.float32)).bfloat16()
    return torch.from_numpy(numpy_helper.to_array(weight).copy())


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _operator(node: onnx.NodeProto) -> Operator:
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        raise GraphError(f"the torch engine does not support the operator {node.op_type}; use openvino")
    return OPERATORS[node.op_type]


def _ints(value: Any) -> list[int]:
    """A control value as an int, a tuple, a tensor or None."""
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [int(number) for number in value.reshape(-1).tolist()]
    return [value] if isinstance(value, int) else list(value)


def _axes(x: Sequence[Any], a: Attributes) -> list[int]:
    """Axes are an input since opset 13 or 18, and an attribute before."""
    return _ints(x[1]) if len(x) > 1 else [int(axis) for axis in a.get("axes", [])]


def _cast(x: Sequence[Any], a: Attributes) -> Tensor:
    result: Tensor = x[0].to(_TYPES[a["to"]])
    return result


def _convolution(x: Sequence[Any], a: Attributes) -> Tensor:
    pads = list(a.get("pads", [0, 0, 0, 0]))
    if a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise GraphError("the torch engine does not support auto_pad; use openvino")
    pixels, bias = x[0], x[2] if len(x) > 2 else None
    strides, dilations = tuple(a.get("strides", [1, 1])), tuple(a.get("dilations", [1, 1]))
    padding = tuple(pads[:2])
    if pads[:2] != pads[2:]:  # torch's convolution pads both sides equally
        pixels, padding = functional.pad(pixels, (pads[1], pads[3], pads[0], pads[2])), (0, 0)
    return functional.conv2d(pixels, x[1], bias, strides, padding, dilations, a.get("group", 1))


def _average_pool(x: Sequence[Any], a: Attributes) -> Tensor:
    if any(a.get("pads", [])) or a.get("ceil_mode") or any(size != 1 for size in a.get("dilations", [])):
        raise GraphError("the torch engine supports average pooling only without padding; use openvino")
    return functional.avg_pool2d(x[0], tuple(a["kernel_shape"]), tuple(a.get("strides", [1, 1])))


def _gemm(x: Sequence[Any], a: Attributes) -> Tensor:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product: Tensor = a.get("alpha", 1.0) * (left @ right)
    return product if len(x) < 3 else product + a.get("beta", 1.0) * x[2]


def _product(x: Sequence[Any], _a: Attributes) -> Tensor:
    """A product with a plain matrix, as one operation: torch would make one per row of a transposed batch."""
    left, right = x
    product: Tensor
    if right.ndim == 2 and left.ndim > 2:
        product = (left.reshape(-1, left.shape[-1]) @ right).reshape(*left.shape[:-1], right.shape[-1])
    else:
        product = left @ right
    return product


def _softmax(x: Sequence[Any], a: Attributes) -> Tensor:
    return torch.softmax(x[0], a.get("axis", -1))


def _attention(x: Sequence[Any], _a: Attributes) -> Tensor:
    """Queries, turned keys and values of several heads; the scale is in the queries and keys already."""
    return functional.scaled_dot_product_attention(x[0], x[1].transpose(-2, -1), x[2], scale=1.0)


def _reshape(x: Sequence[Any], _a: Attributes) -> Tensor:
    shape = [x[0].shape[index] if size == 0 else size for index, size in enumerate(_ints(x[1]))]
    result: Tensor = x[0].reshape(shape)
    return result


def _slice(x: Sequence[Any], _a: Attributes) -> Tensor:
    starts, ends = _ints(x[1]), _ints(x[2])
    axes = _ints(x[3]) if len(x) > 3 and x[3] is not None else list(range(len(starts)))
    steps = _ints(x[4]) if len(x) > 4 else [1] * len(starts)
    index: list[slice] = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x[0].shape[axis]
        index[axis] = slice(max(start, -size), min(end, size), step)  # ONNX encodes "to the end" as a huge number
    result: Tensor = x[0][tuple(index)]
    return result


def _gather(x: Sequence[Any], a: Attributes) -> Tensor:
    axis = a.get("axis", 0) % x[0].ndim
    if isinstance(x[1], int):
        row: Tensor = x[0].select(axis, x[1])
        return row
    indices = torch.as_tensor(x[1], device=x[0].device)
    rows: Tensor = x[0].index_select(axis, indices.reshape(-1))
    return rows.reshape(*x[0].shape[:axis], *indices.shape, *x[0].shape[axis + 1 :])


def _squeeze(x: Sequence[Any], a: Attributes) -> Tensor:
    axes = _axes(x, a)
    result: Tensor = x[0].squeeze(tuple(axes)) if axes else x[0].squeeze()
    return result


def _unsqueeze(x: Sequence[Any], a: Attributes) -> Tensor:
    axes = _axes(x, a)
    result: Tensor = x[0]
    for axis in sorted(axis % (x[0].ndim + len(axes)) for axis in axes):
        result = result.unsqueeze(axis)
    return result


def _expand(x: Sequence[Any], _a: Attributes) -> Tensor:
    """Either shape may be broadcast, as in NumPy."""
    shape = np.broadcast_shapes(tuple(x[0].shape), tuple(_ints(x[1])))
    result: Tensor = x[0].expand(shape)
    return result


def _layer_norm(x: Sequence[Any], a: Attributes) -> Tensor:
    axis = a.get("axis", -1) % x[0].ndim
    bias = x[2] if len(x) > 2 else None
    return functional.layer_norm(x[0], x[0].shape[axis:], x[1], bias, a.get("epsilon", 1e-5))


def _reduce_mean(x: Sequence[Any], a: Attributes) -> Tensor:
    result: Tensor = x[0].mean(_axes(x, a) or list(range(x[0].ndim)), keepdim=bool(a.get("keepdims", 1)))
    return result


def _clip(x: Sequence[Any], _a: Attributes) -> Tensor:
    low = x[1] if len(x) > 1 else None
    high = x[2] if len(x) > 2 else None
    return torch.clamp(x[0], low, high)


def _divide(x: Sequence[Any], _a: Attributes) -> Tensor:
    if x[0].is_floating_point():
        return torch.div(x[0], x[1])
    return torch.div(x[0], x[1], rounding_mode="trunc")


def _constant(node: onnx.NodeProto) -> Tensor:
    attributes = _attributes(node)
    if "value" not in attributes:
        raise GraphError("the torch engine supports only constants that are tensors; use openvino")
    return _tensor(attributes["value"])


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda x, _a: x[0] + x[1],
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
    "Conv": _convolution,
    "Div": _divide,
    "Erf": lambda x, _a: torch.erf(x[0]),
    "Expand": _expand,
    "Gather": _gather,
    "Gelu": lambda x, a: functional.gelu(x[0], approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "Identity": lambda x, _a: x[0],
    "LayerNormalization": _layer_norm,
    "MatMul": _product,
    "Mul": lambda x, _a: x[0] * x[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda x, _a: functional.relu(x[0]),
    "Reshape": _reshape,
    "Shape": lambda x, a: torch.tensor(x[0].shape[a.get("start", 0) : a.get("end")], dtype=torch.int64),
    "Sigmoid": lambda x, _a: torch.sigmoid(x[0]),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": lambda x, _a: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda x, _a: x[0] - x[1],
    "Transpose": lambda x, a: x[0].permute(*a["perm"]),
    "Unsqueeze": _unsqueeze,
}
"""The supported operators, by the ONNX operator specification (opset 17 to 23)."""
