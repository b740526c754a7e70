"""Distillation: predict the features that an ImageNet network has of the whole image from a part of it.

CNN, embedding and transformer get an image of which some 16 px cells are blanked, with noise added. A linear layer from
the tokens predicts the teacher's features at 1/16 of the size, a 1 x 1 convolution from the CNN's skip at 1/8 those at
1/8. Both layers are thrown away; the decoder takes no part.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows, D = embed_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_retina.network import TransUNet
from pretraining.augmentation.views import AugmentationSettings
from pretraining.objectives.blanked import BlankedCells
from pretraining.objectives.teacher import Teacher

CNN_WEIGHT = 0.5
"""Of the loss at 1/8, beside that of the tokens."""
_SAMPLE = 2**41
"""Position in the stream of the images by which features are standardised; no other image gets there."""


class Standardisation(nn.Module):
    """Give each channel of (B, C, h, w) mean 0 and variance 1 over a sample; saved with the run."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def fit(self, sample: Tensor) -> None:
        """Take mean and deviation from a sample, (B, C, h, w)."""
        variance, mean = torch.var_mean(sample.double(), dim=(0, 2, 3))
        self.mean.copy_(mean[:, None, None])
        self.std.copy_((variance + 1e-12).sqrt()[:, None, None])

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


class Distillation(BlankedCells):
    """Mean squared error of the predicted features, standardised per channel: that of the tokens, and half the CNN's.

    Args:
        network: ``TransUNet(1, 1, config)``.
        teacher: gives the targets.
        settings, crop, blanked: see ``BlankedCells``.
    """

    measured = ("loss", "token_loss", "blanked_loss", "cnn_loss")

    def __init__(
        self,
        network: TransUNet,
        teacher: Teacher,
        settings: AugmentationSettings | None = None,
        **cells: Any,
    ) -> None:
        super().__init__(network, settings, **cells)
        self.teacher = teacher
        fine, coarse = teacher.channels
        self.token_head = nn.Linear(network.config.embed_dim, coarse)
        self.cnn_head = nn.Conv2d(network.cnn.skip_channels[0], fine, 1)
        self.standard_fine, self.standard_coarse = Standardisation(fine), Standardisation(coarse)

    @torch.no_grad()
    def begin(self, images: Tensor, seed: int) -> None:
        """Standardise the teacher's features by some images; see ``Objective.begin``."""
        *_, fine, coarse = self.prepare(images, seed, _SAMPLE)
        self.standard_fine.fit(fine)
        self.standard_coarse.fit(coarse)

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, ...]:
        """Draw input, places and blanked cells as ``draw_views``, and the teacher's features at 1/8 and 1/16."""
        image, places, blank, whole = self.draw_views(images, seed, first)
        return image, places, blank, *self.teacher.features(whole)

    def forward(self, *views: Tensor) -> Tensor:
        tokens, cnn = self._errors(*views)
        return tokens.mean() + CNN_WEIGHT * cnn.mean()

    def measure(self, *views: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``loss``, its two parts, and the tokens' part over blanked cells alone: 1 is what the mean costs."""
        tokens, cnn = self._errors(*views)
        images, blank = torch.tensor(float(len(tokens))), views[2]
        return {
            "loss": ((tokens.mean() + CNN_WEIGHT * cnn.mean()) * images, images),
            "token_loss": (tokens.mean() * images, images),
            "blanked_loss": (tokens.mean(2)[blank].sum(), blank.sum()),
            "cnn_loss": (cnn.mean() * images, images),
        }

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return the input and the error of each token."""
        tokens, _ = self._errors(*views)
        return {"input": views[0][:, 0], "error of the tokens": self.pixels(tokens.mean(2))}

    def _errors(self, image: Tensor, places: Tensor, blank: Tensor, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        """Return the squared errors of the tokens, (B, N, C), and of the CNN, (B, C, H / 8, W / 8), both float32."""
        tokens, skips = self.encode(image, places)
        predicted = self.token_head(tokens).float()
        target = self.standard_coarse(coarse).flatten(2).transpose(1, 2)
        return (predicted - target).square(), (self.cnn_head(skips[0]).float() - self.standard_fine(fine)).square()
