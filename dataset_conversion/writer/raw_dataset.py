"""The one writer of nnU-Net raw data sets: every converter gives it a description and a stream of cases.

    spec = DatasetSpec(id=801, name="Mine", labels={"background": 0, "mitochondria": 1})
    write_raw_dataset(spec, (Case(name, image, label) for name, image, label in ...))

It checks each case, writes nnU-Net's folder layout, ``dataset.json`` with the ``retina`` block and
``conversion_report.json``, and shows the data set under its final name only when it is complete.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

from dataset_conversion.readers.palettes import note_colours
from dataset_conversion.spec import Case, DatasetSpec
from dataset_conversion.writer.case_files import NIFTI
from dataset_conversion.writer.record import (
    REPORT,
    TOOL,
    CaseProgress,
    CaseRecord,
    dataset_report,
    ordered,
)
from dataset_conversion.writer.sheet import SheetCollector
from dataset_conversion.writer.stored import Stored, store_case
from dataset_conversion.writer.target_folder import atomic_folder, held_target
from nnunetv2_retina.console.engines import Engine, Named, Serial
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import write_json
from nnunetv2_retina.images.spacing import NANOMETRES
from nnunetv2_retina.nnunet.datasets import SPLITS_JSON
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.protocol.folds import MAX_FOLDS, Split, make_splits

Source = TypeVar("Source", bound=Named)


@dataclass(frozen=True)
class CasesToRead(Generic[Source]):
    """Cases that are not read yet, so that an engine's workers can share them."""

    sources: Sequence[Source]
    """What each is made of."""
    read: Callable[[Source], Case]
    """What makes it; it can be sent to another process."""


@dataclass(frozen=True)
class _Storing(Generic[Source]):
    """The work on one case, for an engine."""

    spec: DatasetSpec
    folder: Path
    read: Callable[[Source], Case]

    def __call__(self, source: Source) -> Stored:
        return store_case(self.spec, self.folder, self.read(source))


def write_raw_dataset(
    spec: DatasetSpec,
    cases: Iterable[Case] | CasesToRead[Any],
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
    engine: Engine | None = None,
) -> Path:
    """Write ``root/Dataset123_Name``; on any failure nothing is left and an existing data set stays as it was.

    Args:
        spec: the data set's description.
        cases: at least one training case, all 2D or all 3D; taken one at a time, so a generator keeps one in memory.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace an existing data set of the same ID and name.
        progress: called after each written case.
        engine: who reads and writes ``CasesToRead``; None: this process.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for a target that cannot be used, or a case that does not fit the description or the other cases.
    """
    with held_target(root, spec.folder_name, overwrite) as target, atomic_folder(target) as partial:
        writer = _Writer(spec, partial, progress or (lambda record, number: None))
        if isinstance(cases, CasesToRead):
            writer.share(cases, engine or Serial())
        else:
            for case in cases:
                stored = store_case(spec, partial, case)
                del case  # a volume may be large: not to be held while the next one is read
                writer.note(stored)
                writer.progress(stored.record, None)
        writer.finish()
    return target


