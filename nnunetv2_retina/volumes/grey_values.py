"""The moments that a run uses, by the method that was asked for, and what is remarkable about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.console.machine import memory_bytes
from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.volumes import moments as moments_of
from nnunetv2_retina.volumes.blocks import Shape, cut, describe, moved, size, starts, whole
from nnunetv2_retina.volumes.moments import Moments
from nnunetv2_retina.volumes.tasks import Input

SAMPLES = 256
"""Boxes of one chunk that ``sampled`` reads."""
FAR = 0.5
"""Distance of a volume's mean from that of the training, in its standard deviations, from which on it is remarked."""


def counting_blocks(source: Input) -> Shape:
    """Return the size of the blocks of the pass: whole chunks, the same in every run."""
    z, y, x = (
        min(-(-n // chunk), max(1, most // chunk)) * chunk
        for n, chunk, most in zip(source.shape, source.level.chunks, (64, 1024, 1024), strict=True)
    )
    return z, y, x


def needs_pass(method: str, part: str | None) -> bool:
    """Tell whether a method counts every voxel; otherwise only the faces are read, for the bounding box."""
    return method == "exact" and part is None


def _as_nnunet(source: Input) -> Moments:
    needed = prod(source.shape) * (2 * 4 + np.dtype(source.level.dtype).itemsize)
    if needed > 0.7 * memory_bytes():
        raise RetinaError(
            f"--moments nnunet holds the volume in memory and takes {format_bytes(needed)}; this machine has "
            f"{format_bytes(memory_bytes())}. Use exact, which differs in the seventh digit"
        )
    return moments_of.in_memory(source.read(whole(source.shape)))


def without_pass(source: Input, method: str, part: Box | None, dataset_json: Mapping[str, Any]) -> tuple[Moments, str]:
    """Return the moments by any other method, and a line that says what they are.

    Raises:
        RetinaError: if the method does not apply to this volume or model.
    """
    if method == "nnunet" and part is None:
        return _as_nnunet(source), "as retina_predict computes them"
    box = nonzero_box(source)
    if part is not None:
        counts = [
            moments_of.count(source.read(moved(block.box, starts(part))), starts(block.box))
            for block in cut(size(part), counting_blocks(source))
        ]
        moments = replace(moments_of.merge(counts), box=box, method=f"exact in {describe(size(part))} voxels")
        return moments, "exact in the part that was chosen"
    if method == "sampled":
        return _sampled(source, box)
    if method == "training":
        mean, sd, most = _training(source, dataset_json)
        return Moments(mean, sd, box, 0.0, most, method), "of the training data"
    mean, sd, least, most = moments_of.read_file(Path(method))
    return Moments(mean, sd, box, least, most, "file"), f"of {method}"


def _training(source: Input, dataset_json: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return mean, standard deviation and white of the training data in this volume's grey levels."""
    known = Protocol.from_dataset_json(dataset_json).normalisation
    dtype = np.dtype(source.level.dtype)
    if known is None or dtype.kind not in "ui":
        raise RetinaError(
            '--moments training needs "normalisation" in the block "retina" of the model\'s dataset.json, and a volume '
            f"of whole numbers (this one: {dtype}). Use exact, or a file"
        )
    white = float(np.iinfo(dtype).max)
    return known[0] * white, known[1] * white, white


def _sampled(source: Input, box: Box) -> tuple[Moments, str]:
    """Return moments from boxes of one chunk drawn at random, always the same, with the error of the mean."""
    lengths = size(box)
    sides = [min(n, chunk) for n, chunk in zip(lengths, source.level.chunks, strict=True)]
    rng = np.random.default_rng(0)
    means, squares, least, most = [], [], np.inf, -np.inf
    for _ in range(SAMPLES):
        corner = [int(rng.integers(0, n - side + 1)) for n, side in zip(lengths, sides, strict=True)]
        z, y, x = (slice(first, first + side) for first, side in zip(corner, sides, strict=True))
        values = source.read(moved((z, y, x), starts(box))).astype(np.float64)
        means.append(values.mean())
        squares.append(np.square(values).mean())
        least, most = min(least, values.min()), max(most, values.max())
    mean = float(np.mean(means))
    if not np.isfinite(mean):
        raise RetinaError("the volume holds NaN or infinite values; expected numbers only. Replace them first")
    sd = sqrt(max(0.0, float(np.mean(squares)) - mean * mean))
    error = float(np.std(means, ddof=1)) / sqrt(SAMPLES)
    return Moments(mean, sd, box, float(least), float(most), "sampled"), (
        f"from {SAMPLES} boxes of {describe(sides)} voxels; standard error of the mean {error:.3g}"
    )


def nonzero_box(source: Input) -> Box:
    """Return the non-zero bounding box, by reading the volume from its faces inwards until something shows.

    Raises:
        RetinaError: if it is zero everywhere.
    """
    box = list(whole(source.shape))
    for axis in range(3):
        for backwards in (False, True):
            box[axis] = _trimmed(source, box, axis, backwards)
    return box[0], box[1], box[2]


def _trimmed(source: Input, box: list[slice], axis: int, backwards: bool) -> slice:
    """Return the range along an axis without the zeros at one end."""
    part, step = box[axis], source.level.chunks[axis]
    layers = [slice(first, min(first + step, part.stop)) for first in range(part.start, part.stop, step)]
    for layer in reversed(layers) if backwards else layers:
        used = _used(source, [layer if other == axis else box[other] for other in range(3)], axis)
        if used.any():
            places = np.flatnonzero(used) + layer.start
            return slice(part.start, int(places[-1]) + 1) if backwards else slice(int(places[0]), part.stop)
    moments_of.merge([])  # raises: there is nothing
    raise AssertionError


def _used(source: Input, layer: list[slice], axis: int) -> NDArray[np.bool_]:
    """Return which positions along an axis hold anything, in one layer of chunks."""
    box: Box = (layer[0], layer[1], layer[2])
    used = np.zeros(layer[axis].stop - layer[axis].start, bool)
    others = tuple(other for other in range(3) if other != axis)
    for block in cut(size(box), counting_blocks(source)):
        values = source.read(moved(block.box, starts(box))).any(axis=others)
        used[block.box[axis]] |= values
        if used.all():
            break
    return used


def remarks(moments: Moments, source: Input, dataset_json: Mapping[str, Any], plans: Mapping[str, Any]) -> list[str]:
    """Return what looks unlike the training data, one line each.

    nnU-Net normalises each image by its own moments, so their values do not matter as such; but a volume that is half
    resin or black border has others than its tissue, and everything in it is shifted.
    """
    lines: list[str] = []
    try:
        mean, sd, _ = _training(source, dataset_json)
        what, limit = "training images'", FAR
    except RetinaError:
        known = plans.get("foreground_intensity_properties_per_channel", {}).get("0", {})
        if "mean" not in known or not known.get("std"):
            return lines
        mean, sd, what, limit = float(known["mean"]), float(known["std"]), "labelled training voxels'", 2 * FAR
    if abs(moments.mean - mean) > limit * sd or not 0.5 <= moments.sd / sd <= 2:
        lines.append(
            f"warning: grey levels are {moments.mean:.1f} +- {moments.sd:.1f} (mean, sd), the {what} {mean:.1f} +- "
            f"{sd:.1f}. Is the contrast inverted, or much of the volume resin or black? --moments-box takes them from "
            "a part of tissue alone"
        )
    return lines
