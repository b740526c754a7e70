"""The whole chain in one call, by the commands that a user types: convert, preprocess, train, predict, score, report.

It shows that an installation works from end to end, and what the files and commands look like. The network is tiny and
trains for minutes, from the open weights that come with the package: its scores are no measure of what RETINA reaches.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.nnunet.commands import Say, TrainingProgress, Watch, run_command
from nnunetv2_retina.quickstart.data import OwnImages, Source, write_generated
from nnunetv2_retina.quickstart.folder import Output
from nnunetv2_retina.quickstart.page import add_sections, next_commands
from nnunetv2_retina.quickstart.settings import DEFAULT_OUTPUT, DEFAULT_TRAINER, QuickstartSettings

__all__ = ["DEFAULT_OUTPUT", "DEFAULT_TRAINER", "QuickstartSettings", "run_quickstart"]

_INDENT = " " * 9


_STEPS = (
    (
        "Converting to a data set of nnU-Net",
        "retina_convert folder {data} -d 1 --name Quickstart --iterations {iterations} --iterations-per-epoch "
        "{iterations_per_epoch} --few-labels --batch-size {batch_size} --patch-size {patch_size}",
    ),
    (
        "Planning and preprocessing",
        "nnUNetv2_plan_and_preprocess -d 1 -c 2d --verify_dataset_integrity -npfp {workers} -np {workers}",
    ),
    ("Training {trainer}", "nnUNetv2_train 1 2d 0 -tr {trainer} -device {device}"),
    (
        "Predicting the held-out images",
        "retina_predict -i {images} -o {predictions} -d 1 -tr {trainer} -f 0 -device {device} --disable_tta",
    ),
    ("Scoring", "retina_evaluate -p {predictions} -g {labels} -d 1 -o {scores} -np 1"),
    (
        "Writing the report",
        "retina_report -d 1 -tr {trainer} -f 0 --predictions {predictions} --labels {labels} --images {images} "
        "-o {page}",
    ),
)
"""What each command is for, and the command."""
_LAST = len(_STEPS) + 1


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

    start = time.monotonic()
    say(f"[   0 s] 1/{_LAST} {'Generating volumes' if own is None else f'Looking through {data}'}")
    source = write_generated(files.data, settings) if own is None else own.lay_out(files.data)
    say(_INDENT + source.summary)
    _run_commands(files, source, replace(settings, device=device), start, say)

    from nnunetv2_retina.quickstart.results import compare_with_threshold  # imports nnU-Net

    sentences = compare_with_threshold(files.dataset, files.scores)
    commands = next_commands(data, options, settings.trainer, device)
    pretrained = settings.trainer.startswith("nnUNetTrainerRETINA")
    add_sections(files.page, settings.weights if pretrained else None, sentences, commands)
    for sentence in sentences:
        say(sentence)
    say("Now your data:")
    for command in commands:
        say(f"    {command}")
    return files.page


def _run_commands(files: Output, source: Source, settings: QuickstartSettings, start: float, say: Say) -> None:
    workspace = replace(files.workspace, variables={"RETINA_WEIGHTS": settings.weights})
    exported = (f"{name}={shlex.quote(value)}" for name, value in workspace.exported().items())
    say(f"{_INDENT}$ export {' '.join(exported)}")
    values = _values(files, source, settings)
    watches: dict[str, Watch] = {"nnUNetv2_train": TrainingProgress(settings.epochs), "retina_predict": _predicted}
    for number, (title, template) in enumerate(_STEPS, start=2):
        say(f"[{time.monotonic() - start:4.0f} s] {number}/{_LAST} {title.format(**values)}")
        command, *arguments = (word.format(**values) for word in template.split())
        arguments += source.options if command == "retina_convert" else ()
        watch = watches.get(command, lambda line: None)
        run_command(command, arguments, workspace, watch, lambda line: say(_INDENT + line))


def _values(files: Output, source: Source, settings: QuickstartSettings) -> dict[str, object]:
    """Return what stands for the words in braces."""
    return {
        **vars(settings),
        "workers": min(4, available_cores()),
        "data": source.folder,
        "images": files.dataset / "imagesTs",
        "labels": files.dataset / "labelsTs",
        "predictions": files.predictions,
        "scores": files.scores,
        "page": files.page,
    }


def _predicted(line: str) -> str | None:
    """Pass on the lines about cases."""
    return line.strip() if " of " in line else None


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
