"""The published augmentation, for a whole batch, on the device of the images.

    draws = draw(settings, seed, first, count)       # on the host: which image gets what
    views = augment(images, draws, settings)         # on the device: input and target

Three stages, as in the released code (``pretrainer.py`` of BaderLab/RETINA): :func:`geometry` makes the target of an
image, :func:`degrade` makes the input of the target, :func:`normalise` is for both. Every transform takes and gives
uint8 and rounds as albumentations 1.3.1 with OpenCV 4 does. Before the normalisation all arithmetic is in whole
numbers: an image's views are the same on CPU and GPU, in every batch and for every number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from pretraining.augmentation import ops
from pretraining.augmentation.draws import BLUR_SIZES, AugmentationSettings, Draws, crop_boxes, draw

__all__ = ["AugmentationSettings", "Draws", "Views", "augment", "degrade", "draw", "geometry", "normalise"]

SMALLEST = 32
"""Side of an image, in pixels."""


@dataclass(frozen=True)
class Views:
    """What the network gets and what it has to give back."""

    input: Tensor
    """(B, 1, H, W) float32, normalised."""
    target: Tensor
    """(B, 1, H, W) float32, normalised."""
    holes: Tensor
    """(B, 1, H, W) bool: pixels of the input that are blanked."""
    changed: Tensor
    """(B, 1, H, W) bool: pixels whose grey levels differ between input and target, before the normalisation."""


def augment(images: Tensor, draws: Draws, settings: AugmentationSettings) -> Views:
    """Make input and target of every image.

    Args:
        images: (B, H, W) uint8, on any device; H and W at least 32.
        draws: of as many images.
        settings: those of the draws.

    Raises:
        RetinaError: if the images are not of this kind, or not as many as the draws.
    """
    target = geometry(images, draws, settings)
    degraded, holes = degrade(target, draws, settings)
    return Views(
        input=normalise(degraded, settings)[:, None],
        target=normalise(target, settings)[:, None],
        holes=holes[:, None],
        changed=(degraded != target)[:, None],
    )


@torch.no_grad()
def geometry(images: Tensor, draws: Draws, settings: AugmentationSettings) -> Tensor:
    """Make the target: flips, rotation, random resized crop. Arguments and errors as for :func:`augment`.

    Returns:
        (B, H, W) uint8.
    """
    _check(images, draws, settings)
    images = images.contiguous()
    height, width = images.shape[1:]
    device = images.device
    horizontal, vertical = (_Group(device, flags) for flags in (draws.horizontal_flip, draws.vertical_flip))
    turned = draws.angle != 0
    rotated = _Group(device, turned, *ops.rotation_tables(draws.angle[turned], height, width))
    parts = _parts(images)
    boxes = crop_boxes(draws, settings, height, width)
    windows = _windows(boxes, parts)
    starts = boxes[:, :2] - np.repeat(windows[:, :2], [part.stop - part.start for part in parts], axis=0)
    columns, rows = (
        _upload(device, *ops.resize_tables(starts[:, axis], boxes[:, axis + 2], size))
        for axis, size in ((1, width), (0, height))
    )
    result = torch.empty_like(images)
    for part, (top, left, bottom, right) in zip(parts, windows.tolist(), strict=True):
        source = horizontal.apply(part, images[part], lambda some: some.flip(2))
        source = vertical.apply(part, source, lambda some: some.flip(1))
        rotate = functools.partial(_rotate, rows=slice(top, bottom), columns=slice(left, right))
        window = rotated.apply(part, source, rotate, source[:, top:bottom, left:right])
        result[part] = ops.resize(window, (columns[0][part], columns[1][part]), (rows[0][part], rows[1][part]))
    return result


def _rotate(images: Tensor, x: Tensor, y: Tensor, rows: slice, columns: slice) -> Tensor:
    return ops.rotate(images, x[..., columns], y[..., rows])


def _windows(boxes: NDArray[np.int64], parts: list[slice]) -> NDArray[np.int64]:
    """Return what the crops of each part of the batch need of their images: (parts, 4) top, left, bottom, right."""
    firsts = [part.start for part in parts]
    if not firsts:
        return np.zeros((0, 4), np.int64)
    ends = np.maximum.reduceat(boxes[:, :2] + boxes[:, 2:], firsts)
    return np.concatenate([np.minimum.reduceat(boxes[:, :2], firsts), ends], axis=1)


@torch.no_grad()
def degrade(target: Tensor, draws: Draws, settings: AugmentationSettings) -> tuple[Tensor, Tensor]:
    """Make the input, before its normalisation: contrast and brightness, noise, blur, holes.

    Args:
        target: (B, H, W) uint8; it is left as it is.
        draws: of as many images.
        settings: size and value of the holes.

    Returns:
        (B, H, W) uint8, and (B, H, W) bool: where the holes are.
    """
    _check(target, draws, settings)
    target = target.contiguous()
    device = target.device
    contrasted, noisy, blurred, holed = _degradations(device, draws, settings, *target.shape[1:])
    result, holes = torch.empty_like(target), torch.zeros_like(target, dtype=torch.bool)
    for part in _parts(target):
        image = contrasted.apply(part, target[part], ops.look_up)
        image = noisy.apply(part, image, ops.add_noise)
        for size, group in zip(BLUR_SIZES, blurred, strict=True):
            image = group.apply(part, image, lambda some, size=size: ops.blur(some, size))
        mask = holed.apply(part, holes[part], lambda _, rows, columns: ops.hole_mask(rows, columns))
        holes[part] = mask
        result[part] = ops.fill(image, mask, settings.hole_value)
    return result, holes


def _degradations(
    device: torch.device, draws: Draws, settings: AugmentationSettings, height: int, width: int
) -> tuple[_Group, _Group, list[_Group], _Group]:
    contrasted = (draws.contrast != 1) | (draws.brightness != 0)
    noisy = draws.noise > 0
    deviations = np.rint(draws.noise[noisy] * 256).astype(np.int32)
    holed = draws.holes > 0
    bits = []
    for axis, size in enumerate((height, width)):
        starts = (draws.hole_place[holed, :, axis] * (size - settings.hole_size + 1)).astype(np.int64)
        bits.append(ops.hole_bits(starts, draws.holes[holed], settings.hole_size, size))
    return (
        _Group(device, contrasted, ops.contrast_tables(draws.contrast[contrasted], draws.brightness[contrasted])),
        _Group(device, noisy, deviations, draws.noise_key[noisy].view(np.int32)),
        [_Group(device, draws.blur == size) for size in BLUR_SIZES],
        _Group(device, holed, *bits),
    )


@torch.no_grad()
def normalise(images: Tensor, settings: AugmentationSettings) -> Tensor:
    """Turn grey levels into what the network takes.

    Args:
        images: (B, H, W) uint8.
        settings: which normalisation, and the published mean and standard deviation.

    Returns:
        (B, H, W) float32. ``image``: mean 0 and standard deviation 1 in each image, except that a standard deviation
        below one grey level counts as one.
    """
    result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    mean, scale = np.float32(settings.mean) * np.float32(255), 1 / (np.float32(settings.std) * np.float32(255))
    for part in _parts(images):
        if settings.normalisation == "published":
            result[part].copy_(images[part]).sub_(float(mean)).mul_(float(scale))
        else:
            means, deviations = _statistics(images[part])
            result[part].copy_(images[part]).sub_(means).div_(deviations.clamp_(min=1))
    return result


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, 1, 1) float32 means and deviations, of sums of whole numbers: their order does not matter."""
    pixels = images[0].numel()
    levels = images.to(torch.int32)
    total = levels.sum((1, 2), keepdim=True)
    squares = levels.square_().sum((1, 2), keepdim=True)
    variance = (squares * pixels - total * total).double() / pixels**2
    return (total.double() / pixels).float(), variance.sqrt_().float()


