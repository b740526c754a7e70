"""Read the images and masks of a benchmark from its files as downloaded, and check that they fit together."""

from __future__ import annotations

from dataset_conversion.readers.archives import SourceFile
from dataset_conversion.readers.images import ImageFile, read_image
from dataset_conversion.readers.pixels import AXES
from dataset_conversion.readers.slabs import Array
from nnunetv2_retina.errors import RetinaError


def read_source_image(file: SourceFile, mask: bool = False) -> ImageFile[Array]:
    """Read an image from a file that may lie in a zip archive.

    Raises:
        RetinaError: as ``read_image``, and for a damaged archive or gzip file.
    """
    with file.on_disk() as path:
        try:
            return read_image(path, mask=mask)
        except RetinaError as error:
            raise RetinaError(str(error).replace(str(path), str(file))) from error


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
