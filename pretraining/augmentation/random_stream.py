"""Random numbers of an endless stream of images: what a position gets depends on seed, purpose and position alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def uniforms(seed: int, purpose: int, first: int, count: int, numbers: int) -> NDArray[np.float64]:
    """Draw uniform numbers for the positions ``first`` to ``first + count - 1``.

    Args:
        seed: of the run, 0 to 2^64 - 1.
        purpose: keeps apart what is drawn for different purposes with one seed.
        first: position in the stream, from 0.
        count: of positions.
        numbers: for each position.

    Returns:
        (count, numbers) float64, 0 to below 1.
    """
    blocks = math.ceil(numbers / 4)  # Philox gives four numbers a step
    bits = np.random.Philox(key=np.array([seed, purpose], np.uint64)).advance(blocks * first)
    return np.random.Generator(bits).random((count, 4 * blocks))[:, :numbers]
