"""mst-lite: two streams through EfficientNet-Lite0, gated fusion and a template head with learned anchors.

The shape is that of MST-CLIPIQA (design.md section 5) with CLIP's towers replaced: the coarse tower sees the whole
image, the fine tower native-resolution crops. One frozen backbone turns each 224 px window into a 7x7 map of features
from several depths: quality shows in the shallow ones, structure in the deep ones. What is trained is small: each tower
judges every position of the map in its surroundings, and describes the image by mean and deviation over all positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worker.model.backbone import BLOCKS, Convolution, EfficientNetLite0
from worker.view import ViewSpec

WINDOW = 224
VIEWS: dict[str, ViewSpec] = {
    "whole": ViewSpec(size=WINDOW, resize="squash", mean=(0, 0, 0), std=(1, 1, 1)),
    "detail": ViewSpec(size=WINDOW, resize="none", crop="grid", crops=4, mean=(0, 0, 0), std=(1, 1, 1)),
}
STREAMS = {"coarse": "whole", "fine": "detail"}
"""Stream → the view that its tower sees."""

LEVELS = (4, 10, 14)
"""Blocks whose maps are used: the last ones of their sizes."""

GRID = WINDOW // 32
MAP_CHANNELS = sum(BLOCKS[level][2] for level in LEVELS)
HIDDEN = 96
EMBEDDING = 256
GATE_HIDDEN = 128
ANCHORS = ("bad", "poor", "fair", "good", "perfect")
DROPOUT = 0.5
VARIANCE_FLOOR = 1e-6


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """Square maps of several sizes, averaged down to the grid → one map, [windows, MAP_CHANNELS, GRID, GRID]."""
    return torch.cat([nn.functional.avg_pool2d(values, values.shape[-1] // GRID) for values in maps], dim=1)


def describe(values: Tensor, crops: int) -> Tensor:
    """[batch * crops, channels, h, w] → mean and deviation over crops and positions, [batch, 2 * channels]."""
    flat = values.reshape(-1, crops, *values.shape[1:]).transpose(1, 2).flatten(2)
    mean = flat.mean(2)
    variance = (flat - mean[:, :, None]).square().mean(2)
    return torch.cat((mean, (variance + VARIANCE_FLOOR).sqrt()), dim=1)


class Tower(nn.Module):
    """One stream, from the maps of its view on: [batch, crops, MAP_CHANNELS, GRID, GRID] → [batch, EMBEDDING]."""

    def __init__(self) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm2d(MAP_CHANNELS, affine=False, momentum=0.05)
        self.mix = Convolution(MAP_CHANNELS, HIDDEN, kernel=1)
        self.surroundings = Convolution(HIDDEN, HIDDEN, kernel=3, groups=HIDDEN)
        self.judge = Convolution(HIDDEN, HIDDEN, kernel=1)
        self.dropout = nn.Dropout(DROPOUT)
        self.embed = nn.Linear(2 * HIDDEN, EMBEDDING)

    def forward(self, maps: Tensor) -> Tensor:
        # Channels last: convolutions and norms of small maps take two thirds of the time.
        x = maps.flatten(0, 1).contiguous(memory_format=torch.channels_last).float()
        x = torch.relu(self.mix(self.standardise(x)))
        x = x + torch.relu(self.surroundings(x))
        embedding: Tensor = self.embed(self.dropout(describe(torch.relu(self.judge(x)), maps.shape[1])))
        return embedding


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
    """One frozen backbone, a tower for each stream, and the heads."""

    def __init__(self, backbone: EfficientNetLite0) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.towers = {name: Tower() for name in STREAMS}
        self.streams = nn.ModuleDict(self.towers)
        self.heads = QualityHeads()

    def maps(self, windows: Tensor) -> Tensor:
        """[windows, WINDOW, WINDOW, 3] of uint8 RGB → [windows, MAP_CHANNELS, GRID, GRID]."""
        outputs = self.backbone(windows.permute(0, 3, 1, 2).float())
        return join_levels([outputs[level] for level in LEVELS])

    def forward(self, maps: Tensor) -> Tensor:
        """The maps of all windows, view after view, [batch, windows, MAP_CHANNELS, GRID, GRID] → quality, [batch]."""
        own = VIEWS[STREAMS["coarse"]].crops
        quality: Tensor = self.heads(self.towers["coarse"](maps[:, :own]), self.towers["fine"](maps[:, own:]))
        return quality
