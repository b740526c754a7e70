"""One case, checked and written to a data set's folder: any process may do it, and hands back what is to be noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_conversion.readers.palettes import Colours
from dataset_conversion.readers.pixels import AXES, check_image, check_values, integer_label, storable_image
from dataset_conversion.readers.slabs import Array, Volume, mapped
from dataset_conversion.spec import Case, DatasetSpec
from dataset_conversion.writer.case_files import file_ending, write_array
from dataset_conversion.writer.record import CaseRecord, ImageNotes, case_record
from dataset_conversion.writer.sheet import pick_slices
from nnunetv2_retina.display.sheets import LabelledSlice
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.datasets import split_folders


@dataclass(frozen=True)
class Stored:
    """A case whose files are written."""

    record: CaseRecord
    ending: str
    """Of its files."""
    digest: str
    """What images with the same voxels share."""
    unit: str | None
    """Of its spacing."""
    slices: tuple[LabelledSlice, ...]
    """For the sheet of a published benchmark."""
    colours: Colours
    """As ``Case.colours``."""


def store_case(spec: DatasetSpec, folder: Path, case: Case) -> Stored:
    """Check and write one case.

    Raises:
        RetinaError: saying what is wrong with which case.
    """
    levels = check_image(case.image, case.name)
    image = storable_image(case.image, levels)
    notes = ImageNotes(image, *(image.dtype.type(level) for level in levels))
    ending, spacing = file_ending(image), _spacing(case)
    label, counts = (None, None) if case.label is None else _checked_label(spec, case, case.label)
    images, labels = split_folders(folder, case.split)
    _write(images / f"{case.name}_0000{ending}", image, spacing, notes.add)
    slices: list[LabelledSlice] = []
    if label is not None:
        _write(labels / f"{case.name}{ending}", label, spacing)
        if spec.benchmark:
            slices = pick_slices(f"{case.split}: {case.name}", image, label)
    record = case_record(case, image, notes, spacing, counts)
    return Stored(record, ending, notes.digest, spacing.unit, tuple(slices), case.colours)


def _checked_label(spec: DatasetSpec, case: Case, label: Volume) -> tuple[Volume, dict[str, int]]:
    """Return the label as uint8 or uint16, and the voxels of each declared value."""
    if label.shape != case.image.shape:
        raise RetinaError(
            f"case {case.name}: the image has shape {case.image.shape}, the mask {label.shape}; expected the same "
            f"({', '.join(AXES[case.image.ndim])}). Check that they belong together and that neither was cropped "
            "or scaled."
        )
    values = sorted(spec.labels.values())
    label = integer_label(label, case.name)
    counts = check_values(label, values, case.name, "Correct the mask, or declare the value.")
    kind = np.dtype(np.uint8 if values[-1] <= np.iinfo(np.uint8).max else np.uint16)
    stored = label if label.dtype == kind else mapped(label, lambda _, slab: slab.astype(kind), kind)
    return stored, {str(value): counts.get(value, 0) for value in values}


def _write(path: Path, volume: Volume, spacing: Spacing, seen: Callable[[Array], None] = lambda _: None) -> None:
    path.parent.mkdir(exist_ok=True)
    write_array(path, volume, spacing, seen)


def _spacing(case: Case) -> Spacing:
    """Return the spacing along each axis of the image; 1 where the case has none."""
    ndim = case.image.ndim
    if case.spacing is None:
        return Spacing.of((1.0,) * ndim)
    axes = ", ".join(AXES[ndim])
    if not isinstance(case.spacing, Spacing):
        raise RetinaError(f'case {case.name}: spacing is {case.spacing!r}; expected Spacing.of(({axes}), "nm")')
    if len(case.spacing) != ndim:
        raise RetinaError(
            f"case {case.name}: spacing {' '.join(f'{step:g}' for step in case.spacing)} for an image of shape "
            f"{case.image.shape}; expected {ndim} numbers, in the order {axes}"
        )
    return case.spacing
