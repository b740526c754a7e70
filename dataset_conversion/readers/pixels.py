"""Check image and label arrays, and choose the types they are stored in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetv2_retina.errors import RetinaError, shorten

Array = npt.NDArray[Any]
_TABLE_SIZE = 1 << 16
AXES = {2: ("y", "x"), 3: ("z", "y", "x")}


def integer_label(label: Array, case: str) -> Array:
    """Return a label array as integers.

    Args:
        label: any shape; bool, integer, or float holding whole numbers only.
        case: name for the error text.

    Raises:
        RetinaError: for a value that is not a whole number, or a type that holds no numbers.
    """
    if label.dtype == bool:
        return label.astype(np.uint8)
    if label.dtype.kind in "iu":
        return label
    if label.dtype.kind != "f":
        raise RetinaError(f"case {case}: the mask has type {label.dtype}; expected whole numbers, one value per class")
    fractional = ~np.isfinite(label) | (label != np.floor(label))
    if fractional.any():
        position = first_position(fractional)
        raise RetinaError(
            f"case {case}: the mask holds {float(label[tuple(position.values())])} at {format_position(position)} "
            f"({int(fractional.sum())} values that are not whole numbers); expected one whole number per class. "
            "Was it interpolated or saved as probabilities? Export it again as an integer image."
        )
    return label.astype(np.int64)


def count_values(label: Array) -> dict[int, int]:
    """Count the voxels of each value in an integer array, values ascending.

    Small values are counted plane by plane in a table: sorting a whole volume takes minutes.
    """
    if label.size == 0:
        return {}
    if int(label.min()) < 0 or int(label.max()) >= _TABLE_SIZE:
        values, counts = np.unique(label, return_counts=True)
        return {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    table = np.zeros(_TABLE_SIZE, dtype=np.int64)
    for plane in label if label.ndim == 3 else [label]:
        counts = np.bincount(plane.ravel().astype(np.intp, copy=False))
        table[: len(counts)] += counts
    return {int(value): int(table[value]) for value in np.flatnonzero(table)}


def first_position(mask: Array) -> dict[str, int]:
    """Return axis name -> index of the first true element of a (Y, X) or (Z, Y, X) array."""
    index = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return dict(zip(AXES[mask.ndim], map(int, index), strict=True))


def format_position(position: dict[str, int]) -> str:
    """Return, for example, ``z=0, y=3, x=7``."""
    return ", ".join(f"{axis}={index}" for axis, index in position.items())


def check_values(label: Array, declared: Iterable[int], case: str, advice: str = "") -> dict[int, int]:
    """Count the voxels of each value, after checking that all are declared.

    Args:
        label: (Y, X) or (Z, Y, X), any integer type.
        declared: the values that may occur.
        case: name for the error text.
        advice: what the user can do, appended to the error text.

    Raises:
        RetinaError: for a value that is not declared, with its count and first position.
    """
    counts = count_values(label)
    allowed = sorted(declared)
    unknown = [value for value in counts if value not in allowed]
    if not unknown:
        return counts
    value = unknown[0]
    where = format_position(first_position(label == value))
    others = f"; {len(unknown) - 1} more such: {shorten(unknown[1:])}" if len(unknown) > 1 else ""
    raise RetinaError(
        f"case {case}: label value {value} is not declared ({counts[value]} voxels, the first at {where}{others}); "
        f"expected {shorten(allowed, 12)}. {advice}".rstrip()
    )


def check_image(image: Array, case: str) -> None:
    """Check that an image is a finite 2D or 3D array of numbers.

    Raises:
        RetinaError: otherwise; for NaN and infinity with their number and the first position.
    """
    if image.ndim not in AXES or image.size == 0:
        raise RetinaError(f"case {case}: the image has shape {image.shape}; expected (Y, X) or (Z, Y, X), not empty")
    if image.dtype.kind not in "biuf":
        raise RetinaError(f"case {case}: the image has type {image.dtype}; expected integers or floats")
    if image.dtype.kind == "f" and not (finite := np.isfinite(image)).all():
        where = format_position(first_position(~finite))
        raise RetinaError(
            f"case {case}: the image holds {int((~finite).sum())} NaN or infinite values, the first at {where}; "
            "expected numbers only. Replace them first, for example with numpy.nan_to_num(image, nan=image_minimum), "
            "or crop them off."
        )


def storable_image(image: Array) -> Array:
    """Return the image in a type that PNG, TIFF or NIfTI and nnU-Net's readers hold; only float32 may lose digits.

    uint8, uint16, int16 and float32 stay as they are. Other integers become uint16 or int16 if all values fit, else
    float32 (what nnU-Net computes in); bool becomes uint8; other floats become float32.
    """
    if image.dtype in (np.uint8, np.uint16, np.int16, np.float32):
        return image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype == bool:
        return image.astype(np.uint8)
    if image.dtype.kind in "iu":
        low, high = int(image.min()), int(image.max())
        for kind in (np.uint16, np.int16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return image.astype(kind)
    return image.astype(np.float32)
