"""The heads of a model in torch, between the file that serving reads and training."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.model.clip.network import GatedFusion, PromptHead, TemplateHead
from worker.model.head_training.examples import Examples
from worker.scoring.engine import Features
from worker.scoring.manifest import ModelManifest

MIDDLE = 3.0
"""Of the scale: where a new head starts."""


class Trainable(nn.Module):
    """What can be fitted to people's scores. All of it begins with a fusion."""

    gff: GatedFusion

    def judge(self, examples: Examples) -> Tensor:
        """The score of each example, [examples]."""
        raise NotImplementedError


class TrainableHeads(Trainable):
    """Gated fusion and template head: two streams' features → quality, 1..5. The anchors do not learn."""

    def __init__(self, gff: GatedFusion, head: TemplateHead) -> None:
        super().__init__()
        self.gff = gff
        self.head = head

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """[batch, features] of each stream → [batch]."""
        quality: Tensor = self.head(self.gff(coarse, fine))
        return quality

    def judge(self, examples: Examples) -> Tensor:
        judged: Tensor = self(examples.coarse, examples.fine)
        return judged


class TrainablePromptHead(Trainable):
    """A fusion of its own and a prompt head: two streams' features and a prompt's tokens → one score, about 1..5.

    The fusion is its own so that learning one score takes nothing from another.
    """

    def __init__(self, gff: GatedFusion, head: PromptHead) -> None:
        super().__init__()
        self.gff = gff
        self.head = head

    def judge(self, examples: Examples) -> Tensor:
        if examples.texts is None:
            raise ValueError("a prompt head needs the examples' prompts")
        judged: Tensor = self.head(self.gff(examples.coarse, examples.fine), *examples.texts.padded())
        return judged


def prompt_head_of(manifest: ModelManifest, folder: Path, *, seed: int, keep_fusion: bool) -> TrainablePromptHead:
    """A new prompt head for a model that has a text tower, on its fusion or on one drawn afresh."""
    if manifest.prompt is None:
        raise ValueError("the model has no text tower")
    fusion = heads_of(manifest, folder, fresh_seed=None if keep_fusion else seed).gff
    torch.manual_seed(seed)
    fused = fusion.W_c.out_features
    head = PromptHead(fused, manifest.prompt.features, fused)
    nn.init.constant_(head.w_o.bias, MIDDLE)
    return TrainablePromptHead(fusion, head)


def heads_of(manifest: ModelManifest, folder: Path, *, fresh_seed: int | None = None) -> TrainableHeads:
    """The heads of a model whose files are in `folder` and were checked; with a seed, the fusion is drawn afresh."""
    tensors = load_file(folder / manifest.heads.path)
    coarse, fine = (manifest.tower(name).features for name in (manifest.heads.coarse, manifest.heads.fine))
    if fresh_seed is not None:
        torch.manual_seed(fresh_seed)
    fusion = GatedFusion(coarse, fine, tensors["gff.W_c.weight"].shape[0], tensors["gff.W_h.weight"].shape[0])
    if fresh_seed is None:
        fusion.load_state_dict({name: tensors[f"gff.{name}"] for name in fusion.state_dict()})
    return TrainableHeads(fusion, TemplateHead(tensors["head.anchors"], float(tensors["head.temperature"])))


def streams(manifest: ModelManifest, features: Features) -> tuple[Tensor, Tensor]:
    """The features of the coarse and the fine stream."""
    coarse, fine = (torch.from_numpy(features[name]) for name in (manifest.heads.coarse, manifest.heads.fine))
    return coarse, fine


def gate_by_dimension(fusion: GatedFusion, coarse: Tensor, fine: Tensor) -> list[float]:
    """How much each fused dimension listens to the coarse stream, averaged over images, from the least to the most."""
    with torch.no_grad():
        shares: list[float] = np.sort(fusion.gate(coarse, fine).mean(dim=0).numpy()).tolist()
    return shares
