"""From the trained network to what serving reads: an ONNX graph, a heads file and a manifest."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save as save_tensors

from worker.model.backbone import BLOCKS, Convolution, MobileNetV2, statistics
from worker.model.data import DATA_SETS
from worker.model.evaluate import Report
from worker.model.network import ANCHORS, LEVELS, STREAMS, VARIANCE_FLOOR, VIEWS, MstLite, QualityHeads, Tower
from worker.scoring.manifest import MANIFEST_NAME, GraphSpec, HeadsSpec, Measurement, ModelManifest, TowerSpec
from worker.view import ViewSpec

VERSION = "0.1.0"
OPSET = 18
IR_VERSION = 10
"""The IR that belongs to opset 18 and later, and that every current runtime reads."""

Array = NDArray[np.float32]


def export_model(network: MstLite, reports: Sequence[Report], folder: Path) -> ModelManifest:
    """Writes graph, heads and manifest of the trained network into the folder."""
    towers = {"coarse": network.coarse, "fine": network.fine}
    manifest = ModelManifest(
        schema="sluice.model/1",
        name="mst-lite",
        version=VERSION,
        views=VIEWS,
        towers=tuple(
            TowerSpec(name=name, view=STREAMS[name], features=tower.embed.out_features)
            for name, tower in towers.items()
        ),
        graph=GraphSpec(
            **export_towers(
                {name: (tower, STREAMS[name]) for name, tower in towers.items()}, VIEWS, folder / "towers.onnx"
            ),
            opset=OPSET,
        ),
        heads=HeadsSpec(
            **export_heads(network.heads, folder / "heads.safetensors"),
            type="gated_template",
            coarse="coarse",
            fine="fine",
        ),
        anchors=ANCHORS,
        score_range=(1, 5),
        license="Apache-2.0",
        training_data=tuple(f"{data_set.title}, {data_set.license}" for data_set in DATA_SETS),
        quality=tuple(
            Measurement(
                dataset=entry.dataset,
                protocol="5 folds, disjoint by prompt",
                images=entry.images,
                srcc=round(entry.srcc, 4),
                plcc=round(entry.plcc, 4),
                srcc_within_generator=round(entry.srcc_within_generator, 4),
            )
            for entry in reports
        ),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n")
    return manifest


def export_towers(towers: Mapping[str, tuple[Tower, str]], views: Mapping[str, ViewSpec], file: Path) -> dict[str, str]:
    """Writes the towers, name → (tower, view), as one ONNX graph with batch norms folded.

    Inputs: uint8 [batch, *view.shape], named by view. Outputs: float32 [batch, EMBEDDING], named by tower. Towers that
    share a backbone share its weights in the file.
    """
    graph = _Graph()
    backbones: dict[MobileNetV2, _Backbone] = {}
    for name, (tower, view) in towers.items():
        backbone = backbones.setdefault(tower.backbone, _Backbone(graph, tower.backbone))
        pixels = _normalise(graph, view, views[view])
        description = _describe(graph, backbone(pixels, views[view].size), views[view].crops)
        weight, bias = _fold_standardise(tower)
        graph.add("Gemm", description, graph.constant(weight), graph.constant(bias), output=name, transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "towers",
            [helper.make_tensor_value_info(n, TensorProto.UINT8, ["batch", *v.shape]) for n, v in views.items()],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", tower.embed.out_features])
                for name, (tower, _) in towers.items()
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sluice",
    )
    onnx.checker.check_model(model, full_check=True)
    return _write(file, model.SerializeToString(deterministic=True))


def export_heads(heads: QualityHeads, file: Path) -> dict[str, str]:
    """Writes the heads as safetensors, under the names that `worker.scoring.heads` reads."""
    return _write(file, save_tensors({name: _numpy(value) for name, value in heads.state_dict().items()}))


def _write(file: Path, data: bytes) -> dict[str, str]:
    """Path and digest, as a manifest names them."""
    file.write_bytes(data)
    return {"path": file.name, "sha256": hashlib.sha256(data).hexdigest()}


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

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


class _Backbone:
    """A backbone's weights with batch norms folded in, put into the graph once however many towers use it."""

    def __init__(self, graph: _Graph, network: MobileNetV2) -> None:
        self._graph = graph
        self._network = network
        self._weights: dict[Convolution, tuple[str, str]] = {}

    def __call__(self, pixels: str, size: int) -> list[tuple[str, int, int]]:
        """Adds the network on square `pixels` of `size`; value, channels and positions of each level of LEVELS."""
        x = self._convolution(self._network.stem, pixels, activation=True)
        side = size // 2
        levels = []
        for index, block in enumerate(self._network.blocks):
            hidden = x if block.expand is None else self._convolution(block.expand, x, activation=True)
            hidden = self._convolution(block.depthwise, hidden, activation=True)
            out = self._convolution(block.project, hidden, activation=False)
            x = self._graph.add("Add", x, out) if block.shortcut else out
            side //= BLOCKS[index][2]
            if index in LEVELS:
                levels.append((x, BLOCKS[index][1], side * side))
        return levels

    def _convolution(self, layer: Convolution, x: str, *, activation: bool) -> str:
        convolution = layer.convolution
        if layer not in self._weights:
            weight, bias = layer.folded()
            self._weights[layer] = self._graph.constant(_numpy(weight)), self._graph.constant(_numpy(bias))
        left, right, top, bottom = layer.pads
        y = self._graph.add(
            "Conv",
            x,
            *self._weights[layer],
            kernel_shape=convolution.kernel_size,
            strides=convolution.stride,
            pads=[top, left, bottom, right],
            group=convolution.groups,
        )
        return self._graph.add("Clip", y, self._graph.scalar(0), self._graph.scalar(6)) if activation else y


