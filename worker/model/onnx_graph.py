"""The towers as an ONNX graph, written node by node.

Written so, not traced, for control of what serving runs: batch norms folded, TensorFlow's uneven padding kept as
attributes of the convolutions, every view normalised inside, and the same file for the same weights.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from worker.model.backbone import BLOCKS, PIXEL_MEAN, PIXEL_SCALE, Convolution, EfficientNetLite0, statistics
from worker.model.network import (
    COARSE_WINDOWS,
    FEATURES,
    GRID,
    HIDDEN,
    LEVELS,
    MAP_CHANNELS,
    STREAMS,
    VARIANCE_FLOOR,
    VIEWS,
    WINDOW,
    MstLite,
    PositionsTower,
    StatisticsTower,
)

OPSET = 18
IR_VERSION = 10
"""The IR that belongs to opset 18 and later, and that every current runtime reads."""

Array = NDArray[np.float32]
Port = tuple[int, list[str | int]]


def towers_graph(network: MstLite) -> bytes:
    """Both towers as one ONNX model.

    Inputs: uint8 [batch, *view.shape], named by view. Outputs: float32 [batch, FEATURES], named by tower. The backbone
    runs once over the windows of both views together: OpenVINO does not fuse weights that two places share.
    """
    graph = _Graph()
    views = [
        graph.add("Reshape", name, graph.integers(-1, view.crops, WINDOW, WINDOW, 3)) for name, view in VIEWS.items()
    ]
    windows = graph.add("Reshape", graph.add("Concat", *views, axis=1), graph.integers(-1, WINDOW, WINDOW, 3))
    maps = _maps(graph, network.backbone, _pixels(graph, windows))
    shape = (MAP_CHANNELS, GRID, GRID)
    windows_of_an_image = sum(view.crops for view in VIEWS.values())
    maps = graph.add("Reshape", maps, graph.integers(-1, windows_of_an_image, *shape))
    own = {"coarse": (0, COARSE_WINDOWS), "fine": (COARSE_WINDOWS, windows_of_an_image)}
    for name, (first, end) in own.items():
        part = graph.add("Slice", maps, graph.integers(first), graph.integers(end), graph.integers(1))
        judged = (
            _positions(graph, network.positions.towers[name], part, end - first),
            _statistics(graph, network.statistics.towers[name], part, end - first),
        )
        graph.add("Concat", *judged, output=name, axis=1)
    return graph.model(
        {name: (TensorProto.UINT8, ["batch", *view.shape]) for name, view in VIEWS.items()},
        {name: (TensorProto.FLOAT, ["batch", FEATURES]) for name in STREAMS},
    )


def maps_graph(backbone: EfficientNetLite0) -> bytes:
    """The backbone alone: uint8 `windows`, [windows, WINDOW, WINDOW, 3] → `maps`, as `MstLite.maps` gives them."""
    graph = _Graph()
    maps = _maps(graph, backbone, _pixels(graph, "windows"))
    graph.add("Identity", maps, output="maps")
    return graph.model(
        {"windows": (TensorProto.UINT8, ["windows", WINDOW, WINDOW, 3])},
        {"maps": (TensorProto.FLOAT, ["windows", MAP_CHANNELS, GRID, GRID])},
    )


class _Graph:
    """Collects nodes and weights; names of values are made up as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def model(self, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> bytes:
        """The checked model; the same bytes for the same nodes and weights."""
        entries, exits = (
            [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in side.items()]
            for side in (inputs, outputs)
        )
        model = helper.make_model(
            helper.make_graph(self.nodes, "towers", entries, exits, self.weights),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="sluice",
        )
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def linear(self, weight: Tensor, bias: Tensor) -> tuple[str, str]:
        return self.constant(to_numpy(weight)), self.constant(to_numpy(bias))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


def _pixels(graph: _Graph, windows: str) -> str:
    """uint8 [windows, H, W, 3] → float [windows, 3, H, W], as the backbone takes them."""
    pixels = graph.add("Transpose", graph.add("Cast", windows, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    return graph.add("Mul", graph.add("Sub", pixels, graph.scalar(PIXEL_MEAN)), graph.scalar(1 / PIXEL_SCALE))


def _maps(graph: _Graph, network: EfficientNetLite0, pixels: str) -> str:
    """The backbone, and `worker.model.network.join_levels` of its outputs."""
    x = _convolution(graph, network.stem, pixels, "relu6")
    side = WINDOW // 2
    levels = []
    for index, block in enumerate(network.blocks):
        hidden = x if block.expand is None else _convolution(graph, block.expand, x, "relu6")
        hidden = _convolution(graph, block.depthwise, hidden, "relu6")
        out = _convolution(graph, block.project, hidden)
        x = graph.add("Add", x, out) if block.shortcut else out
        side //= BLOCKS[index][3]
        if index in LEVELS:
            factor = side // GRID
            square = [factor, factor]
            levels.append(graph.add("AveragePool", x, kernel_shape=square, strides=square) if factor > 1 else x)
    return graph.add("Concat", *levels, axis=1)


def _positions(graph: _Graph, tower: PositionsTower, maps: str, crops: int) -> str:
    """Adds `worker.model.network.PositionsTower`."""
    mean, scale = statistics(tower.standardise)
    weight, bias = tower.mix.folded()
    bias = bias - weight[:, :, 0, 0] @ (mean * scale)
    x = graph.add("Reshape", maps, graph.integers(-1, MAP_CHANNELS, GRID, GRID))
    x = graph.add("Relu", graph.add("Conv", x, *graph.linear(weight * scale[:, None, None], bias)))
    x = graph.add("Add", x, _convolution(graph, tower.surroundings, x, "relu"))
    x = _convolution(graph, tower.judge, x, "relu")
    description = _describe(graph, x, crops, HIDDEN)
    return graph.add("Gemm", description, *graph.linear(tower.embed.weight, tower.embed.bias), transB=1)


def _statistics(graph: _Graph, tower: StatisticsTower, maps: str, crops: int) -> str:
    """Adds `worker.model.network.StatisticsTower` of the map's description.

    Standardised by nodes of its own, not by the weights: bfloat16 keeps small differences from the mean only then.
    """
    description = _describe(graph, maps, crops, MAP_CHANNELS)
    mean, scale = (graph.constant(to_numpy(values)) for values in (tower.mean, tower.scale))
    standard = graph.add("Mul", graph.add("Sub", description, mean), scale)
    return graph.add("Gemm", standard, *graph.linear(tower.embed.weight, tower.embed.bias), transB=1)


def _describe(graph: _Graph, x: str, crops: int, channels: int) -> str:
    """`worker.model.network.describe`: → [batch, 2 * channels]."""
    x = graph.add("Reshape", x, graph.integers(-1, crops, channels, GRID * GRID))
    mean = graph.add("ReduceMean", x, graph.integers(1, 3), keepdims=1)
    deviation = graph.add("Sub", x, mean)
    variance = graph.add("ReduceMean", graph.add("Mul", deviation, deviation), graph.integers(1, 3), keepdims=1)
    spread = graph.add("Sqrt", graph.add("Add", variance, graph.scalar(VARIANCE_FLOOR)))
    both = graph.add("Concat", mean, spread, axis=2)
    return graph.add("Reshape", both, graph.integers(-1, 2 * channels))


def _convolution(graph: _Graph, layer: Convolution, x: str, activation: Literal["relu", "relu6"] | None = None) -> str:
    convolution = layer.convolution
    left, right, top, bottom = layer.pads
    y = graph.add(
        "Conv",
        x,
        *graph.linear(*layer.folded()),
        kernel_shape=convolution.kernel_size,
        strides=convolution.stride,
        pads=[top, left, bottom, right],
        group=convolution.groups,
    )
    if activation == "relu6":
        return graph.add("Clip", y, graph.scalar(0), graph.scalar(6))
    return graph.add("Relu", y) if activation == "relu" else y


def to_numpy(tensor: Tensor) -> Array:
    """The tensor as float32 in NumPy."""
    array: Array = tensor.detach().float().cpu().numpy()
    return array
