"""Reading OME-Zarr volumes (0.4 and 0.5), and Zarr arrays without OME metadata, part by part.

Axes are z, y and x; a channel or time axis before them may have one entry. The metadata are checked here, plain JSON as
they are, so that no library of models is needed; zarr itself is imported when a volume is opened.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

Box = tuple[slice, slice, slice]
"""Slices along z, y and x, with both ends."""
AXES = ("z", "y", "x")
_NANOMETRES_PER = {
    "angstrom": 0.1, "nanometer": 1, "nanometre": 1, "nm": 1, "micrometer": 1e3, "micrometre": 1e3, "um": 1e3,
    "\u00b5m": 1e3, "\u03bcm": 1e3, "micron": 1e3, "millimeter": 1e6, "mm": 1e6, "centimeter": 1e7, "meter": 1e9,
    "picometer": 1e-3,
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One resolution of a volume."""

    path: str
    """Inside the store; empty where the store is the array."""
    shape: tuple[int, int, int]
    chunks: tuple[int, int, int]
    """What is decompressed at once."""
    dtype: str
    """Of the grey levels, as NumPy names it."""
    spacing: Spacing
    """nm where the metadata state a unit."""
    leading: int
    """Axes of one entry before z."""

    @property
    def nbytes(self) -> int:
        """Return the uncompressed size."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Volume:
    """A stored volume: its levels, finest first."""

    address: str
    version: str | None
    """Of OME-Zarr; None: a Zarr array without its metadata."""
    levels: tuple[Level, ...]
    digest: str
    """Of the metadata: two volumes of equal size seldom share it."""

    @property
    def name(self) -> str:
        """Return the last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    def level(self, path: str) -> Level:
        """Return a level by its path.

        Raises:
            RetinaError: if there is none of that path.
        """
        for level in self.levels:
            if level.path == path:
                return level
        raise RetinaError(f"{self.address} has no level {path}; it has {shorten(level.path for level in self.levels)}")


