"""Reading the ``result.json`` of a study's runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.study.findings.results import Evaluation, Result, Values

RESULT_FILE = "result.json"
FORMAT_VERSION = 1


def read_results(folder: Path) -> list[Result]:
    """Read every ``result.json`` below a folder, sorted by data set, system and seed; none if there is no folder.

    Raises:
        RetinaError: naming every file that is damaged, and every run that is there twice.
    """
    results, damaged = [], []
    places: dict[tuple[str, str, int], list[Path]] = {}
    for path in sorted(folder.rglob(RESULT_FILE)):
        try:
            results.append(read_result(path))
        except RetinaError as error:
            damaged.append(str(error))
        else:
            places.setdefault(results[-1].key, []).append(path)
    damaged += [
        f"{dataset}, {system}, seed {seed}: {len(paths)} results, {shorten(paths)}; expected one. Delete the others"
        for (dataset, system, seed), paths in places.items()
        if len(paths) > 1
    ]
    if damaged:
        raise RetinaError("\n".join(damaged))
    return sorted(results, key=lambda result: result.key)


def read_result(path: Path) -> Result:
    """Read the result of one run.

    Raises:
        RetinaError: if the file cannot be read, is damaged, or is not what a run writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise RetinaError(f"cannot read {path} ({error})") from error
    except ValueError as error:  # what json raises, and bytes that are no text
        raise RetinaError(f"{path} is damaged ({error}). Delete it and run the study again") from error
    try:
        return _parsed(content)
    except _WrongContentError as error:
        raise RetinaError(f"{path}: {error}. Delete it and run the study again") from None


class _WrongContentError(Exception):
    """What a file holds and what was expected."""


def _scores(content: Mapping[str, Any]) -> dict[int, Evaluation]:
    """Return the scores by number of iterations, in ascending order."""
    scores = {}
    for text, entry in _object(content, "scores").items():
        if not text.isdecimal() or not isinstance(entry, Mapping):
            raise _WrongContentError(f"scores: got {text!r}; expected a number of iterations, with an object of scores")
        scores[int(text)] = _evaluation(entry, f"scores at {text}")
    return dict(sorted(scores.items()))


def _parsed(content: Any) -> Result:
    if not isinstance(content, Mapping):
        raise _WrongContentError(f"got {type(content).__name__}; expected a run's result, an object")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise _WrongContentError(f"format_version is {version!r}; expected {FORMAT_VERSION}")
    scores = _scores(content)
    iterations = content.get("iterations")
    if not isinstance(iterations, list) or not iterations or not all(isinstance(entry, int) for entry in iterations):
        raise _WrongContentError(f"iterations are {iterations!r}; expected a list of whole numbers, at least one")
    if max(iterations) not in scores:
        raise _WrongContentError(
            f"there are scores at {shorten(scores) or 'no'} iterations; expected the last, {max(iterations)}, too"
        )
    return Result(
        dataset=_typed(content, "dataset", str),
        system=_typed(content, "system", str),
        seed=_typed(content, "seed", int),
        scores=scores,
        metrics={str(name): str(text) for name, text in _object(content, "metrics").items()},
        seconds_per_iteration=_number(content.get("seconds_per_iteration"), "seconds_per_iteration"),
        training_seconds=_number(content.get("training_seconds"), "training_seconds"),
        prediction_seconds=_number(content.get("prediction_seconds"), "prediction_seconds"),
        parameters=_object(content, "parameters") if "parameters" in content else {},
        made_by=_object(content, "made_by") if "made_by" in content else {},
    )


def _evaluation(entry: Mapping[str, Any], place: str) -> Evaluation:
    parts = {
        part: {
            str(name): _values(values, f"{place}, {part}, {name}")
            for name, values in (_object(entry, part) if part in entry else {}).items()
        }
        for part in ("classes", "cases")
    }
    return Evaluation(_values(_object(entry, "mean"), f"{place}, mean"), parts["classes"], parts["cases"])


def _values(values: Any, place: str) -> Values:
    if not isinstance(values, Mapping):
        raise _WrongContentError(f"{place}: got {type(values).__name__}; expected an object of metrics")
    return {str(metric): _number(value, f"{place}, {metric}") for metric, value in values.items()}


def _number(value: Any, place: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _WrongContentError(f"{place} is {value!r}; expected a number, or null where it is undefined")
    return float(value)


def _object(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, Mapping):
        raise _WrongContentError(f"{key} is {value!r}; expected an object")
    return value


def _typed(content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _WrongContentError(f"{key} is {value!r}; expected {'a text' if kind is str else 'a whole number'}")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON; undefined values are null")
