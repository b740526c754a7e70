"""The convolutional half of the 2D TransUNet: ResNet-V2 with weight-standardised convolutions and group norm.

Numerically equal to the hybrid R50 of Chen et al. (TransUNet, 2021), which RETINA (Xing et al. 2025) keeps: published
weights depend on the unpadded max-pool and on the zeros that it makes necessary (see ``ResNetV2.forward``).

Shapes: B batch, C channels, H and W height and width in pixels, multiples of 16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32


class StdConv2d(nn.Conv2d):
    """Convolution without bias whose kernels are standardised to mean 0, variance 1 (biased, eps 1e-5) at each call."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)

    def kernel(self) -> Tensor:
        """Return the standardised kernel, of the weight's shape.

        A layer norm over each kernel is this very thing, in one pass; ``torch.var_mean`` took a third of the time of a
        64 px image of size ``retina`` to find the same numbers.
        """
        return F.layer_norm(self.weight, self.weight.shape[1:], eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(x, self.kernel(), None)
        return y


class GroupNorm(nn.GroupNorm):
    """Group norm that accepts one value a group, which a 16 x 16 px image reaches; ``nn.GroupNorm`` refuses it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Bottleneck(nn.Module):
    """conv 1x1 -> 3x3 (carries the stride) -> 1x1, each followed by group norm, added to the shortcut, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = StdConv2d(in_channels, mid_channels, 1)
        self.norm1 = GroupNorm(GROUPS, mid_channels, eps=1e-6)
        self.conv2 = StdConv2d(mid_channels, mid_channels, 3, stride)
        self.norm2 = GroupNorm(GROUPS, mid_channels, eps=1e-6)
        self.conv3 = StdConv2d(mid_channels, out_channels, 1)
        self.norm3 = GroupNorm(GROUPS, out_channels, eps=1e-6)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            # One group a channel and PyTorch's default eps, as published.
            self.shortcut = nn.Sequential(
                StdConv2d(in_channels, out_channels, 1, stride), GroupNorm(out_channels, out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.shortcut(x) + self.norm3(self.conv3(y)))


class ResNetV2(nn.Module):
    """Stem and three stages of bottlenecks, 16 times smaller at the end.

    Args:
        in_channels: channels of the image.
        stem_channels: width of the stem; the stages have 4, 8 and 16 times as many channels.
        units: bottlenecks of each of the three stages.
    """

    def __init__(self, in_channels: int, stem_channels: int, units: tuple[int, int, int]) -> None:
        super().__init__()
        width = stem_channels
        self.stem = nn.Sequential(StdConv2d(in_channels, width, 7, 2), GroupNorm(GROUPS, width, eps=1e-6), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2)
        self.stages = nn.ModuleList(
            [
                self._stage(width, 4 * width, units[0], stride=1),
                self._stage(4 * width, 8 * width, units[1], stride=2),
                self._stage(8 * width, 16 * width, units[2], stride=2),
            ]
        )
        self.out_channels = 16 * width
        self.skip_channels = (8 * width, 4 * width, width)
        """Channels of the skips, deepest (1/8) first."""

    @staticmethod
    def _stage(in_channels: int, out_channels: int, units: int, stride: int) -> nn.Sequential:
        first = Bottleneck(in_channels, out_channels, out_channels // 4, stride)
        rest = [Bottleneck(out_channels, out_channels, out_channels // 4) for _ in range(units - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Turn (B, C, H, W) into features (B, 16 width, H/16, W/16) and skips at 1/8, 1/4 and 1/2, deepest first."""
        height, width = x.shape[-2:]
        x = self.stem(x)
        skips = [x]
        x = self.stages[0](self.pool(x))
        # The pool has no padding, so this map is one pixel short: H/4 - 1. The next stage takes it as it is and the
        # skip gets a zero row and column at the bottom and right (vit_seg_modeling_resnet_skip.py, forward).
        skips.insert(0, F.pad(x, (0, width // 4 - x.shape[-1], 0, height // 4 - x.shape[-2])))
        x = self.stages[1](x)
        skips.insert(0, x)
        return self.stages[2](x), skips
