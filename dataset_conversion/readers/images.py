"""Read microscopy files: PNG, BMP, JPEG, TIFF, NIfTI, NRRD, MRC and HDF5 to a grey array with its spacing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from dataset_conversion.readers.decoded import Decoded, Place
from dataset_conversion.readers.hdf5 import HDF5_SUFFIXES, read_hdf5
from dataset_conversion.readers.itk import read_itk
from dataset_conversion.readers.mrc import MRC_SUFFIXES, read_mrc
from dataset_conversion.readers.palettes import Colours, colours_of, hexadecimal
from dataset_conversion.readers.slabs import WHOLE, Array, Slabs, Volume, mapped, plane_ranges, slabs, whole
from dataset_conversion.readers.tiff import read_steps
from dataset_conversion.readers.zarr_volumes import read_zarr
from nnunetv2_retina.console.machine import memory_bytes
from nnunetv2_retina.errors import RetinaError, one_line
from nnunetv2_retina.images.decoder import read_picture
from nnunetv2_retina.images.ome_zarr import is_zarr
from nnunetv2_retina.images.picture import ImageError, Picture, TooLargeError, check_size
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.images.tiff import Stack

MOST_PIXELS = 178_956_970
"""Of an image in two axes: Pillow, with which nnU-Net reads PNG, refuses more."""
COARSEST = 1e5
"""nm: pixels in electron microscopy are smaller; ImageJ notes 72 pixels an inch for images without a size."""
GREY_TOOLS = 'for example in ImageJ: Image > Type > 8-bit, or with ImageMagick: magick "IN" -colorspace Gray "OUT"'


AnyVolume = TypeVar("AnyVolume", bound=Volume)


@dataclass(frozen=True)
class ImageFile(Generic[AnyVolume]):
    """One image read from a file."""

    array: AnyVolume
    """(Y, X) or (Z, Y, X), in the file's own type; of ``open_image``, large volumes are ``Slabs``."""
    spacing: Spacing | None = None
    """None if the file has none."""
    remarks: tuple[str, ...] = ()
    """What a user should know of how it was read."""
    place: Place | None = None
    """In space; None if the format has none."""
    colours: Colours = field(default_factory=dict)
    """Of a mask with a palette."""


def file_suffix(path: Path) -> str:
    """Return the suffix that decides the format, lower case; ``.nii.gz`` is one suffix."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def file_stem(path: Path) -> str:
    """Return the name without ``file_suffix``, as ``composed``."""
    return composed(path.name[: len(path.name) - len(file_suffix(path))])


def composed(name: str) -> str:
    """Return a name with letters and their accents in one, which macOS writes apart."""
    return unicodedata.normalize("NFC", name)


def read_image(
    path: str | Path, dataset: str | None = None, mask: bool = False, box: str | None = None
) -> ImageFile[Array]:
    """Read a grey image or a mask, whole: see ``open_image``.

    Raises:
        RetinaError: also for one that does not fit into memory.
    """
    image = open_image(path, dataset, mask, box)
    if isinstance(image.array, Slabs):
        with _errors(Path(path)):
            check_size(image.array.nbytes, memory_bytes(), " x ".join(map(str, image.array.shape)))
    array = whole(image.array)
    return ImageFile(array, image.spacing, image.remarks, image.place, image.colours)


def open_image(
    path: str | Path, dataset: str | None = None, mask: bool = False, box: str | None = None
) -> ImageFile[Volume]:
    """Open a grey image or a mask: read it, or if it is a large volume and its format lets it, leave it in its file.

    Args:
        path: the file; see ``SUPPORTED`` for its endings.
        dataset: path inside an HDF5 file, or of a Zarr volume's level; None takes the only one, or the finest.
        mask: refuse lossy files, take a palette's indices as values, and ignore the file's spacing.
        box: part of a Zarr volume, ``z0:z1,y0:y1,x0:x1``.

    Returns:
        The array as stored (16 bits stay 16 bits). Grey saved as RGB(A) becomes one channel, with a remark.

    Raises:
        RetinaError: for a missing, unreadable, coloured or unsupported file, a lossy mask, an absent HDF5 data set.
    """
    path = Path(path)
    if is_zarr(path):
        decoded = read_zarr(path, dataset, box)
        return ImageFile(decoded.array, None if mask else _spacing(decoded.steps, decoded.unit), place=decoded.place)
    suffix = file_suffix(path)
    if suffix not in SUPPORTED:
        raise RetinaError(
            f"{path}: files ending in {suffix or 'nothing'} are not read; expected {', '.join(SUPPORTED)}"
        )
    if not path.is_file():
        raise RetinaError(f"{path}: no such file. Check the path.")
    decoded = _decode(path, suffix, dataset, mask)
    array, remarks = decoded.array, [*decoded.remarks]
    if decoded.coloured:
        array, remark = grey(array, path, mask)
        remarks.append(remark)
    array, steps = _squeeze(array, decoded.steps, path)
    spacing = None if mask else _spacing(steps, decoded.unit)
    if spacing is not None and spacing.unit and min(spacing) > COARSEST:
        remarks.append(f"the file's pixel size of {min(spacing):g} nm is a screen's or a printer's: not taken")
        spacing = None
    colours = {} if decoded.palette is None else colours_of(array, decoded.palette)
    return ImageFile(array, spacing, tuple(remarks), decoded.place, colours)


def _decode(path: Path, suffix: str, dataset: str | None, mask: bool) -> Decoded:
    with _errors(path):
        decoded = read_hdf5(path, dataset) if suffix in HDF5_SUFFIXES else _READERS[suffix](path, mask)
    if not isinstance(opened := decoded.array, Slabs):
        return decoded

    def blocks() -> Iterator[Array]:
        with _errors(path):
            yield from opened.blocks()

    return replace(decoded, array=replace(opened, blocks=blocks))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what the decoders raise into a ``RetinaError``."""
    try:
        yield
    except RetinaError:
        raise
    except TooLargeError as error:
        raise RetinaError(f"{path}: {error}. Cut it into tiles, and give each a file") from error
    except Exception as error:  # the decoders raise whatever their C libraries and parsers do
        raise RetinaError(
            f"{path}: cannot be read as {file_suffix(path)[1:]} ({one_line(error)}). Is the file complete and of the "
            "format its name says?"
        ) from error


