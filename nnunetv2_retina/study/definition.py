"""What a study compares: data sets, systems, seeds and iteration counts, as its YAML file says.

    name: RETINA and its peers
    seeds: [1, 2, 3]
    reference: RETINA                     # the system that the others are tested against
    weights: {cem500k: runs/cem500k/checkpoint_final.pth}
    datasets:
      - {dataset: 801, iterations: [1000, 5000]}
    systems:
      - {name: RETINA, trainer: nnUNetTrainerRETINA, weights: cem500k}
      - {name: TransUNet, trainer: nnUNetTrainerTransUNet}

Every run trains to the last of its data set's iterations and is scored at each of them. ``study_file`` reads the file,
``checks`` looks at what it names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.study.findings.paper_numbers import PUBLISHED, SYSTEMS

SCORED = ("test", "validation")


@dataclass(frozen=True, kw_only=True)
class StudyDataset:
    """A data set of a study. Field names are the keys of the file."""

    dataset: str
    """Number or name of a preprocessed data set."""
    iterations: tuple[int, ...]
    """Where runs are scored, strictly increasing; they train to the last."""
    title: str = ""
    """In tables and figures; empty: the data set's name."""
    fold: int | str = "all"
    """What is trained on; ``all`` is the paper's protocol."""
    scored: str = "test"
    """``test``: imagesTs against labelsTs; ``validation``: the fold's validation cases, to choose settings by."""
    plans: str = "nnUNetPlans"
    labelled: tuple[int, ...] = ()
    """Train on so many of the fold's training cases, drawn by the seed and the same for all systems, fewer among more:
    each number makes a data set of its own of the tables. Empty: on all."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Replaces keys of the data set's own training settings (``dataset.json["retina"]``)."""
    paper: str | None = None
    """Name of this data set in the paper's table, to show its numbers beside."""
    group: str | None = None
    """Data sets of one group also get a common mean."""


@dataclass(frozen=True, kw_only=True)
class StudySystem:
    """A trainer with what it starts from. Field names are the keys of the file."""

    name: str
    trainer: str
    configuration: str = "2d"
    weights: str | None = None
    """Key of the study's weights; None: random initialisation."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Replaces keys of the training settings, after the data set's."""
    training_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Data set, as it is named there -> what replaces keys on that one, after ``training``."""
    datasets: tuple[str, ...] | None = None
    """Which of the study's data sets, as they are named there; None: all."""
    own_schedule: bool = False
    """Leave the number of iterations to the trainer, and score its final checkpoint alone."""
    paper: str | None = None
    """Name of this system in the paper's table."""

    @property
    def slug(self) -> str:
        """Return the name as a folder's."""
        return slug(self.name)


@dataclass(frozen=True, kw_only=True)
class PrimaryComparison:
    """A comparison that was named before the runs. Field names are the keys of the file."""

    dataset: str
    """As the study names it."""
    against: str
    """The system that the reference is tested against."""
    labelled: int | None = None
    """Which of the data set's numbers of labelled cases; None where it has none."""


