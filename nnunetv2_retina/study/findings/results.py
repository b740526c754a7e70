"""What a study is, and what each of its runs found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.metric import Metric, metric_of

Key = tuple[str, str, int]
"""Data set, system and seed of a run."""
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
        RetinaError: for empty or repeated entries, a group named like a data set, a reference that is no system.
    """

    name: str
    datasets: tuple[DatasetOutline, ...]
    systems: tuple[SystemOutline, ...]
    seeds: tuple[int, ...]
    reference: str
    """Name of the system that the tests compare the others with."""
    metric: str = "iou"
    """The metric of the first table, the figures and the tests."""
    primary: tuple[tuple[str, str], ...] = ()
    """Data set and system of the comparisons that were named beforehand; empty: none was."""
    planned: Collection[Key] | None = None
    """The runs there should be; None: every system on every data set from every seed."""

    def __post_init__(self) -> None:
        names: dict[str, Sequence[object]] = {
            "data sets": [entry.name for entry in self.datasets],
            "titles of data sets": [entry.title for entry in self.datasets],
            "systems": [entry.name for entry in self.systems],
            "seeds": list(self.seeds),
        }
        for kind, values in names.items():
            repeated = [value for value, number in Counter(values).items() if number > 1]
            if not values or repeated:
                got = f"{shorten(repeated)} more than once" if repeated else "none"
                raise RetinaError(f"study {self.name}: {kind}: got {got}; expected at least one, each once. Correct it")
        if self.reference not in names["systems"]:
            raise RetinaError(
                f"study {self.name}: the reference is {self.reference!r}; expected one of its systems: "
                f"{', '.join(map(str, names['systems']))}"
            )
        clashing = [group for group in self.groups if group in names["data sets"]]
        if clashing:
            raise RetinaError(
                f"study {self.name}: group {clashing[0]} has the name of a data set; expected another name"
            )

    def plans(self, dataset: str, system: str, seed: int) -> bool:
        """Tell whether there should be a run of a system on a data set from a seed."""
        return self.planned is None or (dataset, system, seed) in self.planned

    @property
    def runs(self) -> tuple[Key, ...]:
        """Return the runs there should be, in the order of the study."""
        every = ((d.name, s.name, seed) for d in self.datasets for s in self.systems for seed in self.seeds)
        return tuple(key for key in every if self.plans(*key))

    @property
    def groups(self) -> dict[str, tuple[DatasetOutline, ...]]:
        """Return the data sets of each group, in the order of the study."""
        members: dict[str, tuple[DatasetOutline, ...]] = {}
        for entry in self.datasets:
            if entry.group is not None:
                members[entry.group] = (*members.get(entry.group, ()), entry)
        return members


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
        """Return the iterations at which "the" score of the run was taken."""
        return max(self.scores)

    @property
    def key(self) -> Key:
        """Return data set, system, seed."""
        return self.dataset, self.system, self.seed


def select(results: Iterable[Result], outline: StudyOutline) -> list[Result]:
    """Return the results that belong to a study, those of runs there should be, in its order."""
    order = {key: number for number, key in enumerate(outline.runs)}
    return sorted((result for result in results if result.key in order), key=lambda result: order[result.key])


def known_metrics(results: Sequence[Result], first: str) -> list[Metric]:
    """Return every metric that any result has; ``first`` leads."""
    meanings = {first: ""}
    for result in results:
        for key in (key for scores in result.scores.values() for key in scores.mean):
            meanings[key] = meanings.get(key) or result.metrics.get(key, "")
    return [metric_of(key, meaning) for key, meaning in meanings.items()]
