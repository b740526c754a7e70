"""Label images in the formats that people open: TIFF with ImageJ's metadata, and what their images came in."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray

from nnunetv2_retina.display.tints import class_colours
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

TIFF = (".tif", ".tiff")
ITK = (".nii.gz", ".nii", ".nrrd")
MRC = (".mrc", ".rec", ".map")
HDF5 = (".h5", ".hdf5", ".hdf")
FLAT = (".png", ".bmp")
"""Of images in two axes, of 8 or 16 bits."""
WRITTEN = (*TIFF, *ITK, *MRC, *HDF5, *FLAT)
INSIDE = "labels"
"""Name of the data set in an HDF5 file."""
_LARGEST_TIFF = 2**32 - 2**25
_LUTS, _DISPLAY_RANGE = "LUTs", "Ranges"


def write_labels(
    path: Path,
    labels: NDArray[Any],
    spacing: Spacing | None = None,
    names: Mapping[int, str] | None = None,
    geometry: Mapping[str, Any] | None = None,
) -> None:
    """Write labels in the format of the path's ending, one of ``WRITTEN``; what 16 bits do not hold gets 32.

    Args:
        path: of the file.
        labels: (Y, X) or (Z, Y, X), uint8, uint16 or uint32.
        spacing: along z, y and x, or y and x; None: not known, and not stated.
        names: of the classes, for their colours; None: the values are numbers of objects.
        geometry: spacing, origin and direction as SimpleITK has them, in place of the spacing, for ``ITK``.

    Raises:
        RetinaError: if the format cannot hold the labels.
    """
    ending = next(ending for ending in WRITTEN if path.name.lower().endswith(ending))
    if ending in TIFF:
        _write_tiff(path, labels, spacing, names)
    elif ending in ITK:
        _write_itk(path, labels, spacing, geometry)
    elif ending in MRC:
        _write_mrc(path, labels, spacing)
    elif ending in HDF5:
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset(INSIDE, data=labels, compression="gzip")
    else:
        _write_flat(path, labels)


def write_probabilities(path: Path, values: NDArray[np.float32], spacing: Spacing | None, names: Sequence[str]) -> None:
    """Write (C, Y, X) or (C, Z, Y, X) probabilities as a TIFF file that ImageJ opens as a hyperstack of channels."""
    stack = values[:, None] if values.ndim == 3 else values
    channels, slices = stack.shape[:2]
    stack = np.ascontiguousarray(stack.transpose(1, 0, 2, 3))  # ImageJ counts channels first
    header = [
        f"images={channels * slices}", f"channels={channels}", f"slices={slices}", "hyperstack=true", "mode=grayscale",
    ]  # fmt: skip
    header += [*_units(spacing, slices > 1), "loop=false", "min=0.0", "max=1.0"]
    _save(path, stack.reshape(-1, *stack.shape[2:]), header, spacing, {"Labels": [*names] * slices})


def _write_tiff(path: Path, labels: NDArray[Any], spacing: Spacing | None, names: Mapping[int, str] | None) -> None:
    """Write a stack along z, with the classes' colours as palette, which ImageJ takes for 8 bits alone."""
    planes = labels if labels.ndim == 3 else labels[None]
    most = 255 if labels.dtype == np.uint8 else max(1, int(labels.max()))
    header = [f"images={len(planes)}", f"slices={len(planes)}"] if len(planes) > 1 else []
    header += [*_units(spacing, len(planes) > 1), "loop=false", "min=0.0", f"max={most}.0"]
    info = {} if names is None else {"Info": "\n".join(f"{value} = {name}" for value, name in sorted(names.items()))}
    if labels.dtype == np.uint8:
        _save(
            path,
            planes,
            header,
            spacing,
            info,
            photometric="palette",
            colormap=colour_table(names).astype(np.uint16) * 257,
        )
    else:
        _save(path, planes, header, spacing, {**info, _LUTS: [colour_table(None)], _DISPLAY_RANGE: (0.0, float(most))})


