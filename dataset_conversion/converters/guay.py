"""The Guay benchmark: organelles of human platelets, six classes, from ``platelet_data_1219.zip``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from dataset_conversion.benchmarks import GUAY, spec
from dataset_conversion.converters.converter import add_benchmark_arguments, run_benchmark
from dataset_conversion.readers.archives import SourceFile, find
from dataset_conversion.readers.checked import check_pair, read_source_image
from dataset_conversion.readers.pixels import check_values, integer_label
from dataset_conversion.spec import Case
from dataset_conversion.writer.raw_dataset import CaseRecord, write_raw_dataset
from nnunetv2_retina.errors import RetinaError

HELP = "organelles of human platelets (Guay et al. 2021)"
DESCRIPTION = """\
The Guay benchmark as Dataset802_Guay. SOURCE holds platelet_data_1219.zip, or what is in it:

  train-images.tif eval-images.tif test-images.tif      signed 16 bit, kept as they are
  train-labels.tif eval-labels.tif test-labels.tif      0 to 6

Train and eval volume are the training cases: fold 0 validates on eval, as published; fold all trains on both. Labels
have the names of the data set's authors; CEM500K's and RETINA's configurations exchange the names of 3 and 4, not the
voxels.
"""
VOLUMES = {"train": "train", "eval": "train", "test": "test"}
"""Volume -> part of the data set."""
SPACING = (40.0, 10.0, 10.0)
"""nm along z, y, x; stated as about this by the authors, and not in the files."""


def convert_guay(
    source: str | Path,
    dataset_id: int | None = None,
    *,
    protocol: str = "clean",
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[CaseRecord], None] | None = None,
) -> Path:
    """Convert the six TIFF stacks.

    Args:
        source: a folder with the files, or the zip archive.
        dataset_id: instead of 802.
        protocol: ``clean`` or ``paper``; they do not differ here.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace an existing data set of the same ID and name.
        progress: called after each written case.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for missing or damaged files, or an image and a mask that do not fit.
    """
    names = [f"{volume}-{kind}.tif" for volume in VOLUMES for kind in ("images", "labels")]
    files = find(source, names)
    settings = spec(
        GUAY,
        protocol,
        dataset_id=dataset_id,
        source=str(source),
        remarks=["voxel size: 40 x 10 x 10 nm as stated by the authors (about); the files have none"],
    )
    return write_raw_dataset(settings, _cases(files), root, overwrite, progress)


def _cases(files: dict[str, SourceFile]) -> Iterator[Case]:
    for volume, split in VOLUMES.items():
        yield _case(volume, split, files[f"{volume}-images.tif"], files[f"{volume}-labels.tif"])


def _case(volume: str, split: str, image_file: SourceFile, label_file: SourceFile) -> Case:
    image = read_source_image(image_file).array
    label = integer_label(read_source_image(label_file, mask=True).array, volume)
    classes = list(GUAY.labels.values())
    check_pair(image, label, str(image_file), str(label_file), max(classes))
    check_values(
        label, classes, f"{volume} ({label_file})", "Is it the file of the original archive? Download it again."
    )
    if image.ndim != 3:
        raise RetinaError(f"{image_file} has shape {image.shape}; expected a stack (z, y, x). Download it again.")
    return Case(volume, image, label, SPACING, split, source=str(image_file))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``retina_convert guay``."""
    add_benchmark_arguments(parser, "guay", DESCRIPTION)


def run(args: argparse.Namespace, progress: Callable[[CaseRecord], None] | None = None) -> Path:
    """Convert as the command line says. Returns the data set's folder."""
    return run_benchmark(args, "guay", convert_guay, progress)
