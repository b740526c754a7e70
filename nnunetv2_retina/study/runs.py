"""The runs of a study: what defines each, where its files lie, and what it is compared by when a study goes on.

``OUT/runs/<data set>/<system>/seed_<n>/`` holds ``run.json`` (what defines it), ``log.txt``, nnU-Net's result folder,
scores and predictions, and when it is finished ``result.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json, write_json
from nnunetv2_retina.protocol import BLOCK, EARLIER, Protocol
from nnunetv2_retina.study.definition import Study, StudyDataset, StudySystem

RUN, RESULT, FAILED, LOG, STUDY = "run.json", "result.json", "failed.txt", "log.txt", "study.json"
PREDICTIONS = "predictions"
LOCK = ".lock"
"""Held by the process that runs it."""
ANEW = "Delete its folder to run it anew"
"""What to do about a file of a run that cannot be read."""
REHEARSAL_STEPS = 4
"""Training steps of a rehearsal; its first is left out of the time."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What defines one run. Two runs with equal values are the same run, wherever they were made."""

    dataset: str
    """Full name, such as Dataset801_CREMI."""
    system: str
    seed: int
    trainer: str
    configuration: str
    plans: str
    fold: int | str
    labelled: int | None = None
    """How many training cases were drawn, if not all; they stand in ``training["folds"]``."""
    scored: str
    iterations: tuple[int, ...]
    """Where it is scored; empty: at the end of the trainer's own schedule."""
    training: Mapping[str, Any]
    """The data set's ``retina`` block as this run reads it."""
    weights: str | None
    """Fingerprint of the weights it starts from."""
    mirroring: bool
    step_size: float
    rehearsal: bool = False
    """A few steps and one case, to see that all works and how long it takes."""

    @property
    def title(self) -> str:
        """Return the data set, and how much of it is labelled."""
        return title(self.dataset, self.labelled)

    @property
    def key(self) -> tuple[str, str, int]:
        """Return what its result is found by: title, system and seed."""
        return self.title, self.system, self.seed

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON holds it."""
        contents: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return contents

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        """Make a run of what ``to_json`` returned."""
        return cls(**{**values, "iterations": tuple(values["iterations"])})

    def rehearsed(self) -> Run:
        """Return the same run, cut down to a rehearsal."""
        training = {key: value for key, value in self.training.items() if key not in ("checkpoints",)}
        training |= {"iterations": REHEARSAL_STEPS, "iterations_per_epoch": REHEARSAL_STEPS}
        iterations = (REHEARSAL_STEPS,) if self.iterations else ()
        return replace(self, seed=0, iterations=iterations, training=training, rehearsal=True)


def _flat(contents: dict[str, Any]) -> dict[str, Any]:
    """Return what defines a run with every setting of its training, those that are not written down, too."""
    written = contents.get("training")
    training = {**asdict(Protocol()), **EARLIER, **(written if isinstance(written, dict) else {})}
    return {**contents, "training": None, **{f"training's {name}": value for name, value in training.items()}}


@dataclass(frozen=True)
class PlannedRun:
    """A run and its place."""

    run: Run
    folder: Path
    weights_file: str | None

    @property
    def name(self) -> str:
        """Return the name of the run in lines of progress."""
        seed = "rehearsal" if self.run.rehearsal else f"seed {self.run.seed}"
        return f"{self.run.title}, {self.run.system}, {seed}"

    def finished(self) -> bool:
        """Return whether its result is there.

        Raises:
            RetinaError: if the folder holds a run that is defined otherwise.
        """
        return self.check_folder() and (self.folder / RESULT).is_file()

    def check_folder(self) -> bool:
        """Return whether what the folder holds, if anything, is of this run; refuse one that another was trained in.

        Raises:
            RetinaError: naming the first setting that differs.
        """
        path = self.folder / RUN
        if not path.is_file():
            return True
        stored, wanted = _flat(read_json(path, ANEW)), _flat(self.run.to_json())
        different = [key for key in wanted if stored.get(key) != wanted[key]]
        if different and not self._worthless():
            key = different[0]
            raise RetinaError(
                f"{self.folder} holds a run of another study: its {key} is {stored.get(key)!r}, in this study it is "
                f"{wanted[key]!r}. Give another output folder, or delete that run's folder to train it anew"
            )
        return not different

    def begin(self) -> None:
        """Make the folder and write what defines the run; the rehearsal or failed start of another goes."""
        if not self.check_folder():
            self.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RUN, self.run.to_json())

    def clear(self) -> None:
        """Delete what is in the folder, but not the lock, which this process holds."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def _worthless(self) -> bool:
        """Return whether nothing in the folder took time to make."""
        if self.run.rehearsal:
            return True
        return not (self.folder / RESULT).exists() and not any(self.folder.rglob("checkpoint_*.pth"))


