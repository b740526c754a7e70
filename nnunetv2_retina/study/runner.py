"""Runs what a study still lacks, one process a run; gathers the runs of several machines.

Several of these may work on one output folder at the same time, on one machine or on a shared file system: each takes
the next run that no other holds. An engine's workers share the runs of one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from nnunetv2_retina.console.engines import ALONE, Workers
from nnunetv2_retina.console.wording import duration
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.metric import IOU
from nnunetv2_retina.files import is_leftover, make_folder, read_json, replacing, write_json
from nnunetv2_retina.nnunet.commands import Say, process_defaults
from nnunetv2_retina.nnunet.datasets import PREPROCESSED, RAW, RESULTS, nnunet_folder
from nnunetv2_retina.study import folders
from nnunetv2_retina.study.definition import Study
from nnunetv2_retina.study.runs import ANEW, FAILED, LOCK, LOG, RESULT, STUDY, PlannedRun
from nnunetv2_retina.training import seeding
from nnunetv2_retina.training.weights_request import VARIABLE as WEIGHTS_VARIABLE

_TAIL = 15
REFUSED = 2
"""Exit status of a worker that has printed an error that a user can put right."""


@dataclass
class Outcome:
    """What became of the runs."""

    finished: int = 0
    failed: list[PlannedRun] = field(default_factory=list)
    held: list[PlannedRun] = field(default_factory=list)
    """Being run by another process."""


def open_output(study: Study, output: Path) -> None:
    """Make the output folder, or check that it is this study's.

    Raises:
        RetinaError: if it holds something else, or cannot be written.
    """
    path = output / STUDY
    # looked at first: another process that begins the same study writes its file before anything else
    held = [entry for entry in output.iterdir() if not is_leftover(entry.name)] if output.is_dir() else []
    if path.is_file():
        name = read_json(path, "Give another output folder with -o").get("name")
        if name != study.name:
            raise RetinaError(
                f"{output} holds the results of study {name!r}; this file is study {study.name!r}. Give another output "
                "folder with -o"
            )
    elif held:
        raise RetinaError(
            f"{output} is not empty and holds no results of a study (no {STUDY}). Give a new folder with -o"
        )
    make_folder(output, "Give another folder with -o")
    write_json(path, study.to_json())


@dataclass(frozen=True)
class Attempt:
    """What a process has done about a run."""

    status: int | None
    """Exit status; None: another process has the run."""
    seconds: float
    here: bool = True
    """Whether it ran now: another process may have finished it meanwhile."""


@dataclass(frozen=True)
class Attempting:
    """The work on one run, for an engine."""

    device: str
    threads: int | None = None
    """Of each run on a processor; None: a thread a core."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """nnU-Net's folders, for workers that may know others."""

    def __call__(self, planned: PlannedRun) -> Attempt:
        """Take a run that no other process holds, and run it."""
        os.environ.update(self.variables)
        with _held(planned.folder) as mine:
            if not mine:
                return Attempt(None, 0)
            if planned.finished():
                return Attempt(0, 0, here=False)
            begin = time.monotonic()
            return Attempt(run_one(planned, self.device, self.threads), time.monotonic() - begin)


def run_all(runs: Sequence[PlannedRun], device: str, say: Say, workers: Workers = ALONE) -> Outcome:
    """Run what is not finished. A run that fails is noted in its folder and left for the next start."""
    todo = [replace(planned, folder=planned.folder.absolute()) for planned in runs if not planned.finished()]
    outcome = Outcome()
    if not todo:
        return outcome
    known = {} if workers.alone else {name: nnunet_folder(name) for name in (RAW, PREPROCESSED, RESULTS)}
    variables = {name: str(folder.absolute()) for name, folder in known.items() if folder is not None}
    task = Attempting(device, workers.threads, variables)
    with workers.engine(say) as engine:
        for number, (planned, attempt) in enumerate(engine.run(task, todo), 1):
            line = f"{number} of {len(todo)}   {planned.name}: "
            if attempt.status is None:
                outcome.held.append(planned)
                say(f"{line}another process has it")
            elif attempt.status != 0:
                outcome.failed.append(planned)
                words = _last_words(planned.folder / LOG, attempt.status)
                say(f"{line}FAILED after {duration(attempt.seconds)}: {words}")
                say(f"    all of it: {planned.folder / LOG}")
            elif attempt.here:
                outcome.finished += 1
                result = read_json(planned.folder / RESULT, ANEW)
                last = result["scores"][str(result["iterations"][-1])]["mean"][IOU.key]
                say(f"{line}{IOU.title} {IOU.show(last)}   {duration(attempt.seconds)}")
    return outcome


