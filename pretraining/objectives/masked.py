"""Masked cells restored by the whole network: decoder and skips take part, the loss counts those cells.

Beyond the RETINA paper, whose holes are few, may overlap and do not lie on the token grid, and whose loss counts every
pixel. Each cell's target is normalised by itself, as in He et al. 2022: level and gain of an image, to which the CNN is
blind, are not asked for.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows, P = 256 pixels a cell.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nnunetv2_retina.network.transunet import TransUNet
from pretraining.augmentation.views import AugmentationSettings
from pretraining.objectives.blanked import BlankedPixels
from pretraining.objectives.tokens import patchify


class MaskedReconstruction(BlankedPixels):
    """Restore blanked cells.

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

    def predict(self, image: Tensor, places: Tensor, blank: Tensor) -> Tensor:
        """Return the pixels of every cell, (B, N, P) float32."""
        tokens, skips = self.encode(image, places)
        if self.hide_skips:
            seen = (~blank).float().unflatten(1, (self.side, self.side))[:, None]
            skips = [skip * F.interpolate(seen, skip.shape[-2:], mode="nearest") for skip in skips]
        return patchify(self.decode(tokens, skips))
