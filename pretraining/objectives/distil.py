"""Distillation: predict the features that an ImageNet network has of the whole image from a part of it.

CNN, embedding and transformer get an image of which some 16 px cells are blanked, with noise added. A linear layer from
the tokens predicts the teacher's features at 1/16 of the size, a 1 x 1 convolution from the CNN's skip at 1/8 those at
1/8. Both layers are thrown away. The decoder takes part only where the image is to be restored, too.

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
        settings, cells: see ``BlankedCells``.
        restore: weight of the mean squared error of the decoder's image, which is to be the whole one, each normalised
            as the settings say; 0: the decoder takes no part, and ``together`` must be None.
    """

    measured: tuple[str, ...] = ("loss", "token_loss", "blanked_loss", "cnn_loss")

    def __init__(
        self,
        network: TransUNet,
        teacher: Teacher,
        settings: AugmentationSettings | None = None,
        *,
        restore: float = 0.0,
        **cells: Any,
    ) -> None:
        super().__init__(network, settings, **cells)
        self.teacher = teacher
        self.restore = restore
        if restore:
            self.measured = (*self.measured, "restored_loss")
        fine, coarse = teacher.channels
        self.token_head = nn.Linear(network.config.embed_dim, coarse)
        self.cnn_head = nn.Conv2d(network.cnn.skip_channels[0], fine, 1)
        self.standard_fine, self.standard_coarse = Standardisation(fine), Standardisation(coarse)

    @torch.no_grad()
    def begin(self, images: Tensor, seed: int) -> None:
        """Standardise the teacher's features by some images; see ``Objective.begin``."""
        _, _, _, whole = self.draw_views(images, seed, _SAMPLE)
        fine, coarse = self.teacher.features(whole)
        self.standard_fine.fit(fine)
        self.standard_coarse.fit(coarse)

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, ...]:
        """Draw what ``draw_views`` does, and the teacher's features of the whole image at 1/8 and 1/16."""
        *views, whole = self.draw_views(images, seed, first)
        return *views, whole, *self.teacher.features(whole)

    def forward(self, *views: Tensor) -> Tensor:
        return self._loss(*self._errors(*views))

    def measure(self, *views: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``loss``, its two parts, and the tokens' part over blanked cells alone: 1 is what the mean costs."""
        errors = tokens, cnn, image = self._errors(*views)
        images, blank = torch.tensor(float(len(tokens))), views[2]
        measured = {
            "loss": (self._loss(*errors) * images, images),
            "token_loss": (tokens.mean() * images, images),
            "blanked_loss": (tokens.mean(2)[blank].sum(), blank.sum()),
            "cnn_loss": (cnn.mean() * images, images),
            "restored_loss": (image.mean() * images, images),
        }
        return {name: measured[name] for name in self.measured}

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return the input and the error of each token."""
        tokens, _, _ = self._errors(*views)
        return {"input": views[0][:, 0], "error of the tokens": self.pixels(tokens.mean(2))}

    def _loss(self, tokens: Tensor, cnn: Tensor, image: Tensor) -> Tensor:
        loss = tokens.mean() + CNN_WEIGHT * cnn.mean()
        return loss + self.restore * image.mean() if self.restore else loss

    def _errors(
        self, image: Tensor, places: Tensor, blank: Tensor, whole: Tensor, fine: Tensor, coarse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return squared errors, float32, of the tokens, (B, N, C); of the CNN, (B, C, H / 8, W / 8); and of the
        restored image, (B, 1, H, W), or a single 0 where none is restored.
        """
        tokens, skips = self.encode(image, places)
        target = self.standard_coarse(coarse).flatten(2).transpose(1, 2)
        return (
            (self.token_head(tokens).float() - target).square(),
            (self.cnn_head(skips[0]).float() - self.standard_fine(fine)).square(),
            (self.decode(tokens, skips) - whole).square() if self.restore else image.new_zeros(1),
        )
