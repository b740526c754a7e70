"""Distillation: predict the features that an ImageNet network has of the whole image from a part of it.

CNN, embedding and transformer get an image of which some 16 px cells are blanked, with noise added. A linear layer from
the tokens predicts the teacher's features at 1/16 of the size, a 1 x 1 convolution from the CNN's skip at 1/8 those at
1/8. Both layers are thrown away; the decoder takes no part.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) cells in rows, D = embed_dim.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_retina.network.transunet import STRIDE, TransUNet
from pretraining.augmentation.random_stream import uniforms
from pretraining.augmentation.views import AugmentationSettings, degrade, draw, geometry, normalise
from pretraining.objectives.reconstruction import Objective
from pretraining.objectives.teacher import Teacher
from pretraining.objectives.tokens import take

CNN_WEIGHT = 0.5
"""Of the loss at 1/8, beside that of the tokens."""
_STREAM = 0x64697374696C0000
"""Second half of the generator's key: crops and blanked cells are drawn independently of the augmentation."""
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


class Distillation(Objective):
    """Mean squared error of the predicted features, standardised per channel: that of the tokens, and half the CNN's.

    Args:
        network: ``TransUNet(1, 1, config)``.
        teacher: gives the targets.
        settings: the augmentation: its geometry makes the whole image, its degradation the network's input.
        crop: pixels along each side of the part of an image that is used, a multiple of 16; None: the whole image.
        blanked: share of the cells that the network does not see.
    """

    measured = ("loss", "token_loss", "blanked_loss", "cnn_loss")

    def __init__(
        self,
        network: TransUNet,
        teacher: Teacher,
        settings: AugmentationSettings | None = None,
        *,
        crop: int | None = None,
        blanked: float = 0.4,
    ) -> None:
        super().__init__(network, ("cnn.", "embedding.", "transformer."))
        self.settings = settings or AugmentationSettings()
        self.teacher = teacher
        self.grid = network.config.grid_size
        self.side = (crop or self.grid * STRIDE) // STRIDE
        self.blanked = blanked
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
        """Draw crops and cells, and ask the teacher; see ``Objective.prepare``.

        Returns:
            The input, (B, 1, H, W) float32; the places of its cells on the network's position grid, (B, N) int64;
            which of them are blanked, (B, N) bool; and the teacher's features at 1/8 and 1/16.
        """
        cells = self.side**2
        numbers = uniforms(seed, _STREAM, first, len(images), 2 + cells)
        crops, places = self._crop(images, numbers[:, :2])
        order = numbers[:, 2:].argsort(axis=1).argsort(axis=1)
        blank = torch.from_numpy(order < round(self.blanked * cells)).to(images.device)

        draws = draw(self.settings, seed, first, len(images))
        whole = geometry(crops, draws, self.settings)
        image = normalise(degrade(whole, draws, self.settings)[0], self.settings)[:, None]
        image.masked_fill_(self._pixels(blank)[:, None], 0)
        return image, places, blank, *self.teacher.features(normalise(whole, self.settings)[:, None])

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
        return {"input": views[0][:, 0], "error of the tokens": self._pixels(tokens.mean(2))}

    def _errors(self, image: Tensor, places: Tensor, blank: Tensor, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        """Return the squared errors of the tokens, (B, N, C), and of the CNN, (B, C, H / 8, W / 8), both float32."""
        network = self.network
        features, skips = network.cnn(image.expand(-1, 3, -1, -1))
        positions = take(network.embedding.pos_embed.expand(len(image), -1, -1), places)
        tokens = network.embedding.proj(features).flatten(2).transpose(1, 2) + positions
        tokens = self.token_head(network.transformer(network.embedding.dropout(tokens))).float()
        target = self.standard_coarse(coarse).flatten(2).transpose(1, 2)
        return (tokens - target).square(), (self.cnn_head(skips[0]).float() - self.standard_fine(fine)).square()

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

    def _pixels(self, cells: Tensor) -> Tensor:
        """Give every pixel its cell's value: (B, N) -> (B, H, W)."""
        grid: Tensor = cells.unflatten(1, (self.side, self.side))
        return grid.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)
