"""The same test image under every system of a study, side by side (as Xing et al. 2025, Fig 4a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.sheets import OverlayRow, side_by_side
from nnunetv2_retina.evaluation.pairs import Pair
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.files import read_json
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.nnunet.inputs import list_cases
from nnunetv2_retina.report.cases import overlay_row, value_names
from nnunetv2_retina.study.checks import scored_folders
from nnunetv2_retina.study.runs import ANEW, PREDICTIONS, RESULT, PlannedRun

SIDE = 512
"""Of the part that is shown, at most, in pixels."""


def draw(finished: Sequence[PlannedRun], systems: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write a sheet for each data set: the case in the middle of the list, where most of it is annotated.

    Neither case nor place depends on the predictions. Each system is shown by the first of its finished seeds that has
    any. Cases that one of the shown lacks are not chosen; a data set without a case that all have gets no sheet.

    Args:
        finished: runs with a result; those whose predictions were deleted are left out.
        systems: names, in the order of the sheet.
        folder: where to write; it is made.

    Returns:
        Title -> PNG file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {}
    for dataset in dict.fromkeys(planned.run.title for planned in finished):
        first: dict[str, _Shown] = {}
        for planned in sorted((p for p in finished if p.run.title == dataset), key=lambda p: p.run.seed):
            if planned.run.system not in first and (cases := _predicted(planned)):
                first[planned.run.system] = _Shown(planned, cases)
        shown = [first[system] for system in systems if system in first]
        if name := _middle(shown):
            path = folder / f"side_by_side_{shown[0].planned.folder.parents[1].name}.png"
            sheets[f"{dataset}: {_draw(path, name, shown)}"] = path
    return sheets


@dataclass(frozen=True)
class _Shown:
    """A run, and its predictions by case."""

    planned: PlannedRun
    cases: Mapping[str, Path]


def _middle(runs: Sequence[_Shown]) -> str | None:
    """Return the case in the middle of those that all of the runs have predicted; None where there is none."""
    common = sorted(set.intersection(*(set(entry.cases) for entry in runs))) if runs else []
    return common[len(common) // 2] if common else None


def _draw(path: Path, name: str, runs: Sequence[_Shown]) -> str:
    some = runs[0].planned.run
    images, labels = scored_folders(some.dataset, some.scored)
    dataset_json = read_dataset_json(images.parent)
    truth = labels / f"{name}{dataset_json['file_ending']}"
    rows = {
        f"{entry.planned.run.system}, seed {entry.planned.run.seed}": overlay_row(
            Pair(name, entry.cases[name], truth), images, dataset_json, "foreground"
        )
        for entry in runs
    }
    row: OverlayRow = next(iter(rows.values()))
    rule = Rule.from_dataset_json(dataset_json, distances=False)
    where = window(np.asarray((row.truth != 0) & (row.truth != rule.ignore)), SIDE)
    shown = replace(row, image=row.image[where], truth=row.truth[where], prediction=row.prediction[where])
    predictions = {title: entry.prediction[where] for title, entry in rows.items()}
    side_by_side(path, shown, predictions, value_names(rule), rule.ignore)
    return row.name


def window(foreground: NDArray[Any], side: int) -> tuple[slice, slice]:
    """Return the square, at most ``side`` wide, on a grid of half sides, with most foreground; the first of equals."""
    height, width = foreground.shape
    tall, wide = min(side, height), min(side, width)
    places = [
        (y, x)
        for y in sorted({*range(0, height - tall + 1, max(1, tall // 2)), height - tall})
        for x in sorted({*range(0, width - wide + 1, max(1, wide // 2)), width - wide})
    ]
    y, x = max(
        places, key=lambda place: np.count_nonzero(foreground[place[0] : place[0] + tall, place[1] : place[1] + wide])
    )
    return slice(y, y + tall), slice(x, x + wide)


def _predicted(planned: PlannedRun) -> dict[str, Path]:
    """Return the cases that a run has predictions of, after its last iteration."""
    result = read_json(planned.folder / RESULT, ANEW)
    folder = planned.folder / PREDICTIONS / str(result["iterations"][-1])
    if not folder.is_dir():  # then the images need not be there either
        return {}
    images, _ = scored_folders(planned.run.dataset, planned.run.scored)
    dataset_json = read_dataset_json(images.parent)
    ending = dataset_json["file_ending"]
    files = {case.name: folder / f"{case.name}{ending}" for case in list_cases(images, dataset_json)}
    return {name: path for name, path in files.items() if path.is_file()}
