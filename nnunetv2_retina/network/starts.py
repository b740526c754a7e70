"""What a TransUNet can begin with instead of the published start: sine positions, mimetic attention.

Both are open to pre-training and to random baselines alike, so that a good start is not taken for something learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunetv2_retina.network.transunet import Attention, TransUNet

QUERY_KEY, VALUE_OUT = 0.7, 0.4
"""Shares of noise and of (plus, minus) identity in the two products of a mimetic attention."""


def sine_positions(grid: int, width: int) -> Tensor:
    """Return (1, grid * grid, width) float32: sines and cosines of the row and of the column, as in He et al. 2022."""
    frequencies = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    rows, columns = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)[None].float()


def begin(network: TransUNet, positions: str, attention: str) -> None:
    """Give a fresh network, on any device, the start that settings name; the stream of random numbers stays as it was.

    Args:
        network: at its published start.
        positions: of ``protocol.POSITIONS``; ``sine`` sets the position embeddings, which stay trainable.
        attention: of ``protocol.ATTENTION``; ``mimetic`` sets every attention as ``_mimic`` does.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if positions == "sine":
            embedding = network.embedding.pos_embed
            embedding.copy_(sine_positions(network.config.grid_size, network.config.embed_dim))
        if attention == "mimetic":
            for module in network.transformer.modules():
                if isinstance(module, Attention):
                    _mimic(module)


def _mimic(attention: Attention) -> None:
    """Set an attention to what those of trained vision transformers look like (Trockman, Kolter, ICML 2023, section 3).

    The product of each head's query and key weights is near the identity, that of the value and output weights near
    the negative identity; biases are 0. Each product, noise of variance 1 / D plus the identity, is halved by its
    singular values; a head keeps the first D / heads of them.
    """
    width, heads = attention.query.in_features, attention.num_heads
    for head in range(heads):
        rows = slice(head * width // heads, (head + 1) * width // heads)
        left, right = _halves(width, QUERY_KEY, +1)
        attention.query.weight[rows].copy_(left.T[: width // heads])
        attention.key.weight[rows].copy_(right[: width // heads])
    left, right = _halves(width, VALUE_OUT, -1)
    attention.proj.weight.copy_(left)
    attention.value.weight.copy_(right)
    for layer in (attention.query, attention.key, attention.value, attention.proj):
        layer.bias.zero_()


def _halves(width: int, share: float, sign: int) -> tuple[Tensor, Tensor]:
    """Return two (width, width) matrices of equal singular values whose product is noise and the signed identity."""
    product = share * (torch.randn(width, width) / width**0.5 + sign * torch.eye(width))
    left, values, right = torch.linalg.svd(product)
    return left * values.sqrt(), values.sqrt()[:, None] * right
