"""Volumes as NIfTI-1, slab by slab, in the form in which SimpleITK writes them and nnU-Net reads them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt

from dataset_conversion.readers.slabs import Array
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing

LONGEST_SIDE = 32767
"""Voxels along an axis, by the header's 16 bits."""
_LEVEL = 3
"""Of gzip: images of EM become as small as at SimpleITK's 6, in as much time or less; masks 1.5 to 1.8 times as large.

Measured on serial block-face and serial section volumes with zlib 1.2.13 and SimpleITK 2.5.7.
"""


def write_nifti(
    path: Path, slabs: Iterable[Array], shape: tuple[int, ...], dtype: npt.DTypeLike, spacing: Spacing
) -> None:
    """Write a volume to a ``.nii.gz`` file; only a slab of it is in memory.

    The first voxel lies at 0, and the axes are those that SimpleITK calls the identity. The same volume gives the same
    bytes, whatever the slabs.

    Args:
        path: of the file.
        slabs: the planes (n, Y, X), in order.
        shape: (Z, Y, X).
        dtype: of the voxels: uint8, uint16, int16 or float32.
        spacing: as the numbers they are; the header says mm, as every reader takes it to.

    Raises:
        RetinaError: for a volume that is too long for the format.
        OSError: if the file cannot be written.
    """
    stored = np.dtype(dtype).newbyteorder("<")
    header = nifti_header(shape, stored, spacing)
    with path.open("wb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as stream:
        stream.write(header)
        for slab in slabs:
            stream.write(np.ascontiguousarray(slab, stored).data)


def nifti_header(shape: tuple[int, ...], dtype: npt.DTypeLike, spacing: Spacing) -> bytes:
    """Return the 352 bytes before the voxels.

    Raises:
        RetinaError: for a volume that is too long for the format.
    """
    if max(shape) > LONGEST_SIDE:
        raise RetinaError(
            f"a volume of {' x '.join(map(str, shape))} voxels; NIfTI, which nnU-Net reads, holds at most "
            f"{LONGEST_SIDE:,} along an axis. Cut it into parts"
        )
    z, y, x = (float(step) for step in spacing)
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape[::-1])
    header.set_xyzt_units("mm", "sec")
    affine = np.diag([-x, -y, z, 1.0])  # ITK's x and y point the other way
    affine[:2, 3] = -0.0
    header.set_qform(affine, "scanner")
    header.set_sform(affine, "scanner")
    header["vox_offset"] = 352
    header["scl_slope"] = 1
    header["scl_inter"] = 0
    header["regular"] = b"r"
    header["pixdim"][4:] = 0
    return bytes(header.binaryblock) + bytes(4)
