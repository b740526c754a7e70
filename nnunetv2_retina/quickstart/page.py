"""What the quickstart adds to the report of its model: what the weights knew, baselines, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_retina.display.pages import bullets, extended, paragraph, picture, preformatted, table
from nnunetv2_retina.files import write_text
from nnunetv2_retina.quickstart import beside
from nnunetv2_retina.quickstart.folder import Output
from nnunetv2_retina.quickstart.settings import DEFAULT_TRAINER, FEW_TRAINER, QuickstartSettings
from nnunetv2_retina.weights import shipped

DATASET = 700
"""Number of the user's data set in the commands."""


def add_sections(
    files: Output,
    settings: QuickstartSettings,
    sentences: Sequence[str],
    commands: Sequence[str],
    explanation: str | None = None,
) -> None:
    """Add to the page that ``retina_report`` wrote.

    Args:
        files: where the page is, and what the commands made.
        settings: of the run.
        sentences: that compare the scores with a threshold's.
        commands: for the user's own data.
        explanation: of the picture of what the weights make of the images; None: there is none.
    """
    known = weights_blocks(settings.weights, files.weights_picture, explanation) if settings.starts_from_weights else []
    sections = {
        "What the weights knew before": known,
        "Beside random initialisation": beside.blocks(files) if settings.baseline_trainer else [],
        "Beside a threshold": [
            paragraph("The least that a trained network has to beat: one grey level, the best on the training images."),
            bullets(sentences),
        ],
        "Now your data": [
            paragraph(
                "Two annotated images or more, in images/ and masks/ with equal names; PNG, TIFF, NIfTI, NRRD, MRC and "
                "HDF5 are read. No GPU and no variable is needed."
            ),
            preformatted("\n".join(commands)),
        ],
    }
    page = files.page.read_text(encoding="utf-8")
    write_text(files.page, extended(page, {title: blocks for title, blocks in sections.items() if blocks}), "")


def weights_blocks(weights: str, drawn: Path, explanation: str | None) -> list[str]:
    """Return what shipped weights were pre-trained on, and what weights make of the images before the training.

    Args:
        weights: a name of shipped weights, or a file.
        drawn: the picture of ``retina_pretrain look``.
        explanation: what that command says of it; None: there is no picture.
    """
    blocks = pretraining_blocks(weights)
    if explanation is not None:
        blocks += [paragraph(explanation), picture(drawn, "What the weights make of images of this data set")]
    return blocks


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
