"""The reference: a model's own ONNX graph, run by torch, operator by operator, in float32."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from trt_build.errors import BuildError
from worker.scoring.engine import EngineError, Features, Prompts, Views
from worker.scoring.model import Model

MAX_BATCH = 64

Attributes = Mapping[str, Any]


class TorchEngine:
    """Runs a model's towers with torch, on the CPU or on a GPU; safe to call from several threads."""

    def __init__(self, model: Model, *, device: str = "cpu") -> None:
        """Raises BuildError for a graph with an operator that is not known here."""
        self._manifest = model.manifest
        self._device = torch.device(device)
        self._towers = _Towers(onnx.load_from_string(model.graph)).to(self._device).eval()

    @property
    def max_batch(self) -> int:
        return MAX_BATCH

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:  # noqa: ARG002
        """The features of a batch. Raises EngineError when torch fails."""
        try:
            with torch.inference_mode():
                pixels = {name: torch.from_numpy(rows).to(self._device) for name, rows in views.items()}
                features = self._towers(pixels)
                return {tower.name: features[tower.name].float().cpu().numpy() for tower in self._manifest.towers}
        except (RuntimeError, KeyError) as error:
            raise EngineError(f"torch failed on a batch: {error}") from error

    def close(self) -> None:
        """Nothing is held that its end would not free."""


class _Towers(torch.nn.Module):
    """The graph's nodes, in their order, over named values. Weights are buffers, so that they move with the module;
    small integers (shapes, axes, indices) stay where they are, since they steer and are not computed on."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._nodes = [
            (_operator(node), list(node.input), list(node.output), _attributes(node)) for node in model.graph.node
        ]
        self._outputs = [value.name for value in model.graph.output]
        self._constants: dict[str, Tensor] = {}
        self._buffers_of: dict[str, str] = {}
        for number, weight in enumerate(model.graph.initializer):
            value = torch.from_numpy(numpy_helper.to_array(weight).copy())
            if value.is_floating_point():
                self.register_buffer(f"weight_{number}", value)
                self._buffers_of[weight.name] = f"weight_{number}"
            else:
                self._constants[weight.name] = value

    def forward(self, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        values: dict[str, Tensor | None] = {"": None, **pixels, **self._constants}
        values |= {name: self.get_buffer(buffer) for name, buffer in self._buffers_of.items()}
        for operator, inputs, outputs, attributes in self._nodes:
            result = operator([values[name] for name in inputs], attributes)
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip(outputs, results, strict=False))
        found = {name: values[name] for name in self._outputs}
        return {name: value for name, value in found.items() if value is not None}


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


Operator = Callable[[Sequence[Any], Attributes], Any]


def _operator(node: onnx.NodeProto) -> Operator:
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        raise BuildError(
            f"the torch reference does not know the operator {node.op_type}; compare with openvino instead"
        )
    return OPERATORS[node.op_type]


def _ints(value: Tensor | None) -> list[int]:
    return [] if value is None else [int(number) for number in value.reshape(-1).tolist()]


def _axes(x: Sequence[Any], a: Attributes) -> list[int]:
    """Axes stand in an input since opset 13 or 18, before in an attribute."""
    return _ints(x[1]) if len(x) > 1 else [int(axis) for axis in a.get("axes", [])]


def _cast(x: Sequence[Any], a: Attributes) -> Tensor:
    dtype = helper.tensor_dtype_to_np_dtype(a["to"])
    result: Tensor = x[0].to(torch.from_numpy(np.zeros(0, dtype)).dtype)
    return result


def _convolution(x: Sequence[Any], a: Attributes) -> Tensor:
    pads = list(a.get("pads", [0, 0, 0, 0]))
    if a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise BuildError("the torch reference knows no auto_pad; compare with openvino instead")
    pixels = functional.pad(x[0], (pads[1], pads[3], pads[0], pads[2]))
    bias = x[2] if len(x) > 2 else None
    return functional.conv2d(
        pixels, x[1], bias, tuple(a.get("strides", [1, 1])), 0, tuple(a.get("dilations", [1, 1])), a.get("group", 1)
    )


def _average_pool(x: Sequence[Any], a: Attributes) -> Tensor:
    if any(a.get("pads", [])) or a.get("ceil_mode") or any(size != 1 for size in a.get("dilations", [])):
        raise BuildError(
            "the torch reference knows average pooling without padding only; compare with openvino instead"
        )
    return functional.avg_pool2d(x[0], tuple(a["kernel_shape"]), tuple(a.get("strides", [1, 1])))


def _gemm(x: Sequence[Any], a: Attributes) -> Tensor:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product: Tensor = a.get("alpha", 1.0) * (left @ right)
    return product if len(x) < 3 else product + a.get("beta", 1.0) * x[2]


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
        index[axis] = slice(max(start, -size), min(end, size), step)  # ONNX writes "to the end" as a huge number
    result: Tensor = x[0][tuple(index)]
    return result


def _gather(x: Sequence[Any], a: Attributes) -> Tensor:
    axis = a.get("axis", 0) % x[0].ndim
    indices = x[1].to(x[0].device)
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


def _constant(_x: Sequence[Any], a: Attributes) -> Tensor:
    if "value" not in a:
        raise BuildError("the torch reference knows constants that are tensors only; compare with openvino instead")
    return torch.from_numpy(numpy_helper.to_array(a["value"]).copy())


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda x, _a: x[0] + x[1],
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
    "Constant": _constant,
    "Conv": _convolution,
    "Div": _divide,
    "Erf": lambda x, _a: torch.erf(x[0]),
    "Expand": lambda x, _a: x[0] * torch.ones(_ints(x[1]), dtype=x[0].dtype, device=x[0].device),
    "Gather": _gather,
    "Gelu": lambda x, a: functional.gelu(x[0], approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "Identity": lambda x, _a: x[0],
    "LayerNormalization": _layer_norm,
    "MatMul": lambda x, _a: x[0] @ x[1],
    "Mul": lambda x, _a: x[0] * x[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda x, _a: functional.relu(x[0]),
    "Reshape": _reshape,
    "Shape": lambda x, a: torch.tensor(x[0].shape[a.get("start", 0) : a.get("end")], dtype=torch.int64),
    "Sigmoid": lambda x, _a: torch.sigmoid(x[0]),
    "Slice": _slice,
    "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
    "Sqrt": lambda x, _a: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda x, _a: x[0] - x[1],
    "Transpose": lambda x, a: x[0].permute(*a["perm"]),
    "Unsqueeze": _unsqueeze,
}
"""What towers are made of, by the ONNX operator specification (opset 17 to 23)."""
