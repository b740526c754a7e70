"""What objectives have in common that blank cells of the network's input and train its tokens.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows, P = 256 pixels a cell, D = embed_dim.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnunetv2_retina.network.transunet import STRIDE, TransUNet
from pretraining.augmentation.random_stream import uniforms
from pretraining.augmentation.views import AugmentationSettings, degrade, draw, geometry, normalise
from pretraining.objectives.reconstruction import Objective, group_batch_norms
from pretraining.objectives.tokens import normalise_patches, patchify, take, unpatchify

_STREAM = 0x64697374696C0000
"""Second half of the generator's key: crops and blanked cells are drawn independently of the augmentation."""


class BlankedCells(Objective):
    """CNN, embedding and transformer see an image without some of its cells.

    Args:
        network: ``TransUNet(1, 1, config)``.
        settings: the augmentation: its geometry makes the whole image, its degradation the network's input.
        crop: pixels along each side of the part of an image that is used, a multiple of 16; None: the whole image.
        blanked: share of the cells that the network does not see.
        block: cells along each side of a square that is blanked as one.
        together: images that a batch norm of the decoder sees together, see ``BatchNorm``; None: the decoder takes no
            part, and is not trained.
    """

    def __init__(
        self,
        network: TransUNet,
        settings: AugmentationSettings | None = None,
        *,
        crop: int | None = None,
        blanked: float = 0.4,
        block: int = 1,
        together: int | None = None,
    ) -> None:
        encoder = ("cnn.", "embedding.", "transformer.")
        super().__init__(network, encoder if together is None else ("",))
        group_batch_norms(network, together)
        self.settings = settings or AugmentationSettings()
        self.grid = network.config.grid_size
        self.side = (crop or self.grid * STRIDE) // STRIDE
        self.blanked = blanked
        self.block = block

    def draw_views(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw crops and cells; arguments as of ``Objective.prepare``.

        Returns:
            The input, (B, 1, H, W) float32; the places of its cells on the network's position grid, (B, N) int64;
            which of them are blanked, (B, N) bool; and the whole image without noise, (B, 1, H, W) float32.
        """
        blocks = -(-self.side // self.block)
        numbers = uniforms(seed, _STREAM, first, len(images), 2 + blocks**2)
        crops, places = self._crop(images, numbers[:, :2])
        order = numbers[:, 2:].argsort(axis=1).argsort(axis=1)
        chosen = (order < round(self.blanked * blocks**2)).reshape(-1, blocks, blocks)
        cells = chosen.repeat(self.block, 1).repeat(self.block, 2)[:, : self.side, : self.side].reshape(len(images), -1)
        blank = torch.from_numpy(cells).to(images.device)

        draws = draw(self.settings, seed, first, len(images))
        whole = geometry(crops, draws, self.settings)
        image = normalise(degrade(whole, draws, self.settings)[0], self.settings)[:, None]
        image.masked_fill_(self.pixels(blank)[:, None], 0)
        return image, places, blank, normalise(whole, self.settings)[:, None]

    def encode(self, image: Tensor, places: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the tokens, (B, N, D), and the CNN's skips, deepest first."""
        network = self.network
        features, skips = network.cnn(image.expand(-1, 3, -1, -1))
        positions = take(network.embedding.pos_embed.expand(len(image), -1, -1), places)
        tokens = network.embedding.proj(features).flatten(2).transpose(1, 2) + positions
        return network.transformer(network.embedding.dropout(tokens)), skips

    def decode(self, tokens: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the decoder's image of tokens and skips, (B, 1, H, W) float32."""
        grid = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        image: Tensor = self.network.decoder(grid, skips)
        return image.float()

    def pixels(self, cells: Tensor) -> Tensor:
        """Give every pixel its cell's value: (B, N) -> (B, H, W)."""
        grid: Tensor = cells.unflatten(1, (self.side, self.side))
        return grid.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)

    def _crop(self, images: Tensor, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cut a part out of each image.

        Its cells keep the positions that they have in the whole image, to the nearest cell: neighbours are as far
        apart as in a network that gets whole images.

        Returns:
            (B, side, side) uint8 in pixels, and (B, N) int64.
        """
        size = self.side * STRIDE
        room = np.array(images.shape[1:]) - size
        corners = (numbers * (room + 1)).astype(np.int64)
        crops = [image[y : y + size, x : x + size] for image, (y, x) in zip(images, corners.tolist(), strict=True)]
        rows, columns = ((corners + STRIDE // 2) // STRIDE)[:, :, None].transpose(1, 0, 2) + np.arange(self.side)
        places = (rows[:, :, None] * self.grid + columns[:, None]).reshape(len(images), -1)
        return torch.stack(crops), torch.from_numpy(places).to(images.device)


class BlankedPixels(BlankedCells):
    """Predict the pixels of blanked cells: mean squared error over those, each cell normalised by itself."""

    def predict(self, image: Tensor, places: Tensor, blank: Tensor) -> Tensor:
        """Return the pixels of every cell, (B, N, P) float32."""
        raise NotImplementedError

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, ...]:
        """Draw input, places, blanked cells and the whole image, as ``draw_views`` does."""
        return self.draw_views(images, seed, first)

    def forward(self, *views: Tensor) -> Tensor:
        image, places, blank, whole = views
        target, _, _ = normalise_patches(patchify(whole))
        return (self.predict(image, places, blank)[blank] - target[blank]).square().mean()

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return the input, the prediction in the blanked cells, and the whole image."""
        image, places, blank, whole = views
        _, mean, std = normalise_patches(patchify(whole))
        predicted = self.predict(image, places, blank) * std + mean
        filled = torch.where(blank[:, :, None], predicted, patchify(image))
        return {"input": image[:, 0], "output": unpatchify(filled, self.side), "whole": whole[:, 0]}
