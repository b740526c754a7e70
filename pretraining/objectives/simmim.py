"""Masked image modelling without a decoder (SimMIM, Xie et al. 2022): a linear layer from each token to its pixels.

Beyond the RETINA paper. Unlike in ``mae`` the CNN takes part, and unlike in reconstruction no skip can carry the image
past the transformer. The linear layer is thrown away.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows, P = 256 pixels a cell.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nnunetv2_retina.network.transunet import STRIDE, TransUNet
from pretraining.augmentation.views import AugmentationSettings
from pretraining.objectives.blanked import BlankedPixels


class SimMIM(BlankedPixels):
    """Predict the pixels of blanked cells from their tokens.

    Args:
        network: ``TransUNet(1, 1, config)``.
        settings, cells: see ``BlankedCells``.
    """

    def __init__(self, network: TransUNet, settings: AugmentationSettings | None = None, **cells: Any) -> None:
        super().__init__(network, settings, **cells)
        self.head = nn.Linear(network.config.embed_dim, STRIDE**2)

    def predict(self, image: Tensor, places: Tensor, blank: Tensor) -> Tensor:
        """Return the pixels of every cell, (B, N, P) float32."""
        tokens, _ = self.encode(image, places)
        pixels: Tensor = self.head(tokens)
        return pixels.float()
