"""Near duplicates among the images of one source, by the Hamming distance of 64-bit difference hashes.

As the CEM projects curate (volume-em/cem-dataset, ``dataset/raw/crop_patches.py`` and
``dataset/deduplicated/deduplicate.py``): difference hash of 8 x 8 bits, within one source, distance <= 12 of 64 by
default. Two things differ: they shrink with Pillow's interpolation, here pixels are averaged over boxes in integers, so
that the hash is the same on every machine; and they keep a random image of each set of duplicates, here the first in
the order of the listing is kept, so that packing can be continued and repeated.

The cost is one comparison of every image with every kept one of its group, O(N^2): half a millisecond an image against
500,000 kept ones (measured), so two minutes for as many images in one group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretraining.store.layout import SIZE

_ROWS, _COLUMNS = 8, 9


def _column_weights() -> NDArray[np.int64]:
    """Return (224, 9): how much of each pixel lies in each of nine equal columns, in ninths of a pixel."""
    start = np.arange(SIZE)[:, None] * _COLUMNS
    box = np.arange(_COLUMNS)[None, :] * SIZE
    return (np.minimum(start + _COLUMNS, box + SIZE) - np.maximum(start, box)).clip(min=0).astype(np.int64)


_WEIGHTS = _column_weights()


def difference_hash(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return 64 bits an image: whether each of 8 x 9 box averages is darker than its right neighbour.

    Args:
        images: (B, 224, 224) uint8.

    Returns:
        (B,) uint64, the first row's leftmost bit highest.
    """
    rows = images.reshape(len(images), _ROWS, SIZE // _ROWS, SIZE).sum(axis=2, dtype=np.int64)
    boxes = rows @ _WEIGHTS
    bits = boxes[:, :, 1:] > boxes[:, :, :-1]
    return np.packbits(bits.reshape(len(images), 64), axis=1).view(">u8").astype(np.uint64).reshape(-1)


_BITS_OF_BYTE = np.array([bin(value).count("1") for value in range(256)], np.uint8)


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the number of bits set in each of (N,) uint64, for NumPy 1."""
    bits: NDArray[np.uint8] = _BITS_OF_BYTE[values.view(np.uint8)].reshape(-1, 8).sum(axis=1, dtype=np.uint8)
    return bits


count_bits: Callable[[NDArray[np.uint64]], NDArray[np.uint8]] = getattr(np, "bitwise_count", _count_bits)


class _Kept:
    """Hashes of the kept images of one group and those images' numbers, in arrays that grow."""

    def __init__(self) -> None:
        self.count = 0
        self.hashes: NDArray[np.uint64] = np.empty(64, np.uint64)
        self.images: NDArray[np.int64] = np.empty(64, np.int64)

    def append(self, hashes: NDArray[np.uint64], images: NDArray[np.int64]) -> None:
        needed = self.count + len(hashes)
        if needed > len(self.hashes):
            size = max(needed, 2 * len(self.hashes))
            self.hashes, self.images = np.resize(self.hashes, size), np.resize(self.images, size)
        self.hashes[self.count : needed] = hashes
        self.images[self.count : needed] = images
        self.count = needed


class NearDuplicates:
    """The kept images so far, up to 50 bytes each: the only part of packing whose memory grows with their number.

    Args:
        threshold: the largest Hamming distance, 0 to 64, at which two images count as duplicates.
    """

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self._groups: dict[int, _Kept] = {}

    def restore(self, index: NDArray[Any]) -> None:
        """Take up the records of a store's index that were written before packing was stopped."""
        for group in np.unique(index["group"]).tolist():
            images = np.flatnonzero(index["group"] == group)
            self._groups.setdefault(group, _Kept()).append(index["hash"][images], images)

    def find(self, group: int, value: int) -> int | None:
        """Return the number of the first kept image of this group within the threshold, or None."""
        kept = self._groups.get(group)
        if kept is None:
            return None
        near = count_bits(kept.hashes[: kept.count] ^ np.uint64(value)) <= self.threshold
        first = int(near.argmax())
        return int(kept.images[first]) if near[first] else None

    def add(self, group: int, value: int, image: int) -> None:
        """Note a kept image."""
        self._groups.setdefault(group, _Kept()).append(np.array([value], np.uint64), np.array([image]))
