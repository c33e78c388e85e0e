"""mst-lite: two streams through MobileNetV2, gated fusion and a template head with learned anchors.

The shape is that of MST-CLIPIQA (design.md section 5) with CLIP's towers replaced: the coarse tower sees the whole
image, the fine tower native-resolution crops. A tower describes an image by the mean and the standard deviation of
feature maps at several depths, over all positions of all crops: quality shows in the shallow ones, structure in the
deep ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worker.model.backbone import BLOCKS, MobileNetV2
from worker.view import ViewSpec

VIEWS: dict[str, ViewSpec] = {
    "whole": ViewSpec(size=224, resize="squash", mean=(0, 0, 0), std=(1, 1, 1)),
    "detail": ViewSpec(size=224, resize="none", crop="grid", crops=4, mean=(0, 0, 0), std=(1, 1, 1)),
}
STREAMS = {"coarse": "whole", "fine": "detail"}
"""Stream → the view that its tower sees."""

LEVELS = (2, 5, 9, 12, 15)
"""Blocks whose maps describe the image; block 16 and what follows serve classification only and are left out."""

DESCRIPTION = 2 * sum(BLOCKS[level][1] for level in LEVELS)
EMBEDDING = 256
VARIANCE_FLOOR = 1e-6
GATE_HIDDEN = 128
ANCHORS = ("bad", "poor", "fair", "good", "perfect")
DROPOUT = 0.3


def describe(maps: Sequence[Tensor], crops: int) -> Tensor:
    """Maps of [batch * crops, channels, h, w] → mean and deviation over crops and positions, [batch, DESCRIPTION]."""
    parts = []
    for values in maps:
        flat = values.reshape(-1, crops, *values.shape[1:]).transpose(1, 2).flatten(2)
        mean = flat.mean(2)
        variance = (flat - mean[:, :, None]).square().mean(2)
        parts += [mean, (variance + VARIANCE_FLOOR).sqrt()]
    return torch.cat(parts, dim=1)


class Tower(nn.Module):
    """One stream: [batch, crops, H, W, 3] of uint8 RGB → [batch, EMBEDDING]."""

    def __init__(self, backbone: MobileNetV2) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardise = nn.BatchNorm1d(DESCRIPTION, affine=False, momentum=0.05)
        self.dropout = nn.Dropout(DROPOUT)
        self.embed = nn.Linear(DESCRIPTION, EMBEDDING)

    def forward(self, crops: Tensor) -> Tensor:
        return self.embedding(self.description(crops))

    def description(self, crops: Tensor) -> Tensor:
        """[batch, crops, H, W, 3] of uint8 → [batch, DESCRIPTION]."""
        pixels = crops.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        maps = self.backbone(pixels)
        return describe([maps[level] for level in LEVELS], crops.shape[1])

    def embedding(self, description: Tensor) -> Tensor:
        """[batch, DESCRIPTION] → [batch, EMBEDDING]."""
        embedded: Tensor = self.embed(self.dropout(self.standardise(description)))
        return embedded


class GatedFusion(nn.Module):
    """z = g ⊙ W_c c + (1 - g) ⊙ W_f f with g = sigmoid(W_g ReLU(W_h [c; f]))."""

    def __init__(self) -> None:
        super().__init__()
        self.W_h = nn.Linear(2 * EMBEDDING, GATE_HIDDEN)
        self.W_g = nn.Linear(GATE_HIDDEN, EMBEDDING)
        self.W_c = nn.Linear(EMBEDDING, EMBEDDING)
        self.W_f = nn.Linear(EMBEDDING, EMBEDDING)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        gate = torch.sigmoid(self.W_g(torch.relu(self.W_h(torch.cat((coarse, fine), dim=1)))))
        fused: Tensor = gate * self.W_c(coarse) + (1 - gate) * self.W_f(fine)
        return fused


class TemplateHead(nn.Module):
    """Cosines with five anchors, times a temperature; softmax; expectation over 1..5.

    The anchors, which the paper takes from a text encoder, are learned here. The temperature starts lower than its 100,
    since random anchors are nearly orthogonal where text embeddings are close together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(len(ANCHORS), EMBEDDING) / EMBEDDING**0.5)
        self.temperature = nn.Parameter(torch.tensor([10.0]))
        self.register_buffer("values", torch.linspace(1, 5, len(ANCHORS)), persistent=False)
        self.values: Tensor

    def forward(self, fused: Tensor) -> Tensor:
        cosines = nn.functional.normalize(fused, dim=1) @ nn.functional.normalize(self.anchors, dim=1).T
        return torch.softmax(self.temperature * cosines, dim=1) @ self.values


class QualityHeads(nn.Module):
    """The part that serving runs in NumPy: two embeddings, [batch, EMBEDDING] each → quality, 1..5, [batch]."""

    def __init__(self) -> None:
        super().__init__()
        self.gff = GatedFusion()
        self.head = TemplateHead()

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        quality: Tensor = self.head(self.gff(coarse, fine))
        return quality


class MstLite(nn.Module):
    """Both streams over one backbone, and the heads."""

    def __init__(self, backbone: MobileNetV2) -> None:
        super().__init__()
        self.coarse = Tower(backbone)
        self.fine = Tower(backbone)
        self.heads = QualityHeads()