class _Group:
    """The images of a batch that get a transform, with its tables for them (first axis: these images)."""

    def __init__(self, device: torch.device, flags: NDArray[np.bool_], *tables: NDArray[Any]) -> None:
        self.before = [0, *np.cumsum(flags).tolist()]  # how many of the group come before an image of the batch
        self.index, *self.tables = _upload(device, np.flatnonzero(flags), *tables)

    def apply(
        self, part: slice, images: Tensor, transform: Callable[..., Tensor], others: Tensor | None = None
    ) -> Tensor:
        """Transform those of ``images`` (a part of the batch) that are in the group.

        Args:
            part: of the batch.
            images: of this part.
            transform: gets the images and the tables that belong to them.
            others: what the images outside the group become; default: they stay as they are.

        Returns:
            All images of the part; never written into ``images``.
        """
        others = images if others is None else others
        first, last = self.before[part.start], self.before[part.stop]
        if first == last:
            return others
        tables = [table[first:last] for table in self.tables]
        if last - first == part.stop - part.start:
            return transform(images, *tables)
        index = self.index[first:last] - part.start
        return others.index_copy(0, index, transform(images.index_select(0, index), *tables))


def _upload(device: torch.device, *arrays: NDArray[Any]) -> list[Tensor]:
    """Send arrays to a device, without waiting for them."""
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":
        tensors = [tensor.pin_memory() if tensor.numel() else tensor for tensor in tensors]
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def _parts(images: Tensor) -> list[slice]:
    """Take one image after the other on a CPU, where results between two steps stay in its cache; all on a GPU."""
    count = len(images)
    step = 1 if images.device.type == "cpu" else max(count, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _check(images: Tensor, draws: Draws, settings: AugmentationSettings) -> None:
    least = max(SMALLEST, settings.hole_size)
    if images.dtype != torch.uint8 or images.ndim != 3 or min(images.shape[1:]) < least:
        raise RetinaError(
            f"augmentation: got images of shape {tuple(images.shape)} and type {images.dtype}; expected (B, H, W), "
            f"uint8, H and W at least {least}. Convert or enlarge them, or choose smaller holes"
        )
    if len(images) != len(draws):
        raise RetinaError(
            f"augmentation: got {len(images)} images and random parameters of {len(draws)}; draw as many as images"
        )
