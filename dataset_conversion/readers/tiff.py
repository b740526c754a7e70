"""The voxel size that ImageJ and OME write into TIFF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile

from dataset_conversion.readers.units import nanometres


def read_steps(path: Path, ndim: int) -> tuple[float, ...] | None:
    """Read the voxel size of a TIFF file from ImageJ's or OME's fields.

    A plain resolution tag is ignored, since it is usually the screen's.

    Returns:
        nm, z first for a stack; None if the file states none in a known unit.
    """
    with tifffile.TiffFile(path) as file:
        return _steps(file, ndim)


def _steps(file: tifffile.TiffFile, ndim: int) -> tuple[float, ...] | None:
    stated = _ome_steps(file) if file.is_ome else _imagej_steps(file) if file.is_imagej else None
    if stated is None:
        return None
    depth, height, width = stated
    if ndim == 2:
        return height, width
    return None if depth is None else (depth, height, width)


def _imagej_steps(file: tifffile.TiffFile) -> tuple[float | None, float, float] | None:
    metadata = file.imagej_metadata or {}
    factor = nanometres(metadata.get("unit", ""))
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
        factor = nanometres(pixels.get(f"PhysicalSize{axis}Unit", "um"))
        size = pixels.get(f"PhysicalSize{axis}")
        steps.append(None if factor is None or size is None else float(size) * factor)
    depth, height, width = steps
    return None if height is None or width is None else (depth, height, width)
