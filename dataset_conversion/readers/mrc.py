"""MRC: bytes that may be signed or not, axes that may be stored in any order, rows that begin at the bottom."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile.utils import data_dtype_from_header, data_shape_from_header

from dataset_conversion.readers.decoded import Decoded
from dataset_conversion.readers.raw_planes import raw_planes, unpacking
from dataset_conversion.readers.slabs import Array, Slabs, Volume, is_large, mapped, slabs
from nnunetv2_retina.images.spacing import NANOMETRES
from nnunetv2_retina.images.whole import mrc_surplus

MRC_SUFFIXES = (".mrc", ".rec", ".map")
_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1
_X, _Y, _Z = 1, 2, 3
_HEADER = 1024
"""Bytes, before an extended header."""


def read_mrc(path: Path) -> Decoded:
    """Read MRC, whose header has angstrom; the array is (Z, Y, X) whatever the header's order of axes.

    A large one is read plane by plane, unless its header says that planes follow each other along another axis than z.
    """
    surplus = mrc_surplus(path)
    more = (f"{surplus:,} bytes after those that the header announces were left out",) if surplus else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mrcfile, on what was checked above
        with mrcfile.open(path, permissive=True, header_only=True) as file:
            header = file.header
            steps = tuple(float(file.voxel_size[axis]) / 10 for axis in ("z", "y", "x"))
        volume, axes = _in_order(_planes(path, header) or _whole(path), header)
    volume, sign = _bytes(volume, header)
    return Decoded(volume, steps[-volume.ndim :], NANOMETRES, (*more, *axes, *sign))


def _planes(path: Path, header: Any) -> Slabs | None:
    """Return a large volume plane by plane; None for another."""
    shape, dtype = data_shape_from_header(header), data_dtype_from_header(header)
    turned = int(header.maps) in (_X, _Y)
    if not is_large(shape, dtype) or len(shape) != 3 or turned:
        return None
    return raw_planes(path, shape, dtype, _HEADER + int(header.nsymbt), unpacking(path))


def _whole(path: Path) -> Array:
    with mrcfile.open(path, permissive=True) as file:
        if file.data is None:
            raise ValueError("no MRC header or truncated data")
        return np.array(file.data)


def _in_order(array: Volume, header: Any) -> tuple[Volume, tuple[str, ...]]:
    """Bring the axes, which the header names for columns, rows and sections, into the order z, y, x."""
    stored = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if stored == [_Z, _Y, _X] or sorted(stored) != [_X, _Y, _Z] or array.ndim != 3:
        return array, ()
    names = "".join(" xyz"[axis] for axis in stored)
    remarks = (f"the header says that the axes are stored as {names}: brought into the order zyx",)
    if isinstance(array, Slabs):  # z comes first, as in _planes
        z, y, x = array.shape
        return Slabs((z, x, y), array.dtype, lambda: (slab.swapaxes(1, 2) for _, slab in slabs(array))), remarks
    return array.transpose([stored.index(axis) for axis in (_Z, _Y, _X)]), remarks


def _bytes(array: Volume, header: Any) -> tuple[Volume, tuple[str, ...]]:
    """Decide whether bytes are signed, as the standard has it: by IMOD's stamp, else by the header's grey levels."""
    if array.dtype != np.int8:
        return array, ()
    # IMOD keeps unsigned bytes in the mode the standard calls signed, and says so in its own header words 39 and 40.
    stamp, flags = np.frombuffer(bytes(header["extra2"])[40:48], dtype="<i4")
    if stamp == _IMOD_STAMP:
        if flags & _IMOD_SIGNED:
            return array, ()
        return _unsigned(array), ("IMOD file: bytes read as unsigned, 0 to 255",)
    low, high = float(header["dmin"]), float(header["dmax"])
    if 0 <= low < high and high > np.iinfo(np.int8).max:
        return _unsigned(array), (f"bytes read as unsigned, since the header says {low:g} to {high:g}",)
    if any(slab.size and slab.min() < 0 for _, slab in slabs(array)):
        return array, ("bytes read as signed, -128 to 127, as the MRC standard has them: look whether that is right",)
    return array, ()


def _unsigned(array: Volume) -> Volume:
    return mapped(array, lambda _, slab: slab.view(np.uint8), np.uint8)
