"""NIfTI and NRRD: voxels, their size and unit, and how the axes lie in space."""

from __future__ import annotations

from pathlib import Path

import SimpleITK

from dataset_conversion.readers.decoded import Decoded
from dataset_conversion.readers.units import nanometres
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.images.spacing import NANOMETRES
from nnunetv2_retina.images.whole import check_whole, is_nifti_2, nrrd_fields

_NIFTI_UNITS = {"1": 1e6, "3": 1e6}
"""Codes for metre and micrometre: nm in a mm, in which SimpleITK hands them over."""


def read_itk(path: Path) -> Decoded:
    """Read NIfTI or NRRD, whole.

    A size in micrometres, metres or nm becomes nm. One in mm, or without a unit, stays the header's number, without a
    unit: EM files write nm for mm.
    """
    check_whole(path)
    if is_nifti_2(path):
        raise ImageError("it is NIfTI-2, which SimpleITK does not read; save it as NIfTI-1, or as NRRD")
    volume = SimpleITK.ReadImage(str(path))
    factor = _nrrd_factor(path) if path.suffix.lower() == ".nrrd" else _nifti_factor(volume)
    steps = tuple(step * (factor or 1) for step in reversed(volume.GetSpacing()))
    return Decoded(
        SimpleITK.GetArrayFromImage(volume),
        steps,
        NANOMETRES if factor else None,
        coloured=volume.GetNumberOfComponentsPerPixel() in (3, 4),
        direction=tuple(volume.GetDirection()),
        origin=tuple(volume.GetOrigin()),
    )


def _nifti_factor(volume: SimpleITK.Image) -> float | None:
    if not volume.HasMetaDataKey("xyzt_units"):
        return None
    return _NIFTI_UNITS.get(str(int(volume.GetMetaData("xyzt_units")) & 7))


def _nrrd_factor(path: Path) -> float | None:
    fields = nrrd_fields(path)
    units = set(fields.get("space units", fields.get("units", "")).split())
    factor = nanometres(units.pop()) if len(units) == 1 else None
    return None if factor == nanometres("mm") else factor
