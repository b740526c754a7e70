"""TIFF images and stacks, with the voxel size that ImageJ and OME write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dataset_conversion.readers.decoded import Decoded
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.spacing import NANOMETRES

_NANOMETRES = {
    "nm": 1.0, "nanometer": 1.0,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3,
    "mm": 1e6, "millimeter": 1e6,
}  # fmt: skip


def read_tiff(path: Path) -> Decoded:
    """Read the first image series of a TIFF file.

    Returns:
        The image; its voxel size comes from ImageJ's or OME's fields. A plain resolution tag is ignored, since it is
        usually the screen's.

    Raises:
        RetinaError: for axes that are not a single grey image or stack.
    """
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        array, axes = series.asarray(), series.axes
        remarks = _remarks(file)
        coloured = axes.endswith("S") and array.shape[-1] <= 4
        if not coloured and "C" in axes and array.shape[axes.index("C")] in (3, 4):
            array = np.moveaxis(array, axes.index("C"), -1)
            axes, coloured = axes.replace("C", "") + "S", True
        plane = axes[:-1] if coloured else axes
        if len(plane) not in (2, 3) or not plane.endswith("YX") or "C" in plane:
            raise RetinaError(
                f"{path}: a TIFF with axes {axes} and shape {array.shape}; expected YX or ZYX. "
                "Save one channel and one time point to a file (ImageJ: Image > Duplicate)."
            )
        if plane.startswith("T"):
            remarks = (*remarks, "the file calls its first axis time; it was taken as z")
        return Decoded(array, _steps(file, len(plane)), NANOMETRES, remarks, coloured)


def _remarks(file: tifffile.TiffFile) -> tuple[str, ...]:
    remarks = []
    if len(file.series) > 1:
        remarks.append(f"the file holds {len(file.series)} images of different shape; the first was taken")
    photometric = tifffile.PHOTOMETRIC(file.pages[0].photometric)
    if photometric == tifffile.PHOTOMETRIC.PALETTE:
        remarks.append("the file's colour table was ignored; the stored values were taken")
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        remarks.append("the file shows 0 as white; the stored values were taken as they are")
    return tuple(remarks)


def _steps(file: tifffile.TiffFile, ndim: int) -> tuple[float, ...] | None:
    """Return the voxel size in nm, z first for a stack; None if the file states none in a known unit."""
    stated = _ome_steps(file) if file.is_ome else _imagej_steps(file) if file.is_imagej else None
    if stated is None:
        return None
    depth, height, width = stated
    if ndim == 2:
        return height, width
    return None if depth is None else (depth, height, width)


def _imagej_steps(file: tifffile.TiffFile) -> tuple[float | None, float, float] | None:
    metadata = file.imagej_metadata or {}
    factor = _NANOMETRES.get(str(metadata.get("unit", "")).lower())
    tags = file.pages[0].tags
    if factor is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    steps = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = tags[name].value
        if not numerator:
            return None
        steps.append(factor * denominator / numerator)
    depth = metadata.get("spacing")
    return (None if depth is None else abs(float(depth)) * factor), steps[0], steps[1]


def _ome_steps(file: tifffile.TiffFile) -> tuple[float | None, float, float] | None:
    image: Any = tifffile.xml2dict(file.ome_metadata or "").get("OME", {}).get("Image", {})
    pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
    steps: list[float | None] = []
    for axis in "ZYX":
        factor = _NANOMETRES.get(str(pixels.get(f"PhysicalSize{axis}Unit", "um")).lower())
        size = pixels.get(f"PhysicalSize{axis}")
        steps.append(None if factor is None or size is None else float(size) * factor)
    depth, height, width = steps
    return None if height is None or width is None else (depth, height, width)
