"""Pair images and masks that are one PNG file each by number, read them, and check the masks' values."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_conversion.readers.archives import SourceFile
from dataset_conversion.readers.pixels import count_values, first_position, format_position
from dataset_conversion.readers.slabs import Array
from nnunetv2_retina.errors import RetinaError, one_line, shorten

SlicePair = tuple[SourceFile, SourceFile]
"""An image and its mask."""
_NUMBER = re.compile(r"(\d+)\D*$")


def pair_by_number(images: Sequence[SourceFile], masks: Sequence[SourceFile]) -> dict[str, SlicePair]:
    """Match images and masks on the last number in their names: ``a_orig.007.png``, ``b.007.png``.

    Returns:
        The number as the image's name has it (``007``) -> image and mask, by number.

    Raises:
        RetinaError: naming each image without a mask and each mask without an image; for a name without a number, or
            two files of one number.
    """
    image_of, mask_of = _numbered(images), _numbered(masks)
    lone_images = [str(image_of[number][1]) for number in image_of if number not in mask_of]
    lone_masks = [str(mask_of[number][1]) for number in mask_of if number not in image_of]
    if lone_images or lone_masks:
        problems = [f"no mask for {shorten(lone_images)}"] if lone_images else []
        problems += [f"no image for {shorten(lone_masks)}"] if lone_masks else []
        raise RetinaError(
            f"{'; '.join(problems)}; expected one mask per image, with the same number at the end of its name. "
            "The source is incomplete: unpack or download it again."
        )
    return {image_of[number][0]: (image_of[number][1], mask_of[number][1]) for number in sorted(image_of)}


def _numbered(files: Sequence[SourceFile]) -> dict[int, tuple[str, SourceFile]]:
    """Return number -> how it is written, and the file."""
    result: dict[int, tuple[str, SourceFile]] = {}
    for file in files:
        match = _NUMBER.search(Path(file.name).stem)
        if match is None:
            raise RetinaError(f"{file}: there is no number in its name; expected a slice number. Remove or rename it.")
        number = int(match[1])
        if number in result:
            raise RetinaError(
                f"two files of one number: {result[number][1]} and {file}; expected one per slice. Remove one."
            )
        result[number] = (match[1], file)
    return result


def read_png(file: SourceFile) -> Array:
    """Read the grey values of a PNG file, (Y, X), in its own type; RGB must have equal channels.

    Raises:
        RetinaError: for a file that is damaged or no PNG, or holds colours (naming the first).
    """
    content = file.read()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            plain = image.convert("RGB") if image.mode in ("P", "PA", "LA", "RGBA") else image
            array = np.asarray(plain)
    except Exception as error:  # Pillow raises whatever its decoders do
        raise RetinaError(
            f"{file} cannot be read as PNG ({one_line(error)}). It is damaged or cut off: unpack or download it again."
        ) from error
    if array.ndim == 3:
        coloured = (array != array[..., :1]).any(axis=-1)
        if coloured.any():
            position = first_position(coloured)
            colour = tuple(int(value) for value in array[tuple(position.values())])
            raise RetinaError(
                f"{file}: colour {colour} at {format_position(position)} ({int(coloured.sum())} such pixels); expected "
                "grey, or RGB with equal channels. Take the file as released."
            )
        array = array[..., 0]
    return array.astype(np.uint8) if array.dtype == bool else np.ascontiguousarray(array)


def map_values(mask: Array, table: Mapping[int, int], file: SourceFile, image: Array | None = None) -> Array:
    """Return a mask's values as label values.

    Args:
        mask: (Y, X), any integer type.
        table: mask value -> label value.
        file: for the error text.
        image: (Y, X), its image: where that holds only the mask's values, the two were exchanged.

    Returns:
        (Y, X) uint8.

    Raises:
        RetinaError: for another value, with its count and first position.
    """
    unknown = {value: count for value, count in count_values(mask).items() if value not in table}
    if unknown:
        value = next(iter(unknown))
        where = format_position(first_position(mask == value))
        more = f", and {len(unknown) - 1} other values" if len(unknown) > 1 else ""
        swapped = image is not None and set(count_values(image)) <= set(table)
        advice = "Were the folders of images and masks exchanged?" if swapped else "Take the file as released."
        raise RetinaError(
            f"{file}: mask value {value} at {where} ({unknown[value]} such pixels{more}); expected "
            f"{', '.join(map(str, table))}. {advice}"
        )
    result = np.zeros(mask.shape, dtype=np.uint8)
    for value, label in table.items():
        if label:
            result[mask == value] = label
    return result
