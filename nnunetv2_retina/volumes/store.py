"""The output: label volumes as OME-Zarr 0.5, sharded, several resolutions, with the classes' names and colours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_local, replacing
from nnunetv2_retina.images.box import AXES, Box
from nnunetv2_retina.images.levels import ORIGIN, Point
from nnunetv2_retina.images.ome_zarr import import_zarr
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.volumes.blocks import Shape, shard_shape, starts
from nnunetv2_retina.volumes.journal import flush_folder

COARSEST = 512
"""Levels are added until rows and columns are at most so many."""
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
"""Of the classes in turn (Okabe and Ito 2008)."""


@dataclass(frozen=True)
class OutputLevel:
    """One resolution of an output."""

    name: str
    shape: Shape
    factors: Shape
    """From the level before it."""
    shards: Shape
    spacing: Spacing
    origin: Point
    """Where the middle of the first voxel is, in the unit of the spacing."""


def levels(shape: Shape, spacing: Spacing, shard: Shape, chunk: int, origin: Point = ORIGIN) -> list[OutputLevel]:
    """Return the resolutions of an output, finest first; z is halved with y and x once its steps are no larger.

    Args:
        shape: of the finest.
        spacing: of its voxels.
        shard: see ``shard_shape``.
        chunk: side of what is compressed by itself.
        origin: where the middle of the first voxel is, in the unit of the spacing.
    """
    steps, at = np.array(list(spacing)), np.array(origin)
    resolutions = [_level("0", shape, (1, 1, 1), shard, chunk, steps, at, spacing)]
    while max(resolutions[-1].shape[1:]) > COARSEST:
        depth = 2 if steps[0] < 1.5 * steps[1:].max() and resolutions[-1].shape[0] > 1 else 1
        factors: Shape = (depth, 2, 2)
        z, y, x = (ceil(n / factor) for n, factor in zip(resolutions[-1].shape, factors, strict=True))
        at = at + steps * (np.array(factors) - 1) / 2
        steps = steps * factors
        resolutions.append(_level(str(len(resolutions)), (z, y, x), factors, shard, chunk, steps, at, spacing))
    return resolutions


def _level(
    name: str, shape: Shape, factors: Shape, shard: Shape, chunk: int, steps: Any, at: Any, spacing: Spacing
) -> OutputLevel:
    z, y, x = (float(value) for value in at)
    own = Spacing.of([float(step) for step in steps], spacing.unit)
    return OutputLevel(name, shape, factors, shard_shape(shape, shard, chunk), own, (z, y, x))


def create(
    folder: Path,
    sizes: Sequence[OutputLevel],
    dtype: str,
    chunk: int,
    name: str,
    colours: Mapping[int, str] | None,
    is_labels: bool = True,
) -> None:
    """Write the metadata of an output, unless they are there. Voxels that are never written are 0 and take no room.

    Args:
        folder: of the image.
        sizes: its resolutions.
        dtype: of the labels.
        chunk: side of the cubes that are compressed by themselves.
        name: of the image, for viewers.
        colours: the classes' names; None: instances, which viewers colour at random.
        is_labels: False for an image of grey levels.

    Raises:
        RetinaError: if they cannot be written.
    """
    try:
        for level in sizes:
            create_array(folder / level.name, level, dtype, chunk)
        _write_group(folder, {"ome": _metadata(sizes, name, colours, is_labels)})
    except OSError as error:
        raise RetinaError(f"{folder} cannot be written ({error.strerror or error}). Give another output") from error


def create_array(path: Path, level: OutputLevel, dtype: str, chunk: int) -> None:
    """Write the metadata of one array, unless they are there."""
    if (path / "zarr.json").exists():
        return
    zarr = import_zarr()
    zarr.create_array(
        str(path),
        shape=level.shape,
        shards=level.shards,
        chunks=(chunk,) * 3,
        dtype=dtype,
        fill_value=0,
        dimension_names=AXES,
        compressors=zarr.codecs.ZstdCodec(level=3),
        zarr_format=3,
    )


def _write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    import json

    with replacing(folder / "zarr.json") as temporary:
        contents = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        Path(temporary).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def add_labels(folder: Path, names: Sequence[str]) -> None:
    """Name the label images that lie in ``folder/labels``."""
    _write_group(folder / "labels", {"ome": {"version": "0.5", "labels": list(names)}})


def _metadata(
    sizes: Sequence[OutputLevel], name: str, names: Mapping[int, str] | None, is_labels: bool
) -> dict[str, Any]:
    unit = {"unit": "nanometer"} if sizes[0].spacing.unit else {}
    datasets = [
        {
            "path": level.name,
            "coordinateTransformations": [
                {"type": "scale", "scale": list(level.spacing)},
                {"type": "translation", "translation": list(level.origin)},
            ],
        }
        for level in sizes
    ]
    axes = [{"name": axis, "type": "space", **unit} for axis in AXES]
    about: dict[str, Any] = {"version": "0.5"}
    if names:
        about["colors"] = [{"label-value": 0, "rgba": [0, 0, 0, 0]}] + [
            {"label-value": value, "rgba": [*COLOURS[i % len(COLOURS)], 255]} for i, value in enumerate(sorted(names))
        ]
        classes = {0: "background", **names}  # the same values in both lists, as the specification has it
        about["properties"] = [{"label-value": value, "class": classes[value]} for value in sorted(classes)]
    multiscales: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets}
    if not is_labels:
        return {"version": "0.5", "multiscales": [multiscales]}
    return {"version": "0.5", "multiscales": [{**multiscales, "type": "mode"}], "image-label": about}


def check_apart(address: str, output: Path) -> None:
    """Check that an output is a local folder, and neither the input nor inside it.

    Raises:
        RetinaError: if it is not.
    """
    check_local(output)
    if "://" in address:
        return
    source, target = Path(address).resolve(), output.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise RetinaError(f"{output} and the input {address} lie in each other. Give another output")


class LevelWriter:
    """Writes boxes of whole shards to one level of an output, and reads from it."""

    def __init__(self, output: Path, name: str) -> None:
        self.output = output
        self.folder = output / name
        self._array = import_zarr().open_array(str(self.folder), mode="r+")
        self.shape: Shape = tuple(self._array.shape)
        self.shards: Shape = tuple(self._array.shards)
        self.dtype = np.dtype(self._array.dtype)

    def read(self, box: Box) -> NDArray[Any]:
        """Return (z, y, x) of a part."""
        return np.asarray(self._array[box])

    def clear(self, box: Box) -> None:
        """Delete the files of the shards in a box: one that was cut off cannot even be written over."""
        for path in self._files(box):
            path.unlink(missing_ok=True)

    def write(self, box: Box, values: NDArray[Any]) -> dict[str, int]:
        """Write a box shard by shard, flush it to the disk, and return its files and their sizes.

        Args:
            box: whole shards, or up to the end of the volume. ``clear`` it first.
            values: (z, y, x).

        Raises:
            RetinaError: if they cannot be written.
        """
        try:
            for part in self._shards(box):
                inner = tuple(slice(p.start - o, p.stop - o) for p, o in zip(part, starts(box), strict=True))
                if values[inner].any():
                    self._array[part] = values[inner]
            return self._flushed(box)
        except OSError as error:
            raise RetinaError(
                f"{self.folder} cannot be written ({error.strerror or error}). See that it is writable and has room, "
                "then give the same command again"
            ) from error

    def _flushed(self, box: Box) -> dict[str, int]:
        sizes = {}
        for path in self._files(box):
            if not path.exists():  # nothing but background
                continue
            with path.open("rb") as file:
                os.fsync(file.fileno())
                sizes[path.relative_to(self.output).as_posix()] = os.fstat(file.fileno()).st_size
        for folder in {(self.output / name).parent for name in sizes}:
            flush_folder(folder)
        return sizes

    def _shards(self, box: Box) -> list[Box]:
        ranges = [range(part.start, part.stop, side) for part, side in zip(box, self.shards, strict=True)]
        return [
            tuple(slice(a, min(a + s, p.stop)) for a, s, p in zip(corner, self.shards, box, strict=True))  # type: ignore[misc]
            for corner in product(*ranges)
        ]

    def _files(self, box: Box) -> list[Path]:
        return [
            self.folder.joinpath("c", *(str(part.start // side) for part, side in zip(shard, self.shards, strict=True)))
            for shard in self._shards(box)
        ]
