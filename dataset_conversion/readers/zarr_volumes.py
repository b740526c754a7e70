"""Parts of OME-Zarr volumes, and of Zarr arrays, read without the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataset_conversion.readers.decoded import Decoded, Place
from dataset_conversion.readers.slabs import Array, Slabs, is_large, plane_ranges
from nnunetv2_retina.images.box import parse_box
from nnunetv2_retina.images.levels import shifted
from nnunetv2_retina.images.ome_zarr import StoredArray, open_volume
from nnunetv2_retina.images.spacing import NANOMETRES


def read_zarr(path: Path, level: str | None, box: str | None) -> Decoded:
    """Open a part of a volume; a large one is read in the depth of its chunks.

    Args:
        path: of the OME-Zarr image or Zarr array.
        level: path of the resolution; None: the finest.
        box: ``z0:z1,y0:y1,x0:x1`` in its voxels; None: all of it.

    Returns:
        (Z, Y, X) as stored; the voxel size is left out where the metadata state none.

    Raises:
        RetinaError: if it is no such volume, or the box does not lie in it.
    """
    volume = open_volume(path, unstated=(1, 1, 1))
    chosen = volume.levels[0] if level is None else volume.level(level)
    part = parse_box(box or ":,:,:", chosen.shape)
    steps = None if volume.version is None else tuple(chosen.spacing)
    unit = NANOMETRES if chosen.spacing.unit else None
    shape, dtype = tuple(side.stop - side.start for side in part), np.dtype(chosen.dtype)

    def blocks() -> Iterator[Array]:
        stored = StoredArray(volume.address, chosen)
        for z in plane_ranges(shape, dtype, chosen.chunks[0], part[0].start):
            yield stored.read((slice(part[0].start + z.start, part[0].start + z.stop), *part[1:]))

    begins = shifted(chosen.origin, chosen.spacing, [side.start for side in part])
    array = Slabs(shape, dtype, blocks) if is_large(shape, dtype) else StoredArray(volume.address, chosen).read(part)
    return Decoded(array, steps, unit, place=None if steps is None else Place(steps[::-1], begins[::-1]))
