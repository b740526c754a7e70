"""Read the images and masks of a benchmark from its files as downloaded, and check that they fit together."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from dataset_conversion.readers.archives import SourceFile
from dataset_conversion.readers.images import ImageFile, read_image
from dataset_conversion.readers.pixels import AXES, Array
from nnunetv2_retina.errors import RetinaError

_CHUNK = 1 << 22


def read_source_image(file: SourceFile, mask: bool = False) -> ImageFile:
    """Read an image from a file that may lie in a zip archive; gzip files are checked to their end.

    Raises:
        RetinaError: as ``read_image``, and for a damaged archive or gzip file.
    """
    with file.on_disk() as path:
        try:
            if path.name.endswith(".gz"):
                _check_gzip(path)
            return read_image(path, mask=mask)
        except RetinaError as error:
            raise RetinaError(str(error).replace(str(path), str(file))) from error


def _check_gzip(path: Path) -> None:
    """Check a file to its end: NIfTI libraries fill what a cut-off one lacks with zeros.

    Raises:
        RetinaError: for a file that is not gzip, damaged or incomplete.
    """
    try:
        with gzip.open(path) as stream:
            while stream.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise RetinaError(
            f"{path}: cannot be read as gzip ({error}); expected a complete .gz file. It is damaged or its download "
            "was cut off: delete it and download it again."
        ) from error


def check_shapes(image: Array, mask: Array, image_name: object, mask_name: object) -> None:
    """Check that an image and its mask have one shape.

    Raises:
        RetinaError: naming both files.
    """
    if image.shape != mask.shape:
        axes = ", ".join(AXES.get(image.ndim, ("?",)))
        raise RetinaError(
            f"{image_name} has shape {image.shape}, its mask {mask_name} {mask.shape}; expected the same ({axes}). Do "
            "they belong together, and are both complete? Take the files as released."
        )


def check_pair(image: Array, label: Array, image_name: str, label_name: str, highest: int) -> None:
    """Check that an image and its mask have one shape and are not exchanged.

    Args:
        image: grey levels.
        label: mask values, 0 to ``highest`` in a right one.
        image_name: the image's file, for the error text.
        label_name: the mask's file, for the error text.
        highest: the highest value a mask may hold.

    Raises:
        RetinaError: naming both files.
    """
    check_shapes(image, label, image_name, label_name)
    if label.max() > highest and image.min() >= 0 and image.max() <= highest:
        raise RetinaError(
            f"{image_name} holds nothing but {image.min():g} to {image.max():g}, {label_name} {label.min():g} to "
            f"{label.max():g}; expected grey levels in the first and labels 0 to {highest} in the second. The two look "
            "exchanged: rename them."
        )
