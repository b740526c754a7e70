"""What a study is, and what each of its runs found: the data types, and the files they are read from."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.metric import Metric, metric_of
from nnunetv2_retina.study.findings.paper_numbers import PUBLISHED, SYSTEMS

RESULT_FILE = "result.json"
FORMAT_VERSION = 1
Values = Mapping[str, float]
"""Metric -> value, NaN where undefined."""


@dataclass(frozen=True)
class DatasetOutline:
    """A data set of a study."""

    name: str
    """nnU-Net's: ``Dataset710_CDeep3M``."""
    title: str
    paper: str | None = None
    """Key into ``paper_numbers.PUBLISHED``; None: the paper has no such data set."""
    group: str | None = None
    """Data sets of one group are also averaged into one row."""


@dataclass(frozen=True)
class SystemOutline:
    """A system of a study: what is trained, and how."""

    name: str
    paper: str | None = None
    """One of ``paper_numbers.SYSTEMS``; None: the paper has no such system."""


@dataclass(frozen=True)
class StudyOutline:
    """What a study compares.

    Raises:
        RetinaError: for empty or repeated entries, a reference that is no system, keys the paper's table does not have.
    """

    name: str
    datasets: tuple[DatasetOutline, ...]
    systems: tuple[SystemOutline, ...]
    seeds: tuple[int, ...]
    reference: str
    """Name of the system that the tests compare the others with."""
    metric: str = "iou"
    """The metric of the first table, the figures and the tests."""

    def __post_init__(self) -> None:
        names: dict[str, Sequence[object]] = {
            "data sets (or groups)": [entry.name for entry in self.datasets] + list(self.groups),
            "systems": [entry.name for entry in self.systems],
            "seeds": list(self.seeds),
        }
        for kind, values in names.items():
            repeated = [value for value, number in Counter(values).items() if number > 1]
            if not values or repeated:
                got = f"{shorten(repeated)} more than once" if repeated else "none"
                raise RetinaError(f"study {self.name}: {kind}: got {got}; expected at least one, each once")
        if self.reference not in names["systems"]:
            raise RetinaError(
                f"study {self.name}: the reference is {self.reference!r}; expected one of its systems: "
                f"{', '.join(map(str, names['systems']))}"
            )
        for kind, keys, known in (
            ("data set", [entry.paper for entry in self.datasets], list(PUBLISHED)),
            ("system", [entry.paper for entry in self.systems], list(SYSTEMS)),
        ):
            unknown = [key for key in keys if key is not None and key not in known]
            if unknown:
                raise RetinaError(
                    f"study {self.name}: paper: {shorten(unknown)}; expected one of the paper's {kind}s: "
                    f"{', '.join(known)}. Leave the key out where the paper has none"
                )

    @property
    def groups(self) -> dict[str, tuple[DatasetOutline, ...]]:
        """Group -> its data sets, in the order of the study."""
        found: dict[str, tuple[DatasetOutline, ...]] = {}
        for entry in self.datasets:
            if entry.group is not None:
                found[entry.group] = (*found.get(entry.group, ()), entry)
        return found


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run at one number of iterations."""

    mean: Values
    """The data set's score, by its own rule."""
    classes: Mapping[str, Values] = field(default_factory=dict)
    cases: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A finished run: one system, trained on one data set from one seed."""

    dataset: str
    system: str
    seed: int
    scores: Mapping[int, Evaluation]
    """Iterations -> scores, ascending; at least one."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Metric -> what it is."""
    seconds_per_iteration: float = math.nan
    training_seconds: float = math.nan
    prediction_seconds: float = math.nan
    parameters: Mapping[str, int] = field(default_factory=dict)
    """``all`` and ``trained``."""
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Iterations at which "the" score of the run was taken."""
        return max(self.scores)

    @property
    def key(self) -> tuple[str, str, int]:
        """Data set, system, seed."""
        return self.dataset, self.system, self.seed


def read_results(folder: Path) -> list[Result]:
    """Every ``result.json`` below a folder, sorted by data set, system and seed; none if there is no folder.

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


def select(results: Iterable[Result], outline: StudyOutline) -> list[Result]:
    """The results that belong to a study: its data sets, systems and seeds, in its order."""
    order = {
        (dataset.name, system.name, seed): number
        for number, (dataset, system, seed) in enumerate(
            (d, s, n) for d in outline.datasets for s in outline.systems for n in outline.seeds
        )
    }
    return sorted((result for result in results if result.key in order), key=lambda result: order[result.key])


def known_metrics(results: Sequence[Result], first: str) -> list[Metric]:
    """Return every metric that any result has; ``first`` leads."""
    meanings = {first: ""}
    for result in results:
        for key in (key for scores in result.scores.values() for key in scores.mean):
            meanings[key] = meanings.get(key) or result.metrics.get(key, "")
    return [metric_of(key, meaning) for key, meaning in meanings.items()]


class _WrongContentError(Exception):
    """What a file holds and what was expected."""


def _parsed(content: Any) -> Result:
    if not isinstance(content, Mapping):
        raise _WrongContentError(f"got {type(content).__name__}; expected a run's result, an object")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise _WrongContentError(f"format_version is {version!r}; expected {FORMAT_VERSION}")
    scores = {}
    for text, entry in _object(content, "scores").items():
        if not text.isdecimal() or not isinstance(entry, Mapping):
            raise _WrongContentError(f"scores: got {text!r}; expected a number of iterations, with an object of scores")
        scores[int(text)] = _evaluation(entry, f"scores at {text}")
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
        scores=dict(sorted(scores.items())),
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
