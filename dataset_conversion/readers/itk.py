"""NIfTI and NRRD: voxels, their size and unit, and how the axes lie in space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nibabel.openers import ImageOpener

from dataset_conversion.readers.decoded import Decoded, Place
from dataset_conversion.readers.raw_planes import raw_planes, unpack_gzip, unpacking
from dataset_conversion.readers.slabs import Array, Slabs, is_large
from dataset_conversion.readers.units import nanometres
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.images.spacing import NANOMETRES
from nnunetv2_retina.images.whole import check_whole, is_nifti_2, nrrd_header

_NIFTI_UNITS = {"1": 1e6, "3": 1e6}
"""Codes for metre and micrometre: nm in a mm, in which SimpleITK hands them over."""


def read_itk(path: Path) -> Decoded:
    """Read NIfTI or NRRD; a large one plane by plane, if its voxels lie in the file as they are meant.

    A size in micrometres, metres or nm becomes nm. One in mm, or without a unit, stays the header's number, without a
    unit: EM files write nm for mm.
    """
    check_whole(path)
    if is_nifti_2(path):
        raise ImageError("it is NIfTI-2, which SimpleITK does not read; save it as NIfTI-1, or as NRRD")
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    is_nrrd = path.suffix.lower() == ".nrrd"
    factor = _nrrd_factor(nrrd_header(path)[0]) if is_nrrd else _nifti_factor(reader)
    steps = tuple(step * (factor or 1) for step in reversed(reader.GetSpacing()))
    return Decoded(
        (_nrrd_planes if is_nrrd else _nifti_planes)(path, reader) or _whole(reader),
        steps,
        NANOMETRES if factor else None,
        coloured=reader.GetNumberOfComponents() in (3, 4),
        place=Place(tuple(reader.GetSpacing()), tuple(reader.GetOrigin()), tuple(reader.GetDirection())),
    )


def _whole(reader: SimpleITK.ImageFileReader) -> Array:
    return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))


def _large(reader: SimpleITK.ImageFileReader) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return shape (Z, Y, X) and type of a large volume of grey levels; None for another."""
    shape, kind = tuple(reversed(reader.GetSize())), reader.GetPixelID()
    if len(shape) != 3 or reader.GetNumberOfComponents() != 1:
        return None
    dtype = SimpleITK.GetArrayViewFromImage(SimpleITK.Image([1, 1, 1], kind)).dtype
    return (shape, dtype) if is_large(shape, dtype) else None


def _nifti_planes(path: Path, reader: SimpleITK.ImageFileReader) -> Slabs | None:
    if (large := _large(reader)) is None:
        return None
    shape, dtype = large
    with ImageOpener(path) as file:
        header = nibabel.Nifti1Header.from_fileobj(file, check=False)  # which would log what it finds
    stored, scaling = header.get_data_dtype(), header.get_slope_inter()
    if scaling not in ((1, 0), (None, None)) or stored.newbyteorder("=") != dtype:
        return None
    return raw_planes(path, shape, stored, header.get_data_offset(), unpacking(path), read_as=dtype)


def _nrrd_planes(path: Path, reader: SimpleITK.ImageFileReader) -> Slabs | None:
    large, (fields, end) = _large(reader), nrrd_header(path)
    encoding, skips = fields.get("encoding", "").lower(), ("byteskip", "byte skip", "lineskip", "line skip")
    attached = "data file" not in fields and "datafile" not in fields
    if large is None or encoding not in ("raw", "gzip", "gz") or not attached or any(name in fields for name in skips):
        return None
    shape, dtype = large
    stored = dtype.newbyteorder(">" if fields.get("endian", "little").lower() == "big" else "<")
    unpack = None if encoding == "raw" else unpack_gzip
    return raw_planes(path, shape, stored, 0, unpack, skipped=end, read_as=dtype)


def _nifti_factor(reader: SimpleITK.ImageFileReader) -> float | None:
    if not reader.HasMetaDataKey("xyzt_units"):
        return None
    return _NIFTI_UNITS.get(str(int(reader.GetMetaData("xyzt_units")) & 7))


def _nrrd_factor(fields: dict[str, str]) -> float | None:
    units = set(fields.get("space units", fields.get("units", "")).split())
    factor = nanometres(units.pop()) if len(units) == 1 else None
    return None if factor == nanometres("mm") else factor
