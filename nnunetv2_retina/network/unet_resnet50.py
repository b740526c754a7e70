"""2D U-Net with a ResNet-50 encoder: the network of the CEM500K project's benchmarks (Conrad & Narayan, eLife 2021).

It is ``Unet("resnet50")`` of segmentation-models-pytorch, as volume-em/cem-dataset builds it (evaluation/finetune.py),
here with images of any size and a head whose keys nnU-Net's loader skips. The library is imported where a network is
built and nowhere else, and downloads nothing: weights come from ``retina_import_weights``.

Keys: ``unet.encoder.`` and torchvision's names of a ResNet-50, ``unet.decoder.``, ``head.seg_layers.0.``.
Shapes: B batch, C channels, H, W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError

STRIDE = 32
"""Pixels along each axis that a place of the encoder's last features stands for."""
ENCODER = "unet.encoder."
"""Prefix of the encoder's keys."""
STEM = f"{ENCODER}conv1.weight"
HEAD = "head.seg_layers.0.weight"
"""Keys that show the input channels and the classes."""


@dataclass(frozen=True)
class UNetConfig:
    """What a checkpoint says of this network, which comes in one size."""

    encoder: str = "resnet50"

    def __post_init__(self) -> None:
        if self.encoder != "resnet50":
            raise ValueError(f"unknown encoder {self.encoder!r}; there is resnet50")

    @property
    def name(self) -> str:
        """Return the size's name."""
        return self.encoder

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON files and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UNetConfig:
        """Build the record from what ``to_dict`` returns."""
        return cls(**values)


class Head(nn.Module):
    """The last layer, under keys that nnU-Net's loader skips."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.seg_layers = nn.ModuleList([layer])

    def forward(self, features: Tensor) -> Tensor:
        """Turn (B, 16, H, W) into (B, num_classes, H, W)."""
        logits: Tensor = self.seg_layers[0](features)
        return logits


class UNetResNet50(nn.Module):
    """Image to logits of the same size.

    Args:
        in_channels: channels of the image, each with weights of its own: grey is not repeated.
        num_classes: output channels.

    Raises:
        RetinaError: if segmentation-models-pytorch is not installed.
    """

    # Where nnU-Net's own pre-training tools look for the parts of an architecture.
    key_to_encoder = "unet.encoder"
    key_to_stem = "unet.encoder.conv1"
    keys_to_in_proj = ("unet.encoder.conv1",)
    key_to_lpe = None

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = UNetConfig()
        self.unet = _library().Unet(
            self.config.encoder, encoder_weights=None, in_channels=in_channels, classes=num_classes
        )
        self.head = Head(self.unet.segmentation_head[0])
        self.unet.segmentation_head = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            image: (B, in_channels, H, W) float, normalised; sides of any length (the lower and right border is
                repeated up to the next multiple of 32, the output cropped back).

        Returns:
            (B, num_classes, H, W) float32, under autocast too.
        """
        height, width = image.shape[-2:]
        bottom, right = -height % STRIDE, -width % STRIDE
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom), mode="replicate")
        logits: Tensor = self.head(self.unet(image))
        return logits[..., :height, :width].float()


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # timm uses what torch is about to drop
            import segmentation_models_pytorch
    except ImportError as error:
        raise RetinaError(
            "the UNet-ResNet50 needs segmentation-models-pytorch, which cannot be imported here "
            f'({error}). Run: pip install "nnunetv2-retina[study]"'
        ) from error
    return segmentation_models_pytorch
