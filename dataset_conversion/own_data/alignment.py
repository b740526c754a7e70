"""Whether an image and its mask, read as arrays, lie on each other: what their files say of axes and places."""

from __future__ import annotations

import numpy as np

from dataset_conversion.own_data.layout import CaseFiles
from dataset_conversion.readers.images import ImageFile, file_suffix
from dataset_conversion.readers.mrc import MRC_SUFFIXES
from dataset_conversion.readers.slabs import Slabs, Volume
from nnunetv2_retina.errors import RetinaError

_DIRECTION_TOLERANCE = 1e-2


def aligned_mask(image: ImageFile[Volume], mask: ImageFile[Volume], case: CaseFiles) -> tuple[Volume, list[str]]:
    """Return a mask's array on its image's grid, and remarks on what cannot be decided.

    Raises:
        RetinaError: if the files say that the two lie differently in space.
    """
    remarks = [*_row_remarks(case), *_origin_remarks(image, mask)]
    _check_direction(image, mask, case)
    array = mask.array
    if isinstance(array, Slabs):  # of several planes
        return array, remarks
    if array.shape == (1, *image.array.shape):
        array = array[0]
        remarks.append("the mask's single slice was taken for the image")
    elif (1, *array.shape) == image.array.shape:
        array = array[None]
    return array, remarks


def _check_direction(image: ImageFile[Volume], mask: ImageFile[Volume], case: CaseFiles) -> None:
    if image.place is None or mask.place is None:
        return
    one, other = image.place.direction, mask.place.direction
    if one is None or other is None or len(one) != len(other):
        return
    if not np.allclose(one, other, atol=_DIRECTION_TOLERANCE):
        raise RetinaError(
            f"case {case.name}: the axes of {case.image} have the direction {_shown(one)}, those of its mask "
            f"{case.mask} {_shown(other)}; expected the same, since voxels of equal index belong together. Bring the "
            "mask onto the image's grid, for example with SimpleITK: Resample(mask, image, Transform(), "
            "sitkNearestNeighbor). If only a header is wrong, copy it from the other file"
        )


def _origin_remarks(image: ImageFile[Volume], mask: ImageFile[Volume]) -> list[str]:
    if image.place is None or mask.place is None:
        return []
    one, other = image.place.origin, mask.place.origin
    if len(one) != len(other) or np.allclose(one, other, rtol=1e-3, atol=1e-3):
        return []
    return [
        f"the image's first voxel lies at {_shown(one)}, the mask's at {_shown(other)}: paired by index all the same"
    ]


def _row_remarks(case: CaseFiles) -> list[str]:
    if case.mask is None:
        return []
    image, mask = (file_suffix(location.path) for location in (case.image, case.mask))
    if (image in MRC_SUFFIXES) == (mask in MRC_SUFFIXES):
        return []
    return [
        f"{image} with a mask in {mask}: MRC counts rows from the bottom, most formats from the top, and programs "
        "differ in whether they turn them round. Look at image and mask together; if one is upside down, flip its rows"
    ]


def _shown(numbers: tuple[float, ...]) -> str:
    return f"({', '.join(f'{number + 0:.4g}' for number in numbers)})"
