"""From the network to what serving reads: the towers as an ONNX graph, the heads, a manifest."""

import hashlib
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from worker.model.clip.network import ANCHORS, ImageTower, MstClip, Preprocessing
from worker.scoring.manifest import MANIFEST_NAME, FileSpec, GraphSpec, HeadsSpec, ModelManifest, TowerSpec
from worker.view import ViewSpec

OPSET = 20
LARGEST_GRAPH = 2**31 - 1
"""Bytes of one ONNX file: protobuf counts no further."""


class ExportError(Exception):
    """The network cannot be written as a model. The message says why."""


def export_model(
    network: MstClip, folder: Path, *, version: str, license: str, training_data: tuple[str, ...]
) -> ModelManifest:
    """Writes graph, heads and manifest of the towers, the fusion and the template head into the folder.

    A prompt head is not written: serving has no graph for it yet. Raises ExportError.
    """
    if network.head is None:
        raise ExportError(
            "the network has a prompt head only, which serving cannot run yet; a model needs a template head "
            "(head.temperature)"
        )
    towers = {"coarse": network.coarse, "fine": network.fine}
    views = views_of(towers)
    graph = export_towers(towers, views)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = ModelManifest(
        schema="sluice.model/1",
        name="mst-clip",
        version=version,
        views={
            view: view_spec(tower.preprocessing) for tower, view in zip(towers.values(), views.values(), strict=True)
        },
        towers=tuple(TowerSpec(name=name, view=views[name], features=towers[name].features) for name in towers),
        graph=GraphSpec(**_write(folder / "towers.onnx", graph).model_dump(), opset=OPSET),
        heads=HeadsSpec(
            **_write(folder / "heads.safetensors", heads_file(network.gff, network.head)).model_dump(),
            type="gated_template",
            coarse="coarse",
            fine="fine",
        ),
        anchors=ANCHORS,
        score_range=(1, 5),
        license=license,
        training_data=training_data,
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n")
    return manifest


def views_of(towers: Mapping[str, ImageTower]) -> dict[str, str]:
    """Tower → the view it looks at: one for both where they want the same."""
    if len({tower.preprocessing for tower in towers.values()}) == 1:
        return dict.fromkeys(towers, "image")
    return {name: f"{name}_image" for name in towers}


def view_spec(wanted: Preprocessing) -> ViewSpec:
    """The view that gives a tower what it wants to see."""
    return ViewSpec.model_validate(
        {
            "size": wanted.size,
            "resize": "squash" if wanted.squash else "shortest_side",
            "interpolation": wanted.interpolation,
            "mean": wanted.mean,
            "std": wanted.std,
        }
    )


def heads_file(gff: nn.Module, head: nn.Module) -> bytes:
    """Fusion and template head as safetensors, under the names that `worker.scoring.heads` reads."""
    tensors = {f"gff.{name}": value for name, value in gff.state_dict().items()}
    tensors |= {f"head.{name}": value for name, value in head.state_dict().items()}
    return save_tensors({name: value.detach().float().cpu().contiguous() for name, value in tensors.items()})


class _Towers(nn.Module):
    def __init__(self, towers: Mapping[str, ImageTower], views: Mapping[str, str]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers.values())
        inputs = list(dict.fromkeys(views.values()))
        self.inputs = [inputs.index(view) for view in views.values()]

    def forward(self, *pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(tower(pixels[index]) for tower, index in zip(self.towers, self.inputs, strict=True))


def export_towers(towers: Mapping[str, ImageTower], views: Mapping[str, str]) -> bytes:
    """The towers as one ONNX graph.

    Inputs: uint8 [batch, H, W, 3], named by view. Outputs: float32 [batch, features], named by tower. Raises
    ExportError for a pair too large for one file.
    """
    size = sum(parameter.nbytes for tower in towers.values() for parameter in tower.parameters())
    if size > LARGEST_GRAPH:
        raise ExportError(f"the towers hold {size:,} bytes of weights, and one ONNX file at most {LARGEST_GRAPH:,}")
    inputs = {
        view: torch.zeros(2, *view_spec(towers[name].preprocessing).shape, dtype=torch.uint8)
        for name, view in views.items()
    }
    batch = torch.export.Dim("batch", min=1, max=4096)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operator has no ONNX
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Towers(towers, views).eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=list(towers),
                opset_version=OPSET,
                dynamic_shapes=(tuple({0: batch} for _ in inputs),),
                dynamo=True,
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    assert program is not None  # with dynamo=True it is one  # noqa: S101
    graph: bytes = program.model_proto.SerializeToString(deterministic=True)
    return graph


def _write(file: Path, data: bytes) -> FileSpec:
    file.write_bytes(data)
    return FileSpec(path=file.name, sha256=hashlib.sha256(data).hexdigest())
