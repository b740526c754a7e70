"""Masked cells restored by the whole network: decoder and skips take part, the loss counts those cells.

Beyond the RETINA paper, whose holes are few, may overlap and do not lie on the token grid, and whose loss counts every
pixel. Each cell's target is normalised by itself, as in He et al. 2022: level and gain of an image, to which the CNN is
blind, are not asked for.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_retina.network.transunet import TransUNet
from pretraining.augmentation.views import AugmentationSettings
from pretraining.objectives.blanked import BlankedCells
from pretraining.objectives.tokens import normalise_patches, patchify, unpatchify


class MaskedReconstruction(BlankedCells):
    """Restore blanked cells: mean squared error over those, each cell normalised by itself.

    Args:
        network: ``TransUNet(1, 1, config)``.
        settings, cells: see ``BlankedCells``; all of the network is trained.
        hide_skips: set the skips to 0 where cells are blanked, so that the decoder has the tokens alone there.
    """

    def __init__(
        self,
        network: TransUNet,
        settings: AugmentationSettings | None = None,
        *,
        together: int | None,
        hide_skips: bool = False,
        **cells: Any,
    ) -> None:
        super().__init__(network, settings, together=together, **cells)
        self.hide_skips = hide_skips

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, ...]:
        """Draw input, places, blanked cells and the whole image, as ``draw_views`` does."""
        return self.draw_views(images, seed, first)

    def forward(self, *views: Tensor) -> Tensor:
        image, places, blank, whole = views
        target, _, _ = normalise_patches(patchify(whole))
        return (patchify(self._restore(image, places, blank))[blank] - target[blank]).square().mean()

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return the input, what was restored in the blanked cells, and the whole image."""
        image, places, blank, whole = views
        _, mean, std = normalise_patches(patchify(whole))
        restored = patchify(self._restore(image, places, blank)) * std + mean
        filled = torch.where(blank[:, :, None], restored, patchify(image))
        return {"input": image[:, 0], "output": unpatchify(filled, self.side), "whole": whole[:, 0]}

    def _restore(self, image: Tensor, places: Tensor, blank: Tensor) -> Tensor:
        """Return the network's image, (B, 1, H, W) float32."""
        tokens, skips = self.encode(image, places)
        if self.hide_skips:
            seen = (~blank).float().unflatten(1, (self.side, self.side))[:, None]
            skips = [skip * F.interpolate(seen, skip.shape[-2:], mode="nearest") for skip in skips]
        return self.decode(tokens, skips)
