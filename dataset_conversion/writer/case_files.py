"""Image and label files as nnU-Net's own readers expect them: PNG or TIFF for 2D, NIfTI for 3D."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import tifffile

from dataset_conversion.readers.slabs import Array, Volume, slabs
from dataset_conversion.writer.nifti import write_nifti
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing

PNG, TIFF, NIFTI = ".png", ".tif", ".nii.gz"
PNG_PIXEL_LIMIT = 178_956_970
"""Pillow, through which nnU-Net reads PNG, refuses larger images as a decompression bomb."""


def file_ending(image: Volume) -> str:
    """Return the file ending that a case needs.

    3D: NIfTI. 2D: PNG for uint8 and uint16; TIFF for what PNG cannot hold (int16, float32), uncompressed so that
    nnU-Net's ``NaturalImage2DIO`` reads it without further packages.

    Args:
        image: (Y, X) or (Z, Y, X), of a type from ``storable_image``.
    """
    if image.ndim == 3:
        return NIFTI
    return PNG if image.dtype in (np.uint8, np.uint16) else TIFF


def write_array(path: Path, volume: Volume, spacing: Spacing, seen: Callable[[Array], None] = lambda _: None) -> None:
    """Write one image or label file in the format of its ending.

    Args:
        path: ends in ``.png``, ``.tif`` or ``.nii.gz``.
        volume: (Y, X) for the first two, (Z, Y, X) for NIfTI.
        spacing: only NIfTI stores it, as the numbers they are (the header has no nm).
        seen: called with all planes (n, Y, X) in order, some at a time, as they are written.

    Raises:
        RetinaError: if the file cannot be written, or nnU-Net could not read it again.
    """

    def passing() -> Iterator[Array]:
        for _, slab in slabs(volume):
            seen(slab)
            yield slab

    try:
        if path.name.endswith(NIFTI):
            write_nifti(path, passing(), volume.shape, volume.dtype, spacing)
            return
        (plane,) = (slab[0] for slab in passing())
        if path.suffix == TIFF:
            tifffile.imwrite(path, plane, photometric="minisblack", metadata=None)
        else:
            if plane.size > PNG_PIXEL_LIMIT:
                raise RetinaError(
                    f"{path.name}: {plane.shape[0]} x {plane.shape[1]} pixels; nnU-Net reads PNG images of at most "
                    f"{PNG_PIXEL_LIMIT} pixels. Cut it into tiles first."
                )
            path.write_bytes(iio.imwrite("<bytes>", plane, extension=PNG))  # on a full disk it shows tracebacks
    except (OSError, RuntimeError) as error:
        raise RetinaError(f"cannot write {path}: {error}. Is the disk full or the folder read-only?") from error
