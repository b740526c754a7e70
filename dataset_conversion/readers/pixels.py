"""Check image and label arrays, and choose the types they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dataset_conversion.readers.slabs import Array, Volume, mapped, slabs
from nnunetv2_retina.errors import RetinaError, shorten

_TABLE_SIZE = 1 << 16
AXES = {2: ("y", "x"), 3: ("z", "y", "x")}


def integer_label(label: Volume, case: str) -> Volume:
    """Return a label array as integers.

    Args:
        label: any shape; bool, integer, or float holding whole numbers only.
        case: name for the error text.

    Raises:
        RetinaError: for a value that is not a whole number, or a type that holds no numbers.
    """
    if label.dtype == bool:
        return mapped(label, lambda _, slab: slab.astype(np.uint8), np.uint8)
    if label.dtype.kind in "iu":
        return label
    if label.dtype.kind != "f":
        raise RetinaError(f"case {case}: the mask has type {label.dtype}; expected whole numbers, one value per class")
    if (number := _count(label, _fractional)) > 0:
        position, value = find_first(label, _fractional)
        raise RetinaError(
            f"case {case}: the mask holds {float(value)} at {format_position(position)} "
            f"({number} values that are not whole numbers); expected one whole number per class. "
            "Was it interpolated or saved as probabilities? Export it again as an integer image."
        )
    return mapped(label, lambda _, slab: slab.astype(np.int64), np.int64)


def _fractional(slab: Array) -> Array:
    return np.asarray(~np.isfinite(slab) | (slab != np.floor(slab)))


def _count(volume: Volume, condition: Callable[[Array], Array]) -> int:
    return sum(int(np.count_nonzero(condition(slab))) for _, slab in slabs(volume))


def count_values(label: Volume) -> dict[int, int]:
    """Count the voxels of each value in integers, values ascending.

    Small values are counted plane by plane in a table: sorting a whole volume takes minutes.
    """
    table = np.zeros(_TABLE_SIZE, dtype=np.int64)
    others: dict[int, int] = {}
    for _, slab in slabs(label):
        if slab.size == 0:
            continue
        if int(slab.min()) < 0 or int(slab.max()) >= _TABLE_SIZE:
            values, counts = np.unique(slab, return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                others[value] = others.get(value, 0) + count
            continue
        for plane in slab:
            counts = np.bincount(plane.ravel().astype(np.intp, copy=False))
            table[: len(counts)] += counts
    for value in np.flatnonzero(table).tolist():
        others[value] = others.get(value, 0) + int(table[value])
    return dict(sorted(others.items()))


def first_position(mask: Array) -> dict[str, int]:
    """Return axis name -> index of the first true element of a (Y, X) or (Z, Y, X) array."""
    index = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return dict(zip(AXES[mask.ndim], map(int, index), strict=True))


def find_first(volume: Volume, condition: Callable[[Array], Array]) -> tuple[dict[str, int], Any]:
    """Return the position of the first voxel that fulfils a condition, which one does, and its value."""
    for z, slab in slabs(volume):
        if (found := condition(slab)).any():
            position = first_position(found)
            value = slab[tuple(position.values())]
            position["z"] += z
            return {axis: position[axis] for axis in AXES[volume.ndim]}, value
    raise ValueError("no voxel fulfils the condition")


def format_position(position: dict[str, int]) -> str:
    """Return, for example, ``z=0, y=3, x=7``."""
    return ", ".join(f"{axis}={index}" for axis, index in position.items())


def check_values(
    label: Volume, declared: Iterable[int], case: str, advice: str | Callable[[Mapping[int, int]], str] = ""
) -> dict[int, int]:
    """Count the voxels of each value, and check that all are declared.

    Args:
        label: (Y, X) or (Z, Y, X), any integer type.
        declared: the values that may occur.
        case: name for the error text.
        advice: what the user can do, appended to the error text; or what says so from the voxels of each value.

    Raises:
        RetinaError: for a value that is not declared, with its count and first position.
    """
    counts = count_values(label)
    allowed = sorted(declared)
    unknown = [value for value in counts if value not in allowed]
    if not unknown:
        return counts
    value = unknown[0]
    where = format_position(find_first(label, lambda slab: slab == value)[0])
    advice = advice if isinstance(advice, str) else advice(counts)
    others = f"; {len(unknown) - 1} more such: {shorten(unknown[1:])}" if len(unknown) > 1 else ""
    raise RetinaError(
        f"case {case}: label value {value} is not declared ({counts[value]} voxels, the first at {where}{others}); "
        f"expected {shorten(allowed, 12)}. {advice}".rstrip()
    )


def check_image(image: Volume, case: str) -> tuple[Any, Any]:
    """Check that an image is a finite 2D or 3D array of numbers; return the lowest and the highest.

    Raises:
        RetinaError: otherwise; for NaN and infinity with their number and the first position.
    """
    if image.ndim not in AXES or image.size == 0:
        raise RetinaError(f"case {case}: the image has shape {image.shape}; expected (Y, X) or (Z, Y, X), not empty")
    if image.dtype.kind not in "biuf":
        raise RetinaError(f"case {case}: the image has type {image.dtype}; expected integers or floats")
    low, high = grey_range(image)
    if not (np.isfinite(low) and np.isfinite(high)):  # minimum and maximum are NaN where any voxel is
        where = format_position(find_first(image, _endless)[0])
        raise RetinaError(
            f"case {case}: the image holds {_count(image, _endless)} NaN or infinite values, the first at {where}; "
            "expected numbers only. Replace them first, for example with numpy.nan_to_num(image, nan=image_minimum), "
            "or crop them off."
        )
    return low, high


def _endless(slab: Array) -> Array:
    return np.asarray(~np.isfinite(slab))


def grey_range(image: Volume) -> tuple[Any, Any]:
    """Return the lowest and the highest value of an image, in its type; NaN where it holds one."""
    ends = np.array([(slab.min(), slab.max()) for _, slab in slabs(image)], image.dtype)
    return ends[:, 0].min(), ends[:, 1].max()


def storable_image(image: Volume, levels: tuple[Any, Any] | None = None) -> Volume:
    """Return the image in a type that PNG, TIFF or NIfTI and nnU-Net's readers hold; only float32 may lose digits.

    uint8, uint16, int16 and float32 stay as they are. Other integers become uint16 or int16 if all values fit, else
    float32 (what nnU-Net computes in); bool becomes uint8; other floats become float32.

    Args:
        image: any type of numbers.
        levels: its lowest and highest value, if they are known.
    """
    kind = _storable_type(image, levels)
    return image if image.dtype == kind else mapped(image, lambda _, slab: slab.astype(kind), kind)


def _storable_type(image: Volume, levels: tuple[Any, Any] | None) -> np.dtype[Any]:
    dtype = image.dtype
    if dtype in (np.uint8, np.uint16, np.int16, np.float32):
        return dtype.newbyteorder("=")
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "iu":
        low, high = map(int, levels or grey_range(image))
        for kind in (np.uint16, np.int16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.dtype(kind)
    return np.dtype(np.float32)
