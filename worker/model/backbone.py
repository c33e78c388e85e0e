"""MobileNetV2 (Sandler et al., 2018, table 2, width 1.0) up to block 15, in Keras's padding."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH_NORM_EPSILON = 1e-3

BLOCKS: tuple[tuple[int, int, int], ...] = (
    # expansion, channels out, stride; block 0 is Keras's `expanded_conv`.
    # Its block 16 and last convolution serve classification and did not help here (the lab notebook).
    (1, 16, 1),
    (6, 24, 2),
    (6, 24, 1),
    (6, 32, 2),
    (6, 32, 1),
    (6, 32, 1),
    (6, 64, 2),
    (6, 64, 1),
    (6, 64, 1),
    (6, 64, 1),
    (6, 96, 1),
    (6, 96, 1),
    (6, 96, 1),
    (6, 160, 2),
    (6, 160, 1),
    (6, 160, 1),
)


class Convolution(nn.Module):
    """Convolution with batch norm. At stride 2 Keras pads below and right only, where PyTorch would pad all around."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.pads = (0, 1, 0, 1) if stride == 2 else (kernel // 2,) * 4
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
    """Inverted residual: expand 1x1, depthwise 3x3, project 1x1, with a shortcut where shapes allow."""

    def __init__(self, channels_in: int, expansion: int, channels_out: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = Convolution(channels_in, hidden, kernel=1) if expansion > 1 else None
        self.depthwise = Convolution(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = Convolution(hidden, channels_out, kernel=1)
        self.shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else nn.functional.relu6(self.expand(x))
        out: Tensor = self.project(nn.functional.relu6(self.depthwise(hidden)))
        return x + out if self.shortcut else out


class MobileNetV2(nn.Module):
    """[N, 3, H, W] of 0..1 RGB → the outputs of its blocks, in order (block i: `BLOCKS[i]`)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, kernel=3, stride=2)
        channels = 32
        self.blocks: list[Bottleneck] = []
        for expansion, channels_out, stride in BLOCKS:
            self.blocks.append(Bottleneck(channels, expansion, channels_out, stride))
            channels = channels_out
        self.layers = nn.ModuleList(self.blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = nn.functional.relu6(self.stem(x))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


@torch.no_grad()
def load_keras_weights(network: MobileNetV2, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copies Keras's MobileNetV2 weights, by name, into the network. Raises KeyError for a name that is missing."""
    _load(network.stem, weights, "Conv1/kernel", "bn_Conv1")
    for index, block in enumerate(network.blocks):
        name = f"block_{index}" if index else "expanded_conv"
        if block.expand is not None:
            _load(block.expand, weights, f"{name}_expand/kernel", f"{name}_expand_BN")
        _load(block.depthwise, weights, f"{name}_depthwise/depthwise_kernel", f"{name}_depthwise_BN")
        _load(block.project, weights, f"{name}_project/kernel", f"{name}_project_BN")


def _load(layer: Convolution, weights: Mapping[str, NDArray[np.float32]], kernel: str, norm: str) -> None:
    # Keras: [height, width, in, out], for a depthwise kernel [height, width, channels, 1]; PyTorch: [out, in, h, w].
    order = (2, 3, 0, 1) if layer.convolution.groups > 1 else (3, 2, 0, 1)
    layer.convolution.weight.copy_(torch.from_numpy(weights[kernel].transpose(order).copy()))
    layer.norm.load_state_dict(
        {
            ours: torch.from_numpy(weights[f"{norm}/{theirs}"])
            for ours, theirs in (
                ("weight", "gamma"),
                ("bias", "beta"),
                ("running_mean", "moving_mean"),
                ("running_var", "moving_variance"),
            )
        }
        | {"num_batches_tracked": torch.tensor(0)}
    )
