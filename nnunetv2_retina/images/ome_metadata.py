"""The metadata of an OME-Zarr image: axes, units, and where each level lies. Plain JSON, checked here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.images.box import AXES
from nnunetv2_retina.images.levels import Level, Point, checked
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

_NANOMETRES_PER = {
    "angstrom": 0.1, "nanometer": 1, "nanometre": 1, "nm": 1, "micrometer": 1e3, "micrometre": 1e3, "um": 1e3,
    "\u00b5m": 1e3, "\u03bcm": 1e3, "micron": 1e3, "millimeter": 1e6, "mm": 1e6, "centimeter": 1e7, "meter": 1e9,
    "picometer": 1e-3,
}  # fmt: skip


def placed(address: str, steps: Sequence[float], start: Sequence[float], units: Sequence[str]) -> tuple[Spacing, Point]:
    """Return the size of a voxel and the place of the first one, in nm where all units are stated.

    Args:
        address: of the volume.
        steps: from voxel to voxel along z, y and x.
        start: the middle of the first voxel.
        units: of the axes; empty where none is stated.

    Raises:
        RetinaError: for a unit that is none of length.
    """
    if wrong := sorted({unit for unit in units if unit and unit.lower() not in _NANOMETRES_PER}):
        raise RetinaError(f"{address}: its axes are in {wrong[0]!r}; expected a unit of length such as nanometer")
    factors = [_NANOMETRES_PER[unit.lower()] if unit else 1.0 for unit in units]
    sizes = [float(step * factor) for step, factor in zip(steps, factors, strict=True)]
    z, y, x = (float(at * factor) for at, factor in zip(start, factors, strict=True))
    return Spacing.of(sizes, NANOMETRES if all(units) else None), (z, y, x)


def image_of(address: str, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one image that attributes with multiscales describe.

    Raises:
        RetinaError: if they describe none, or several.
    """
    multiscales = attributes["multiscales"]
    if not isinstance(multiscales, list) or len(multiscales) != 1:
        count = len(multiscales) if isinstance(multiscales, list) else "unreadable"
        raise RetinaError(f"{address} holds {count} multiscales; expected one image. Save each as a store of its own")
    if not isinstance(multiscales[0], Mapping):
        raise RetinaError(
            f"{address}: its multiscales hold {shorten(multiscales)}; expected an object with axes and datasets. "
            "Write them anew"
        )
    return multiscales[0]


def levels_of(address: str, group: Any, image: Mapping[str, Any]) -> tuple[Level, ...]:
    """Return the levels of an image, finest first.

    Raises:
        RetinaError: for metadata that lack something, or name what is not there.
    """
    try:
        levels = tuple(_level(address, group, image, entry) for entry in image["datasets"])
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = str(error).strip() or type(error).__name__
        raise RetinaError(f"{address}: its OME-Zarr metadata lack or misspell {what}. Write them anew") from error
    if not levels:
        raise RetinaError(f"{address} holds no level. Write it anew")
    return levels


def _level(address: str, group: Any, image: Mapping[str, Any], entry: Mapping[str, Any]) -> Level:
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image["axes"]]
    names = tuple(str(axis["name"]) for axis in axes)
    if names[-3:] != AXES:
        raise RetinaError(f"{address} has the axes {', '.join(names)}; expected z, y, x as the last three")
    path = str(entry["path"])
    try:
        array = group[path]
        array.shape  # noqa: B018 - a group has none
    except (KeyError, ValueError, AttributeError, OSError) as error:
        raise RetinaError(f"{address}: its metadata name a level {path!r} that is not there. Copy it anew") from error
    steps, start = np.ones(len(axes)), np.zeros(len(axes))
    for holder in (entry, image):
        steps, start = _transformed(address, holder, steps, start)
    units = [str(axis.get("unit") or "") for axis in axes[-3:]]
    spacing, origin = placed(address, steps[-3:].tolist(), start[-3:].tolist(), units)
    return checked(address, path, array, spacing, origin, len(axes))


def _transformed(
    address: str, holder: Mapping[str, Any], steps: NDArray[np.float64], start: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return steps and start after the transformations of a level, or of the image, in their order."""
    for transformation in holder.get("coordinateTransformations", ()):
        kind = transformation["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise RetinaError(
                f"{address}: its metadata have a transformation of type {kind!r}; expected scale or translation. Write "
                "them anew, or the volume resampled"
            )
        values = _numbers(address, kind, transformation[kind], len(steps))
        steps, start = (steps * values, start * values) if kind == "scale" else (steps, start + values)
    return steps, start


def _numbers(address: str, kind: str, values: Any, axes: int) -> NDArray[np.float64]:
    """Return the numbers of a transformation, one an axis."""
    is_list = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not is_list or len(values) != axes or not np.isfinite(values).all():
        raise RetinaError(
            f"{address}: its metadata have the {kind} {values!r}; expected {axes} numbers, one for each axis. Write "
            "them anew"
        )
    return np.asarray(values, np.float64)
