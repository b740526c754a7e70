"""The Guay benchmark: organelles of human platelets, six classes, from ``platelet_data_1219.zip``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dataset_conversion.benchmarks import GUAY
from dataset_conversion.converters.converter import Contents
from dataset_conversion.readers.archives import SourceFile, find
from dataset_conversion.readers.checked import check_pair, read_source_image
from dataset_conversion.readers.pixels import check_values, integer_label
from dataset_conversion.readers.slabs import whole
from dataset_conversion.spec import Case
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

VOLUMES = {"train": "train", "eval": "train", "test": "test"}
"""Volume -> part of the data set."""
SPACING = Spacing(40.0, 10.0, 10.0, NANOMETRES)
"""About this, as the authors state; the files have none."""


def find_contents(source: Path, _: Sequence[str]) -> list[Contents]:
    """Find the six TIFF stacks.

    Raises:
        RetinaError: for missing files.
    """
    files = find(source, [f"{volume}-{kind}.tif" for volume in VOLUMES for kind in ("images", "labels")])
    remark = "voxel size: 40 x 10 x 10 nm as stated by the authors (about); the files have none"
    return [Contents(lambda _: _cases(files), [remark])]


def _cases(files: dict[str, SourceFile]) -> Iterator[Case]:
    for volume, split in VOLUMES.items():
        yield _case(volume, split, files[f"{volume}-images.tif"], files[f"{volume}-labels.tif"])


def _case(volume: str, split: str, image_file: SourceFile, label_file: SourceFile) -> Case:
    image = read_source_image(image_file).array
    label = whole(integer_label(read_source_image(label_file, mask=True).array, volume))
    classes = list(GUAY.labels.values())
    check_pair(image, label, str(image_file), str(label_file), max(classes))
    check_values(
        label, classes, f"{volume} ({label_file})", "Is it the file of the original archive? Download it again."
    )
    if image.ndim != 3:
        raise RetinaError(f"{image_file} has shape {image.shape}; expected a stack (z, y, x). Download it again.")
    return Case(volume, image, label, SPACING, split, source=str(image_file))
