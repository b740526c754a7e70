"""MRC: bytes that may be signed or not, axes that may be stored in any order, rows that begin at the bottom."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from dataset_conversion.readers.decoded import Decoded
from dataset_conversion.readers.pixels import Array
from nnunetv2_retina.images.spacing import NANOMETRES
from nnunetv2_retina.images.whole import mrc_surplus

MRC_SUFFIXES = (".mrc", ".rec", ".map")
_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1
_X, _Y, _Z = 1, 2, 3


def read_mrc(path: Path) -> Decoded:
    """Read MRC, whose header has angstrom; the array is (Z, Y, X) whatever the header's order of axes."""
    surplus = mrc_surplus(path)
    more = (f"{surplus:,} bytes after those that the header announces were left out",) if surplus else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mrcfile, on what was checked above
        opened = mrcfile.open(path, permissive=True)
    with opened as file:
        if file.data is None:
            raise ValueError("no MRC header or truncated data")
        array = np.array(file.data)
        steps = tuple(float(file.voxel_size[axis]) / 10 for axis in ("z", "y", "x"))
        array, axes = _in_order(array, file.header)
        array, sign = _bytes(array, file.header)
    return Decoded(array, steps[-array.ndim :], NANOMETRES, (*more, *axes, *sign))


def _in_order(array: Array, header: Any) -> tuple[Array, tuple[str, ...]]:
    """Bring the axes, which the header names for columns, rows and sections, into the order z, y, x."""
    stored = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if stored == [_Z, _Y, _X] or sorted(stored) != [_X, _Y, _Z] or array.ndim != 3:
        return array, ()
    names = "".join(" xyz"[axis] for axis in stored)
    order = [stored.index(axis) for axis in (_Z, _Y, _X)]
    return array.transpose(order), (f"the header says that the axes are stored as {names}: brought into the order zyx",)


def _bytes(array: Array, header: Any) -> tuple[Array, tuple[str, ...]]:
    """Decide whether bytes are signed, as the standard has it: by IMOD's stamp, else by the header's grey levels."""
    if array.dtype != np.int8:
        return array, ()
    # IMOD keeps unsigned bytes in the mode the standard calls signed, and says so in its own header words 39 and 40.
    stamp, flags = np.frombuffer(bytes(header["extra2"])[40:48], dtype="<i4")
    if stamp == _IMOD_STAMP:
        if flags & _IMOD_SIGNED:
            return array, ()
        return array.view(np.uint8), ("IMOD file: bytes read as unsigned, 0 to 255",)
    low, high = float(header["dmin"]), float(header["dmax"])
    if 0 <= low < high and high > np.iinfo(np.int8).max:
        return array.view(np.uint8), (f"bytes read as unsigned, since the header says {low:g} to {high:g}",)
    if array.size and array.min() < 0:
        return array, ("bytes read as signed, -128 to 127, as the MRC standard has them: look whether that is right",)
    return array, ()
