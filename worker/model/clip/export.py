"""Exports the network for serving: the towers as ONNX graphs, the heads and a manifest."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from worker.model.clip.export_prompt import prompt_files
from worker.model.clip.network import ANCHORS, ImageTower, MstClip, Preprocessing
from worker.model.clip.onnx_export import OPSET, ExportError, to_onnx, write_file
from worker.scoring.manifest import MANIFEST_NAME, GraphSpec, HeadsSpec, ModelManifest, PromptScore, TowerSpec
from worker.view import ViewSpec


def export_model(
    network: MstClip,
    folder: Path,
    *,
    version: str,
    license: str,
    training_data: tuple[str, ...],
    prompts: Mapping[PromptScore, MstClip] | None = None,
) -> ModelManifest:
    """Writes a model of the towers, the fusion and the template head into the folder, with the text tower and, for each
    of `prompts`, fusion and prompt head of that network, whose towers must be the same.

    Raises ExportError.
    """
    if network.head is None:
        raise ExportError(
            "the network has only a prompt head; a model also needs a template head (head.temperature), for "
            "images without a prompt"
        )
    towers = {"coarse": network.coarse, "fine": network.fine}
    views = views_of(towers)
    judged = prompt_files(network.text, prompts or {})
    graph = export_towers(towers, views)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = ModelManifest(
        name="mst-clip",
        version=version,
        views={
            view: view_spec(tower.preprocessing) for tower, view in zip(towers.values(), views.values(), strict=True)
        },
        towers=tuple(TowerSpec(name=name, view=views[name], features=towers[name].features) for name in towers),
        graph=GraphSpec(**write_file(folder / "towers.onnx", graph).model_dump(), opset=OPSET),
        heads=HeadsSpec(
            **write_file(folder / "heads.safetensors", heads_file(network.gff, network.head)).model_dump(),
            type="gated_template",
            coarse="coarse",
            fine="fine",
        ),
        prompt=None if judged is None else judged.write(folder),
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
    inputs = {
        view: torch.zeros(2, *view_spec(towers[name].preprocessing).shape, dtype=torch.uint8)
        for name, view in views.items()
    }
    return to_onnx(_Towers(towers, views), inputs, list(towers))
