"""The transforms of the augmentation, on batches of grey images, in whole numbers.

All follow OpenCV 4's arithmetic for uint8 (fixed point; the constants below are its), so that results are equal to its
bit for bit, and the same on every device, for every number of threads and every batch. Images are (B, H, W) uint8. The
tables are made on the host, in NumPy, and taken where the images are.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLUR_WEIGHTS = {3: (128, 64), 5: (96, 64, 16), 7: (72, 56, 28, 8)}
"""Of the centre and of its neighbours at distance 1, 2, 3, in 256ths: OpenCV's fixed kernels for sigma = 0."""
_NOISE_BITS = 12
_NOISE_LEVELS = 1 << 16


def rotation_tables(
    angles: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Compute source coordinates of a rotation about the centre, as two parts to be added: of the column, of the row.

    Args:
        angles: (B,) degrees, counter-clockwise.
        height: of the images.
        width: of the images.

    Returns:
        (B, 2, W) and (B, 2, H): what a target column and a target row add to the source column and to the source row,
        in 1024ths of a pixel of the image with the margins of :func:`rotate`.
    """
    radians = np.deg2rad(angles)[:, None]
    cos, sin = np.cos(radians), np.sin(radians)
    x, y = np.arange(width), np.arange(height)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    columns = np.rint(1024 * np.stack([cos * x, sin * x], axis=1))
    shift_x = middle_x - cos * middle_x + sin * middle_y
    shift_y = middle_y - sin * middle_x - cos * middle_y
    rows = np.rint(1024 * np.stack([shift_x - sin * y, shift_y + cos * y], axis=1))
    margin_y, margin_x = _margins(height, width)
    rows += 1024 * np.array([[margin_x], [margin_y]]) + 16  # 16: half of a 32nd, to round
    return columns.astype(np.int32), rows.astype(np.int32)


def _margins(height: int, width: int) -> tuple[int, int]:
    """Return what rotated images need above and beside them."""
    diagonal = math.hypot(height, width)
    return int((diagonal - height) / 2) + 3, int((diagonal - width) / 2) + 3


def rotate(images: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Rotate; bilinear between 32nds of a pixel, mirrored at the border (``warpAffine``, ``BORDER_REFLECT_101``).

    Args:
        images: (B, H, W) uint8.
        columns: (B, 2, w) int32 of :func:`rotation_tables`, or a stretch of them: only these columns are made.
        rows: (B, 2, h) int32, likewise.

    Returns:
        (B, h, w) uint8.
    """
    padded = reflect(images, *_margins(*images.shape[1:])).to(torch.int32)
    # A pixel and the one below it in one number, so that one look-up gets both and one multiplication weights both.
    pairs = torch.add(padded[:, :-1], padded[:, 1:], alpha=1 << 16)
    places = (columns[:, :, None] + rows[..., None]).bitwise_right_shift_(5)
    shares = places & 31
    places.bitwise_right_shift_(5)
    index = places[:, 0].add(places[:, 1], alpha=pairs.shape[2])
    if len(images) > 1:
        index += _offsets(len(images), pairs[0].numel(), index)
    left = pairs.view(-1).index_select(0, index.view(-1)).view_as(index)
    right = pairs.view(-1).index_select(0, index.add_(1).view(-1)).view_as(index)
    both = right.sub_(left).mul_(shares[:, 0]).add_(left, alpha=32)
    upper = both & 0xFFFF
    lower = both.bitwise_right_shift_(16)
    lower.sub_(upper).mul_(shares[:, 1]).add_(upper, alpha=32)
    return lower.add_(512).bitwise_right_shift_(10).to(torch.uint8)


def _offsets(count: int, step: int, like: Tensor) -> Tensor:
    """Return where each image begins, (B, 1, 1)."""
    return torch.arange(0, count * step, step, dtype=like.dtype, device=like.device)[:, None, None]


def reflect(images: Tensor, margin_y: int, margin_x: int) -> Tensor:
    """Add margins of mirrored pixels; the edge pixels are not repeated, and wide margins mirror more than once."""
    rows, columns = (
        _mirrored(size, margin, images.device)
        for size, margin in zip(images.shape[1:], (margin_y, margin_x), strict=True)
    )
    wider = torch.gather(images, 2, columns.expand(*images.shape[:2], -1))
    return wider.index_select(1, rows)


@functools.lru_cache(maxsize=64)
def _mirrored(size: int, margin: int, device: torch.device) -> Tensor:
    index = torch.arange(-margin, size + margin, device=device).remainder_(2 * size - 2)
    return torch.minimum(index, 2 * size - 2 - index)


def resize_tables(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Find where the pixels of resized stretches come from, along one axis.

    Args:
        starts: (B,) first pixel of the stretch.
        lengths: (B,) of the stretch, in pixels.
        size: to resize it to.

    Returns:
        (B, 2 size) source pixels, inside the stretch: the first and then the second ones of all pixels; and (B, 2 size)
        their weights in 2048ths.
    """
    lengths = lengths[:, None]
    place = ((np.arange(size) + 0.5) * (lengths / size) - 0.5).astype(np.float32)
    near = np.floor(place)
    share = place - near
    pixels = np.clip(np.concatenate([near, near + 1], axis=1).astype(np.int64), 0, lengths - 1)
    weights = np.rint(np.concatenate([1 - share, share], axis=1) * np.float32(2048))
    return pixels + starts[:, None], weights.astype(np.int32)


def resize(images: Tensor, columns: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
    """Cut out and enlarge, bilinear (``resize``, ``INTER_LINEAR``).

    Args:
        images: (B, H, W) uint8.
        columns: (B, 2 w) int64 and (B, 2 w) int32 of :func:`resize_tables`.
        rows: (B, 2 h) int64 and (B, 2 h) int32, likewise.

    Returns:
        (B, h, w) uint8.
    """
    count, height, _ = images.shape
    pixels, weights = columns
    wide = torch.gather(images, 2, pixels[:, None].expand(-1, height, -1)).to(torch.int32).mul_(weights[:, None])
    wide = _sum_of_halves(wide, 2).bitwise_right_shift_(4)
    pixels, weights = rows
    if count > 1:
        pixels = pixels + _offsets(count, height, pixels)[:, 0]
    tall = wide.flatten(0, 1).index_select(0, pixels.flatten()).view(count, pixels.shape[1], -1)
    tall = _sum_of_halves(tall.mul_(weights[..., None]).bitwise_right_shift_(16), 1)
    return tall.add_(2).bitwise_right_shift_(2).to(torch.uint8)


def _sum_of_halves(values: Tensor, axis: int) -> Tensor:
    first, second = values.chunk(2, axis)
    return first + second


def contrast_tables(contrast: NDArray[np.float64], brightness: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (B, 256) new grey levels: old ones times ``contrast`` plus 255 ``brightness``, clipped and truncated."""
    levels = np.arange(256, dtype=np.float32) * contrast[:, None].astype(np.float32)
    levels += (brightness * 255)[:, None].astype(np.float32)
    return np.clip(levels, 0, 255).astype(np.uint8)


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace grey levels by those of (B, 256) tables."""
    index = images.to(torch.int32)
    if len(images) > 1:
        index += _offsets(len(images), 256, index)
    return tables.view(-1).index_select(0, index.view(-1)).view_as(images)


@functools.lru_cache(maxsize=8)
def _normal_quantiles(device: torch.device) -> Tensor:
    """Return the normal distribution at 65,536 equally likely places, in 4096ths of its deviation: (65536,) int32."""
    likely = (torch.arange(_NOISE_LEVELS, dtype=torch.float64) + 0.5) / _NOISE_LEVELS
    quantiles: Tensor = torch.special.ndtri(likely)
    return quantiles.mul_(1 << _NOISE_BITS).round_().to(device, torch.int32)


@functools.lru_cache(maxsize=64)
def _mixed_counter(pixels: int, device: torch.device) -> Tensor:
    """Return (pixels,) int32: 0, 1, 2, ... with bits mixed (multiply, exclusive or, shift, twice), all different."""
    counter = torch.arange(pixels)  # int64: holds the products of two 32-bit numbers
    for factor, shift in ((0x7FEB352D, 15), (0x846CA68B, 16)):
        counter = (counter ^ (counter >> 16)) * factor & 0xFFFFFFFF
        counter ^= counter >> shift
    return counter.to(torch.int32).to(device)


def normal_noise(keys: Tensor, pixels: int) -> Tensor:
    """Return normally distributed numbers that depend on the key and the pixel alone.

    The pixel's mixed number times one half of the key, made odd, plus the other half (multiply-shift hashing): the
    upper 16 bits choose one of 65,536 equally likely quantiles. No state, so images need not be visited one by one.

    Args:
        keys: (B, 2) int32, any bits.
        pixels: numbers for each key.

    Returns:
        (B, pixels) int32: 4096ths of a standard deviation, within +-4.33 of them.
    """
    hashed = (_mixed_counter(pixels, keys.device) * (keys[:, :1] | 1)).add_(keys[:, 1:])
    index = hashed.bitwise_right_shift_(16).bitwise_and_(_NOISE_LEVELS - 1)
    return _normal_quantiles(keys.device).index_select(0, index.view(-1)).view_as(index)


def add_noise(images: Tensor, deviations: Tensor, keys: Tensor) -> Tensor:
    """Add Gaussian noise; clipped, then truncated to whole grey levels.

    Args:
        images: (B, H, W) uint8.
        deviations: (B,) int32, 256ths of a grey level.
        keys: (B, 2) int32, see :func:`normal_noise`.
    """
    noise = normal_noise(keys, images[0].numel()).view_as(images).mul_(deviations[:, None, None])
    noise.add_(images, alpha=1 << (_NOISE_BITS + 8)).bitwise_right_shift_(_NOISE_BITS + 8)
    return noise.clamp_(0, 255).to(torch.uint8)


def blur(images: Tensor, size: int) -> Tensor:
    """Blur with a Gaussian kernel of 3, 5 or 7 pixels, mirrored at the border (``GaussianBlur`` with sigma 0)."""
    count, height, width = images.shape
    padded = reflect(images, size // 2, size // 2)
    pitch = padded.shape[2]
    # Long rows of numbers are added faster than short ones: sums that mix two rows or images are left out at the end.
    along = _weighted(padded.to(torch.int16).view(-1), size, 1).to(torch.int32).bitwise_and_(0xFFFF)  # was it unsigned
    both = _weighted(along, size, pitch).add_(1 << 15).bitwise_right_shift_(16)
    return both.as_strided((count, height, width), (padded[0].numel(), pitch, 1)).to(torch.uint8)


def _weighted(values: Tensor, size: int, step: int) -> Tensor:
    """Return sums of ``size`` numbers that lie ``step`` apart, with the weights of the blur."""
    radius, length = size // 2, len(values) - (size - 1) * step
    shifted = [values.narrow(0, place * step, length) for place in range(size)]
    centre, *weights = BLUR_WEIGHTS[size]
    total = shifted[radius] * centre
    for distance, weight in enumerate(weights, start=1):
        total.add_(shifted[radius - distance] + shifted[radius + distance], alpha=weight)
    return total


def hole_bits(starts: NDArray[np.int64], counts: NDArray[np.int64], hole: int, size: int) -> NDArray[np.int32]:
    """Find which holes a row or column lies in: bit k of word w stands for hole 32 w + k.

    Args:
        starts: (B, K) first row or column of the holes.
        counts: (B,) holes that count.
        hole: side of a hole in pixels.
        size: of the image along the axis.

    Returns:
        (B, ceil(K / 32), size) int32.
    """
    images, most = starts.shape
    number = np.arange(most)
    bits = np.where(number < counts[:, None], np.uint32(1) << (number % 32).astype(np.uint32), np.uint32(0))
    edges = np.zeros((images, -(-most // 32), size + 1), np.uint32)
    at = np.broadcast_to(np.arange(images)[:, None], starts.shape), np.broadcast_to(number // 32, starts.shape)
    for place in (starts, starts + hole):  # a bit is set where its hole begins and cleared where it ends
        np.bitwise_xor.at(edges, (*at, place), bits)
    return np.bitwise_xor.accumulate(edges, axis=2)[:, :, :size].view(np.int32)


def hole_mask(rows: Tensor, columns: Tensor) -> Tensor:
    """Mark the pixels whose row and column lie in the same hole, by :func:`hole_bits` of both: (B, H, W) bool."""
    words = [rows[:, word, :, None] & columns[:, word, None, :] for word in range(rows.shape[1])]
    return functools.reduce(torch.bitwise_or, words).to(torch.bool)


def fill(images: Tensor, mask: Tensor, value: int) -> Tensor:
    """Set the pixels of a (B, H, W) bool mask to a grey level."""
    filled = images * mask.logical_not()
    return filled.add_(mask, alpha=value) if value else filled
