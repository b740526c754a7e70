"""Volumes in HDF5 files, named ``FILE.h5::path/in/the/file``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from dataset_conversion.readers.decoded import Decoded
from dataset_conversion.readers.slabs import Array, Slabs, Volume, is_large, plane_ranges
from nnunetv2_retina.console.machine import memory_bytes
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.picture import MOST_PACKED, ImageError, check_size
from nnunetv2_retina.images.spacing import NANOMETRES

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
SEPARATOR = "::"
_ORDER = "tzyxc"
_NARROW = 16
"""Pixels: an image is wider than that, where three or four of a last axis are its colours."""


def split_location(location: str) -> tuple[Path, str | None]:
    """Split ``FILE.h5::raw`` into the file and ``raw``; a plain path into the path and None."""
    file, separator, dataset = location.partition(SEPARATOR)
    return Path(file), dataset.strip("/") if separator else None


def list_datasets(path: Path) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of every array with two or more axes.

    Raises:
        RetinaError: if the file cannot be opened.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2:
            shapes[name] = tuple(item.shape)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)
    except OSError as error:
        raise RetinaError(f"{path}: cannot be read as HDF5 ({error}). Is the file complete?") from error
    return shapes


def match_datasets(path: Path, pattern: str) -> dict[str, str]:
    """Find the data sets whose path fits a pattern with one ``*``.

    Args:
        path: the file.
        pattern: ``*`` stands for one part of the path, as in ``*/raw`` or ``volumes/*/labels``.

    Returns:
        What ``*`` stood for -> the data set's path.

    Raises:
        RetinaError: if none fits, listing all.
    """
    before, _, after = pattern.strip("/").partition("*")
    expression = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")
    names = list_datasets(path)
    fitting = {match[1]: name for name in names if (match := expression.fullmatch(name))}
    if not fitting:
        raise RetinaError(f"{path}: no data set fits {pattern!r}. {listing(names)}")
    return fitting


def read_hdf5(path: Path, dataset: str | None) -> Decoded:
    """Read one data set; a large volume in slabs of the depth of its chunks, unless its layout forbids it.

    Args:
        path: the file.
        dataset: its path inside; None for the only one.

    Returns:
        The array as stored, with its voxel size from the attribute ``resolution`` (CREMI) or ``element_size_um``
        (ilastik, Fiji).

    Raises:
        RetinaError: for a path that does not exist, or none where there are several; the text lists them.
    """
    names = list_datasets(path)
    remarks: tuple[str, ...] = ()
    if dataset is None:
        if len(names) != 1:
            raise RetinaError(f"{path}: which data set? Name one (FILE{SEPARATOR}PATH). {listing(names)}")
        dataset = next(iter(names))
        remarks = (f"data set {dataset}: the only one in the file",)
    dataset = dataset.strip("/")
    if dataset not in names:
        raise RetinaError(f"{path}: no data set {dataset!r} with two or more axes. {listing(names)}")
    with h5py.File(path, "r") as file:
        item = file[dataset]
        return _decoded(item, (*remarks, *_unwritten(item)))


def _unwritten(item: h5py.Dataset) -> tuple[str, ...]:
    """Say which part of a data set the file does not hold, which HDF5 fills up.

    Raises:
        ImageError: if it lies in other files, and one of them is missing.
    """
    if item.is_virtual:
        folder = Path(item.file.filename).parent
        for source in item.virtual_sources():
            if source.file_name != "." and not (folder / source.file_name).is_file():
                raise ImageError(f"a part of {item.name} lies in {source.file_name}, which is not there")
        return ()
    if item.chunks is None:
        written, parts = int(item.size == 0 or item.external is not None or item.id.get_storage_size() > 0), 1
    else:
        written = item.id.get_num_chunks()
        parts = math.prod(-(-side // chunk) for side, chunk in zip(item.shape, item.chunks, strict=True))
    if written >= parts:
        return ()
    return (f"{parts - written} of {parts} parts of {item.name} were never written: read as {item.fillvalue}",)


def _decoded(item: h5py.Dataset, remarks: tuple[str, ...]) -> Decoded:
    """Return (Y, X), (Z, Y, X), or these with colours, in the order that the axes' names tell where there are any."""
    steps, axes, order = _steps(item), _axes(item), list(range(item.ndim))
    coloured = False
    if axes is not None:
        kept = [index for index, name in enumerate(axes) if name in "zyx" or item.shape[index] > 1]
        order = sorted(kept, key=lambda index: _ORDER.find(axes[index]))
        if order != list(range(item.ndim)):
            names = "".join(axes[index] for index in order)
            remarks = (*remarks, f"axes {axes} by the file's own names: read as {names}")
        coloured = axes[order[-1]] == "c"
        if coloured and item.shape[order[-1]] not in (3, 4):
            raise RetinaError(
                f"{item.file.filename}: {item.name} has {item.shape[order[-1]]} channels (axes {axes}, shape "
                f"{item.shape}); expected one, or grey in RGB. Save one channel to a data set of its own"
            )
    elif item.ndim == 3 and item.shape[-1] == 1 and min(item.shape[:2]) > 1:  # images of one channel
        order, remarks = [0, 1], (*remarks, "the last axis has length 1: taken as a channel")
    elif item.ndim in (3, 4) and item.shape[-1] in (3, 4) and min(item.shape[-3:-1]) > _NARROW:
        coloured, remarks = True, (*remarks, f"the last axis has length {item.shape[-1]}: taken as colours")
    while len(order) - coloured > 3 and (single := [index for index in order if item.shape[index] == 1]):
        order.remove(single[0])
    steps = None if steps is None else tuple(steps[index] for index in order[: len(order) - coloured])
    return Decoded(_volume(item, order), steps, NANOMETRES, remarks, coloured)


def _volume(item: h5py.Dataset, order: Sequence[int]) -> Volume:
    """Return some axes of a data set, the others of which have one entry.

    Raises:
        TooLargeError: for what cannot be read in parts that fit into memory; for a size without the data for it.
    """
    shape = tuple(item.shape[index] for index in order)
    depth = _depth(item, order[0])
    in_slabs = is_large(shape, item.dtype) and len(shape) <= 4 and depth < shape[0]
    at_once = (depth, *shape[1:]) if in_slabs else shape
    check_size(math.prod(at_once) * item.dtype.itemsize, memory_bytes(), " x ".join(map(str, at_once)))
    if not in_slabs:
        return _part(item, order, slice(None))
    if not item.is_virtual and item.external is None:
        believed = max(memory_bytes(), MOST_PACKED * item.id.get_storage_size())
        check_size(item.nbytes, believed, " x ".join(map(str, item.shape)))
    path, name = Path(item.file.filename), item.name

    def blocks() -> Iterator[Array]:
        with h5py.File(path, "r") as file:
            for part in plane_ranges(shape, file[name].dtype, depth):
                yield _part(file[name], order, slice(part.start, part.stop))

    return Slabs(shape, item.dtype, blocks)


def _depth(item: h5py.Dataset, z: int) -> int:
    """Return how many planes along an axis are best read at once."""
    if item.chunks is not None:
        return int(item.chunks[z])
    return 1 if all(side == 1 for side in item.shape[:z]) else int(item.shape[z])  # else planes lie in shreds


def _part(item: h5py.Dataset, order: Sequence[int], part: slice) -> Array:
    """Return some planes along the first axis of an order, with the axes in that order."""
    chosen: list[slice | int] = [slice(None) if index in order else 0 for index in range(item.ndim)]
    chosen[order[0]] = part
    return np.asarray(item[tuple(chosen)].transpose([sorted(order).index(index) for index in order]))


def _axes(item: h5py.Dataset) -> str | None:
    """Return a letter for each axis, from ilastik's (vigra's) axistags or HDF5's own labels; None without them."""
    names: list[str] = []
    try:
        if "axistags" in item.attrs:
            names = [str(tag["key"]) for tag in json.loads(item.attrs["axistags"])["axes"]]
        else:
            names = [str(dimension.label) for dimension in item.dims]
    except (ValueError, KeyError, TypeError):
        return None
    axes = "".join(names).lower()
    known = len(names) == len(axes) == item.ndim == len(set(axes)) and set("yx") <= set(axes) <= set(_ORDER)
    return axes if known else None


def listing(names: dict[str, tuple[int, ...]]) -> str:
    """Put what ``list_datasets`` returned into words, for error texts."""
    if not names:
        return "The file holds no array with two or more axes."
    shown = ", ".join(f"{name} {shape}" for name, shape in list(names.items())[:20])
    return f"The file holds: {shown}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _steps(item: h5py.Dataset) -> tuple[float, ...] | None:
    for attribute, factor in (("resolution", 1.0), ("element_size_um", 1000.0)):
        if attribute in item.attrs:
            values = np.atleast_1d(item.attrs[attribute])
            if values.dtype.kind in "iuf" and len(values) == item.ndim:
                return tuple(float(value) * factor for value in values)
    return None
