"""The one writer of nnU-Net raw data sets: every converter gives it a description and a stream of cases.

    spec = DatasetSpec(id=801, name="Mine", labels={"background": 0, "mitochondria": 1})
    write_raw_dataset(spec, (Case(name, image, label) for name, image, label in ...))

It checks each case, writes nnU-Net's folder layout, ``dataset.json`` with the ``retina`` block and
``conversion_report.json``, and shows the data set under its final name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

from dataset_conversion.readers.pixels import AXES, Array, check_image, check_values, integer_label, storable_image
from dataset_conversion.spec import Case, DatasetSpec
from dataset_conversion.writer.case_files import NIFTI, file_ending, write_array
from dataset_conversion.writer.record import (
    REPORT,
    TOOL,
    CaseProgress,
    CaseRecord,
    case_record,
    dataset_report,
    ordered,
)
from dataset_conversion.writer.sheet import SheetCollector
from dataset_conversion.writer.target_folder import atomic_folder, held_target
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import write_json
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.nnunet.datasets import SPLITS_JSON, split_folders
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.protocol.folds import MAX_FOLDS, Split, make_splits


def write_raw_dataset(
    spec: DatasetSpec,
    cases: Iterable[Case],
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
    number: int | None = None,
) -> Path:
    """Write ``root/Dataset123_Name``; on any failure nothing is left and an existing data set stays as it was.

    Args:
        spec: the data set's description.
        cases: at least one training case; taken one at a time, so a generator keeps one in memory. All 2D or all 3D.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace an existing data set of the same ID and name.
        progress: called after each written case, with ``number``.
        number: of the cases, if it is known.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for a target that cannot be used, or a case that does not fit the description or the other cases.
    """
    with held_target(root, spec.folder_name, overwrite) as target, atomic_folder(target) as partial:
        writer = _Writer(spec, partial)
        for case in cases:
            record = writer.add(case)
            del case  # a volume may be large: not to be held while the next one is read
            if progress is not None:
                progress(record, number)
        writer.finish()
    return target


class _Writer:
    """Write the cases of one data set into a folder, and remember what its summary files need."""

    def __init__(self, spec: DatasetSpec, folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.sheet = SheetCollector() if spec.benchmark else None
        self.records: list[CaseRecord] = []
        self.ending: str | None = None
        self.units: set[str | None] = set()
        self.names: dict[str, str] = {}
        self.digests: dict[str, CaseRecord] = {}
        self.remarks: list[str] = []

    def add(self, case: Case) -> CaseRecord:
        """Check and write one case.

        Raises:
            RetinaError: saying what is wrong with which case.
        """
        self._check_name(case)
        check_image(case.image, case.name)
        image = storable_image(case.image)
        ending = self._check_ending(case.name, image)
        spacing = _spacing(case)
        label, counts = (None, None) if case.label is None else self._checked_label(case, case.label)
        images, labels = split_folders(self.folder, case.split)
        _write(images / f"{case.name}_0000{ending}", image, spacing)
        if label is not None:
            _write(labels / f"{case.name}{ending}", label, spacing)
        if self.sheet is not None:
            self.sheet.add(case, image, label)
        self.units.add(spacing.unit)
        self.records.append(case_record(case, image, spacing, counts))
        self._note_twin(image, self.records[-1])
        return self.records[-1]

    def finish(self) -> None:
        """Write ``dataset.json``, ``conversion_report.json`` and, where volumes are kept together, the split file.

        Raises:
            RetinaError: without a training case, or for groups and folds that name unknown cases.
        """
        training = [record for record in self.records if record.split == "train"]
        if not training:
            raise RetinaError(f"{self.spec.folder_name}: no training case; expected at least one image with its mask")
        protocol = self._protocol(training)
        generate_dataset_json(
            str(self.folder),
            channel_names={"0": self.spec.channel_name},
            labels=ordered(self.spec.labels),
            num_training_cases=len(training),
            file_ending=self.ending,
            dataset_name=self.spec.name,
            reference=self.spec.reference or None,
            description=self.spec.description or None,
            license=self.spec.licence or "not stated",
            converted_by=TOOL,
            **{BLOCK: protocol.to_json(complete=self.spec.benchmark)},
        )
        splits = self._splits(training, protocol)
        spec = replace(self.spec, remarks=(*self.remarks, *self.spec.remarks))
        report = dataset_report(spec, self.records, splits, str(self.ending), self._unit())
        write_json(self.folder / REPORT, report)
        if self.sheet is not None:
            self.sheet.write(self.folder, self.spec)

    def _note_twin(self, image: Array, record: CaseRecord) -> None:
        """Remark on an image that is there twice, unless it is of one grey level."""
        if record.intensity_min == record.intensity_max:
            return
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=str(image.shape).encode())
        twin = self.digests.setdefault(digest.hexdigest(), record)
        if twin is not record:
            leak = (
                ""
                if twin.split == record.split
                else ": test images must not be trained on. Remove one and convert again"
            )
            self.remarks.append(
                f"{twin.name} ({twin.split}) and {record.name} ({record.split}) hold the same image{leak}"
            )

    def _unit(self) -> str | None:
        """Return the unit of all cases' spacings; None if any is unknown."""
        return NANOMETRES if self.units == {NANOMETRES} else None

    def _splits(self, training: list[CaseRecord], protocol: Protocol) -> list[Split]:
        """Return the folds, and write them where nnU-Net's own would part cases of one volume or need more cases."""
        splits = make_splits([record.name for record in training], protocol)
        if splits and (protocol.folds or protocol.groups or len(training) < MAX_FOLDS):
            # nnU-Net copies it to the preprocessed data set when it plans, and every trainer of its own reads it.
            parts = [{part: list(split[part]) for part in ("train", "val")} for split in splits]
            (self.folder / SPLITS_JSON).write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
        return splits

    def _check_name(self, case: Case) -> None:
        # Compared without case: "A.png" and "a.png" are one file on Windows and macOS.
        if earlier := self.names.get(case.name.lower()):
            raise RetinaError(
                f"case {case.name} ({case.split}): the name is already used by {earlier}. "
                "Case names must differ by more than capitals, over training and test together. Rename one."
            )
        self.names[case.name.lower()] = f"{case.name} ({case.split})"

    def _check_ending(self, name: str, image: Array) -> str:
        ending = file_ending(image)
        self.ending = self.ending or ending
        if ending == self.ending:
            return ending
        first = self.records[0]
        if NIFTI in (ending, self.ending):
            raise RetinaError(
                f"case {first.name} is {len(first.shape)}D, case {name} is {image.ndim}D with shape {image.shape}; "
                "expected all 2D or all 3D. Convert them as two data sets, or cut the volumes into slices."
            )
        raise RetinaError(
            f"case {first.name} has type {first.dtype}, case {name} has type {image.dtype}; expected either uint8 and "
            "uint16 (written as PNG) or signed and float images (written as TIFF) throughout, because their grey "
            "levels are on different scales. Convert all to one type."
        )

    def _checked_label(self, case: Case, label: Array) -> tuple[Array, dict[str, int]]:
        """Return the label as uint8 or uint16, and the voxels of each declared value."""
        if label.shape != case.image.shape:
            raise RetinaError(
                f"case {case.name}: the image has shape {case.image.shape}, the mask {label.shape}; expected the same "
                f"({', '.join(AXES[case.image.ndim])}). Check that they belong together and that neither was cropped "
                "or scaled."
            )
        values = sorted(self.spec.labels.values())
        label = integer_label(label, case.name)
        counts = check_values(label, values, case.name, "Correct the mask, or declare the value.")
        stored = label.astype(np.uint8 if values[-1] <= np.iinfo(np.uint8).max else np.uint16, copy=False)
        return stored, {str(value): counts.get(value, 0) for value in values}

    def _protocol(self, training: list[CaseRecord]) -> Protocol:
        """Return the description's protocol, with the cases' groups, and their spacing's unit or, in 2D, itself."""
        protocol = self.spec.protocol
        groups = {**(protocol.groups or {}), **{r.name: r.group for r in training if r.group is not None}}
        folds = [case for fold in protocol.folds or () for part in fold.values() for case in part]
        unknown = sorted({*groups, *folds} - {record.name for record in training})
        if unknown:
            raise RetinaError(
                f"protocol: groups or folds name {shorten(unknown)}; expected names of training cases: "
                f"{shorten(record.name for record in training)}"
            )
        changes: dict[str, Any] = {"groups": groups or None}
        if self._unit() and self.ending == NIFTI:
            changes["spacing_unit"] = NANOMETRES
        elif self._unit() and len({record.spacing for record in self.records}) == 1:  # 2D files hold no spacing
            changes["pixel_size"] = self.records[0].spacing
        return replace(protocol, **changes)


def _write(path: Path, array: Array, spacing: Spacing) -> None:
    path.parent.mkdir(exist_ok=True)
    write_array(path, array, spacing)


def _spacing(case: Case) -> Spacing:
    """Return the spacing along each axis of the image; 1 where the case has none."""
    ndim = case.image.ndim
    if case.spacing is None:
        return Spacing.of((1.0,) * ndim)
    if not isinstance(case.spacing, Spacing) or len(case.spacing) != ndim:
        axes = ", ".join(AXES[ndim])
        raise RetinaError(
            f"case {case.name}: spacing {tuple(case.spacing)} for an image of shape {case.image.shape}; expected a "
            f'Spacing of {ndim} numbers, in the order {axes}: Spacing.of(({axes}), "nm")'
        )
    return case.spacing
