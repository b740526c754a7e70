"""From the bytes of an image file to grey 224 x 224 tiles. The rules, in the order in which they apply:

- TIFF (every page; thumbnails and masks inside a file are left out), PNG, JPEG, BMP and NIfTI (every slice along its
  third axis), recognised by their first bytes. An empty, truncated or otherwise unreadable file is rejected; of a stack
  all pages must be readable.
- Colour: if the channels are equal, that channel; else luma as OpenCV's ``IMREAD_GRAYSCALE`` computes it (ITU-R 601;
  the authors read so). Alpha is dropped. Palettes are looked up; zero-is-white images are inverted; 1 bit is 0 or 255.
- uint8 stays as it is; int8 is shifted by 128. All wider types are mapped linearly to 0-255 from the 0.1 to the 99.9
  percentile of all pixels of the file (not from minimum and maximum: one hot pixel would flatten the image) and
  clipped. A file with values that are not finite is rejected.
- 224 x 224 is taken as it is. Larger images are cut into tiles from the top left, without overlap; what remains at the
  right and at the bottom is kept if it is at least 112 px wide and high (CEM500K's curation, Conrad & Narayan 2021).
  Those remainders, and whole images from 112 px on, are filled up to 224 by mirroring (reflect-101). Images with a side
  below 112 px are rejected as too small.
- A tile with one value everywhere is rejected.

A file is decoded whole: memory grows with the largest file. One that says it is far larger than its bytes can hold, or
that does not fit into memory, is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.images.picture import Array
from pretraining.store.decoding import TOO_LARGE, UNREADABLE, RejectionError, decode
from pretraining.store.duplicates import difference_hash
from pretraining.store.layout import SIZE, fastest_crc32

Place = tuple[int, int, int]
"""Page, y and x of a tile in its file; -1 where there is only one."""

SMALLEST = SIZE // 2
"""Sides below this are not taken."""
PERCENTILES = (0.1, 99.9)
WHOLE: Place = (-1, -1, -1)
NOT_FINITE, TOO_SMALL, CONSTANT = "not finite", "too small", "constant"


@dataclass(frozen=True)
class Tiles:
    """What one file gave."""

    images: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, SIZE, SIZE), np.uint8))
    """(K, 224, 224)."""
    places: tuple[Place, ...] = ()
    checksums: tuple[int, ...] = ()
    """CRC-32 of each image."""
    hashes: tuple[int, ...] = ()
    """Difference hash of each image, 0 if none was asked for."""
    sums: tuple[int, ...] = ()
    """Sum of each image's pixels."""
    squares: tuple[int, ...] = ()
    """Sum of each image's squared pixels."""
    rejected: tuple[tuple[Place, str], ...] = ()


def read_tiles(data: bytes, hashes: bool = False) -> Tiles:
    """Decode a file's content and cut it. Never raises for what is in the file: that is in ``rejected``.

    Args:
        data: the content of an image file.
        hashes: whether to compute difference hashes.
    """
    try:
        return _cut_pages(to_uint8(decode(data)), hashes)
    except RejectionError as rejection:
        return Tiles(rejected=((WHOLE, str(rejection)),))
    except MemoryError:
        return Tiles(rejected=((WHOLE, f"{TOO_LARGE}: it does not fit into memory"),))


def _cut_pages(pages: list[NDArray[np.uint8]], hashes: bool) -> Tiles:
    images: list[NDArray[np.uint8]] = []
    places: list[Place] = []
    rejected: list[tuple[Place, str]] = []
    for number, page in enumerate(pages):
        label = number if len(pages) > 1 else -1
        try:
            for y, x, tile in cut(page):
                if (tile == tile[0, 0]).all():
                    rejected.append(((label, y, x), f"{CONSTANT}: all pixels are {tile[0, 0]}"))
                else:
                    images.append(tile)
                    places.append((label, y, x))
        except RejectionError as rejection:
            rejected.append(((label, -1, -1), str(rejection)))
    return _describe(images, tuple(places), tuple(rejected), hashes)


def _describe(
    images: list[NDArray[np.uint8]], places: tuple[Place, ...], rejected: tuple[tuple[Place, str], ...], hashes: bool
) -> Tiles:
    if not images:
        return Tiles(rejected=rejected)
    stack = np.stack(images)
    flat = stack.reshape(len(stack), -1)
    return Tiles(
        stack,
        places,
        tuple(map(fastest_crc32(), flat)),
        tuple(difference_hash(stack).tolist()) if hashes else (0,) * len(stack),
        tuple(flat.sum(axis=1, dtype=np.int64).tolist()),
        tuple(np.square(flat, dtype=np.uint32).sum(axis=1, dtype=np.int64).tolist()),
        rejected,
    )


def cut(page: NDArray[np.uint8]) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield the tiles of an image.

    Args:
        page: (Y, X) uint8.

    Yields:
        y and x of the tile's top left corner (both -1 if the image is no larger than a tile), and (224, 224) uint8.

    Raises:
        RejectionError: if a side is shorter than 112.
    """
    height, width = page.shape
    if min(height, width) < SMALLEST:
        raise RejectionError(f"{TOO_SMALL}: {width} x {height} pixels, both sides must be at least {SMALLEST}")
    whole = max(height, width) <= SIZE
    for y in range(0, height - SMALLEST + 1, SIZE):
        for x in range(0, width - SMALLEST + 1, SIZE):
            tile = page[y : y + SIZE, x : x + SIZE]
            if tile.shape != (SIZE, SIZE):
                tile = tile[np.ix_(_mirrored(tile.shape[0]), _mirrored(tile.shape[1]))]
            yield (-1, -1, tile) if whole else (y, x, tile)


def _mirrored(length: int) -> NDArray[np.int64]:
    """Return (224,): which of ``length`` pixels fills each place, mirrored at the last one (reflect-101)."""
    position = np.arange(SIZE) % (2 * (length - 1))
    return np.where(position < length, position, 2 * (length - 1) - position)


def to_uint8(pages: list[Array]) -> list[NDArray[np.uint8]]:
    """Map the grey pages of one file, of any type, to 0-255.

    Args:
        pages: (Y, X) each.

    Raises:
        RejectionError: for values that are not finite, or a file with one value throughout.
    """
    wide = [page.ravel() for page in pages if page.dtype.itemsize > 1]
    low, high = limits(wide) if wide else (0.0, 0.0)
    return [page_to_uint8(page, low, high) for page in pages]


def limits(pages: list[Array]) -> tuple[float, float]:
    """Return the grey values that become 0 and 255.

    Args:
        pages: flat arrays of one type.

    Raises:
        RejectionError: for values that are not finite, or one value throughout.
    """
    values = np.concatenate(pages)
    if values.dtype.kind not in "uif":
        raise RejectionError(f"{UNREADABLE}: values of type {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RejectionError(
            f"{NOT_FINITE}: {np.count_nonzero(~np.isfinite(values))} pixels are infinite or not a number"
        )
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    low, high = np.percentile(values, PERCENTILES).tolist()
    if low == high:
        raise RejectionError(f"{CONSTANT}: the {PERCENTILES[0]} and {PERCENTILES[1]} percentiles are both {low:g}")
    return low, high


def page_to_uint8(page: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Map a page of any type to 0-255; ``low`` and ``high``, for types wider than 8 bits, are those of ``limits``."""
    if page.dtype == np.int8:
        return page.view(np.uint8) ^ np.uint8(128)
    if page.dtype == np.uint8:
        return page
    scaled = (page.astype(np.float64) - low) * (255 / (high - low))
    grey: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return grey
