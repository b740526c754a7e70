"""The whole chain in one call: data, nnU-Net's preprocessing, training, prediction, scores, pictures and a report.

It shows that an installation works from end to end, and what the files and commands look like. The network is tiny,
trains for minutes and starts from random weights, so the scores say nothing about RETINA itself.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.machine import available_cores
from nnunetv2_retina.nnunet.commands import Say, TrainingProgress, Watch, Workspace, run_command
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.quickstart import data as quickstart_data
from nnunetv2_retina.quickstart import results as quickstart_report

DEFAULT_OUTPUT = Path("retina_quickstart")
DEFAULT_TRAINER = "nnUNetTrainerTransUNet_tiny"
MARKER = ".retina_quickstart"
"""In every output folder, so that the next run knows the folder for its own and may replace it."""

_STAGES = 6
_PREDICTIONS = "predictions"


@dataclass(frozen=True)
class QuickstartSettings:
    """How large and how long; the defaults take two to six minutes on two CPU cores.

    Raises:
        RetinaError: for a number out of its range.
    """

    iterations: int = 180
    """Optimiser steps of the training."""
    iterations_per_epoch: int = 30
    """Steps between two lines of progress."""
    batch_size: int = 8
    """Patches per step."""
    patch_size: int = 128
    """Side of the square patches in pixels: smaller than RETINA's 224, for want of a GPU."""
    train_volumes: int = 5
    """Generated volumes to train on; one of them validates."""
    test_volumes: int = 2
    """Generated volumes held out for the scores."""
    shape: tuple[int, int, int] = (10, 384, 384)
    """(Z, Y, X) of a generated volume in voxels."""
    seed: int = 0
    """Of the generated volumes."""
    trainer: str = DEFAULT_TRAINER
    """nnU-Net trainer."""
    device: str | None = None
    """``cuda`` or ``cpu``; None: cuda where there is one."""

    def __post_init__(self) -> None:
        problems = []
        for name, least in (
            ("iterations", 1),
            ("iterations_per_epoch", 1),
            ("batch_size", 1),
            ("patch_size", 16),
            ("train_volumes", 2),
            ("test_volumes", 1),
        ):
            if getattr(self, name) < least:
                problems.append(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.device not in (None, "cuda", "cpu"):
            problems.append(f"device is {self.device!r}; expected cuda or cpu")
        if problems:
            raise RetinaError("; ".join(problems) + ".")

    @property
    def protocol(self) -> Protocol:
        """The data set's block of training settings."""
        per_epoch = min(self.iterations_per_epoch, self.iterations)
        return Protocol(
            iterations=self.iterations,
            iterations_per_epoch=per_epoch,
            batch_size=self.batch_size,
            patch_size=self.patch_size,
            learning_rate=0.03,  # a short training from random initialisation
        )


@dataclass
class _Journal:
    """What was done so far and how long it took."""

    say: Say
    start: float = field(default_factory=time.monotonic)
    stages: list[tuple[str, float]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and time it."""
        begin = time.monotonic()
        self.say(f"[{begin - self.start:4.0f} s] {len(self.stages) + 1}/{_STAGES} {name}")
        yield
        self.stages.append((name, time.monotonic() - begin))


def run_quickstart(
    output: Path = DEFAULT_OUTPUT,
    data: Path | None = None,
    settings: QuickstartSettings | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Path:
    """Run everything.

    Args:
        output: Folder for all files; nothing is written elsewhere. One that an earlier run made is replaced.
        data: Folder of images and masks, laid out as for ``retina_convert folder``; None: volumes are generated.
        settings: Sizes and iterations; None: the defaults.
        overwrite: Use an output folder that holds other files; those are left alone.
        say: Takes lines of progress.

    Returns:
        The path of the report, an HTML page that needs no other file.

    Raises:
        RetinaError: for an output folder or data that cannot be used, or a command of nnU-Net that failed.
    """
    settings = settings or QuickstartSettings()
    device = settings.device or _best_device()
    workspace, journal = _prepare(output, overwrite), _Journal(say)
    where = "a CUDA device" if device == "cuda" else f"the CPU ({available_cores()} cores)"
    say(f"Running on {where}; all files go to {output}")

    with journal.stage("Generating volumes" if data is None else f"Converting {data}"):
        dataset, source = _make_dataset(workspace, data, settings)
        say(f"         {source}")
    with journal.stage("Planning and preprocessing"):
        workers = str(min(4, available_cores()))
        arguments = ["-d", str(quickstart_data.DATASET_ID), "-c", "2d", "--verify_dataset_integrity"]
        _run(journal, workspace, "nnUNetv2_plan_and_preprocess", [*arguments, "-npfp", workers, "-np", workers])
    with journal.stage(f"Training {settings.trainer}"):
        epochs = -(-settings.iterations // settings.protocol.iterations_per_epoch)
        arguments = [str(quickstart_data.DATASET_ID), "2d", "0", "-tr", settings.trainer, "-device", device]
        _run(journal, workspace, "nnUNetv2_train", arguments, TrainingProgress(epochs))
    predictions = output / _PREDICTIONS
    with journal.stage("Predicting the held-out images"):
        arguments = ["-i", str(dataset / "imagesTs"), "-o", str(predictions), "-d", str(quickstart_data.DATASET_ID)]
        arguments += ["-c", "2d", "-f", "0", "-tr", settings.trainer, "-device", device, "--disable_tta"]
        _run(journal, workspace, "nnUNetv2_predict", [*arguments, "-npp", "1", "-nps", "1"], _prediction_progress)
    with journal.stage("Scoring"):
        results = quickstart_report.score(dataset, predictions)
    with journal.stage("Writing pictures and the report"):
        quickstart_report.write_overlay(output / quickstart_report.OVERLAY, dataset, predictions)
    for entry in results.classes:
        say(entry.sentence())
    return quickstart_report.write_report(output, results, source, journal.stages, journal.commands)


def _run(
    journal: _Journal, workspace: Workspace, command: str, arguments: list[str], watch: Watch = lambda line: None
) -> None:
    def say(line: str) -> None:
        journal.say(f"         {line}")

    journal.commands.append(run_command(command, arguments, workspace, watch, say))


def _prediction_progress(line: str) -> str | None:
    return line.strip().rstrip(":") if line.startswith("Predicting ") else None


def _make_dataset(workspace: Workspace, data: Path | None, settings: QuickstartSettings) -> tuple[Path, str]:
    """Write the raw data set; its folder, and a sentence on what is in it."""
    workspace.raw.mkdir()
    if data is not None:
        return quickstart_data.write_own(workspace.raw, data, settings.protocol)
    dataset = quickstart_data.write_generated(
        workspace.raw, settings.train_volumes, settings.test_volumes, settings.shape, settings.seed, settings.protocol
    )
    source = (
        f"{settings.train_volumes} generated volumes to train on and {settings.test_volumes} held out, "
        f"{' x '.join(map(str, settings.shape))} voxels (z, y, x) each; mitochondria are to be found."
    )
    return dataset, source


def _prepare(output: Path, overwrite: bool) -> Workspace:
    """Make the output folder, empty of an earlier run's files and no others."""
    workspace = Workspace(output)
    folders = [workspace.raw, workspace.preprocessed, workspace.results, workspace.logs, output / _PREDICTIONS]
    files = [output / name for name in (quickstart_report.REPORT, quickstart_report.SCORES, quickstart_report.OVERLAY)]
    if output.exists() and not output.is_dir():
        raise RetinaError(f"{output} is a file; expected a folder to write to. Choose another with --output.")
    if (output / MARKER).is_file():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for file in files:
            file.unlink(missing_ok=True)
    elif output.is_dir() and any(output.iterdir()):
        in_the_way = [path.name for path in (*folders, *files) if path.exists()]
        if in_the_way:
            raise RetinaError(
                f"{output} holds {', '.join(in_the_way)}, which the quickstart did not make. "
                "Choose another folder with --output."
            )
        if not overwrite:
            raise RetinaError(
                f"{output} is not empty and the quickstart did not make it. Choose another folder with --output, "
                "or allow this one with --overwrite: its files are left alone, new ones are put beside them."
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / MARKER).touch()
    except OSError as error:
        raise RetinaError(
            f"cannot write to {output} ({error.strerror}). Choose another folder with --output."
        ) from error
    return workspace


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
