"""Reading OME-Zarr volumes (0.4 and 0.5), Zarr arrays without OME metadata, and N5, part by part.

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
from nnunetv2_retina.images.box import AXES, Box
from nnunetv2_retina.images.n5 import N5, N5Array, is_n5, stated_steps
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

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
    """Of OME-Zarr, or N5; None: an array without metadata on the size of its voxels."""
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
        path = f"{address.rstrip('/')}/{level.path}" if level.path else address
        try:
            self._array = N5Array(path) if is_n5(path) else import_zarr().open_array(path, mode="r")
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
    """Tell whether a path is meant as a Zarr or N5 store: by its name, or by the metadata that its folder holds."""
    text = str(path).rstrip("/")
    return (
        text.endswith(".zarr")
        or is_n5(text)
        or any((Path(text) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
    )


def volume_stem(path: Path) -> str:
    """Return the name of a store without its ending."""
    return path.name.removesuffix(".zarr").removesuffix(".n5")


def open_volume(
    address: str | Path, spacing: Sequence[float] | None = None, unstated: Sequence[float] | None = None
) -> Volume:
    """Open a volume's metadata.

    Args:
        address: a folder, or a URL that fsspec opens, of an OME-Zarr image or a Zarr array; or of N5 (tensorstore).
        spacing: nm along z, y and x of the finest level, for a volume whose metadata do not state it or state it wrong.
        unstated: taken for an array without metadata, instead of refusing it.

    Raises:
        RetinaError: for anything that is not a volume of grey levels along z, y and x.
    """
    address = str(address).rstrip("/")
    if is_n5(address):
        return _n5(address, spacing, unstated)
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
    try:
        return zarr.open(address, mode="r")
    except ImportError as error:
        raise RetinaError(f"{address} cannot be opened ({error}). Install what it names") from error
    except Exception as error:  # stores raise whatever their file system does
        raise RetinaError(
            f"{address} is no Zarr volume that can be read ({_reason(error)}). Give the folder that holds zarr.json, "
            ".zgroup or .zarray, or N5's attributes.json"
        ) from error


def _bare(address: str, array: Any, spacing: Sequence[float] | None) -> Volume:
    if spacing is None:
        raise RetinaError(f"{address} is a Zarr array without OME metadata. Add --spacing Z,Y,X in nm")
    steps = Spacing.of(spacing, NANOMETRES)
    level = _checked(address, "", array, len(array.shape) - 3, steps)
    return Volume(address, None, (level,), _digest({}, (level,)))


def _n5(address: str, spacing: Sequence[float] | None, unstated: Sequence[float] | None) -> Volume:
    """Open an N5 array, or a group of them that is a pyramid."""
    if "://" not in address and not Path(address).is_dir():
        raise RetinaError(f"no N5 volume {address}: {'that is a file' if Path(address).exists() else 'no such folder'}")
    node = N5(address)
    paths = [""] if node.is_array else node.levels()
    if not paths:
        inside = f"{address}/{node.paths[0].rpartition('/')[0] or node.paths[0]}" if node.paths else "another folder"
        raise RetinaError(f"{address} holds no levels s0, s1, ... but {shorten(node.paths)}. Give {inside}")
    levels: list[Level] = []
    known = False
    for number, path in enumerate(paths):
        own, group = (node.attributes, {}) if node.is_array else (node.of(path), node.attributes)
        try:
            array, stated = N5Array(f"{address}/{path}" if path else address), stated_steps(own, group, number)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            place = f"{address}/{path}".rstrip("/")
            raise RetinaError(
                f"{place}: its attributes cannot be read ({type(error).__name__}: {_reason(error)}). Write them anew, "
                "or the volume as OME-Zarr"
            ) from error
        given, known = spacing or unstated, known or stated is not None
        if stated is not None:
            steps = _spacing(address, *stated)
        elif levels:  # coarser by how many voxels it has
            pairs = zip(levels[0].spacing, levels[0].shape, array.shape[-3:], strict=True)
            steps = Spacing.of([step * round(n / fewer) for step, n, fewer in pairs], levels[0].spacing.unit)
        elif given is not None:
            steps = Spacing.of(given, NANOMETRES)
        else:
            raise RetinaError(f"{address} is an N5 volume without the size of its voxels. Add --spacing Z,Y,X in nm")
        levels.append(_checked(address, path, array, len(array.shape) - 3, steps))
    found = tuple(levels) if spacing is None else _respaced(tuple(levels), spacing)
    return Volume(address, "N5" if known else None, found, _digest(node.attributes, found))


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
    units = [str(axis.get("unit") or "") for axis in axes[-3:]]
    return _checked(address, path, array, len(axes) - 3, _spacing(address, scale[-3:].tolist(), units))


def _spacing(address: str, steps: Sequence[float], units: Sequence[str]) -> Spacing:
    """Return the size of a voxel in nm where all its units are stated.

    Raises:
        RetinaError: for a unit that is none of length.
    """
    if wrong := sorted({unit for unit in units if unit and unit.lower() not in _NANOMETRES_PER}):
        raise RetinaError(f"{address}: its axes are in {wrong[0]!r}; expected a unit of length such as nanometer")
    factors = [_NANOMETRES_PER[unit.lower()] if unit else 1.0 for unit in units]
    sizes = [float(step * factor) for step, factor in zip(steps, factors, strict=True)]
    return Spacing.of(sizes, NANOMETRES if all(units) else None)


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
