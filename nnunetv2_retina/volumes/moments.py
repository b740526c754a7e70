"""Mean, standard deviation and non-zero bounding box of a volume's grey levels, from one pass over its blocks.

Whole numbers of up to 16 bits are counted in a histogram, whose moments are exact whatever the order of the blocks;
other types by each block's mean and sum of squares in float64, merged in the order of the blocks (Chan et al. 1979).
nnU-Net crops a volume to its non-zero bounding box first: moments are of that box, zeros inside it included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.volumes import blocks

BY_EXTREMES = "RescaleTo01Normalization"
"""nnU-Net's normalisation by the least and the largest grey level, not by mean and standard deviation."""
_PIECE = 1 << 22
"""Voxels that are counted at once: NumPy counts 8 bytes a voxel."""


@dataclass(frozen=True)
class Moments:
    """What z-scores need, and where the volume is not zero."""

    mean: float
    sd: float
    box: Box
    """In the voxels of the volume that is predicted."""
    least: float
    most: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads."""
        return {
            "mean": self.mean, "sd": self.sd, "box": blocks.to_lists(self.box), "least": self.least,
            "most": self.most, "method": self.method,
        }  # fmt: skip

    @classmethod
    def from_json(cls, contents: Mapping[str, Any]) -> Moments:
        """Return what ``to_json`` wrote, its numbers as they are: the digest of 40 is not that of 40.0."""
        box = blocks.from_lists(contents["box"])
        return cls(
            contents["mean"], contents["sd"], box, contents["least"], contents["most"], contents["method"],
        )  # fmt: skip


def _check_finite(mean: float, origin: blocks.Shape) -> None:
    if not np.isfinite(mean):
        raise RetinaError(
            f"the volume holds NaN or infinite values in the block at {blocks.describe(origin)} (z, y, x); expected "
            "numbers only. Replace them first, or leave them out with --box"
        )


def count(values: NDArray[Any], origin: blocks.Shape) -> dict[str, Any]:
    """Return what one block contributes, as JSON.

    Args:
        values: (z, y, x).
        origin: where the block begins in the volume.

    Raises:
        RetinaError: for NaN or infinite values.
    """
    box = _nonzero_box(values)
    part: dict[str, Any] = {"nonzero": None if box is None else blocks.to_lists(blocks.moved(box, origin))}
    if box is None:
        return part
    inner = values[box]
    if values.dtype.kind in "iub" and values.dtype.itemsize <= 2:
        least, counts = histogram(inner)
        return {**part, "least": least, "counts": counts.tolist()}
    kept = inner[inner != 0].astype(np.float64)
    mean = float(kept.mean())
    _check_finite(mean, origin)
    squares = float(np.square(kept - mean).sum())
    return {
        **part, "n": len(kept), "mean": mean, "squares": squares, "least": float(kept.min()), "most": float(kept.max())
    }  # fmt: skip


def _nonzero_box(values: NDArray[Any]) -> Box | None:
    mask = values != 0
    columns = mask.any(0)
    if not columns.any():
        return None
    ends = []
    for line in (mask.any((1, 2)), columns.any(1), columns.any(0)):
        places = np.flatnonzero(line)
        ends.append(slice(int(places[0]), int(places[-1]) + 1))
    return ends[0], ends[1], ends[2]


def histogram(values: NDArray[Any]) -> tuple[int, NDArray[np.int64]]:
    """Count whole numbers of 8 or 16 bits.

    Returns:
        The least value, and the counts of it and those after it up to the largest.
    """
    flat = np.ascontiguousarray(values).ravel()
    bits = 8 * flat.dtype.itemsize
    plain = flat.view(np.uint8 if bits == 8 else np.uint16)
    counts = np.zeros(1 << bits, np.int64)
    for first in range(0, len(plain), _PIECE):
        piece = plain[first : first + _PIECE]
        if bits == 8 and len(piece) % 2 == 0:  # two at a time
            pairs = np.bincount(piece.view(np.uint16), minlength=1 << 16).reshape(256, 256)
            counts += pairs.sum(0) + pairs.sum(1)
        else:
            counts += np.bincount(piece, minlength=1 << bits)
    least = 0
    if flat.dtype.kind == "i":
        counts, least = np.roll(counts, 1 << (bits - 1)), -(1 << (bits - 1))
    used = np.flatnonzero(counts)
    return least + int(used[0]), counts[used[0] : used[-1] + 1]


def merge(parts: Iterable[Mapping[str, Any]], method: str = "exact") -> Moments:
    """Return the moments of a volume from what its blocks contributed, in their order.

    Raises:
        RetinaError: if it is zero everywhere.
    """
    parts = [part for part in parts if part["nonzero"] is not None]
    if not parts:
        raise RetinaError("the volume is 0 everywhere that was asked for; expected an image. Check the level and --box")
    ends = np.array([part["nonzero"] for part in parts])
    box = blocks.from_lists(np.stack([ends[:, :, 0].min(0), ends[:, :, 1].max(0)], 1).tolist())
    voxels = prod(blocks.size(box))
    mean, sd, least, most, n = _of_counts(parts, voxels) if "counts" in parts[0] else _of_sums(parts, voxels)
    if n < voxels:
        least, most = min(least, 0), max(most, 0)
    return Moments(mean, sd, box, least, most, method)


def _of_counts(parts: list[Mapping[str, Any]], voxels: int) -> tuple[float, float, float, float, int]:
    first = min(part["least"] for part in parts)
    last = max(part["least"] + len(part["counts"]) for part in parts)
    total = np.zeros(last - first, np.int64)
    for part in parts:
        start = part["least"] - first
        total[start : start + len(part["counts"])] += np.asarray(part["counts"], np.int64)
    if first <= 0 < last:
        total[-first] = 0  # those of the box are added below, by their number
    entries = [(first + int(i), int(total[i])) for i in np.flatnonzero(total)]
    n = sum(number for _, number in entries)
    sums = sum(value * number for value, number in entries)
    squares = sum(value * value * number for value, number in entries)
    variance = (voxels * squares - sums * sums) / voxels**2  # whole numbers up to the division
    return sums / voxels, sqrt(variance), entries[0][0], entries[-1][0], n


def _of_sums(parts: list[Mapping[str, Any]], voxels: int) -> tuple[float, float, float, float, int]:
    n, mean, squares = 0, 0.0, 0.0
    zeros = {"n": voxels - sum(part["n"] for part in parts), "mean": 0.0, "squares": 0.0}
    for part in [*parts, zeros]:
        if part["n"] == 0:
            continue
        both, gap = n + part["n"], part["mean"] - mean
        squares += part["squares"] + gap * gap * n * part["n"] / both
        mean += gap * part["n"] / both
        n = both
    least, most = min(part["least"] for part in parts), max(part["most"] for part in parts)
    return mean, sqrt(squares / voxels), least, most, voxels - zeros["n"]


def in_memory(values: NDArray[Any]) -> Moments:
    """Return the moments as nnU-Net computes them, in float32 over the whole cropped volume (z, y, x).

    They differ from the exact ones in the seventh digit; with them, labels equal those of ``retina_predict``.
    """
    box = _nonzero_box(values)
    if box is None:
        return merge([])
    data = values.astype(np.float32)[box]
    return Moments(float(data.mean()), float(data.std()), box, float(data.min()), float(data.max()), "nnunet")


def read_file(path: Path, extremes: bool = False) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, least and most from a JSON file: moments.json of another output, for example.

    Args:
        path: of the file.
        extremes: the model needs least and most; else they are the mean where they are left out.

    Raises:
        RetinaError: if it cannot be read, lacks what is needed, or holds other values than finite numbers.
    """
    names = ("mean", "sd", "least", "most") if extremes else ("mean", "sd")
    listed = ", ".join(f'"{name}": ...' for name in names)
    advice = f"Give a file {{{listed}}} in grey levels"
    if extremes:
        advice += f", or leave --moments out: the model normalises by {BY_EXTREMES}"
    contents = read_json(path, advice)
    try:
        mean, sd = float(contents["mean"]), float(contents["sd"])
        least, most = (float(contents[end] if extremes else contents.get(end, mean)) for end in ("least", "most"))
    except (KeyError, TypeError, ValueError) as error:
        raise RetinaError(f"{path} states no {', '.join(names)}. {advice}") from error
    if not (np.isfinite([mean, sd, least, most]).all() and sd >= 0):
        raise RetinaError(f"{path} states mean {mean} and sd {sd}; expected finite numbers. {advice}")
    if extremes and not least < most:
        raise RetinaError(f"{path} states least {least} and most {most}; expected the second to be larger. {advice}")
    return mean, sd, least, most
