"""The same test image under every system of a study, side by side (as Xing et al. 2025, Fig 4a)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

    Neither case nor place depends on the predictions. Each system is shown by the first of its finished seeds.

    Args:
        finished: runs with a result; those whose predictions were deleted are left out.
        systems: names, in the order of the sheet.
        folder: where to write; it is made.

    Returns:
        Title -> PNG file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {}
    shown = [planned for planned in finished if _predictions(planned).is_dir()]
    for dataset in dict.fromkeys(planned.run.title for planned in shown):
        first: dict[str, PlannedRun] = {}
        for planned in sorted((p for p in shown if p.run.title == dataset), key=lambda p: p.run.seed):
            first.setdefault(planned.run.system, planned)
        path = folder / f"side_by_side_{next(iter(first.values())).folder.parents[1].name}.png"
        name = _draw(path, dataset, {system: first[system] for system in systems if system in first})
        sheets[f"{dataset}: {name}"] = path
    return sheets


def _draw(path: Path, dataset: str, runs: dict[str, PlannedRun]) -> str:
    some = next(iter(runs.values()))
    images, labels = scored_folders(some.run.dataset, some.run.scored)
    dataset_json = read_dataset_json(images.parent)
    ending = dataset_json["file_ending"]
    names = [case.name for case in list_cases(images, dataset_json)]
    names = [name for name in names if (_predictions(some) / f"{name}{ending}").is_file()]
    name = names[len(names) // 2]
    rows = {
        f"{system}, seed {planned.run.seed}": overlay_row(
            Pair(name, _predictions(planned) / f"{name}{ending}", labels / f"{name}{ending}"),
            images,
            dataset_json,
            "foreground",
        )
        for system, planned in runs.items()
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


def _predictions(planned: PlannedRun) -> Path:
    result = read_json(planned.folder / RESULT, ANEW)
    return planned.folder / PREDICTIONS / str(result["iterations"][-1])
