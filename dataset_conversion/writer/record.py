"""``conversion_report.json``: what was converted, in numbers a person can check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
from scipy import ndimage

from dataset_conversion.readers.pixels import AXES
from dataset_conversion.readers.slabs import Array, Volume
from dataset_conversion.spec import Case, DatasetSpec
from nnunetv2_retina import __version__
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.protocol.folds import Split

REPORT, SHEET = "conversion_report.json", "conversion_sheet.png"
TOOL = f"retina_convert {__version__}"
LEAST_PADDING = 1e-3
"""Share of a slice below which a black area at its border is taken for image."""


@dataclass(frozen=True)
class CaseRecord:
    """What ``conversion_report.json`` says of one case, in the field names used there."""

    name: str
    source: str | None
    split: str
    axes: str
    """``yx`` or ``zyx``: the order of ``shape`` and ``spacing``."""
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: str
    """Type as handed in; ``stored_dtype`` as written."""
    stored_dtype: str
    intensity_min: float
    intensity_max: float
    padding: float
    """Share of voxels that belong to a constant black border; see ``ImageNotes``."""
    label_counts: Mapping[str, int] | None
    """Voxels of every declared value (as text), zeros included; None without a label."""
    group: str | None = None
    remarks: tuple[str, ...] = ()


class ImageNotes:
    """What is noted of an image while it is written, slab by slab.

    Padding is the share of voxels in a constant black border, 0 to 1. Black is the image's lowest grey level. In each
    slice the connected black areas that touch its border count, if they hold at least ``LEAST_PADDING`` of it: single
    black pixels of the tissue do not.
    """

    def __init__(self, image: Volume, low: Any, high: Any) -> None:
        """Begin with the image as it will be written, and its lowest and highest grey level in that type."""
        self.low, self.high = low, high
        self._size, self._padded = image.size, 0
        self._digest = hashlib.blake2b(digest_size=16, key=str(image.shape).encode())

    def add(self, slab: Array) -> None:
        """Note some planes (n, Y, X), which come in order."""
        self._digest.update(np.ascontiguousarray(slab).data)
        if self.low != self.high:
            self._padded += sum(_padded_pixels(plane == self.low) for plane in slab)

    @property
    def padding(self) -> float:
        """Return the share of padding in the whole image; 0 for an image of one grey level."""
        return round(self._padded / self._size, 6)

    @property
    def digest(self) -> str:
        """Return a number that two images of equal shape and voxels share."""
        return self._digest.hexdigest()


CaseProgress = Callable[[CaseRecord, "int | None"], None]
"""Called after each written case, with the number of all where it is known."""


def case_record(
    case: Case, stored: Volume, notes: ImageNotes, spacing: Spacing, counts: dict[str, int] | None
) -> CaseRecord:
    """Return the record of one case.

    Args:
        case: as handed in.
        stored: the image as written, (Y, X) or (Z, Y, X).
        notes: what was noted of it meanwhile.
        spacing: as written.
        counts: voxels of each label value; None without a label.
    """
    low, high = float(notes.low), float(notes.high)
    remarks = [*case.remarks, *_spacing_remarks(case, spacing)]
    if low == high:
        remarks.append(f"the whole image has one grey level ({low:g})")
    return CaseRecord(
        name=case.name,
        source=case.source,
        split=case.split,
        axes="".join(AXES[stored.ndim]),
        shape=tuple(map(int, stored.shape)),
        spacing=tuple(spacing),
        dtype=str(case.image.dtype),
        stored_dtype=str(stored.dtype),
        intensity_min=low,
        intensity_max=high,
        padding=notes.padding,
        label_counts=counts,
        group=case.group,
        remarks=tuple(remarks),
    )


def _padded_pixels(black: Array) -> int:
    """Count the pixels of the areas of a (Y, X) mask that touch its border."""
    edges = [black[0], black[-1], black[:, 0], black[:, -1]]
    if not any(edge.any() for edge in edges):
        return 0
    areas, _ = ndimage.label(black)
    touching = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    sizes = np.bincount(areas.ravel())[touching[touching > 0]]
    return int(sizes[sizes >= LEAST_PADDING * black.size].sum())


def dataset_report(
    spec: DatasetSpec, records: list[CaseRecord], splits: Sequence[Split], ending: str, unit: str | None
) -> dict[str, Any]:
    """Return the whole report, ready for JSON.

    Args:
        spec: the data set's description.
        records: its cases, as written.
        splits: its folds; empty where the training cases are one volume.
        ending: of the image files.
        unit: of the spacings; None if it is not known.
    """
    totals = {
        split: _totals([record for record in records if record.split == split], spec.ignore_value)
        for split in ("train", "test")
    }
    unseen = [
        f"no training case holds a voxel of {spec.label_name(int(value))} (label value {value})"
        for value, count in totals["train"]["label_counts"].items()
        if count == 0 and int(value) != spec.ignore_value
    ]
    return {
        "dataset": spec.folder_name,
        "source": spec.source,
        "tool": TOOL,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "labels": ordered(spec.labels),
        "ignore_value": spec.ignore_value,
        "spacing_unit": unit,
        "file_ending": ending,
        "remarks": [*spec.remarks, *unseen],
        "totals": totals,
        "folds": [{part: list(split[part]) for part in ("train", "val")} for split in splits],
        "cases": [asdict(record) for record in records],
    }


def ordered(labels: Mapping[str, int]) -> dict[str, int]:
    """Return the label table by value, in plain integers."""
    return {name: int(value) for name, value in sorted(labels.items(), key=lambda item: item[1])}


def _spacing_remarks(case: Case, spacing: Spacing) -> list[str]:
    """Say what a volume's spacing means for nnU-Net, which slices along the axis of the largest spacing."""
    if case.image.ndim == 2:
        return []
    if case.spacing is None:
        return ["no voxel size known: 1 x 1 x 1 was written"]
    steps = tuple(spacing)
    if steps[0] < max(steps):
        axis = AXES[3][int(np.argmax(steps))]
        return [f"the largest spacing is along {axis}: nnU-Net's 2d configuration slices along {axis}, not along z"]
    return []


def _totals(records: list[CaseRecord], ignore: int | None) -> dict[str, Any]:
    """Count cases, labelled cases, voxels of each label value and ignored voxels."""
    counts: dict[str, int] = {}
    labelled = [record.label_counts for record in records if record.label_counts is not None]
    for case in labelled:
        for value, count in case.items():
            counts[value] = counts.get(value, 0) + count
    return {
        "cases": len(records),
        "labelled_cases": len(labelled),
        "label_counts": counts,
        "ignored_voxels": counts.get(str(ignore), 0),
    }
