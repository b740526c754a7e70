"""Images as tokens: patches of 16 x 16 pixels, in rows.

Shapes: B images of H x W pixels, N = (H / 16) (W / 16) patches, P = 256 pixels a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunetv2_retina.network.transunet import STRIDE


def take(values: Tensor, index: Tensor) -> Tensor:
    """Take rows by their number: (B, N, C) and (B, K) -> (B, K, C)."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def patchify(image: Tensor) -> Tensor:
    """Cut images into patches: (B, 1, H, W) -> (B, N, P)."""
    patches: Tensor = image[:, 0].unflatten(2, (-1, STRIDE)).unflatten(1, (-1, STRIDE))  # (B, h, 16, w, 16)
    return patches.transpose(2, 3).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, grid: int) -> Tensor:
    """Put grid x grid patches together: (B, N, P) -> (B, H, W)."""
    image: Tensor = patches.unflatten(2, (STRIDE, STRIDE)).unflatten(1, (grid, grid)).transpose(2, 3)
    return image.flatten(3, 4).flatten(1, 2)


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each patch mean 0 and variance 1: (B, N, P) -> the same, and means and standard deviations, (B, N, 1)."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    std = (variance + 1e-6).sqrt()
    return (patches - mean) / std, mean, std
