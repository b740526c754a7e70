"""How long the runs of a study will take, from what its finished runs or rehearsals took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.console.wording import duration, format_rows
from nnunetv2_retina.files import read_json
from nnunetv2_retina.study.runs import ANEW, RESULT, PlannedRun, rehearsals

_OWN_SCHEDULE = 250_000
"""Iterations of nnU-Net's default trainer: 1000 epochs of 250."""


@dataclass(frozen=True)
class Estimate:
    """How long the runs of a system on a data set take."""

    dataset: str
    system: str
    seconds_per_iteration: float
    seconds_per_run: float
    left: int
    measured_on: str
    """``runs`` that are finished, or a ``rehearsal``."""


def estimates(runs: Sequence[PlannedRun], output: Path, cases: Callable[[PlannedRun], int]) -> list[Estimate]:
    """Estimate from finished runs, else from rehearsals; systems that have neither are left out.

    Args:
        runs: those of the study.
        output: its folder.
        cases: number of cases that a run predicts.
    """
    groups: dict[Path, list[PlannedRun]] = {}
    for planned in runs:
        groups.setdefault(planned.folder.parent, []).append(planned)
    known = (_estimate(members, output, cases) for members in groups.values())
    return [estimate for estimate in known if estimate is not None]


def _estimate(members: Sequence[PlannedRun], output: Path, cases: Callable[[PlannedRun], int]) -> Estimate | None:
    """Estimate the runs of one system on one data set."""
    done = [planned for planned in members if planned.finished()]
    rehearsal = rehearsals(members[:1], output)[0]
    if not done and not rehearsal.finished():
        return None
    result = read_json((done[-1] if done else rehearsal).folder / RESULT, ANEW)
    run, per_case = members[0].run, 1 if done else cases(members[0])
    predicted = max(1, len(run.iterations)) * (result["prediction_seconds"] or 0.0) * per_case
    iterations = run.iterations[-1] if run.iterations else _OWN_SCHEDULE
    return Estimate(
        run.title,
        run.system,
        result["seconds_per_iteration"],
        iterations * result["seconds_per_iteration"] + predicted,
        len(members) - len(done),
        "runs" if done else "rehearsal",
    )


def estimate_lines(known: Sequence[Estimate], missing: int) -> list[str]:
    """Return a table, and the sum.

    Args:
        known: of ``estimates``.
        missing: runs that are not finished, those without an estimate included.
    """
    if not missing:
        return []
    lines = format_rows([_cells(entry) for entry in known]) if known else []
    covered = sum(entry.left for entry in known)
    total = sum(entry.seconds_per_run * entry.left for entry in known)
    if covered:
        lines.append(f"about {duration(total)} for these {covered} runs, one after the other")
    if covered < missing:
        lines.append(f"no estimate for {missing - covered} of the runs, not rehearsed yet")
    return lines


def _cells(entry: Estimate) -> list[str]:
    return [
        entry.dataset,
        entry.system,
        f"{entry.seconds_per_iteration:.3f} s/iteration",
        f"{duration(entry.seconds_per_run)} a run",
        f"{entry.left} to do",
        f"(from {entry.measured_on})",
    ]