def _status_of(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Run a command, which ends with this process at the latest; return its exit status."""
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            return process.wait()
        finally:
            process.kill()
            process.wait()


def run_one(planned: PlannedRun, device: str, threads: int | None = None) -> int:
    """Run one in a process of its own; return its exit status."""
    planned.begin()
    (planned.folder / FAILED).unlink(missing_ok=True)
    log = planned.folder / LOG
    try:
        views = folders.make(planned.folder, planned.run)
    except RetinaError as error:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"error: {error}\n")
        return _failed(planned, "it did not begin", 2)
    environment = {**process_defaults(), **os.environ, **views}
    environment |= {seeding.VARIABLE: str(planned.run.seed), WEIGHTS_VARIABLE: planned.weights_file or ""}
    command = [sys.executable, "-m", "nnunetv2_retina.study.worker", str(planned.folder), "--device", device]
    command += ["--parent", str(os.getpid()), *([] if threads is None else ["--threads", str(threads)])]
    status = _status_of(command, environment, log)
    if status == 0 and not (planned.folder / RESULT).is_file():
        status = 1
    if status == 0:
        return 0
    reason = f"signal {-status}, most likely for want of memory" if status == -9 else f"exit status {status}"
    return _failed(planned, reason, status)


def _failed(planned: PlannedRun, reason: str, status: int) -> int:
    """Note in its folder why a run failed, and return the status."""
    log = planned.folder / LOG
    lines = [f"{reason}: {_last_words(log, status)}", "", *_lines(log)[-_TAIL:]]
    (planned.folder / FAILED).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return status


def merge(runs: Sequence[PlannedRun], output: Path, others: Sequence[Path], say: Say) -> int:
    """Copy finished runs from other output folders of the same study.

    Returns:
        How many.

    Raises:
        RetinaError: for a folder without results, or a run that is defined otherwise there.
    """
    copied = 0
    for other in others:
        if not (other / STUDY).is_file():
            raise RetinaError(f"{other} holds no results of a study (no {STUDY}). Give the folders that -o named")
        taken = 0
        for planned in runs:
            theirs = PlannedRun(planned.run, other / planned.folder.relative_to(output), planned.weights_file)
            if theirs.finished() and not planned.finished():
                taken += _take(theirs, planned, say)
        say(f"{other}: {taken} runs taken")
        copied += taken
    return copied


def _take(theirs: PlannedRun, planned: PlannedRun, say: Say) -> bool:
    """Copy a finished run into its place, its result last; return False if another process has the place."""
    with _held(planned.folder) as mine:
        if not mine:
            say(f"{planned.name}: another process has it; not taken")
            return False
        temporary = planned.folder.with_name(f".{planned.folder.name}.merging")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(theirs.folder, temporary, symlinks=True, ignore=shutil.ignore_patterns(LOCK, RESULT))
        planned.clear()
        for path in temporary.iterdir():
            path.rename(planned.folder / path.name)
        temporary.rmdir()
        with replacing(planned.folder / RESULT) as whole:
            shutil.copyfile(theirs.folder / RESULT, whole)
        return True


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Yield whether the run is ours while the body runs."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lines(log: Path) -> list[str]:
    """Return the lines that are not empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _last_words(log: Path, status: int) -> str:
    """Return the line that says why a run failed: the error that the worker printed, if it did, else the last one.

    What nnU-Net's threads write of loaders that are gone may follow the error.
    """
    lines = _lines(log)
    errors = [line for line in lines if line.startswith("error: ")] if status == REFUSED else []
    return (errors or lines or ["it wrote nothing"])[-1]
