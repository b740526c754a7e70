"""Masked autoencoder on the transformer alone (He et al. 2022), one of the two arms that the RETINA paper dropped.

The CNN takes no part: patches of 16 x 16 pixels are projected to tokens directly, of which the transformer sees a
quarter. A light decoder of this arm's own then predicts the pixels of the others. Trained are the transformer and the
position embeddings; the projection and the decoder are thrown away.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) patches in rows, P = 256 pixels a patch, D = embed_dim.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.starts import sine_positions
from nnunetv2_retina.network.transunet import STRIDE, Block, TransUNet
from pretraining.augmentation.random_stream import uniforms
from pretraining.augmentation.views import AugmentationSettings, draw, geometry, normalise
from pretraining.objectives.reconstruction import Objective
from pretraining.objectives.tokens import normalise_patches, patchify, take, unpatchify

VISIBLE_SHARE = 0.25
_MASK_STREAM = 0x6D61650000000000
"""Second half of the generator's key: masks are drawn independently of the augmentation, with the same seed."""


class MaskedAutoencoder(Objective):
    """Predict the pixels of hidden patches: mean squared error over those, each patch normalised by itself.

    Args:
        network: ``TransUNet(1, 1, config)``.
        settings: the augmentation, of which the geometry and the normalisation are used.
        decoder_blocks: of half the transformer's width.
    """

    positions: Tensor

    def __init__(
        self, network: TransUNet, settings: AugmentationSettings | None = None, *, decoder_blocks: int = 4
    ) -> None:
        super().__init__(network, ("transformer.", "embedding.pos_embed"))
        self.settings = settings or AugmentationSettings()
        config = network.config
        width, self.grid = config.embed_dim // 2, config.grid_size
        self.visible = round(self.grid**2 * VISIBLE_SHARE)
        light = replace(config, embed_dim=width, mlp_dim=4 * width, dropout=0.0)
        self.projection = nn.Linear(STRIDE**2, config.embed_dim)
        self.decoder_projection = nn.Linear(config.embed_dim, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.register_buffer("positions", sine_positions(self.grid, width), persistent=False)
        self.decoder = nn.Sequential(*(Block(light) for _ in range(decoder_blocks)), nn.LayerNorm(width, eps=1e-6))
        self.head = nn.Linear(width, STRIDE**2)

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Draw images and masks; see ``Objective.prepare``.

        Returns:
            (B, 1, H, W) float32, normalised; and (B, N) int64, the patches in random order, the visible ones first.

        Raises:
            RetinaError: if the images do not have as many patches as there are position embeddings.
        """
        side = self.grid * STRIDE
        if images.shape[1:] != (side, side):
            raise RetinaError(f"mae: got images of {tuple(images.shape[1:])} pixels; expected {side} x {side}")
        draws = draw(self.settings, seed, first, len(images))
        order = draw_orders(seed, first, len(images), self.grid**2)
        image = normalise(geometry(images, draws, self.settings), self.settings)[:, None]
        return image, torch.from_numpy(order).to(images.device)

    def forward(self, *views: Tensor) -> Tensor:
        image, order = views
        patches = patchify(image)
        predicted = self._predict(patches, order)
        hidden = order[:, self.visible :]
        target, _, _ = normalise_patches(take(patches, hidden))
        return (take(predicted, hidden) - target).square().mean()

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return what was visible, the prediction in place of the rest, and the whole."""
        image, order = views
        patches = patchify(image)
        _, mean, std = normalise_patches(patches)
        index = order[:, : self.visible, None].expand(-1, -1, STRIDE**2)
        seen = take(patches, order[:, : self.visible])
        masked = torch.zeros_like(patches).scatter(1, index, seen)
        output = (self._predict(patches, order) * std + mean).scatter(1, index, seen)
        titles = {"visible": masked, "output": output, "target": patches}
        return {title: unpatchify(values, self.grid) for title, values in titles.items()}

    def _predict(self, patches: Tensor, order: Tensor) -> Tensor:
        """Predict every patch from the visible ones: (B, N, P) and (B, N) -> (B, N, P) float32."""
        seen = order[:, : self.visible]
        positions = self.network.embedding.pos_embed.expand(len(patches), -1, -1)
        tokens = self.projection(take(patches, seen)) + take(positions, seen)
        tokens = self.decoder_projection(self.network.transformer(tokens))
        hidden = self.mask_token.to(tokens.dtype).expand(len(patches), order.shape[1] - self.visible, -1)
        tokens = take(torch.cat([tokens, hidden], dim=1), order.argsort(dim=1))
        pixels: Tensor = self.head(self.decoder(tokens + self.positions))
        return pixels.float()


def draw_orders(seed: int, first: int, count: int, patches: int) -> np.ndarray:
    """Return (count, patches) int64: a random order of the patches of each image, by its place in the stream alone."""
    return uniforms(seed, _MASK_STREAM, first, count, patches).argsort(axis=1)
