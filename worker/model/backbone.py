"""EfficientNet-Lite0 (Tan and Le, 2019; without squeeze-and-excitation, with ReLU6) up to block 14, padded as by
TensorFlow."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

BATCH_NORM_EPSILON = 1e-3

PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
"""Pixels go in as (value - PIXEL_MEAN) / PIXEL_SCALE, as the weights' authors trained them."""

STEM_CHANNELS = 32
BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    # expansion, kernel, channels out, stride.
    # Block 15 and the last convolution serve classification and are left out.
    (1, 3, 16, 1),
    (6, 3, 24, 2),
    (6, 3, 24, 1),
    (6, 5, 40, 2),
    (6, 5, 40, 1),
    (6, 3, 80, 2),
    (6, 3, 80, 1),
    (6, 3, 80, 1),
    (6, 5, 112, 1),
    (6, 5, 112, 1),
    (6, 5, 112, 1),
    (6, 5, 192, 2),
    (6, 5, 192, 1),
    (6, 5, 192, 1),
    (6, 5, 192, 1),
)


class Convolution(nn.Module):
    """Convolution with batch norm. At stride 2 TensorFlow pads an even map more below and right than above and left."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = kernel - stride
        self.pads = (padding // 2, padding - padding // 2) * 2
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(nn.functional.pad(x, self.pads)))
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that equals this one with its norm's running statistics."""
        mean, scale = statistics(self.norm)
        weight, bias = self.norm.weight * scale, self.norm.bias - self.norm.weight * scale * mean
        return self.convolution.weight * weight[:, None, None, None], bias


def statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean, and one over the running deviation."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    return mean, torch.rsqrt(variance + norm.eps)


class Bottleneck(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1, with a shortcut where shapes allow."""

    def __init__(self, channels_in: int, expansion: int, kernel: int, channels_out: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = Convolution(channels_in, hidden, kernel=1) if expansion > 1 else None
        self.depthwise = Convolution(hidden, hidden, kernel=kernel, stride=stride, groups=hidden)
        self.project = Convolution(hidden, channels_out, kernel=1)
        self.shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else nn.functional.relu6(self.expand(x))
        out: Tensor = self.project(nn.functional.relu6(self.depthwise(hidden)))
        return x + out if self.shortcut else out


class EfficientNetLite0(nn.Module):
    """[N, 3, H, W] of RGB, 0..255, → the outputs of its blocks, in order (`BLOCKS`). Sides are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM_CHANNELS, kernel=3, stride=2)
        channels = STEM_CHANNELS
        self.blocks: list[Bottleneck] = []
        for expansion, kernel, channels_out, stride in BLOCKS:
            self.blocks.append(Bottleneck(channels, expansion, kernel, channels_out, stride))
            channels = channels_out
        self.layers = nn.ModuleList(self.blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = nn.functional.relu6(self.stem((x - PIXEL_MEAN) / PIXEL_SCALE))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


def load_weights(network: EfficientNetLite0, weights: Mapping[str, Tensor]) -> None:
    """Copies the weights of `worker.model.package` into the network.

    Raises KeyError for a name that is missing, RuntimeError for another shape.
    """
    _load(network.stem, weights, "_conv_stem", "_bn0")
    for index, block in enumerate(network.blocks):
        name = f"_blocks.{index}"
        if block.expand is not None:
            _load(block.expand, weights, f"{name}._expand_conv", f"{name}._bn0")
        _load(block.depthwise, weights, f"{name}._depthwise_conv", f"{name}._bn1")
        _load(block.project, weights, f"{name}._project_conv", f"{name}._bn2")


def _load(layer: Convolution, weights: Mapping[str, Tensor], convolution: str, norm: str) -> None:
    layer.convolution.load_state_dict({"weight": weights[f"{convolution}.weight"]})
    names = ("weight", "bias", "running_mean", "running_var")
    layer.norm.load_state_dict(
        {name: weights[f"{norm}.{name}"] for name in names} | {"num_batches_tracked": torch.tensor(0)}
    )
