"""The whole chain in one call, by the commands that a user types: convert, preprocess, train, predict, score, report.

It shows that an installation works from end to end, and what the files and commands look like. The network is tiny and
trains for a minute, from the open weights that come with the package: its scores are no measure of what RETINA reaches.
The same network is trained from random initialisation, too, to be seen beside it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.commands import Say, TrainingProgress, Watch, Workspace, run_command
from nnunetv2_retina.nnunet.datasets import IMAGES_TR, IMAGES_TS, LABELS_TS
from nnunetv2_retina.quickstart.data import OwnImages, Source, write_generated
from nnunetv2_retina.quickstart.folder import Output
from nnunetv2_retina.quickstart.settings import DEFAULT_OUTPUT, DEFAULT_TRAINER, QuickstartSettings

__all__ = ["DEFAULT_OUTPUT", "DEFAULT_TRAINER", "QuickstartSettings", "run_quickstart"]

_INDENT = " " * 9


@dataclass(frozen=True)
class Step:
    """One command of the chain."""

    title: str
    """What it is for; words in braces, as in the command, stand for values."""
    command: str
    baseline: bool = False
    """Whether it is for the network that starts at random."""


_PREPARE = (
    Step(
        "Converting to a data set of nnU-Net",
        "retina_convert folder {data} -d 1 --name Quickstart --iterations {iterations} --iterations-per-epoch "
        "{iterations_per_epoch} --few-labels --batch-size {batch_size} --patch-size {patch_size}",
    ),
    Step("Planning and preprocessing", "nnUNetv2_plan_and_preprocess -d 1 -c 2d -npfp {workers} -np {workers}"),
)
_LOOK = Step("Looking at what the weights know", "retina_pretrain look {weights} {training_images} {weights_picture}")
_NETWORK = (
    Step("Training {trainer}", "nnUNetv2_train 1 2d 0 -tr {trainer} -device {device}"),
    Step(
        "Predicting the held-out images",
        "retina_predict -i {images} -o {predictions} -d 1 -tr {trainer} -f 0 -device {device} --disable_tta",
    ),
    Step("Scoring", "retina_evaluate -p {predictions} -g {labels} -d 1 -o {scores} -np 1"),
)
_REPORT = Step(
    "Writing the report",
    "retina_report -d 1 -tr {trainer} -f 0 --predictions {predictions} --labels {labels} --images {images} -o {page}",
)


def steps(settings: QuickstartSettings) -> list[Step]:
    """Return the commands that are run after the images are there, in order."""
    return [
        *_PREPARE,
        *((_LOOK,) if settings.starts_from_weights else ()),
        *_NETWORK,
        *(replace(step, baseline=True) for step in _NETWORK if settings.baseline_trainer),
        _REPORT,
    ]


def run_quickstart(
    output: Path = DEFAULT_OUTPUT,
    data: Path | None = None,
    settings: QuickstartSettings | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
    options: Sequence[str] = (),
) -> Path:
    """Run everything.

    Args:
        output: Folder for all files; nothing is written elsewhere. One that an earlier run made is replaced.
        data: Folder of images and masks, laid out as for ``retina_convert folder``; None: volumes are generated.
        settings: Sizes and iterations; None: the defaults.
        overwrite: Use an output folder that holds other files; those are left alone.
        say: Takes lines of progress.
        options: Of ``retina_convert folder``, for ``data``, as they are typed.

    Returns:
        The path of the report, an HTML page that needs no other file.

    Raises:
        RetinaError: for an output folder or data that cannot be used, or a command that failed.
    """
    settings = settings or QuickstartSettings()
    own = None if data is None else OwnImages.examine(data, options)
    files = Output(output)
    files.prepare(overwrite, data)
    device = settings.device or _best_device()
    where = "a CUDA device" if device == "cuda" else f"the CPU ({available_cores()} cores)"
    say(f"Running on {where}; all files go to {output}")

    start, number = time.monotonic(), len(steps(settings)) + 1
    say(f"[   0 s] 1/{number} {'Generating volumes' if own is None else f'Looking through {data}'}")
    source = write_generated(files.data, settings) if own is None else own.lay_out(files.data)
    say(_INDENT + source.summary)
    explanation = _run_commands(files, source, replace(settings, device=device), start, say)

    from nnunetv2_retina.quickstart import beside  # these import nnU-Net
    from nnunetv2_retina.quickstart.page import add_sections, next_commands
    from nnunetv2_retina.quickstart.results import compare_with_threshold

    sentences = compare_with_threshold(files.dataset, files.network.scores)
    commands = next_commands(data, options, settings.trainer, device)
    add_sections(files, settings, sentences, commands, explanation)
    for line in [*sentences, *([beside.sentence(files)] if settings.baseline_trainer else [])]:
        say(line)
    say("Now your data:")
    for command in commands:
        say(f"    {command}")
    return files.page


def _run_commands(files: Output, source: Source, settings: QuickstartSettings, start: float, say: Say) -> str | None:
    """Run every step; return what was said of the picture of the weights, None where there is none."""
    variables = {"RETINA_SEED": str(settings.seed), "RETINA_WEIGHTS": settings.weights}
    workspace = replace(files.workspace, variables=variables)
    exported = (f"{name}={shlex.quote(value)}" for name, value in workspace.exported().items())
    say(f"{_INDENT}$ export {' '.join(exported)}")
    todo, explanation = steps(settings), None
    for number, step in enumerate(todo, start=2):
        values = _values(files, source, settings, step.baseline)
        say(f"[{time.monotonic() - start:4.0f} s] {number}/{len(todo) + 1} {step.title.format(**values)}")
        command, *arguments = (word.format(**values) for word in step.command.split())
        arguments += source.options if command == "retina_convert" else ()
        place = replace(workspace, log_suffix="_baseline" if step.baseline else "")
        if step is _LOOK:
            explanation = _look(command, arguments, place, say)
            continue
        watches: dict[str, Watch] = {"nnUNetv2_train": TrainingProgress(settings.epochs), "retina_predict": _predicted}
        run_command(
            command, arguments, place, watches.get(command, lambda line: None), lambda line: say(_INDENT + line)
        )
    return explanation


def _look(command: str, arguments: Sequence[str], workspace: Workspace, say: Say) -> str | None:
    """Draw what the weights make of the images; the chain goes on where that fails, with images too small, say."""
    lines: list[str] = []
    try:
        run_command(command, arguments, workspace, lines.append, lambda line: say(_INDENT + line))
        return lines[-2].strip()  # the last is the picture's path
    except RetinaError:
        say(f"{_INDENT}No picture: {lines[-1].strip() if lines else 'see the log'}")
        return None


def _values(files: Output, source: Source, settings: QuickstartSettings, baseline: bool) -> dict[str, object]:
    """Return what stands for the words in braces."""
    found = files.baseline if baseline else files.network
    return {
        **vars(settings),
        "trainer": settings.baseline_trainer if baseline else settings.trainer,
        "workers": min(4, max(1, available_cores() // 2)),  # each imports nnU-Net, which takes longer than its work
        "data": source.folder,
        "training_images": files.dataset / IMAGES_TR,
        "weights_picture": files.weights_picture,
        "images": files.dataset / IMAGES_TS,
        "labels": files.dataset / LABELS_TS,
        "predictions": found.predictions,
        "scores": found.scores,
        "page": files.page,
    }


def _predicted(line: str) -> str | None:
    """Pass on the lines about cases."""
    return line.strip() if " of " in line else None


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
