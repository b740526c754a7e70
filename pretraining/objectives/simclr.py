"""Contrastive learning on the CNN alone (SimCLR, Chen et al. 2020), one of the two arms that the RETINA paper dropped.

Two views of an image should have similar features, views of different images dissimilar ones. Trained is the CNN; the
projection head on top of its averaged features is thrown away.

Shapes: B images, C channels of the CNN's last stage.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import TransUNet
from pretraining.augmentation.views import AugmentationSettings, augment, draw
from pretraining.objectives.reconstruction import Objective

TEMPERATURE = 0.1
OUTPUTS = 128
_SECOND_VIEW = 0x73696D636C720000
"""What the seed of the second views differs by."""


class SimCLR(Objective):
    """Tell the second view of an image from the views of all others of its batch.

    Images matter to each other in the head alone, whose batch norm and contrast see the features of a whole batch,
    those of all processes: the loop computes ``embed`` in parts and ``contrast`` once.

    Args:
        network: ``TransUNet(1, 1, config)``.
        settings: the augmentation, which is applied as a whole to each view.
    """

    def __init__(self, network: TransUNet, settings: AugmentationSettings | None = None) -> None:
        super().__init__(network, ("cnn.",))
        self.settings = settings or AugmentationSettings()
        channels = network.cnn.out_channels
        # Batch norm in the head, as google-research/simclr has (model_util.py, projection_head): without it the pooled
        # features, all of them positive, start out so alike that the loss stays near that of a random guess.
        self.head = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Linear(channels, OUTPUTS, bias=False),
        )

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Draw two independent views of each image, (B, 1, H, W) float32 normalised; see ``Objective.prepare``."""
        first_view, second_view = (
            augment(images, draw(self.settings, view_seed, first, len(images)), self.settings).input
            for view_seed in (seed, seed ^ _SECOND_VIEW)
        )
        return first_view, second_view

    def forward(self, *views: Tensor) -> Tensor:
        """Return the mean loss, a float32 scalar, of these images alone; see ``contrast``."""
        return self.contrast(self.embed(*views))

    def embed(self, *views: Tensor) -> Tensor:
        """Return the CNN's features of two views of each image, averaged over the image: (B, 2, C) float32."""
        features, _ = self.network.cnn(torch.cat(views).expand(-1, 3, -1, -1))
        means: Tensor = features.float().mean(dim=(2, 3)).unflatten(0, (2, -1))
        return means.transpose(0, 1)

    def contrast(self, features: Tensor) -> Tensor:
        """Return the mean loss of a batch, (B, 2, C), a float32 scalar.

        Raises:
            RetinaError: for a single image, which has nothing to differ from.
        """
        if len(features) < 2:
            raise RetinaError("simclr: got one image; expected at least two, to tell apart. Raise the batch size")
        first, second = self.head(features.transpose(0, 1).flatten(0, 1)).chunk(2)
        with torch.autocast(first.device.type, enabled=False):
            return contrast(first.float(), second.float())

    def measure(self, *views: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the loss of these images; a single image, which has none, counts nothing."""
        return self.measure_embedded(self.embed(*views))

    def measure_embedded(self, features: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what ``measure`` does, from what ``embed`` returned."""
        count = torch.tensor(float(len(features)))
        return {"loss": (self.contrast(features) * count, count)} if count > 1 else {"loss": (count * 0, count * 0)}

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the CNN, where the time goes."""
        self.network.cnn.compile(*args, **options)


def contrast(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return NT-Xent, equation 1 of Chen et al.: cross entropy of finding each view's partner by cosine similarity.

    Args:
        first: (B, C) float32, one view of each image.
        second: (B, C) float32, the other.
        temperature: what similarities are divided by.
    """
    views = F.normalize(torch.cat([first, second]), dim=1)
    count = len(views)
    itself = torch.eye(count, dtype=torch.bool, device=views.device)
    similarity = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    return F.cross_entropy(similarity, torch.arange(count, device=views.device).roll(count // 2))
