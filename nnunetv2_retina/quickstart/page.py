"""What the quickstart adds to the report of its model: what the weights had seen, a baseline, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_retina.display.pages import bullets, extended, paragraph, preformatted, table
from nnunetv2_retina.files import write_text
from nnunetv2_retina.quickstart.settings import DEFAULT_TRAINER, FEW_TRAINER
from nnunetv2_retina.weights import shipped

DATASET = 700
"""Number of the user's data set in the commands."""

_RANDOM = "The same training from random initialisation: retina_quickstart -o random -tr nnUNetTrainerTransUNet_tiny"


def add_sections(page: Path, weights: str | None, sentences: Sequence[str], commands: Sequence[str]) -> None:
    """Add to the page that ``retina_report`` wrote.

    Args:
        page: the file.
        weights: what the training started from: a name of shipped weights, or a file; None: random initialisation.
        sentences: that compare the scores with a baseline's.
        commands: for the user's own data.
    """
    sections = {
        "What the pre-training saw": pretraining_blocks(weights) if weights else [],
        "Beside a baseline": [
            paragraph("The least that a trained network has to beat: one grey level, the best on the training images."),
            bullets(sentences),
            *([paragraph(_RANDOM)] if weights else []),
        ],
        "Now your data": [
            paragraph(
                "Two annotated images or more, in images/ and masks/ with equal names; PNG, TIFF, NIfTI, NRRD, MRC and "
                "HDF5 are read. No GPU and no variable is needed."
            ),
            preformatted("\n".join(commands)),
        ],
    }
    write_text(page, extended(page.read_text(encoding="utf-8"), {k: v for k, v in sections.items() if v}), "")


def pretraining_blocks(weights: str) -> list[str]:
    """Return what is known of the images that shipped weights were pre-trained on; nothing of others."""
    about = shipped.about(weights)
    if about is None:
        return []
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in about.splitlines() if line[:1] == "|"]
    return [
        paragraph(
            f"The weights {weights!r} come with the package. They were distilled, without any label, on crops of these "
            "openly licensed images."
        ),
        table(rows[0], [row for row in rows[2:] if len(row) == len(rows[0])]),
    ]


def next_commands(data: Path | None, options: Sequence[str], trainer: str, device: str) -> list[str]:
    """Return the five commands from a folder of images and masks to objects in a table.

    Args:
        data: the user's folder; None: one to be made.
        options: of ``retina_convert folder``, as typed.
        trainer: for both training and prediction, but for the default one, which has settings of its own here.
        device: where to train.
    """
    folder = Path("my_data") if data is None else data.absolute()
    new = folder / "test" / "images"
    new = new if new.is_dir() else Path("new_images")
    words = ["--labels", "1=mitochondria"] if data is None else options
    trainer = FEW_TRAINER if trainer == DEFAULT_TRAINER else trainer
    reading = [word for name, more in _by_name(options) if name in _FOR_NEW for word in (name, *more)]
    return [
        "retina_doctor --init",
        f"retina_convert folder {shlex.quote(str(folder))} -d {DATASET} --name Mine {shlex.join(words)}",
        f"nnUNetv2_plan_and_preprocess -d {DATASET} -c 2d --verify_dataset_integrity",
        f"nnUNetv2_train {DATASET} 2d all -tr {trainer} -device {device}",
        f"retina_predict -i {shlex.quote(str(new))} -o predictions -d {DATASET} -tr {trainer} --instances "
        f"--output-format same --overlay{''.join(f' {word}' for word in map(shlex.quote, reading))}",
    ]


_FOR_NEW = ("--hdf5", "--spacing", "--slices-as-volume")
"""Options that new images are read with, too."""


def _by_name(options: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return each option with its values."""
    found: list[tuple[str, list[str]]] = []
    for word in options:
        if word.startswith("--"):
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
    return found
