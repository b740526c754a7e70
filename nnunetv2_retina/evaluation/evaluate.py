"""Scores of predictions as the papers compute them: of arrays, of one case, and the means over cases.

    scores = evaluate("predictions", "labelsTs", "801")
    scores.mean["iou"], scores.cases[0].classes["synaptic_cleft"].values["cremi_score"]

See ``Rule`` for what is counted, and ``scores`` for what the means are taken over.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.cases import score_case
from nnunetv2_retina.evaluation.in_blocks import score_stored
from nnunetv2_retina.evaluation.pairs import Pair, pair_files, read_pair
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.evaluation.scores import CaseScores, Scores, combine
from nnunetv2_retina.evaluation.stored import is_stored, open_pair
from nnunetv2_retina.nnunet.datasets import check_dataset_json, find_dataset_json, read_dataset_json
from nnunetv2_retina.nnunet.labels import choose_reader

Progress = Callable[[int, int], None]
"""Gets how much is scored, and of how much."""


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    dataset: str | int | Path | Mapping[str, Any],
    *,
    tolerance: float | None = None,
    distances: bool = True,
    processes: int = 1,
    progress: Progress | None = None,
) -> Scores:
    """Score a folder of predictions against a folder of ground truths, by the data set's rule; or two Zarr volumes.

    Args:
        predictions: folder with a label file for each case; more are reported, not scored. Or a Zarr store of labels,
            or ``STORE::LEVEL``, which is read block by block: see ``in_blocks``.
        labels: folder with the ground truths: these are the cases. Or a Zarr store, likewise.
        dataset: a loaded ``dataset.json``; or its path, its folder, or the data set's ID or name.
        tolerance: nm, instead of the data set's own; a data set without one then gets CREMI's scores, too.
        distances: False: without Mean False Distance and CREMI's scores, which take most of the time.
        processes: cases scored at a time; each takes some 9 bytes a voxel. More than 1 only in a script whose
            entry is guarded by ``if __name__ == "__main__"``.
        progress: called with the number of cases, or of blocks, that are done, and of all.

    Returns:
        The scores, cases in the order of their names, whatever the number of processes.

    Raises:
        RetinaError: for a data set, folder or file that cannot be used; nothing is scored in part.
    """
    if processes < 1:
        raise RetinaError(f"{processes} processes; expected at least 1")
    contents, name = _dataset(dataset)
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise RetinaError(f"tolerance is {tolerance}; expected a number of at least 0, in nm")
    rule = Rule.from_dataset_json(contents, tolerance, distances)
    if is_stored(predictions) or is_stored(labels):
        case = score_stored(open_pair(predictions, labels), rule, progress=progress)
        return replace(combine([case], rule), dataset=name)
    pairs, extra = pair_files(Path(predictions), Path(labels), str(contents["file_ending"]))
    return replace(
        score_pairs(pairs, contents, rule, processes, progress), dataset=name, extra_predictions=tuple(extra)
    )


def score_pairs(
    pairs: Sequence[Pair],
    dataset_json: Mapping[str, Any],
    rule: Rule,
    processes: int = 1,
    progress: Progress | None = None,
) -> Scores:
    """Score pairs of files.

    Args:
        pairs: at least one.
        dataset_json: a loaded ``dataset.json``.
        rule: what is counted.
        processes: pairs scored at a time, see ``evaluate``.
        progress: called with the number of pairs that are done, and of all.

    Raises:
        RetinaError: for a file that cannot be used; nothing is scored in part.
    """
    reader = choose_reader(dataset_json, pairs[0].truth)
    jobs = [(pair, reader, rule) for pair in pairs]
    return combine(_score_all(jobs, min(processes, len(jobs)), progress or (lambda done, total: None)), rule)


def default_processes() -> int:
    """Return the number of cores, at most 4: each process takes the memory of two volumes of labels and more."""
    return min(available_cores(), 4)


def _dataset(dataset: str | int | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the contents of ``dataset.json``, and the data set's name."""
    if isinstance(dataset, Mapping):
        return check_dataset_json(dataset, "the given dataset_json"), str(dataset.get("name", ""))
    path = find_dataset_json(dataset)
    return read_dataset_json(path), path.resolve().parent.name


_Job = tuple[Pair, type[Any], Rule]


def _score_all(jobs: Sequence[_Job], processes: int, progress: Progress) -> list[CaseScores]:
    """Score in the order of the jobs. Processes are spawned: forked ones may hang in the libraries' threads."""
    if processes == 1:
        return _collect(map(_score_files, jobs), len(jobs), progress)
    try:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            try:
                with _inherit_no_interrupt():
                    scores = pool.map(_score_files, jobs)
                return _collect(scores, len(jobs), progress)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise RetinaError(
            f"one of {processes} processes was killed, most likely for lack of memory. Use fewer of them (-np 1)"
        ) from error


def _collect(scores: Iterable[CaseScores], total: int, progress: Progress) -> list[CaseScores]:
    """Return the scores as a list, and report how many there are after each."""
    progress(0, total)
    taken = []
    for number, case in enumerate(scores, start=1):
        taken.append(case)
        progress(number, total)
    return taken


@contextmanager
def _inherit_no_interrupt() -> Iterator[None]:
    """Let processes that are started here leave Ctrl-C to this one; theirs would show tracebacks."""
    if threading.current_thread() is not threading.main_thread():  # others may set no signals
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def _score_files(job: _Job) -> CaseScores:
    pair, reader, rule = job
    prediction, truth = read_pair(pair, reader, rule)
    return score_case(pair.name, prediction.array, truth.array, rule, rule.spacing(truth, pair.truth))