class _Writer:
    """Remember what the summary files of a data set need of its cases, and write those files."""

    def __init__(self, spec: DatasetSpec, folder: Path, progress: CaseProgress) -> None:
        self.spec = spec
        self.folder = folder
        self.progress = progress
        self.sheet = SheetCollector()
        self.records: list[CaseRecord] = []
        self.ending: str | None = None
        self.units: dict[str, str | None] = {}
        self.names: dict[str, str] = {}
        self.colours: dict[int, tuple[str, str]] = {}
        self.digests: dict[str, CaseRecord] = {}
        self.remarks: list[str] = []

    def share(self, cases: CasesToRead[Any], engine: Engine) -> None:
        """Let an engine read and write the cases; note them in their own order, as soon as that is possible."""
        waiting, done = deque(cases.sources), {}
        task = _Storing(self.spec, self.folder.absolute(), cases.read)
        for source, stored in engine.run(task, cases.sources):
            done[id(source)] = stored
            while waiting and id(waiting[0]) in done:
                self.note(done.pop(id(waiting.popleft())))
            self.progress(stored.record, len(cases.sources))

    def note(self, stored: Stored) -> None:
        """Take a case into account.

        Raises:
            RetinaError: if it does not fit those before it.
        """
        self._check_name(stored.record)
        self._check_ending(stored)
        note_colours(self.colours, stored.colours, f"case {stored.record.name}")
        self.sheet.add(stored.record.split, stored.slices)
        self.units[stored.record.name] = stored.unit
        self.records.append(stored.record)
        self._note_twin(stored.digest, stored.record)

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
            **{BLOCK: protocol.to_json(self.spec.benchmark, self.spec.stated)},
        )
        splits = self._splits(training, protocol)
        spec = replace(self.spec, remarks=(*self.remarks, *self.spec.remarks))
        report = dataset_report(spec, self.records, splits, str(self.ending), self._unit())
        write_json(self.folder / REPORT, report)
        if self.spec.benchmark:
            self.sheet.write(self.folder, self.spec)

    def _note_twin(self, digest: str, record: CaseRecord) -> None:
        """Remark on an image that is there twice, unless it is of one grey level."""
        if record.intensity_min == record.intensity_max:
            return
        twin = self.digests.setdefault(digest, record)
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
        return NANOMETRES if set(self.units.values()) == {NANOMETRES} else None

    def _splits(self, training: list[CaseRecord], protocol: Protocol) -> list[Split]:
        """Return the folds, and write them where nnU-Net's own would part cases of one volume or need more cases."""
        splits = make_splits([record.name for record in training], protocol)
        if splits and (protocol.folds or protocol.groups or len(training) < MAX_FOLDS):
            # nnU-Net copies it to the preprocessed data set when it plans, and every trainer of its own reads it.
            parts = [{part: list(split[part]) for part in ("train", "val")} for split in splits]
            (self.folder / SPLITS_JSON).write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
        return splits

    def _check_name(self, case: CaseRecord) -> None:
        # Compared without case: "A.png" and "a.png" are one file on Windows and macOS.
        if earlier := self.names.get(case.name.lower()):
            raise RetinaError(
                f"case {case.name} ({case.split}): the name is already used by {earlier}. "
                "Case names must differ by more than capitals, over training and test together. Rename one."
            )
        self.names[case.name.lower()] = f"{case.name} ({case.split})"

    def _check_ending(self, stored: Stored) -> None:
        ending, record = stored.ending, stored.record
        self.ending = self.ending or ending
        if ending == self.ending:
            return
        first = self.records[0]
        if NIFTI in (ending, self.ending):
            raise RetinaError(
                f"case {first.name} is {len(first.shape)}D, case {record.name} is {len(record.shape)}D with shape "
                f"{tuple(record.shape)}; expected all 2D or all 3D. Convert them as two data sets, or cut the volumes "
                "into slices."
            )
        raise RetinaError(
            f"case {first.name} has type {first.dtype}, case {record.name} has type {record.stored_dtype}; expected "
            "either uint8 and uint16 (written as PNG) or signed and float images (written as TIFF) throughout, because "
            "their grey levels are on different scales. Convert all to one type."
        )

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
        sizes = {record.spacing for record in self.records}
        if self._unit() and self.ending == NIFTI:
            changes["spacing_unit"] = NANOMETRES
        elif self._unit() and len(sizes) == 1:  # 2D files hold no spacing
            (changes["pixel_size"],) = sizes
        elif NANOMETRES in self.units.values():
            self.remarks.append(self._unlike_sizes())
        return replace(protocol, **changes)

    def _unlike_sizes(self) -> str:
        """Say why no size in nm is noted, although some cases have one."""
        lacking = [name for name, unit in self.units.items() if unit is None]
        sizes = {" x ".join(f"{step:g}" for step in r.spacing): None for r in self.records if self.units[r.name]}
        why = f"not known for {shorten(lacking)}" if lacking else f"not the same throughout ({shorten(sizes)} nm)"
        return (
            f"the size of a pixel in nm is {why}: none was noted, so that objects are measured in pixels. Give that of "
            "all with --spacing; rescale images that differ"
        )
