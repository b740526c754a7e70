"""Perez et al. (mouse suprachiasmatic nucleus): lysosomes, mitochondria, nuclei and nucleoli as four 2D data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.converters.converter import Contents
from dataset_conversion.readers.archives import find_all
from dataset_conversion.readers.checked import check_shapes
from dataset_conversion.readers.slabs import Array
from dataset_conversion.readers.slices import SlicePair, map_values, pair_by_number, read_png
from dataset_conversion.spec import Case, DatasetSpec

PARTS = {"train": ("training_images", "training_labels"), "test": ("test_images", "ground_truth")}


def find_contents(source: Path, structures: Sequence[str]) -> list[Contents]:
    """Find the released PNG images of some structures.

    Raises:
        RetinaError: for missing or unpaired files of any of them.
    """

    def pattern(part: str, structure: str) -> str:
        return f"{part}/{structure}/*.png"

    parts = [part for pair in PARTS.values() for part in pair]
    files = find_all(source, [pattern(part, structure) for structure in structures for part in parts])
    pairs = [
        {
            split: pair_by_number(files[pattern(images, structure)], files[pattern(masks, structure)])
            for split, (images, masks) in PARTS.items()
        }
        for structure in structures
    ]
    return [Contents(partial(_cases, of_structure)) for of_structure in pairs]


def _cases(pairs: Mapping[str, Mapping[str, SlicePair]], _: DatasetSpec) -> Iterator[Case]:
    """Yield ``train_NNN`` and ``test_NNN``, grey levels as they are, labels 0 and 1."""
    for split, files in pairs.items():
        for number, (image_file, mask_file) in files.items():
            image, mask = read_png(image_file), read_png(mask_file)
            check_shapes(image, mask, image_file, mask_file)
            bright = _is_bright(mask)
            yield Case(
                name=f"{split}_{number}",
                image=image,
                label=map_values(mask, {0: 0, 255: 1} if bright else {0: 0, 1: 1}, mask_file, image),
                split=split,
                source=str(image_file),
                remarks=("the mask holds 0 and 255: 255 was taken as 1",) if bright else (),
            )


def _is_bright(mask: Array) -> bool:
    """Tell whether a mask's foreground is 255 where the released ones have 1."""
    return set(np.unique(mask).tolist()) in ({0, 255}, {255})
