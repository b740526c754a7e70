"""Perez et al. (mouse suprachiasmatic nucleus): lysosomes, mitochondria, nuclei and nucleoli as four 2D data sets."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset_conversion.benchmarks import BenchmarkDataset, datasets, spec
from dataset_conversion.converters.converter import add_benchmark_arguments, source_folder
from dataset_conversion.downloads.catalogue import PEREZ_STRUCTURES
from dataset_conversion.readers.archives import find_all
from dataset_conversion.readers.slices import Pair, check_shapes, map_values, pair_by_number, read_png
from dataset_conversion.spec import Array
from dataset_conversion.writer.raw_dataset import Case, CaseRecord, write_raw_dataset
from dataset_conversion.writer.target_folder import check_free, raw_root
from nnunetv2_retina.errors import RetinaError

HELP = "lysosomes, mitochondria, nuclei and nucleoli in the mouse brain, 2D (Perez et al.)"
DESCRIPTION = """\
The Perez benchmark as Dataset804_PerezLysosomes, 805_PerezMitochondria, 806_PerezNuclei and 807_PerezNucleoli.
SOURCE holds chm-supplemental_data.zip, or the folders unpacked from it:

  training_images training_labels                       training
  test_images ground_truth                              test

Each holds the folders lysosomes, mitochondria, nuclei and nucleoli, with one PNG an image; an image and its mask have
the same NNN in PREFIX.NNN.png. In test images not every object is labelled: the scores count only predicted objects
that touch a labelled one.
"""
PARTS = {"train": ("training_images", "training_labels"), "test": ("test_images", "ground_truth")}


def convert_perez(
    source: str | Path,
    structures: Sequence[str] = PEREZ_STRUCTURES,
    *,
    protocol: str = "clean",
    ids: Mapping[str, int] | None = None,
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[CaseRecord], None] | None = None,
) -> list[Path]:
    """Convert the released PNG images: ``train_NNN`` and ``test_NNN``, grey levels as they are, labels 0 and 1.

    Args:
        source: a folder with ``chm-supplemental_data.zip`` or what is in it, or the archive.
        structures: of ``lysosomes``, ``mitochondria``, ``nuclei``, ``nucleoli``; each becomes a data set.
        protocol: ``clean`` and ``paper`` are the same here.
        ids: structure -> data set ID, instead of 804 to 807.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace existing data sets of the same IDs and names.
        progress: called after each written case.

    Returns:
        The data sets' folders, in the order of ``structures``.

    Raises:
        RetinaError: for missing, unpaired or damaged files, unexpected mask values, or a data set in the way; nothing
            is written before all files were found and paired.
    """
    tasks = {structure: _dataset(structure) for structure in structures}
    specs = {
        structure: spec(task, protocol, dataset_id=(ids or {}).get(structure), source=f"{source}: {structure}")
        for structure, task in tasks.items()
    }
    for described in specs.values():
        check_free(raw_root(root), described.folder_name, overwrite, elsewhere=root is None)
    pairs = _find_pairs(source, structures)
    return [
        write_raw_dataset(described, _cases(pairs[structure]), root, overwrite, progress)
        for structure, described in specs.items()
    ]


def _find_pairs(source: str | Path, structures: Sequence[str]) -> dict[str, dict[str, dict[str, Pair]]]:
    """Structure -> ``train`` or ``test`` -> NNN -> image and mask."""

    def pattern(part: str, structure: str) -> str:
        return f"{part}/{structure}/*.png"

    parts = [part for pair in PARTS.values() for part in pair]
    found = find_all(source, [pattern(part, structure) for structure in structures for part in parts])
    return {
        structure: {
            split: pair_by_number(found[pattern(images, structure)], found[pattern(masks, structure)])
            for split, (images, masks) in PARTS.items()
        }
        for structure in structures
    }


def _dataset(structure: str) -> BenchmarkDataset:
    known = {task.key.removeprefix("perez_"): task for task in datasets("perez")}
    if structure not in known:
        raise RetinaError(f"structure {structure!r}; expected one of {', '.join(known)}")
    return known[structure]


def _cases(pairs: Mapping[str, Mapping[str, Pair]]) -> Iterator[Case]:
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
    """Whether a mask's foreground is 255 where the released ones have 1."""
    return set(np.unique(mask).tolist()) in ({0, 255}, {255})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``retina_convert perez``."""
    add_benchmark_arguments(parser, "perez", DESCRIPTION)
    parser.add_argument(
        "--structure", nargs="+", choices=PEREZ_STRUCTURES, default=PEREZ_STRUCTURES, metavar="NAME",
        help=f"write only these of {', '.join(PEREZ_STRUCTURES)}",
    )  # fmt: skip


def run(args: argparse.Namespace, progress: Callable[[CaseRecord], None] | None = None) -> list[Path]:
    """Convert as the command line says; with ``-d`` the chosen structures get consecutive IDs. Returns the folders."""
    chosen = [structure for structure in PEREZ_STRUCTURES if structure in args.structure]
    return convert_perez(
        source_folder(args, "perez"),
        chosen,
        protocol=args.protocol,
        ids=None if args.id is None else {structure: args.id + i for i, structure in enumerate(chosen)},
        overwrite=args.overwrite,
        progress=progress,
    )