def _squeeze(array: Volume, steps: tuple[float, ...] | None, path: Path) -> tuple[Volume, tuple[float, ...] | None]:
    """Bring an image to two or three axes, and its voxel size along."""
    while not isinstance(array, Slabs) and array.ndim > 3 and 1 in array.shape:
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


def grey(array: Volume, path: Path, mask: bool) -> tuple[Volume, str]:
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
    number = {1: 1, 2: 1, 3: 3, 4: 3}[channels]
    if different := sum(_count_coloured(slab[..., :number]) for _, slab in slabs(array)):
        advice = (
            "Give each class one grey value instead of a colour and export the mask again. (A stack of three or four "
            "slices that napari saved as TIFF is one, too: save it from Fiji, or as NIfTI.)"
            if mask
            else f"Convert it to grey first, {GREY_TOOLS}."
        )
        raise RetinaError(
            f"{path}: a colour image (its channels differ in {different} of {array.size // channels} pixels); "
            f"expected grey. {advice}"
        )
    name = {1: "one channel", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}[channels]
    channel = mapped(array, lambda _, slab: np.ascontiguousarray(slab[..., 0]), array.dtype, colours=True)
    return channel, f"grey saved as {name}: the one grey channel was taken"


def _count_coloured(slab: Array) -> int:
    return int(np.count_nonzero((slab != slab[..., :1]).any(axis=-1)))


def _read_picture(path: Path, mask: bool) -> Decoded:
    """Read PNG, BMP, JPEG or TIFF, whatever the name ends in."""
    read = read_picture(path, memory_bytes(), WHOLE)
    if isinstance(read, Stack) and mask and read.first.alpha is not None:  # Picture.labels needs all of it
        read = read_picture(path, memory_bytes())
    picture = read.first if isinstance(read, Stack) else read
    _check_picture(picture, path, mask)
    try:
        values = _values(picture, mask)
    except ImageError as error:
        raise RetinaError(f"{path}: {error}") from error
    array = _planes(read, values, mask) if isinstance(read, Stack) else values
    axes = len(picture.axes)
    steps = read_steps(path, axes) if picture.is_tiff else None
    remarks = (*picture.remarks, *_remarks(picture, mask))
    palette = picture.palette if mask and not picture.has_grey_palette else None
    return Decoded(array, steps, NANOMETRES, remarks, array.ndim > axes, palette=palette)


def _values(picture: Picture, mask: bool) -> Array:
    return picture.labels() if mask else picture.shown()


def _planes(stack: Stack, first: Array, mask: bool) -> Slabs:
    ranges = partial(plane_ranges, stack.shape, stack.dtype)
    blocks = lambda: (_values(picture, mask) for picture in stack.pictures(ranges()))  # noqa: E731
    return Slabs((stack.shape[0], *first.shape[1:]), first.dtype, blocks)


def _check_picture(picture: Picture, path: Path, mask: bool) -> None:
    axes, shape = picture.axes, picture.values.shape
    if mask and picture.lossy:
        raise RetinaError(
            f"{path}: JPEG changes pixel values, so it cannot hold a mask. Export the mask as PNG or TIFF from the "
            "program it was made in; converting the JPEG does not bring the values back."
        )
    if len(axes) not in (2, 3) or "C" in axes:
        raise RetinaError(
            f"{path}: a TIFF with axes {axes} and shape {shape}; expected YX or ZYX. "
            "Save one channel and one time point to a file (ImageJ: Image > Duplicate)."
        )
    if axes == "YX" and shape[0] * shape[1] > MOST_PIXELS:
        raise RetinaError(
            f"{path}: {shape[1]} x {shape[0]} pixels; nnU-Net reads images of up to {MOST_PIXELS:,}. Cut it into "
            "tiles, and give each a file"
        )


def _remarks(picture: Picture, mask: bool) -> Iterator[str]:
    if picture.axes.startswith("T"):
        yield "the file calls its first axis time; it was taken as z"
    if picture.palette is not None and mask:
        indices = f"the palette's indices are the label values, and 0 is {hexadecimal(picture.palette[0])}"
        yield f"palette image: {'its grey levels are the label values' if picture.has_grey_palette else indices}"
    if picture.white_is_zero:
        yield f"the file shows 0 as white; {'the stored values were taken' if mask else 'it was read as it shows'}"
    if picture.alpha is not None:
        yield "its transparency was dropped"
    if picture.lossy:
        yield "JPEG: compressed with loss, which is fine for an image"


_READERS: dict[str, Callable[[Path, bool], Decoded]] = {
    **dict.fromkeys((".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"), _read_picture),
    **dict.fromkeys((".nii", ".nii.gz", ".nrrd"), lambda path, _: read_itk(path)),
    **dict.fromkeys(MRC_SUFFIXES, lambda path, _: read_mrc(path)),
}
SUPPORTED = (*_READERS, *HDF5_SUFFIXES)
"""File endings ``read_image`` reads."""
