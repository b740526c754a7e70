"""The networks of several folds as one, and one call that builds it from plain numbers: what a shared model needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from nnunetv2_retina.network.config import NetworkConfig
from nnunetv2_retina.network.transunet import TransUNet


class Ensemble(nn.Module):
    """The mean of the logits of networks with equal inputs and outputs, as nnU-Net averages folds."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        first, *others = self.members
        logits: Tensor = first(image)
        for member in others:
            logits = logits + member(image)
        return logits / len(self.members)


def build(in_channels: int, num_classes: int, config: Mapping[str, Any], members: int = 1) -> nn.Module:
    """Build a ``TransUNet`` (image (B, in_channels, H, W) to logits (B, num_classes, H, W)), or the mean of several.

    Args:
        in_channels: channels of the image.
        num_classes: output channels.
        config: sizes of the network, as ``NetworkConfig.to_dict`` gives them.
        members: how many networks; the tensors of the i-th are called ``members.i....`` if there are several.

    Raises:
        ValueError: for sizes that do not fit together.
    """
    sizes = NetworkConfig.from_dict(config)
    if members == 1:
        return TransUNet(in_channels, num_classes, sizes)
    return Ensemble(TransUNet(in_channels, num_classes, sizes) for _ in range(members))
