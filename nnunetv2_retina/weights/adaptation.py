"""Weights made to fit a network of other channels, or of another position grid, than they were trained with."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights.compatibility import POSITIONS, Shapes, StateDict, network_of

CHANNELS = (1, 3)
"""Channels of the weights that are made to fit others: grey, alone or repeated, and colours."""


def adapted(weights: StateDict, shapes: Shapes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Make the stem's kernel and the position embeddings fit a network of this project, where they do not.

    Args:
        weights: of a file, by name.
        shapes: of the network's tensors.

    Returns:
        All the weights, and what was done to which: name -> words. What does not fit for another reason stays as it is.

    Raises:
        RetinaError: for position embeddings that are no square grid.
    """
    fitting, changes = dict(weights), {}
    network = network_of(shapes)
    stem = network.stem if network else ""
    if _differs(weights, shapes, stem, 4) and weights[stem].shape[1] in CHANNELS:
        channels = shapes[stem][1]
        fitting[stem] = stem_kernel(weights[stem], channels)
        changes[stem] = f"{weights[stem].shape[1]} input channels to {channels}: {_how(weights[stem], channels)}"
    if _differs(weights, shapes, POSITIONS, 3):
        theirs, ours = (_side(count) for count in (weights[POSITIONS].shape[1], shapes[POSITIONS][1]))
        fitting[POSITIONS] = resample_positions(weights[POSITIONS], ours)
        changes[POSITIONS] = f"resampled {theirs} x {theirs} to {ours} x {ours}"
    return fitting, changes


def stem_kernel(kernel: Tensor, channels: int) -> Tensor:
    """Make the kernel of a first convolution, (C, n, h, w), fit another number of channels, (C, channels, h, w).

    As timm does it (models/_manipulate.py, ``adapt_input_conv``): the kernels of the n channels are repeated in order
    and multiplied with n / channels, so that the output keeps its size; for one channel they are summed, which computes
    what the n channels compute from copies of it.
    """
    theirs = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel.repeat(1, math.ceil(channels / theirs), 1, 1)[:, :channels] * (theirs / channels)


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Resample (1, N, D) on a square grid to (1, grid * grid, D), as the network does for another token grid."""
    side = _side(positions.shape[1])
    square = positions.transpose(1, 2).reshape(1, -1, side, side)
    return F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def _differs(weights: StateDict, shapes: Shapes, name: str, axes: int) -> bool:
    """Tell whether a tensor differs in its second axis alone."""
    if name not in weights or name not in shapes or weights[name].ndim != axes:
        return False
    mine, theirs = shapes[name], tuple(weights[name].shape)
    return mine[1] != theirs[1] and (mine[0], *mine[2:]) == (theirs[0], *theirs[2:])


def _how(kernel: Tensor, channels: int) -> str:
    return "summed" if channels == 1 else f"repeated in order, times {kernel.shape[1]}/{channels}"


def _side(count: int) -> int:
    side = math.isqrt(count)
    if side**2 != count:
        raise RetinaError(f"the position embeddings have {count} entries, which is no square grid")
    return side
