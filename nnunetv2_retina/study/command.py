"""A whole study, from its file to its report: what ``retina_benchmark`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nnunetv2_retina.console import part_of
from nnunetv2_retina.console.engines import ALONE, Workers
from nnunetv2_retina.console.wording import duration
from nnunetv2_retina.nnunet.commands import Say
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.nnunet.inputs import list_cases
from nnunetv2_retina.study import pictures as pictures_of
from nnunetv2_retina.study import runner
from nnunetv2_retina.study.checks import resolve, scored_folders
from nnunetv2_retina.study.definition import Study
from nnunetv2_retina.study.estimates import estimate_lines, estimates
from nnunetv2_retina.study.findings.page import write_report
from nnunetv2_retina.study.findings.result_files import read_results
from nnunetv2_retina.study.findings.results import DatasetOutline, StudyOutline, SystemOutline, select
from nnunetv2_retina.study.runner import Outcome
from nnunetv2_retina.study.runs import FAILED, PlannedRun, Resolved, planned_runs, rehearsals, title
from nnunetv2_retina.study.study_file import read_study
from nnunetv2_retina.training import preflight

REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What of a study is to be done, and where."""

    device: str
    workers: Workers = ALONE
    """Who shares the runs."""
    part: str | None = None
    """``i/n``: every n-th run, from the i-th."""
    merge: Sequence[Path] = ()
    """Other output folders, whose finished runs are taken first."""
    rehearse: bool = True
    """Try every system on every data set for a few steps first."""
    only: str | None = None
    """``estimate``: rehearse and estimate; ``report``: report what is finished."""


def run_study(file: Path, output: Path, options: StudyOptions, say: Say) -> tuple[Path | None, Outcome]:
    """Validate, rehearse, run what is missing, report.

    Args:
        file: the study, see ``study.Study``.
        output: folder for runs and report; one that an earlier start made is gone on with.
        options: what of it.
        say: takes lines of progress.

    Returns:
        The report's page (None where nothing is finished yet), and what became of the runs.

    Raises:
        RetinaError: for a file or folder that cannot be used; a run that fails does not raise.
    """
    study = read_study(file)
    part_of([], options.part)  # a wrong one is refused before anything else
    if options.only != "report" and options.workers.scheduler is None:
        preflight.check_device(torch.device(options.device))
    resolved = resolve(study)
    runs = planned_runs(study, resolved, output)
    outlined = outline(study, resolved, runs)  # refuses what could not be reported
    runner.open_output(study, output)
    finished = sum(planned.finished() for planned in runs)
    say(f"{study.name}: {len(runs)} runs, {finished} finished; all files go to {output}")
    for sentence in resolved.seen:
        say(sentence)
    if options.merge:
        runner.merge(runs, output, options.merge, say)
    outcome = Outcome()
    if options.only != "report":
        mine = part_of(runs, options.part)
        failed = _rehearse(mine, output, options, say) if options.rehearse else []
        known = estimates(mine, output, _case_counter(study, resolved))
        for line in estimate_lines(known, sum(not planned.finished() for planned in mine)):
            say(line)
        if options.only is None:
            outcome = runner.run_all(mine, options.device, say, options.workers)
        else:
            outcome.failed = failed
    return _report(study, outlined, runs, output, resolved.seen, say), outcome


def _rehearse(runs: Sequence[PlannedRun], output: Path, options: StudyOptions, say: Say) -> list[PlannedRun]:
    """Rehearse what has no finished run. Return the rehearsals that failed; their runs are tried all the same."""
    done = {planned.folder.parent for planned in runs if planned.finished()}
    todo = rehearsals([planned for planned in runs if planned.folder.parent not in done], output)
    todo = [planned for planned in todo if not planned.finished()]
    if todo:
        say(f"rehearsal: {len(todo)} times a few steps and one image")
    return runner.run_all(todo, options.device, say, options.workers).failed


def _case_counter(study: Study, resolved: Resolved) -> Callable[[PlannedRun], int]:
    """Return what counts the cases that a run is scored on."""
    counts: dict[str, int] = {}
    for entry in study.datasets:
        name = resolved.datasets[entry.dataset]
        if entry.scored == "test":
            images, _ = scored_folders(name, entry.scored)
            counts[name] = len(list_cases(images, read_dataset_json(images.parent)))
        else:
            counts[name] = len(resolved.folds[entry.dataset]["val"])
    return lambda planned: counts[planned.run.dataset]


def _report(
    study: Study, outlined: StudyOutline, runs: Sequence[PlannedRun], output: Path, seen: Sequence[str], say: Say
) -> Path | None:
    finished = [planned for planned in runs if planned.finished()]
    if not finished:
        say("no run is finished yet, so there is nothing to report")
        return None
    results = read_results(output / "runs")
    known = select(results, outlined)
    if len(known) < len(results):
        say(f"{len(results) - len(known)} finished runs are not of this study as its file is now, and left out")
    notes = [*seen] + [
        f"{planned.name} failed: {(planned.folder / FAILED).read_text(encoding='utf-8').splitlines()[0]}"
        for planned in runs
        if not planned.finished() and (planned.folder / FAILED).is_file()
    ]
    if any(entry.scored == "validation" for entry in study.datasets):
        notes.insert(0, "Scores are of validation cases: they are for choosing settings, not for comparing systems.")
    spent = sum(result.training_seconds for result in known)
    say(f"{len(known)} of {len(runs)} runs are finished; trained for {duration(spent)} altogether")
    pictures = pictures_of.draw(finished, [system.name for system in study.systems], output / REPORT)
    return write_report(outlined, known, output / REPORT, pictures, notes)


def outline(study: Study, resolved: Resolved, runs: Sequence[PlannedRun]) -> StudyOutline:
    """Return what the report needs of a study. The paper's numbers are of all labels."""
    return StudyOutline(
        study.name,
        tuple(
            DatasetOutline(
                title(resolved.datasets[entry.dataset], labelled),
                title(entry.title or resolved.datasets[entry.dataset].split("_", 1)[-1], labelled),
                entry.paper if labelled is None else None,
                title(entry.group, labelled) if entry.group else None,
            )
            for entry in study.datasets
            for labelled in entry.labelled or (None,)
        ),
        tuple(SystemOutline(system.name, system.paper) for system in study.systems),
        study.seeds,
        study.reference,
        primary=tuple(
            (title(resolved.datasets[entry.dataset], entry.labelled), entry.against) for entry in study.primary
        ),
        planned=frozenset(planned.run.key for planned in runs),
    )