def colour_table(names: Mapping[int, str] | None) -> NDArray[np.uint8]:
    """Return the colours of the values 0 to 255, (3, 256): black, then the reports' of the classes, or all different.

    Args:
        names: label value -> name; None: of numbered objects. Values without a name are grey.
    """
    table = np.zeros((3, 256), np.uint8)
    if names is None:
        for value in range(1, 256):  # steps of the golden ratio: neighbouring numbers far apart
            rgb = colorsys.hsv_to_rgb(value * 0.618034 % 1, (0.9, 0.6)[value % 2], (1.0, 0.8, 0.65)[value % 3])
            table[:, value] = [round(255 * part) for part in rgb]
        return table
    table[:, 1:] = 128
    for value, colour in class_colours(names).items():
        if value < 256:
            table[:, value] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return table


def _units(spacing: Spacing | None, volume: bool) -> list[str]:
    """Return ImageJ's lines about the size of a voxel; a number without a unit is a pixel's to ImageJ."""
    if spacing is None or spacing.unit != NANOMETRES:
        return []
    return ["unit=nm", *([f"spacing={spacing.z:g}"] if volume and spacing.z is not None else [])]


def _save(
    path: Path,
    planes: NDArray[Any],
    header: Sequence[str],
    spacing: Spacing | None,
    more: Mapping[str, Any],
    **options: Any,
) -> None:
    """Write planes (N, Y, X), with ImageJ's description; tifffile's own mode for ImageJ lacks palettes and uint32."""
    known = spacing is not None and spacing.unit == NANOMETRES
    described = "\n".join(("ImageJ=1.54f", *header, ""))
    tags = tifffile.imagej_metadata_tag(dict(more), "<") if more else ()
    with tifffile.TiffWriter(path, bigtiff=planes.nbytes > _LARGEST_TIFF, byteorder="<") as file:
        for number, plane in enumerate(planes):
            file.write(
                plane,
                photometric=options.get("photometric", "minisblack"),
                colormap=options.get("colormap"),
                compression="zlib",
                resolution=(1 / spacing.x, 1 / spacing.y) if spacing is not None and known else None,
                resolutionunit="NONE",
                description=described if number == 0 else None,
                extratags=tags if number == 0 else (),
                metadata=None,
                software=False,
            )


def _write_itk(path: Path, labels: NDArray[Any], spacing: Spacing | None, geometry: Mapping[str, Any] | None) -> None:
    if geometry is not None and len(geometry["spacing"]) != labels.ndim:  # a volume of one slice, or its slice
        labels = labels[0] if labels.ndim == 3 else labels[None]
    image = sitk.GetImageFromArray(labels)
    if geometry is not None:
        image.SetSpacing(geometry["spacing"])
        image.SetOrigin(geometry["origin"])
        image.SetDirection(geometry["direction"])
    elif spacing is not None:
        image.SetSpacing([float(step) for step in reversed(tuple(spacing))][: image.GetDimension()])
    sitk.WriteImage(image, str(path), True)


def _write_mrc(path: Path, labels: NDArray[Any], spacing: Spacing | None) -> None:
    """Write MRC, which has no unsigned bytes and no 32 bit integers: small values as signed bytes, many as float32."""
    import mrcfile

    most = int(labels.max(initial=0))
    kind = np.int8 if most < 2**7 else np.uint16 if most < 2**16 else np.float32
    with mrcfile.new(path, data=labels.astype(kind)) as file:
        if spacing is not None and spacing.unit == NANOMETRES:
            file.voxel_size = (10 * spacing.x, 10 * spacing.y, 10 * (spacing.z or spacing.y))


def _write_flat(path: Path, labels: NDArray[Any]) -> None:
    import imageio.v3 as iio

    if labels.dtype.itemsize > 2 or (path.suffix.lower() == ".bmp" and labels.dtype != np.uint8):
        raise RetinaError(
            f"{path.name} would hold values up to {int(labels.max())}, too many for {path.suffix}. Leave out small "
            "objects with --instance-size, or write another format: --output-format tif"
        )
    path.write_bytes(iio.imwrite("<bytes>", labels, extension=path.suffix.lower()))
