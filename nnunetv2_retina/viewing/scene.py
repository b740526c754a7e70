"""Images and labels to show, of any kind that is read, and the classes' names from the files beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataset_conversion.readers.hdf5 import HDF5_SUFFIXES, SEPARATOR, split_location
from dataset_conversion.readers.images import ImageFile, file_stem, file_suffix, read_image
from dataset_conversion.readers.pixels import integer_label
from dataset_conversion.readers.slabs import Array, whole
from nnunetv2_retina.display.slider import LabelLayer, check_shapes
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import parse_box
from nnunetv2_retina.images.ome_zarr import is_zarr, open_volume, volume_stem
from nnunetv2_retina.nnunet.datasets import DATASET_JSON, class_names, ignored_value, read_dataset_json
from nnunetv2_retina.nnunet.labels import INSTANCES

if TYPE_CHECKING:
    from nnunetv2_retina.images.spacing import Spacing

MOST_CLASSES = 32
"""Where there are more values without names, they are taken for numbers of objects."""
HIGHEST = 2**32 - 1
"""The largest label, or number of an object, that can be shown."""
MOST_VOXELS = 1 << 29
"""The most voxels of a Zarr volume that are read for a page."""


@dataclass(frozen=True)
class Scene:
    """An image and its labels, of one shape."""

    name: str
    image: Array
    """(Y, X) or (Z, Y, X)."""
    spacing: Spacing | None
    """None where the file states none."""
    layers: tuple[LabelLayer, ...] = ()


def read_scene(image: str, labels: Sequence[str] = (), box: str | None = None) -> Scene:
    """Read an image and its labels.

    Args:
        image: a file, ``FILE.h5::path``, or a Zarr volume.
        labels: the same, for each layer of labels.
        box: part of Zarr volumes to read, ``z0:z1,y0:y1,x0:x1``; None: all, if it is not too large.

    Raises:
        RetinaError: for a file that cannot be read, or labels of another shape than the image.
    """
    read = _read(image, False, box)
    name = _stem(image)
    layers = [read_labels(path, box) for path in labels]
    titles = _titles(name, labels, [layer.name for layer in layers])
    fitting = [
        LabelLayer(title, _on(layer.values, read.array), layer.classes, layer.ignore)
        for title, layer in zip(titles, layers, strict=True)
    ]
    check_shapes(name, read.array, fitting)
    return Scene(name, read.array, read.spacing, tuple(fitting))


def read_labels(location: str, box: str | None = None) -> LabelLayer:
    """Read labels, with the classes' names from the dataset.json beside them, or from a Zarr volume's own metadata.

    Values without a name are named by their number or, if they are many, taken for numbers of objects.

    Raises:
        RetinaError: if they cannot be read, or hold values that are no whole numbers.
    """
    path, _ = split_location(location)
    name = _stem(location)
    values = whole(integer_label(_read(location, True, box).array, name))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > HIGHEST:
        raise RetinaError(
            f"{location} holds values from {low} to {high}; expected labels from 0 to {HIGHEST}. Save what is not "
            "annotated, or the objects, under other numbers"
        )
    if name.endswith(INSTANCES):
        return LabelLayer(name, values)
    names, ignore = names_beside(path)
    present = [int(value) for value in np.unique(values) if value != 0]
    unnamed = {value: f"label {value}" for value in present if value not in names and value != ignore}
    if len(unnamed) > MOST_CLASSES:
        return LabelLayer(name, values)
    return LabelLayer(name, values, {**names, **unnamed} or {1: "label 1"}, ignore)


def spacing_of(location: str) -> Spacing | None:
    """Return the voxel size that a file of labels states; None if it states none."""
    try:
        return _read(location, False, None).spacing
    except RetinaError:  # a palette, for instance, read as an image
        return None


def names_beside(path: Path) -> tuple[dict[int, str], int | None]:
    """Return the classes' names of a file of labels, and the value of what is not annotated; empty and None if unknown.

    They are those of the dataset.json in its folder, which predictions have, or above it, which data sets have; a Zarr
    volume has its own.
    """
    if is_zarr(path):
        from nnunetv2_retina.volumes.view import class_names as of_volume

        try:
            return of_volume(path), None
        except RetinaError:
            return {}, None
    for folder in (path.absolute().parent, path.absolute().parent.parent):
        if (folder / DATASET_JSON).is_file():
            contents = read_dataset_json(folder)
            return class_names(contents), ignored_value(contents)
    return {}, None


def _read(location: str, mask: bool, box: str | None) -> ImageFile[Array]:
    path, inside = split_location(location)
    if not is_zarr(path):
        if box is not None:
            raise RetinaError(f"--box is for Zarr volumes; {path} is none. Leave it out")
        if inside is not None and file_suffix(path) not in HDF5_SUFFIXES:
            raise RetinaError(
                f"{location}: {SEPARATOR} names a path inside HDF5 files and Zarr volumes; {path} is none"
            )
        return read_image(path, inside, mask)
    volume = open_volume(path, unstated=(1, 1, 1))
    level = volume.levels[0] if inside is None else volume.level(inside)
    part = parse_box(box or ":,:,:", level.shape)
    voxels = int(np.prod([side.stop - side.start for side in part]))
    if voxels > MOST_VOXELS:
        raise RetinaError(
            f"{path} has {voxels:,} voxels there; a page shows up to {MOST_VOXELS:,}. Choose a part with --box "
            "z0:z1,y0:y1,x0:x1, or leave --page out for neuroglancer"
        )
    return read_image(path, inside, mask, box)


def _on(labels: Array, image: Array) -> Array:
    """Drop or add the single slice that one file has and the other does not."""
    if labels.shape == (1, *image.shape):
        return np.asarray(labels[0])
    return labels[None] if (1, *labels.shape) == image.shape else labels


def _titles(image: str, labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the names of layers; with their folder where they would be the image's, or another layer's."""
    taken = [image, *names]
    return [
        name if taken.count(name) == 1 else f"{split_location(path)[0].absolute().parent.name}/{name}"
        for path, name in zip(labels, names, strict=True)
    ]


def _stem(location: str) -> str:
    path, inside = split_location(location)
    stem = volume_stem(path) if is_zarr(path) else file_stem(path)
    return f"{stem} {inside}" if inside else stem
