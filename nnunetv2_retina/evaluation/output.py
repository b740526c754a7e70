"""Scores as JSON (all of them), as CSV (one value a line) and as a table to read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunetv2_retina import __version__
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.scores import CaseScores, ClassScores, Scores, Values
from nnunetv2_retina.files import write_text

JSON_FILE, CSV_FILE = "scores.json", "scores.csv"
MEAN = "mean"
"""Stands for a class or a case in the CSV file and the table."""
MOST_CASES = 30
"""In the printed table; the files hold all."""
_HEADERS = {
    "iou": "IoU",
    "f": "F",
    "precision": "prec.",
    "recall": "recall",
    "mfd_hausdorff": "MFD-H",
    "mfd_mean": "MFD-m",
    "cremi_fp": "FP",
    "cremi_fn": "FN",
    "cremi_adgt": "ADGT",
    "cremi_adf": "ADF",
    "cremi_score": "CREMI",
    "cremi_f": "F-tol.",
}
_SHARES = frozenset({"iou", "f", "precision", "recall", "cremi_f"})
_PACKAGES = ("nnunetv2", "numpy", "scipy", "SimpleITK")


def prepare_output(folder: Path) -> None:
    """Make the folder and try to write into it, before hours of work.

    Raises:
        RetinaError: if that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{JSON_FILE}.{os.getpid()}.tmp"
        trial.write_text("", encoding="utf-8")
        trial.unlink()
    except OSError as error:
        raise RetinaError(f"cannot write into {folder} ({error}). Give another output folder") from error


def write_scores(scores: Scores, folder: Path) -> tuple[Path, Path]:
    """Write ``scores.json`` and ``scores.csv``; earlier ones are replaced, never half.

    Returns:
        The paths of both.

    Raises:
        RetinaError: if they cannot be written.
    """
    prepare_output(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "class", "metric", "value", "reason"))
    writer.writerows(csv_rows(scores))
    contents = {JSON_FILE: json.dumps(as_json(scores), indent=2, allow_nan=False) + "\n", CSV_FILE: text.getvalue()}
    for name, content in contents.items():
        write_text(folder / name, content, "Give another output folder")
    return folder / JSON_FILE, folder / CSV_FILE


def as_json(scores: Scores) -> dict[str, Any]:
    """Everything, as JSON holds it: an undefined value is null, its reason stands beside it."""
    rule = scores.rule
    return {
        "dataset": scores.dataset,
        "rule": {
            "words": rule.sentences(),
            "mask_rule": rule.mask_rule,
            "score_unit": rule.score_unit,
            "distance_tolerance": rule.tolerance,
            "ignore": rule.ignore,
            "classes": [
                {"name": entry.name, "values": list(entry.values), "evaluated": entry.evaluated}
                for entry in rule.classes
            ],
        },
        "metrics": rule.metrics,
        "mean": _json_values(scores.mean),
        "classes": {name: _json_values(values) for name, values in scores.classes.items()},
        "cases": {case.name: _json_case(case) for case in scores.cases},
        "excluded": list(scores.excluded),
        "extra_predictions": list(scores.extra_predictions),
        "versions": versions(),
    }


def csv_rows(scores: Scores) -> list[tuple[str, str, str, str, str]]:
    """Case, class, metric, value (empty where undefined), reason; the rows of ``mean`` after those they are made of."""
    rows = []
    for case in scores.cases:
        for name, of_class in case.classes.items():
            rows += _csv_values(case.name, name, of_class.values, of_class.reasons)
        rows += _csv_values(case.name, MEAN, case.mean, {})
    for name, values in scores.classes.items():
        rows += _csv_values(MEAN, name, values, {})
    return rows + _csv_values(MEAN, MEAN, scores.mean, {})


def table(scores: Scores) -> list[str]:
    """Lines of an aligned table, means last, then what was left out."""
    rule, metrics = scores.rule, list(scores.rule.metrics)
    aside = {entry.name for entry in rule.classes if not entry.evaluated}
    single = len(rule.classes) == 1
    rows = [["case", "class", *(_HEADERS[metric] for metric in metrics)]]
    for case in scores.cases[:MOST_CASES]:
        for name, of_class in case.classes.items():
            rows.append(_row(case.name, name, aside, of_class.values, metrics))
        rows += [] if single else [_row(case.name, MEAN, aside, case.mean, metrics)]
    for name, values in scores.classes.items():
        rows.append(_row(MEAN, name, aside, values, metrics))
    rows += [] if single else [_row(MEAN, MEAN, aside, scores.mean, metrics)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_aligned(row, widths) for row in rows]
    hidden = len(scores.cases) - MOST_CASES
    if hidden > 0:
        lines.append(f"{hidden} more cases are in {CSV_FILE}")
    if rule.distances:
        cremi = (
            "" if rule.tolerance is None else "; FP, FN: voxels; ADGT, ADF, CREMI: nm; F-tol.: F within the tolerance"
        )
        lines.append(f"MFD-H, MFD-m: Mean False Distance in voxels, by Hausdorff and by mean distances{cremi}")
    lines += [f"rule: {sentence}" for sentence in rule.sentences()]
    lines += [f"left out: {sentence}" for sentence in scores.excluded]
    if aside:
        lines.append("(): not in the means")
    if scores.extra_predictions:
        lines.append(f"without a ground truth, not scored: {shorten(scores.extra_predictions)}")
    return lines


def versions() -> dict[str, str]:
    """Of this package, Python and what computes the scores."""
    found = {"nnunetv2-retina": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _json_case(case: CaseScores) -> dict[str, Any]:
    return {
        "mean": _json_values(case.mean),
        "classes": {name: _json_class(scores) for name, scores in case.classes.items()},
        "shape": list(case.shape),
        "spacing": list(case.spacing),
        "ignored_voxels": case.ignored,
        "ignored_images": list(case.ignored_images),
    }


def _json_class(scores: ClassScores) -> dict[str, Any]:
    """Means and counts over the case; where images are scored, a list of each value, with the images' numbers."""
    counts = [unit.counts for unit in scores.units]
    entry: dict[str, Any] = {
        **_json_values(scores.values),
        "reasons": dict(scores.reasons),
        "voxels": {name: sum(getattr(one, name) for one in counts) for name in ("tp", "fp", "fn")},
    }
    if any(unit.index is not None for unit in scores.units):
        entry["images"] = {
            "index": [unit.index for unit in scores.units],
            **{metric: [_defined(unit.values[metric]) for unit in scores.units] for metric in scores.values},
        }
    return entry


def _json_values(values: Values) -> dict[str, float | None]:
    return {metric: _defined(value) for metric, value in values.items()}


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _csv_values(
    case: str, name: str, values: Values, reasons: Mapping[str, str]
) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for metric, value in values.items():
        undefined = math.isnan(value)
        reason = reasons.get(metric, "no defined value") if undefined else ""
        rows.append((case, name, metric, "" if undefined else repr(float(value)), reason))
    return rows


def _row(case: str, name: str, aside: set[str], values: Values, metrics: Sequence[str]) -> list[str]:
    shown = f"({name})" if name in aside else name
    return [case, shown, *(_number(metric, values[metric]) for metric in metrics)]


def _number(metric: str, value: float) -> str:
    if math.isnan(value):
        return "undef."
    if metric in _SHARES:
        return f"{value:.4f}"
    return f"{value:.0f}" if metric in ("cremi_fp", "cremi_fn") else f"{value:.2f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
