"""The report of a training that is running, written anew whenever it has come further."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.models import PLANS_JSON
from nnunetv2_retina.nnunet.record import VALIDATED, goes_on
from nnunetv2_retina.report.page import write_model_report
from nnunetv2_retina.report.settings import ReportSettings

_State = dict[Path, tuple[int, int]]


def watch_model_report(
    folder: str | Path, output: str | Path | None, settings: ReportSettings, tell: Callable[[str], None]
) -> None:
    """Write the report of a model each time a fold has a new checkpoint or validation, until all folds are over.

    The page asks the browser to read it anew as often, while the training goes on. See ``write_model_report``, also
    for the arguments.

    Args:
        folder: model folder of a training that was begun.
        output: the file; None: ``report.html`` in the model folder.
        settings: what to report on; ``watch`` says how many seconds pass between two looks.
        tell: gets lines for the user: the file's path, once it is there, and what is waited for.

    Raises:
        RetinaError: for a model, a file or an output that cannot be used; a file that is being written is waited for.
    """
    folder = Path(folder)
    failed: tuple[_State, str] | None = None
    written: _State | None = None
    if (folder / PLANS_JSON).is_file() and not _state(folder):
        tell(f"Waiting for the first checkpoint in {folder}; Ctrl-C ends.")
    while True:
        state, over = _state(folder), not goes_on(folder, settings.folds)
        if state != written and (state or not (folder / PLANS_JSON).is_file()):
            try:
                path = write_model_report(folder, output, settings)
                if written is None:
                    tell(f"{path}: written anew while the training goes on; Ctrl-C ends.")
                written, failed = state, None
            except RetinaError as error:
                if failed == (state, str(error)):
                    raise
                failed = state, str(error)
                over = False
        if over:
            tell("The training is over.")
            return
        time.sleep(settings.watch or 1)


def _state(folder: Path) -> _State:
    """Return time and size of what a report is written of: no two states of a training have the same."""
    files = [path for name in ("checkpoint_*.pth", VALIDATED) for path in folder.glob(f"fold_*/{name}")]
    state = {}
    for path in files:
        try:
            status = path.stat()
        except FileNotFoundError:  # replaced or removed just now
            continue
        state[path] = status.st_mtime_ns, status.st_size
    return state