@dataclass(frozen=True, kw_only=True)
class StudyPrediction:
    """How every system is applied. Field names are the keys of the file."""

    mirroring: bool = False
    step_size: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Study:
    """A whole study. Field names are the keys of the file.

    Raises:
        RetinaError: for settings that contradict each other.
    """

    name: str
    seeds: tuple[int, ...]
    reference: str
    datasets: tuple[StudyDataset, ...]
    systems: tuple[StudySystem, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    """Name -> file, or a name of ``weights.catalogue`` such as ``open``; relative files are beside the study's file,
    ``$VARIABLES`` and ``~`` are replaced."""
    prediction: StudyPrediction = StudyPrediction()
    primary: tuple[PrimaryComparison, ...] = ()
    """What was to be shown: the paired tests of these alone are corrected for their number. Empty: of all."""

    def __post_init__(self) -> None:
        problems = [*self._list_problems(), *self._dataset_problems(), *self._system_problems()]
        problems += self._primary_problems() if not problems else []
        if problems:
            raise RetinaError(f"study {self.name!r}: {'; '.join(problems)}. Correct the file")

    def _list_problems(self) -> list[str]:
        problems = []
        if not self.seeds or not all(_is_int(seed) and seed >= 0 for seed in self.seeds):
            problems.append(f"seeds is {list(self.seeds)}; expected whole numbers from 0, at least one")
        for what, names in (
            ("seed", [str(seed) for seed in self.seeds]),
            ("data set", [entry.dataset for entry in self.datasets]),
            ("system", [entry.name for entry in self.systems]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                problems.append(f"{what} {twice[0]} is there twice; expected each once")
        problems += self._folder_problems()
        for key, entries in (("datasets", self.datasets), ("systems", self.systems)):
            if not entries:
                problems.append(f"{key} is empty; expected at least one")
        names = [entry.name for entry in self.systems]
        if self.reference not in names:
            problems.append(f"reference is {self.reference!r}; expected one of the systems {', '.join(names)}")
        step = self.prediction.step_size
        if isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step <= 1:
            problems.append(f"prediction: step_size is {step!r}; expected a share of the tile, above 0 and at most 1")
        return problems

    def _folder_problems(self) -> list[str]:
        folders: dict[str, dict[str, None]] = {}
        for system in self.systems:
            folders.setdefault(system.slug, {})[system.name] = None
        return [
            f"the runs of the systems {' and '.join(map(repr, names))} would have one folder, {folder}; expected names "
            "that differ in the letters a to z, whatever their case, or in digits"
            for folder, names in folders.items()
            if len(names) > 1
        ]

    def _dataset_problems(self) -> list[str]:
        problems = []
        for entry in self.datasets:
            counts = entry.iterations
            usable = bool(counts) and all(_is_int(count) and count > 0 for count in counts)
            if not usable or any(low >= high for low, high in pairwise(counts)):
                problems.append(
                    f"data set {entry.dataset}: iterations is {list(counts)}; expected whole numbers above 0 that "
                    "increase, such as [500, 1000]"
                )
            drawn = entry.labelled
            if not all(_is_int(count) and count > 0 for count in drawn) or any(a >= b for a, b in pairwise(drawn)):
                problems.append(
                    f"data set {entry.dataset}: labelled is {list(drawn)}; expected whole numbers above 0 that "
                    "increase, such as [1, 2, 5]"
                )
            if entry.scored not in SCORED:
                problems.append(f"data set {entry.dataset}: scored is {entry.scored!r}; expected {' or '.join(SCORED)}")
            if entry.fold != "all" and not (_is_int(entry.fold) and int(entry.fold) >= 0):
                problems.append(f"data set {entry.dataset}: fold is {entry.fold!r}; expected a whole number or all")
            if entry.scored == "validation" and entry.fold == "all":
                problems.append(
                    f"data set {entry.dataset}: fold all leaves no validation cases to score; give a fold by its number"
                )
            problems += _paper_problems(f"data set {entry.dataset}", entry.paper, PUBLISHED)
        return problems

    def _system_problems(self) -> list[str]:
        problems = []
        known = [entry.dataset for entry in self.datasets]
        for system in self.systems:
            if system.weights is not None and system.weights not in self.weights:
                defined = ", ".join(self.weights) or "none"
                problems.append(
                    f"system {system.name}: weights {system.weights!r} are not defined; defined are {defined}"
                )
            problems += _paper_problems(f"system {system.name}", system.paper, SYSTEMS)
            for dataset in (*(system.datasets or ()), *system.training_on):
                if dataset not in known:
                    problems.append(
                        f"system {system.name}: data set {dataset} is not among the study's {', '.join(known)}"
                    )
        for where, training in self._training_blocks():
            taken = {"iterations", "checkpoints"} & set(training)
            if taken:
                problems.append(
                    f"{where}: training has {', '.join(sorted(taken))}, which the study's iterations decide"
                )
            try:
                # The iterations, which a schedule must not be shorter than, are known with the data set.
                Protocol.from_dataset_json({BLOCK: {"iterations": 1, **training}})
            except RetinaError as error:
                problems.append(f"{where}: {str(error).rstrip('.')}")
        return problems

    def _primary_problems(self) -> list[str]:
        problems = []
        datasets = {entry.dataset: entry for entry in self.datasets}
        for entry in self.primary:
            dataset = datasets.get(entry.dataset)
            if dataset is None:
                problems.append(f"primary: data set {entry.dataset} is not among the study's {', '.join(datasets)}")
                continue
            if entry.labelled not in (dataset.labelled or (None,)):
                known = ", ".join(map(str, dataset.labelled)) or "none: leave it out"
                problems.append(
                    f"primary: data set {entry.dataset}: labelled is {entry.labelled!r}; the study's are {known}"
                )
            there = [system.name for system in self.systems if dataset in self.runs_on(system)]
            others = [name for name in there if name != self.reference] if self.reference in there else []
            if entry.against not in others:
                problems.append(
                    f"primary: data set {entry.dataset}: {self.reference} against {entry.against}; there, it can be "
                    f"compared with {', '.join(others) or 'none'}"
                )
        twice = [] if problems else [entry for entry, count in Counter(self.primary).items() if count > 1]
        return problems + [
            f"primary: {entry.dataset} against {entry.against} is there twice; expected each once" for entry in twice
        ]

    def _training_blocks(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [
            *((f"data set {entry.dataset}", entry.training) for entry in self.datasets),
            *((f"system {entry.name}", entry.training) for entry in self.systems),
            *(
                (f"system {entry.name} on {name}", training)
                for entry in self.systems
                for name, training in entry.training_on.items()
            ),
        ]

    def runs_on(self, system: StudySystem) -> tuple[StudyDataset, ...]:
        """Return the data sets that a system is trained on."""
        return tuple(entry for entry in self.datasets if system.datasets is None or entry.dataset in system.datasets)

    def to_json(self) -> dict[str, Any]:
        """Return the study as JSON holds it."""
        return asdict(self)


def slug(name: str) -> str:
    """Return a name as that of a folder: lower-case letters, digits and ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"


def _paper_problems(where: str, key: str | None, known: Collection[str]) -> list[str]:
    if key is None or key in known:
        return []
    return [f"{where}: paper is {key!r}; expected one of {', '.join(known)}, or no such key where the paper has none"]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
