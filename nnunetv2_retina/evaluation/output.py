"""Scores as JSON (all of them), as CSV (one value a line) and as a table to read."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunetv2_retina import __version__
from nnunetv2_retina.console.wording import format_rows
from nnunetv2_retina.errors import shorten
from nnunetv2_retina.evaluation.metric import SHARES
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.evaluation.scores import CaseScores, ClassScores, Scores, Values
from nnunetv2_retina.files import make_folder, write_text

JSON_FILE, CSV_FILE = "scores.json", "scores.csv"
MEAN = "mean"
"""Stands for a class or a case in the CSV file and the table."""
ADVICE = "Give another output folder"
"""What to do if the scores cannot be written."""
MOST_CASES = 30
"""In the printed table; the files hold all."""
_PACKAGES = ("nnunetv2", "numpy", "scipy", "SimpleITK")


def write_scores(scores: Scores, folder: Path) -> tuple[Path, Path]:
    """Write ``scores.json`` and ``scores.csv``; earlier ones are replaced, never half.

    Returns:
        The paths of both.

    Raises:
        RetinaError: if they cannot be written.
    """
    make_folder(folder, ADVICE)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "class", "metric", "value", "reason"))
    writer.writerows(csv_rows(scores))
    contents = {JSON_FILE: json.dumps(as_json(scores), indent=2, allow_nan=False) + "\n", CSV_FILE: text.getvalue()}
    for name, content in contents.items():
        write_text(folder / name, content, ADVICE)
    return folder / JSON_FILE, folder / CSV_FILE


def as_json(scores: Scores) -> dict[str, Any]:
    """Return everything as JSON holds it: an undefined value is null, with its reason beside it."""
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
        "metrics": {metric.key: metric.meaning for metric in rule.metrics},
        "mean": _json_values(scores.mean),
        "classes": {name: _json_values(values) for name, values in scores.classes.items()},
        "cases": {case.name: _json_case(case) for case in scores.cases},
        "excluded": list(scores.excluded),
        "extra_predictions": list(scores.extra_predictions),
        "versions": versions(),
    }


def csv_rows(scores: Scores) -> list[tuple[str, str, str, str, str]]:
    """Return case, class, metric, value (empty where undefined) and reason; means come after what they are taken of."""
    rows = []
    for case in scores.cases:
        for name, of_class in case.classes.items():
            rows += _csv_values(case.name, name, of_class.values, of_class.reasons)
        rows += _csv_values(case.name, MEAN, case.mean, {})
    for name, values in scores.classes.items():
        rows += _csv_values(MEAN, name, values, {})
    return rows + _csv_values(MEAN, MEAN, scores.mean, {})


def table(scores: Scores) -> list[str]:
    """Return the lines of an aligned table, means last, then the rule, what was left out and what the columns mean."""
    rule = scores.rule
    apart = {entry.name for entry in rule.classes if not entry.evaluated}
    single = len(rule.classes) == 1
    rows = [["case", "class", *(metric.short for metric in rule.metrics)]]
    for case in scores.cases[:MOST_CASES]:
        rows += [_row(case.name, name, apart, of_class.values, rule) for name, of_class in case.classes.items()]
        rows += [] if single else [_row(case.name, MEAN, apart, case.mean, rule)]
    rows += [_row(MEAN, name, apart, values, rule) for name, values in scores.classes.items()]
    rows += [] if single else [_row(MEAN, MEAN, apart, scores.mean, rule)]
    lines = format_rows(rows, left=2)
    hidden = len(scores.cases) - MOST_CASES
    if hidden > 0:
        lines.append(f"{hidden} more cases are in {CSV_FILE}")
    lines += [f"{metric.short}: {metric.meaning}" for metric in rule.metrics if metric not in SHARES]
    lines += [f"rule: {sentence}" for sentence in rule.sentences()]
    lines += [f"left out: {sentence}" for sentence in scores.excluded]
    if apart:
        lines.append("(): not in the means")
    if scores.extra_predictions:
        lines.append(f"without a ground truth, not scored: {shorten(scores.extra_predictions)}")
    return lines


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and what computes the scores."""
    numbers = {"nnunetv2-retina": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "not installed"
    return numbers


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
    """Return means and counts over the case; where images are scored, also the values of each, with its number."""
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


def _row(case: str, name: str, apart: set[str], values: Values, rule: Rule) -> list[str]:
    shown = f"({name})" if name in apart else name
    return [case, shown, *(metric.show(values[metric.key]) for metric in rule.metrics)]
