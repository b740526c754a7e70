"""Read microscopy files: PNG, BMP, JPEG, TIFF, NIfTI, NRRD, MRC and HDF5 to a grey array with its spacing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np
import SimpleITK
from PIL import Image

from dataset_conversion.readers.decoded import Decoded
from dataset_conversion.readers.hdf5 import HDF5_SUFFIXES, read_hdf5
from dataset_conversion.readers.pixels import Array
from dataset_conversion.readers.tiff import read_tiff
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.spacing import NANOMETRES, Spacing

LOSSY = (".jpg", ".jpeg")
GREY_TOOLS = 'for example in ImageJ: Image > Type > 8-bit, or with ImageMagick: magick "IN" -colorspace Gray "OUT"'
_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1


@dataclass(frozen=True)
class ImageFile:
    """One image read from a file."""

    array: Array
    """(Y, X) or (Z, Y, X), in the file's own type."""
    spacing: Spacing | None = None
    """None if the file has none."""
    remarks: tuple[str, ...] = ()
    """What a user should know of how it was read."""


def file_suffix(path: Path) -> str:
    """Return the suffix that decides the format, lower case; ``.nii.gz`` is one suffix."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def file_stem(path: Path) -> str:
    """Return the name without ``file_suffix``."""
    return path.name[: len(path.name) - len(file_suffix(path))]


def read_image(path: str | Path, dataset: str | None = None, mask: bool = False) -> ImageFile:
    """Read a grey image or a mask.

    Args:
        path: the file; see ``SUPPORTED`` for its endings.
        dataset: path inside an HDF5 file; None takes the only one there.
        mask: refuse lossy files, take a palette's indices as values, and ignore the file's spacing.

    Returns:
        The array as stored (16 bits stay 16 bits). Grey saved as RGB(A) becomes one channel, with a remark.

    Raises:
        RetinaError: for a missing, unreadable, coloured or unsupported file, a lossy mask, an absent HDF5 data set.
    """
    path = Path(path)
    suffix = file_suffix(path)
    if suffix not in SUPPORTED:
        raise RetinaError(
            f"{path}: files ending in {suffix or 'nothing'} are not read; expected {', '.join(SUPPORTED)}"
        )
    if not path.is_file():
        raise RetinaError(f"{path}: no such file. Check the path.")
    if mask and suffix in LOSSY:
        raise RetinaError(
            f"{path}: JPEG changes pixel values, so it cannot hold a mask. Export the mask as PNG or TIFF from the "
            "program it was made in; converting the JPEG does not bring the values back."
        )
    decoded = _decode(path, suffix, dataset, mask)
    array, remarks = decoded.array, [*decoded.remarks]
    if decoded.coloured:
        array, remark = grey(array, path, mask)
        remarks.append(remark)
    if suffix in LOSSY:
        remarks.append("JPEG: compressed with loss, which is fine for an image")
    array, steps = _squeeze(array, decoded.steps, path)
    return ImageFile(array, None if mask else _spacing(steps, decoded.unit), tuple(remarks))


def _decode(path: Path, suffix: str, dataset: str | None, mask: bool) -> Decoded:
    try:
        return read_hdf5(path, dataset) if suffix in HDF5_SUFFIXES else _READERS[suffix](path, mask)
    except RetinaError:
        raise
    except Exception as error:  # the decoders raise whatever their C libraries and parsers do
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise RetinaError(
            f"{path}: cannot be read as {suffix[1:]} ({reason}). Is the file complete and of the format its name says?"
        ) from error


def _squeeze(array: Array, steps: tuple[float, ...] | None, path: Path) -> tuple[Array, tuple[float, ...] | None]:
    """Bring an image to two or three axes, and its voxel size along."""
    while array.ndim > 3 and 1 in array.shape:
        axis = array.shape.index(1)
        array = array.squeeze(axis)
        if steps is not None and len(steps) > array.ndim:
            steps = steps[:axis] + steps[axis + 1 :]
    if array.ndim not in (2, 3) or array.size == 0:
        raise RetinaError(
            f"{path}: the image has shape {array.shape}; expected (Y, X) or (Z, Y, X). "
            "Save one channel and one time point to a file."
        )
    return array, None if steps is None else steps[-array.ndim :]


def _spacing(steps: tuple[float, ...] | None, unit: str | None) -> Spacing | None:
    """Return the spacing, or None where the file's numbers cannot be a size, such as zeros for an unknown one."""
    if steps is None or not all(math.isfinite(step) and step > 0 for step in steps):
        return None
    return Spacing.of(steps, unit)