def _normalise(graph: _Graph, name: str, view: ViewSpec) -> str:
    """uint8 [batch, (crops,) H, W, 3] → float [batch * crops, 3, H, W], normalised as the view says."""
    mean, std = np.array(view.mean), np.array(view.std)
    pixels = graph.add("Reshape", name, graph.integers(-1, view.size, view.size, 3)) if view.crops > 1 else name
    pixels = graph.add("Cast", pixels, to=TensorProto.FLOAT)
    pixels = graph.add("Transpose", pixels, perm=[0, 3, 1, 2])
    scale = (1 / (255 * std)).astype(np.float32).reshape(1, 3, 1, 1)
    offset = (-mean / std).astype(np.float32).reshape(1, 3, 1, 1)
    return graph.add("Add", graph.add("Mul", pixels, graph.constant(scale)), graph.constant(offset))


def _describe(graph: _Graph, levels: list[tuple[str, int, int]], crops: int) -> str:
    """The same as `worker.model.network.describe`."""
    parts = []
    for values, channels, positions in levels:
        stacked = graph.add("Reshape", values, graph.integers(-1, crops, channels, positions))
        mean = graph.add("ReduceMean", stacked, graph.integers(1, 3), keepdims=1)
        deviation = graph.add("Sub", stacked, mean)
        variance = graph.add("ReduceMean", graph.add("Mul", deviation, deviation), graph.integers(1, 3), keepdims=1)
        spread = graph.add("Sqrt", graph.add("Add", variance, graph.scalar(VARIANCE_FLOOR)))
        parts += [graph.add("Reshape", value, graph.integers(-1, channels)) for value in (mean, spread)]
    return graph.add("Concat", *parts, axis=1)


def _fold_standardise(tower: Tower) -> tuple[Array, Array]:
    """Weight and bias of the embedding with the standardisation of its input folded in."""
    mean, scale = statistics(tower.standardise)
    weight = tower.embed.weight * scale
    return _numpy(weight), _numpy(tower.embed.bias - weight @ mean)


def _numpy(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().numpy()
    return array
