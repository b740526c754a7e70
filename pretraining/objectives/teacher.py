"""The network whose features are learned by distillation: EfficientNet-Lite0, trained on ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunetv2_retina.network.efficientnet import EfficientNetEncoder
from nnunetv2_retina.weights.efficientnet import imagenet_encoder


class Teacher:
    """A network that is neither trained nor saved: not an ``nn.Module``, so that no objective takes it for its part.

    Args:
        module: turns (B, 1, H, W) into features at 1/8 and at 1/16 of the size; it is frozen, in evaluation mode.
        channels: of the two.
    """

    def __init__(self, module: nn.Module, channels: tuple[int, int]) -> None:
        self.module = module.eval().requires_grad_(False)
        self.channels = channels

    @torch.no_grad()
    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the targets.

        Args:
            image: (B, 1, H, W) float32, mean 0 and variance 1; H and W multiples of 16.

        Returns:
            (B, fine channels, H / 8, W / 8) and (B, coarse channels, H / 16, W / 16) float32.
        """
        with torch.autocast(image.device.type, enabled=False):
            fine, coarse = self.module.to(image.device)(image)
        return fine, coarse


class _FineAndCoarse(nn.Module):
    """The features at 1/8 and at 1/16 alone."""

    def __init__(self, encoder: EfficientNetEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        *_, fine, coarse = self.encoder(image)
        return fine, coarse


def efficientnet_lite0() -> Teacher:
    """Return EfficientNet-Lite0 with its ImageNet weights; random generators stay as they are.

    Raises:
        RetinaError: if its packages are not installed.
    """
    encoder = imagenet_encoder()
    *_, fine, coarse = encoder.channels
    return Teacher(_FineAndCoarse(encoder), (fine, coarse))
