"""NIfTI volumes, compressed or not, as grey pages: what nnU-Net's raw data sets hold of volumes."""

from __future__ import annotations

import io
import zlib

import numpy as np

from nnunetv2_retina.images.picture import Array, ImageError, TooLargeError
from nnunetv2_retina.images.whole import check_volume, nifti_version

_GZIP = b"\x1f\x8b"
_MARKS = {1: (344, b"n+1\0"), 2: (4, b"n+2\0")}
"""Version -> place and text of the mark of a file that holds its image."""
_LONGEST_HEADER = 540


def is_nifti(data: bytes) -> bool:
    """Tell NIfTI-1 and -2 in one file by the header, also behind gzip."""
    head = data[:_LONGEST_HEADER]
    if data[:2] == _GZIP:
        try:
            head = zlib.decompressobj(31).decompress(data[: 1 << 16], _LONGEST_HEADER)
        except zlib.error:
            return False
    version = nifti_version(head)
    if version is None or len(head) < _LONGEST_HEADER:
        return False
    place, mark = _MARKS[version]
    return head[place : place + 4] == mark


def read_pages(data: bytes, most: int) -> list[Array]:
    """Return the slices of a volume along its third axis, (Y, X) each, values scaled as the header says.

    Args:
        data: content of a ``.nii`` or ``.nii.gz`` file.
        most: bytes that may come of it.

    Raises:
        TooLargeError: if it would be larger.
        ImageError: if it is cut off, damaged, or has more than one value a voxel.
    """
    import nibabel
    from nibabel.imageglobals import logger

    content = _inflated(data, most) if data[:2] == _GZIP else data
    check_volume(content[:1024], len(content))
    logger.disabled = True  # it repairs headers aloud
    try:
        kind = nibabel.Nifti2Image if nifti_version(content) == 2 else nibabel.Nifti1Image
        image = kind.from_stream(io.BytesIO(content))
        shape, itemsize = image.shape, image.get_data_dtype().itemsize
        if image.get_data_dtype().fields or image.get_data_dtype().kind not in "uif":
            raise ImageError(f"NIfTI of values {image.get_data_dtype()}; expected one number a voxel")
        if np.prod(shape, dtype=float) * itemsize > most:
            raise TooLargeError(f"it says that it is {' x '.join(map(str, shape))} voxels")
        array = np.asanyarray(image.dataobj)
    except (ImageError, TooLargeError, MemoryError):
        raise
    except Exception as error:  # nibabel raises of many kinds for a damaged file
        raise ImageError(f"damaged NIfTI ({' '.join(str(error).split())})") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(f"NIfTI of shape {' x '.join(map(str, shape))}; expected a volume of one value a voxel")
    return list(np.ascontiguousarray(array.transpose()))


def _inflated(data: bytes, most: int) -> bytes:
    decompressor = zlib.decompressobj(31)
    try:
        content = decompressor.decompress(data, most + 1)
    except zlib.error as error:
        raise ImageError(f"damaged gzip ({error})") from error
    if len(content) > most:
        raise TooLargeError(f"it unpacks to more than {most:,} bytes")
    if not decompressor.eof:
        raise ImageError("gzip is cut off")
    return content
