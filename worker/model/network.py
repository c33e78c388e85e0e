"""mst-lite: two streams through EfficientNet-Lite0, gated fusion and a template head with learned anchors.

The shape is that of MST-CLIPIQA (design.md section 5) with CLIP's towers replaced: the coarse tower sees the whole
image, the fine tower native-resolution crops. One frozen backbone turns each 224 px window into a 7x7 map of features
from several depths: quality shows in the shallow ones, structure in the deep ones. What is trained is small: two
judges, trained apart because they err apart. One judges every position of the map in its surroundings and embeds mean
and deviation of that, the other embeds mean and deviation of the map itself. Joined they are one network of the same
shape, whose score is nearly the mean of theirs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from worker.model.backbone import BLOCKS, Convolution, EfficientNetLite0
from worker.model.heads import EMBEDDING, QualityHeads, join_heads
from worker.view import ViewSpec

WINDOW = 224
VIEWS: dict[str, ViewSpec] = {
    "whole": ViewSpec(size=WINDOW, resize="squash", mean=(0, 0, 0), std=(1, 1, 1)),
    "detail": ViewSpec(size=WINDOW, resize="none", crop="grid", crops=4, mean=(0, 0, 0), std=(1, 1, 1)),
}
STREAMS = {"coarse": "whole", "fine": "detail"}
"""Stream → the view that its tower sees."""
COARSE_WINDOWS = VIEWS[STREAMS["coarse"]].crops
"""The first of an image's windows; the others are of the fine stream."""

LEVELS = (4, 10, 14)
"""Blocks whose maps are used: the last ones of their sizes."""

GRID = WINDOW // 32
MAP_CHANNELS = sum(BLOCKS[level][2] for level in LEVELS)
DESCRIPTION = 2 * MAP_CHANNELS
HIDDEN = 96
FEATURES = 2 * EMBEDDING
"""Features of a tower that serving runs: both judges'."""
DROPOUT = 0.5
VARIANCE_FLOOR = 1e-6
DEVIATION_FLOOR = 1e-6


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """Square maps of several sizes, averaged down to the grid → one map, [windows, MAP_CHANNELS, GRID, GRID]."""
    return torch.cat([nn.functional.avg_pool2d(values, values.shape[-1] // GRID) for values in maps], dim=1)


def describe(values: Tensor, crops: int) -> Tensor:
    """[batch * crops, channels, h, w] → mean and deviation over crops and positions, [batch, 2 * channels]."""
    flat = values.reshape(-1, crops, *values.shape[1:]).transpose(1, 2).flatten(2)
    mean = flat.mean(2)
    variance = (flat - mean[:, :, None]).square().mean(2)
    return torch.cat((mean, (variance + VARIANCE_FLOOR).sqrt()), dim=1)


def split_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of all windows of images → those of the coarse and those of the fine stream."""
    return maps[:, :COARSE_WINDOWS], maps[:, COARSE_WINDOWS:]


def describe_streams(maps: Tensor) -> Tensor:
    """The maps of all windows of images → what `StatisticsJudge` sees of them."""
    return torch.cat([describe(part.float().flatten(0, 1), part.shape[1]) for part in split_maps(maps)], dim=1)


class PositionsTower(nn.Module):
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


class StatisticsTower(nn.Module):
    """One stream, from its map's mean and deviation on: [batch, DESCRIPTION] → [batch, EMBEDDING]."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.mean: Tensor
        self.scale: Tensor
        self.dropout = nn.Dropout(DROPOUT)
        self.embed = nn.Linear(DESCRIPTION, EMBEDDING)

    def forward(self, description: Tensor) -> Tensor:
        embedding: Tensor = self.embed(self.dropout((description - self.mean) * self.scale))
        return embedding


class TwoStreamJudge(nn.Module):
    """A tower for each stream and heads: the backbone's output for both views → quality, [batch]."""

    def __init__(self, towers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(towers)
        self.heads = QualityHeads()

    def split(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """What the coarse and what the fine stream sees of it."""
        raise NotImplementedError

    def embed(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Each stream's embedding, [batch, EMBEDDING]."""
        coarse, fine = self.split(seen)
        return self.streams["coarse"](coarse), self.streams["fine"](fine)

    def fuse(self, seen: Tensor) -> Tensor:
        """The fused features, [batch, EMBEDDING]."""
        fused: Tensor = self.heads.gff(*self.embed(seen))
        return fused

    def forward(self, seen: Tensor) -> Tensor:
        quality: Tensor = self.heads.head(self.fuse(seen))
        return quality


class PositionsJudge(TwoStreamJudge):
    """Of the maps of all windows, view after view, [batch, windows, MAP_CHANNELS, GRID, GRID]."""

    def __init__(self) -> None:
        self.towers = {name: PositionsTower() for name in STREAMS}
        super().__init__(self.towers)

    def split(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        return split_maps(seen)

    def forward(self, seen: Tensor) -> Tensor:
        # Half the time of float32, and the maps were computed in it.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            return super().forward(seen).float()


class StatisticsJudge(TwoStreamJudge):
    """Of the descriptions of both streams' maps, [batch, 2 * DESCRIPTION]."""

    def __init__(self, intact: Tensor) -> None:
        """`intact`: descriptions of intact images; by their mean and deviation all are standardised."""
        deviation, mean = torch.std_mean(intact, dim=0)
        scale = 1 / (deviation + DEVIATION_FLOOR)
        parts = zip(STREAMS, mean.chunk(2), scale.chunk(2), strict=True)
        self.towers = {name: StatisticsTower(*standard) for name, *standard in parts}
        super().__init__(self.towers)

    def split(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        return seen[:, :DESCRIPTION], seen[:, DESCRIPTION:]


class MstLite(nn.Module):
    """One frozen backbone, and both judges joined: a tower for each stream, and the heads."""

    def __init__(
        self,
        backbone: EfficientNetLite0,
        positions: PositionsJudge,
        statistics: StatisticsJudge,
        norms: tuple[float, float],
    ) -> None:
        """`norms`: the mean norm of each judge's fused features (`worker.model.heads.join_heads`)."""
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.positions = positions
        self.statistics = statistics
        self.heads = join_heads((positions.heads, statistics.heads), norms)

    def maps(self, windows: Tensor) -> Tensor:
        """[windows, WINDOW, WINDOW, 3] of uint8 RGB → [windows, MAP_CHANNELS, GRID, GRID]."""
        outputs = self.backbone(windows.permute(0, 3, 1, 2).float())
        return join_levels([outputs[level] for level in LEVELS])

    def forward(self, maps: Tensor) -> Tensor:
        """The maps of all windows, view after view, [batch, windows, MAP_CHANNELS, GRID, GRID] → quality, [batch]."""
        streams = zip(self.positions.embed(maps), self.statistics.embed(describe_streams(maps)), strict=True)
        coarse, fine = (torch.cat(embeddings, dim=1) for embeddings in streams)
        quality: Tensor = self.heads(coarse, fine)
        return quality