def grey(array: Array, path: Path, mask: bool) -> tuple[Array, str]:
    """Return one channel of an image whose colour channels are equal.

    Args:
        array: (..., C), C in 1 to 4: grey, grey + alpha, RGB, RGBA.
        path: for the error text.
        mask: changes the advice.

    Returns:
        (...), and a remark.

    Raises:
        RetinaError: if the colour channels differ.
    """
    channels = array.shape[-1]
    colours = array[..., : {1: 1, 2: 1, 3: 3, 4: 3}[channels]]
    different = (colours != colours[..., :1]).any(axis=-1)
    if different.any():
        advice = (
            "Give each class one grey value instead of a colour and export the mask again."
            if mask
            else f"Convert it to grey first, {GREY_TOOLS}."
        )
        raise RetinaError(
            f"{path}: a colour image (its channels differ in {int(different.sum())} of {different.size} pixels); "
            f"expected grey. {advice}"
        )
    name = {1: "one channel", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}[channels]
    return np.ascontiguousarray(colours[..., 0]), f"grey saved as {name}: the one grey channel was taken"


def _read_natural(path: Path, mask: bool) -> Decoded:
    """Read PNG, BMP or JPEG."""
    with Image.open(path) as image:
        mode = image.mode
        if mode == "P" and mask:
            remark = "palette image: the palette's indices are the label values"
            return Decoded(np.asarray(image), remarks=(remark,))
        if mode in ("RGB", "RGBA", "LA") and file_suffix(path) == ".png":
            array = imagecodecs.png_decode(path.read_bytes())  # Pillow cuts 16-bit colour to 8 bits
        elif mode in ("P", "CMYK", "YCbCr"):
            array = np.asarray(image.convert("RGB"))
        else:
            array = np.asarray(image)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return Decoded(array, coloured=array.ndim == 3)


def _read_tiff(path: Path, _: bool) -> Decoded:
    return read_tiff(path)


def _read_itk(path: Path, _: bool) -> Decoded:
    """Read NIfTI or NRRD; the header's numbers as they stand and without their unit, since EM files write nm for mm."""
    volume = SimpleITK.ReadImage(str(path))
    coloured = volume.GetNumberOfComponentsPerPixel() in (3, 4)
    return Decoded(SimpleITK.GetArrayFromImage(volume), tuple(reversed(volume.GetSpacing())), coloured=coloured)


def _read_mrc(path: Path, _: bool) -> Decoded:
    """Read MRC, whose header has angstrom."""
    with mrcfile.open(path, permissive=True) as file:
        if file.data is None:
            raise ValueError("no MRC header or truncated data")
        array = np.array(file.data)
        steps = tuple(float(file.voxel_size[axis]) / 10 for axis in ("z", "y", "x"))
        extra = bytes(file.header.extra2)
    remarks: tuple[str, ...] = ()
    # IMOD keeps unsigned bytes in the mode the standard calls signed, and says so in its own header words 39 and 40.
    stamp, flags = np.frombuffer(extra[40:48], dtype="<i4")
    if array.dtype == np.int8 and stamp == _IMOD_STAMP and not flags & _IMOD_SIGNED:
        array, remarks = array.view(np.uint8), ("IMOD file: bytes read as unsigned, 0 to 255",)
    return Decoded(array, steps[-array.ndim :], NANOMETRES, remarks)


_READERS: dict[str, Callable[[Path, bool], Decoded]] = {
    **dict.fromkeys((".png", ".bmp", *LOSSY), _read_natural),
    **dict.fromkeys((".tif", ".tiff"), _read_tiff),
    **dict.fromkeys((".nii", ".nii.gz", ".nrrd"), _read_itk),
    **dict.fromkeys((".mrc", ".rec", ".map"), _read_mrc),
}
SUPPORTED = (*_READERS, *HDF5_SUFFIXES)
"""File endings ``read_image`` reads."""