class StoredArray:
    """One level, opened for reading."""

    def __init__(self, address: str, level: Level) -> None:
        zarr = import_zarr()
        path = f"{address.rstrip('/')}/{level.path}" if level.path else address
        try:
            self._array = zarr.open_array(path, mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RetinaError(f"{path} can no longer be opened ({_reason(error)}). Is a drive not mounted?") from error
        self.level = level
        self.path = path

    def read(self, box: Box) -> NDArray[Any]:
        """Return (z, y, x) of a part, in the byte order of this machine.

        Raises:
            RetinaError: if it cannot be read or decoded.
        """
        try:
            values = np.asarray(self._array[(0,) * self.level.leading + tuple(box)])
        except Exception as error:  # codecs and remote stores raise whatever they do
            place = ", ".join(f"{axis} {part.start}:{part.stop}" for axis, part in zip(AXES, box, strict=True))
            raise RetinaError(
                f"{self.path}: {place} cannot be read ({_reason(error)}). Copy that part of the volume anew, or leave "
                "it out with --box"
            ) from error
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def parse_box(text: str, shape: tuple[int, int, int]) -> Box:
    """Return the box that ``z0:z1,y0:y1,x0:x1`` means; an end that is left out is the volume's.

    Raises:
        RetinaError: if it is spelled otherwise, empty, or not inside the volume.
    """
    z, y, x = parse_part(text, shape)
    return z, y, x


def parse_part(text: str, shape: Sequence[int]) -> tuple[slice, ...]:
    """Return the part of an image of two or three axes that ``y0:y1,x0:x1`` means; see ``parse_box``."""
    axes = AXES[-len(shape) :]
    form, sides = ",".join(f"{axis}0:{axis}1" for axis in axes), " x ".join(map(str, shape))
    fault = f"--box {text}; expected {form} inside {sides} voxels ({', '.join(axes)})"
    parts = text.split(",")
    if len(parts) != len(shape) or any(part.count(":") != 1 for part in parts):
        raise RetinaError(fault)
    box = []
    for part, n in zip(parts, shape, strict=True):
        first, last = part.split(":")
        if any(end.strip() and not end.strip().isdecimal() for end in (first, last)):
            raise RetinaError(fault)
        ends = (int(first or 0), int(last or n))
        if not 0 <= ends[0] < ends[1] <= n:
            raise RetinaError(fault)
        box.append(slice(*ends))
    return tuple(box)


def import_zarr() -> Any:
    """Return the module zarr.

    Raises:
        RetinaError: if it is not there or too old, saying what to install.
    """
    try:
        import zarr

        major, minor = (int(part) for part in zarr.__version__.split(".")[:2])
    except ImportError as error:
        raise RetinaError(f"OME-Zarr volumes need zarr 3.1 ({error}). {_install()}") from error
    if (major, minor) < (3, 1):
        raise RetinaError(f"OME-Zarr volumes need zarr 3.1; installed is {zarr.__version__}. {_install()}")
    return zarr


def _install() -> str:
    if sys.version_info < (3, 11):
        return f"It needs Python 3.11; this is {sys.version_info[0]}.{sys.version_info[1]}: make a newer environment"
    return 'Run: pip install "nnunetv2-retina[volumes]"'


def is_zarr(path: str | Path) -> bool:
    """Tell whether a path is meant as a Zarr store: by its name, or by the metadata that its folder holds."""
    text = str(path).rstrip("/")
    return text.endswith(".zarr") or any((Path(text) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def open_volume(
    address: str | Path, spacing: Sequence[float] | None = None, unstated: Sequence[float] | None = None
) -> Volume:
    """Open a volume's metadata.

    Args:
        address: a folder, or a URL that fsspec opens, of an OME-Zarr image or a Zarr array.
        spacing: nm along z, y and x of the finest level, for a volume whose metadata do not state it or state it wrong.
        unstated: taken for an array without metadata, instead of refusing it.

    Raises:
        RetinaError: for anything that is not a volume of grey levels along z, y and x.
    """
    address = str(address).rstrip("/")
    node = _open(address)
    if not hasattr(node, "members"):
        return _bare(address, node, spacing or unstated)
    attributes = dict(node.attrs)
    attributes, version = (attributes["ome"], "0.5") if "ome" in attributes else (attributes, "0.4")
    if "multiscales" not in attributes:
        raise RetinaError(
            f"{address} is a Zarr group without OME-Zarr's multiscales. {_instead(address, attributes, node)}"
        )
    multiscales = attributes["multiscales"]
    if not isinstance(multiscales, list) or len(multiscales) != 1:
        count = len(multiscales) if isinstance(multiscales, list) else "unreadable"
        raise RetinaError(f"{address} holds {count} multiscales; expected one image. Save each as a store of its own")
    image = multiscales[0]
    version = str(attributes.get("version", image.get("version", version)))
    try:
        levels = tuple(_level(address, node, image, entry) for entry in image["datasets"])
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise RetinaError(
            f"{address}: its OME-Zarr metadata lack or misspell {_reason(error)}. Write them anew"
        ) from error
    if not levels:
        raise RetinaError(f"{address} holds no level. Write it anew")
    if spacing is not None:
        levels = _respaced(levels, spacing)
    return Volume(address, version, levels, _digest(attributes, levels))


def _open(address: str) -> Any:
    zarr = import_zarr()
    folder = Path(address)
    if "://" not in address and not folder.is_dir():
        what = "that is a file" if folder.exists() else "no such folder"
        raise RetinaError(f"no Zarr volume {address}: {what}")
    if "://" not in address and (folder / "attributes.json").is_file():
        raise RetinaError(f"{address} is an N5 volume, which zarr 3 does not read. Convert it to OME-Zarr first")
    try:
        return zarr.open(address, mode="r")
    except ImportError as error:
        raise RetinaError(f"{address} cannot be opened ({error}). Install what it names") from error
    except Exception as error:  # stores raise whatever their file system does
        raise RetinaError(
            f"{address} is no Zarr volume that can be read ({_reason(error)}). Give the folder that holds zarr.json, "
            ".zgroup or .zarray"
        ) from error


def _bare(address: str, array: Any, spacing: Sequence[float] | None) -> Volume:
    if spacing is None:
        raise RetinaError(f"{address} is a Zarr array without OME metadata. Add --spacing Z,Y,X in nm")
    steps = Spacing.of(spacing, NANOMETRES)
    level = _checked(address, "", array, len(array.shape) - 3, steps)
    return Volume(address, None, (level,), _digest({}, (level,)))


def _instead(address: str, attributes: Mapping[str, Any], node: Any) -> str:
    if "bioformats2raw.layout" in attributes:
        return f"Its images lie in it: give {address}/0"
    arrays = sorted(name for name, _ in node.arrays())
    inside = f"It holds the arrays {shorten(arrays)}: g" if arrays else "G"
    return f"{inside}ive an array as {address}/{arrays[0] if arrays else 'NAME'} with --spacing Z,Y,X in nm"


def _level(address: str, group: Any, image: Mapping[str, Any], entry: Mapping[str, Any]) -> Level:
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image["axes"]]
    names = tuple(str(axis["name"]) for axis in axes)
    if names[-3:] != AXES:
        raise RetinaError(f"{address} has the axes {', '.join(names)}; expected z, y, x as the last three")
    path = str(entry["path"])
    try:
        array = group[path]
        array.shape  # noqa: B018 - a group has none
    except (KeyError, AttributeError, OSError) as error:
        raise RetinaError(f"{address}: its metadata name a level {path!r} that is not there. Copy it anew") from error
    scale = _scale(entry, len(axes)) * _scale(image, len(axes))
    units = {str(axis["unit"]) for axis in axes[-3:] if axis.get("unit")}
    if wrong := sorted(unit for unit in units if unit.lower() not in _NANOMETRES_PER):
        raise RetinaError(f"{address}: its axes are in {wrong[0]!r}; expected a unit of length such as nanometer")
    factors = [_NANOMETRES_PER[str(axis["unit"]).lower()] if axis.get("unit") else 1.0 for axis in axes[-3:]]
    unit = NANOMETRES if all(axis.get("unit") for axis in axes[-3:]) else None
    steps = [float(step * factor) for step, factor in zip(scale[-3:], factors, strict=True)]
    return _checked(address, path, array, len(axes) - 3, Spacing.of(steps, unit))


def _scale(entry: Mapping[str, Any], axes: int) -> NDArray[np.float64]:
    steps = np.ones(axes)
    for transformation in entry.get("coordinateTransformations", []):
        if transformation["type"] == "scale":
            steps = steps * np.asarray(transformation["scale"], np.float64)
    return steps


def _checked(address: str, path: str, array: Any, leading: int, spacing: Spacing) -> Level:
    shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype)
    if len(shape) != leading + 3 or leading < 0:
        raise RetinaError(f"{address}/{path} has the shape {shape}; expected (z, y, x), as its metadata say")
    if prod(shape[:leading]) != 1:
        raise RetinaError(
            f"{address}/{path} has the shape {shape}, so {prod(shape[:leading])} times or channels; expected one. Save "
            "each as a volume of its own"
        )
    if dtype.kind not in "iufb" or prod(shape) == 0:
        raise RetinaError(f"{address}/{path} holds {dtype} of shape {shape}; expected grey levels along z, y and x")
    z, y, x = shape[leading:]
    chunks = tuple(min(int(n), side) for n, side in zip(array.chunks[leading:], (z, y, x), strict=True))
    return Level(path, (z, y, x), (chunks[0], chunks[1], chunks[2]), dtype.newbyteorder("=").name, spacing, leading)


def _respaced(levels: tuple[Level, ...], spacing: Sequence[float]) -> tuple[Level, ...]:
    own = Spacing.of(spacing, NANOMETRES)
    factors = [new / old for new, old in zip(own, levels[0].spacing, strict=True)]
    return tuple(
        Level(
            level.path, level.shape, level.chunks, level.dtype,
            Spacing.of([old * factor for old, factor in zip(level.spacing, factors, strict=True)], NANOMETRES),
            level.leading,
        )
        for level in levels
    )  # fmt: skip


def _digest(attributes: Mapping[str, Any], levels: tuple[Level, ...]) -> str:
    text = json.dumps([dict(attributes), repr(levels)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
