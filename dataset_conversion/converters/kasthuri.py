"""Kasthuri++ (mitochondria, mouse neocortex): two stacks of PNG slices as an nnU-Net raw data set.

The training stack is one volume. It is cut along z into five slabs of consecutive slices, and fold i validates on slab
i: a slab meets the training slices only at its two borders, where a random choice of slices would have a training
neighbour on both sides of every validation slice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset_conversion.benchmarks import KASTHURI, spec
from dataset_conversion.converters.converter import add_benchmark_arguments, run_benchmark
from dataset_conversion.readers.archives import find_all
from dataset_conversion.readers.slices import Pair, check_shapes, map_values, pair_by_number, read_png
from dataset_conversion.spec import Array
from dataset_conversion.writer.raw_dataset import Case, CaseRecord, write_raw_dataset
from dataset_conversion.writer.target_folder import check_free, raw_root
from nnunetv2_retina.errors import RetinaError

HELP = "mitochondria in the mouse neocortex (Kasthuri++)"
DESCRIPTION = """\
The Kasthuri++ benchmark as Dataset803_KasthuriPP. SOURCE holds kasthuri_pp.zip, or the folders unpacked from it:

  Train_In Train_Out                                    one PNG a slice: images and masks; cut into five slabs along z,
                                                        fold i validates on slab i, fold all trains on all five
  Test_In Test_Out                                      the same, one volume

Pixels outside the annotated area become nnU-Net's ignore label; with --protocol paper they count as background.
"""
SPACING = (30.0, 3.0, 3.0)
"""nm along z, y, x: 3 nm pixels by the authors' reply in eLife, sections of 30 nm."""
SLABS = 5
OUTSIDE = 2
"""Mask value of pixels outside the annotated area."""
_FOLDERS = {"train": ("Train_In", "Train_Out"), "test": ("Test_In", "Test_Out")}
_RELEASED = {"train": (85, 1463, 1613), "test": (75, 1334, 1553)}
"""Slices, height and width of the released stacks; the 75 is not confirmed by its authors."""


def convert_kasthuri(
    source: str | Path,
    dataset_id: int | None = None,
    *,
    protocol: str = "clean",
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[CaseRecord], None] | None = None,
) -> Path:
    """Convert the released PNG slices: ``slab_0`` to ``slab_4`` for training, ``test``; uint8, spacing (30, 3, 3) nm.

    Args:
        source: a folder with ``kasthuri_pp.zip`` or what is in it, or the archive.
        dataset_id: instead of 803.
        protocol: ``clean``: pixels outside the annotated area are ignored; ``paper``: they are background.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace an existing data set of the same ID and name.
        progress: called after each written case.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for missing, unpaired or damaged files, slices of different shapes and unexpected mask values.
    """
    empty = spec(KASTHURI, protocol, dataset_id=dataset_id)
    check_free(raw_root(root), empty.folder_name, overwrite, elsewhere=root is None)
    # Lucchi++ of the same authors has folders of the same names: the one below Kasthuri++ goes first.
    folders = [folder for pair in _FOLDERS.values() for folder in pair]
    found = find_all(source, {folder: (f"Kasthuri++/{folder}/*.png", f"{folder}/*.png") for folder in folders})
    stacks = {split: list(pair_by_number(found[i], found[m]).values()) for split, (i, m) in _FOLDERS.items()}
    if len(stacks["train"]) < SLABS:
        raise RetinaError(
            f"{source}: {len(stacks['train'])} training slices; expected {_RELEASED['train'][0]}, at least {SLABS}. "
            "The source is incomplete: unpack or download it again."
        )
    slabs = _slabs(stacks["train"])
    described = spec(
        KASTHURI,
        protocol,
        dataset_id=dataset_id,
        source=str(source),
        folds=[{"train": [name for name in slabs if name != held_out], "val": [held_out]} for held_out in slabs],
        remarks=_remarks(stacks),
    )
    table = {0: 0, 255: 1, OUTSIDE: described.ignore_value or 0}
    return write_raw_dataset(described, _cases(slabs, stacks["test"], table), root, overwrite, progress)


def _slabs(pairs: Sequence[Pair]) -> dict[str, Sequence[Pair]]:
    """Slab name -> its consecutive slices; the slabs differ by one slice at most."""
    borders = np.linspace(0, len(pairs), SLABS + 1).round().astype(int)
    return {f"slab_{i}": pairs[borders[i] : borders[i + 1]] for i in range(SLABS)}


def _cases(slabs: Mapping[str, Sequence[Pair]], test: Sequence[Pair], table: Mapping[int, int]) -> Iterator[Case]:
    for name, pairs in (*slabs.items(), ("test", test)):
        image, label = _stack(pairs, table)
        yield Case(
            name=name,
            image=image,
            label=label,
            spacing=SPACING,
            split="test" if name == "test" else "train",
            source=f"{pairs[0][0]} to {pairs[-1][0].name}",
        )


def _stack(pairs: Sequence[Pair], table: Mapping[int, int]) -> tuple[Array, Array]:
    """Image and label of some slices, (Z, Y, X) uint8 both, filled slice by slice."""
    shape = (len(pairs), *read_png(pairs[0][0]).shape)
    image, label = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    for z, (image_file, mask_file) in enumerate(pairs):
        grey, mask = read_png(image_file), read_png(mask_file)
        if grey.shape != shape[1:] or grey.dtype != np.uint8:
            raise RetinaError(
                f"{image_file} has shape {grey.shape} and type {grey.dtype}; expected {shape[1:]} as the first slice "
                f"{pairs[0][0].name}, and uint8. Take the files as released."
            )
        check_shapes(grey, mask, image_file, mask_file)
        image[z], label[z] = grey, map_values(mask, table, mask_file, grey)
    return image, label


def _remarks(stacks: Mapping[str, Sequence[Pair]]) -> list[str]:
    """What differs from the released stacks, and how the folds came about."""
    remarks = [f"the training stack was cut along z into {SLABS} slabs; fold i validates on slab_i"]
    for split, pairs in stacks.items():
        shape = (len(pairs), *read_png(pairs[0][0]).shape)
        if shape != _RELEASED[split]:
            remarks.append(f"the {split} stack has shape {shape}; the released one has {_RELEASED[split]} (z, y, x)")
    return remarks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``retina_convert kasthuri``."""
    add_benchmark_arguments(parser, "kasthuri", DESCRIPTION)


def run(args: argparse.Namespace, progress: Callable[[CaseRecord], None] | None = None) -> Path:
    """Convert as the command line says. Returns the data set's folder."""
    return run_benchmark(args, "kasthuri", convert_kasthuri, progress)