@dataclass(frozen=True)
class Resolved:
    """What ``checks`` found behind the names of a study."""

    datasets: Mapping[str, str]
    """Data set as the study names it -> full name."""
    training: Mapping[str, Mapping[str, Any]]
    """Full name -> the ``retina`` block of its dataset.json."""
    fingerprints: Mapping[str, str]
    """Name of the weights -> fingerprint."""
    folds: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Data set as the study names it -> training and validation cases of its fold; ``all`` has none for validation."""
    seen: Sequence[str] = ()
    """Sentences on images of the data sets that a pre-training saw."""


_SPLITTING = ("folds", "groups")


def splitting(training: Mapping[str, Any]) -> Protocol:
    """Return what training settings say of splits alone."""
    return Protocol.from_dataset_json({BLOCK: {key: training[key] for key in _SPLITTING if key in training}})


def has_own_splits(training: Mapping[str, Any]) -> bool:
    """Tell whether training settings say how to split a data set, so that its file of splits is not asked."""
    return any(training.get(key) is not None for key in _SPLITTING)


def title(dataset: str, labelled: int | None) -> str:
    """Return the name of a data set under which a study shows its runs on all, or on some of its training cases."""
    return dataset if labelled is None else f"{dataset}, {labelled} labelled"


def planned_runs(study: Study, resolved: Resolved, output: Path) -> list[PlannedRun]:
    """Return all runs, one seed of everything before the next, so that an early report has every system.

    Raises:
        RetinaError: for training settings that do not fit together.
    """
    return list(_planned(study, resolved, output))


def rehearsals(runs: Sequence[PlannedRun], output: Path) -> list[PlannedRun]:
    """Return one for each data set and system of the given runs."""
    by_folder: dict[Path, PlannedRun] = {}
    for planned in runs:
        folder = output / "rehearsals" / planned.folder.parent.relative_to(output / "runs")
        by_folder.setdefault(folder, PlannedRun(planned.run.rehearsed(), folder, planned.weights_file))
    return list(by_folder.values())


def _planned(study: Study, resolved: Resolved, output: Path) -> Iterator[PlannedRun]:
    for seed in study.seeds:
        for entry in study.datasets:
            for labelled in entry.labelled or (None,):
                for system in study.systems:
                    if entry in study.runs_on(system):
                        run = _run(study, resolved, entry, labelled, system, seed)
                        part = run.dataset if labelled is None else f"{run.dataset}_labelled_{labelled}"
                        folder = output / "runs" / part / system.slug / f"seed_{seed}"
                        yield PlannedRun(run, folder, study.weights[system.weights] if system.weights else None)


def _training(
    resolved: Resolved, entry: StudyDataset, system: StudySystem, folds: list[dict[str, list[str]]] | None
) -> dict[str, Any]:
    """Return the settings of a run, as its block of dataset.json; ``folds`` None: the data set's own."""
    training: dict[str, Any] = {
        **resolved.training[resolved.datasets[entry.dataset]],
        **entry.training,
        **system.training,
        **system.training_on.get(entry.dataset, {}),
    }
    if folds is not None:
        training["folds"] = folds
    if system.own_schedule:
        training.pop("schedule_iterations", None)
    else:
        *earlier, last = entry.iterations
        training |= {"iterations": last, "checkpoints": earlier} if earlier else {"iterations": last}
    protocol = Protocol.from_dataset_json({BLOCK: training})
    return protocol.to_json(stated={*training, "loss"})  # the loss's default once was another


def _run(
    study: Study, resolved: Resolved, entry: StudyDataset, labelled: int | None, system: StudySystem, seed: int
) -> Run:
    folds = None if labelled is None else [_drawn(resolved.folds[entry.dataset], labelled, seed)]
    return Run(
        dataset=resolved.datasets[entry.dataset],
        system=system.name,
        seed=seed,
        trainer=system.trainer,
        configuration=system.configuration,
        plans=entry.plans,
        fold=entry.fold if labelled is None else 0,
        labelled=labelled,
        scored=entry.scored,
        iterations=() if system.own_schedule else entry.iterations,
        training=_training(resolved, entry, system, folds),
        weights=resolved.fingerprints[system.weights] if system.weights else None,
        mirroring=study.prediction.mirroring,
        step_size=study.prediction.step_size,
    )


def _drawn(fold: Mapping[str, Sequence[str]], count: int, seed: int) -> dict[str, list[str]]:
    """Return a fold of so many of the training cases. Where all were for training, they are for validation as well."""
    order = np.random.default_rng(seed).permutation(sorted(fold["train"]))
    train = sorted(order[:count].tolist())
    return {"train": train, "val": list(fold["val"]) or train}
