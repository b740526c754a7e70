"""Masked image modelling without a decoder (SimMIM, Xie et al. 2022): a linear layer from each token to its pixels.

Beyond the RETINA paper. Unlike in ``mae`` the CNN takes part, and unlike in reconstruction no skip can carry the image
past the transformer. The linear layer is thrown away.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows, P = 256 pixels a cell.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_retina.network.transunet import STRIDE, TransUNet
from pretraining.augmentation.views import AugmentationSettings
from pretraining.objectives.blanked import BlankedCells
from pretraining.objectives.tokens import normalise_patches, patchify, unpatchify


class SimMIM(BlankedCells):
    """Predict the pixels of blanked cells: mean squared error over those, each cell normalised by itself.

    Args:
        network: ``TransUNet(1, 1, config)``.
        settings, cells: see ``BlankedCells``.
    """

    def __init__(self, network: TransUNet, settings: AugmentationSettings | None = None, **cells: Any) -> None:
        super().__init__(network, settings, **cells)
        self.head = nn.Linear(network.config.embed_dim, STRIDE**2)

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, ...]:
        """Draw input, places, blanked cells and the whole image, as ``draw_views`` does."""
        return self.draw_views(images, seed, first)

    def forward(self, *views: Tensor) -> Tensor:
        image, places, blank, whole = views
        target, _, _ = normalise_patches(patchify(whole))
        return (self._predict(image, places)[blank] - target[blank]).square().mean()

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return the input, the prediction in the blanked cells, and the whole image."""
        image, places, blank, whole = views
        _, mean, std = normalise_patches(patchify(whole))
        filled = torch.where(blank[:, :, None], self._predict(image, places) * std + mean, patchify(image))
        return {"input": image[:, 0], "output": unpatchify(filled, self.side), "whole": whole[:, 0]}

    def _predict(self, image: Tensor, places: Tensor) -> Tensor:
        """Return the pixels of every cell, (B, N, P) float32."""
        tokens, _ = self.encode(image, places)
        pixels: Tensor = self.head(tokens)
        return pixels.float()
