"""What a user's masks hold, before a meaning is given to their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dataset_conversion.own_data.layout import CaseFiles
from dataset_conversion.own_data.mask_values import MAX_FOUND_CLASSES
from dataset_conversion.readers.pixels import count_values, integer_label
from dataset_conversion.readers.slabs import Array, Volume, mapped, whole
from nnunetv2_retina.console.engines import Engine

_LEAST_VALUES = 3
"""From so many values in one mask on they may be numbers of objects."""
_LARGEST = 1 << 26
"""Voxels of a mask whose connected regions are counted."""
_SHARE = 0.95
_HIGHEST = (1 << 16) - 1
"""Of numbers of objects that are looked at."""


@dataclass(frozen=True)
class Survey:
    """Of all masks."""

    values: frozenset[int]
    """Every value in any mask."""
    together: bool
    """Whether any mask holds both 1 and 255."""
    objects: bool
    """Whether nearly every value in every mask is one connected region, as numbers of objects are."""


@dataclass(frozen=True)
class _MaskSurvey:
    """Of one mask."""

    values: frozenset[int]
    objects: int = 0
    """Values that may be numbers of objects; 0 in masks whose regions are not looked at: large ones, many values."""
    single: int = 0
    """Of these, those that are one connected region."""


def survey_masks(pairs: Sequence[CaseFiles], engine: Engine) -> Survey:
    """Read the masks one by one; they are read again on writing.

    Args:
        pairs: of which those without a mask are left out.
        engine: who reads them.
    """
    masks = [survey for _, survey in engine.run(_survey, [pair for pair in pairs if pair.mask is not None])]
    return Survey(
        values=frozenset().union(*(mask.values for mask in masks)),
        together=any({1, 255} <= mask.values for mask in masks),
        objects=any(mask.objects >= _LEAST_VALUES for mask in masks)
        and sum(mask.single for mask in masks) >= _SHARE * sum(mask.objects for mask in masks),
    )


def _survey(pair: CaseFiles) -> _MaskSurvey:
    assert pair.mask is not None, "left out"
    mask = integer_label(pair.mask.open(mask=True).array, pair.name)
    present = frozenset(count_values(mask))
    objects = sorted(value for value in present if 0 < value <= _HIGHEST)
    if mask.size > _LARGEST or not 0 < len(objects) <= MAX_FOUND_CLASSES:  # more are not taken for classes anyway
        return _MaskSurvey(present)
    return _MaskSurvey(present, len(objects), _count_connected(_numbers(mask), objects))


def _numbers(mask: Volume) -> Array:
    """Return a mask as an array in which the values that cannot be numbers of objects are 0."""
    return whole(mapped(mask, lambda _, slab: np.where((slab > 0) & (slab <= _HIGHEST), slab, 0), np.uint16))


def _count_connected(mask: Array, values: Sequence[int]) -> int:
    """Return how many values' voxels touch each other, also at corners."""
    places, touching = ndimage.find_objects(mask), ndimage.generate_binary_structure(mask.ndim, mask.ndim)
    return sum(ndimage.label(mask[places[value - 1]] == value, touching)[1] == 1 for value in values)
