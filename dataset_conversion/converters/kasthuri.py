"""Kasthuri++ (mitochondria, mouse neocortex): two stacks of PNG slices as an nnU-Net raw data set.

The training stack is one volume. It is cut along z into five slabs of consecutive slices, and fold i validates on slab
i: a slab meets the training slices only at its two borders, where a random choice of slices would have a training
neighbour on both sides of every validation slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset_conversion.converters.converter import Contents
from dataset_conversion.readers.archives import find_all
from dataset_conversion.readers.checked import check_shapes
from dataset_conversion.readers.slabs import Array
from dataset_conversion.readers.slices import SlicePair, map_values, pair_by_number, read_png
from dataset_conversion.spec import Case, DatasetSpec
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

SPACING = Spacing(30.0, 3.0, 3.0, NANOMETRES)
"""Pixels of 3 nm by the authors' reply in eLife, sections of 30 nm."""
SLABS = 5
OUTSIDE = 2
"""Mask value of pixels outside the annotated area."""
_FOLDERS = {"train": ("Train_In", "Train_Out"), "test": ("Test_In", "Test_Out")}
_RELEASED = {"train": (85, 1463, 1613), "test": (75, 1334, 1553)}
"""Slices, height and width of the released stacks; the 75 is not confirmed by its authors."""


def find_contents(source: Path, _: Sequence[str]) -> list[Contents]:
    """Find the released PNG slices, which become ``slab_0`` to ``slab_4`` for training, and ``test``.

    Raises:
        RetinaError: for missing or unpaired files.
    """
    # Lucchi++ of the same authors has folders of the same names: the one below Kasthuri++ goes first.
    folders = [folder for pair in _FOLDERS.values() for folder in pair]
    files = find_all(source, {folder: (f"Kasthuri++/{folder}/*.png", f"{folder}/*.png") for folder in folders})
    stacks = {split: list(pair_by_number(files[i], files[m]).values()) for split, (i, m) in _FOLDERS.items()}
    if len(stacks["train"]) < SLABS:
        raise RetinaError(
            f"{source}: {len(stacks['train'])} training slices; expected {_RELEASED['train'][0]}, at least {SLABS}. "
            "The source is incomplete: unpack or download it again."
        )
    slabs = _slabs(stacks["train"])
    folds = [{"train": [name for name in slabs if name != held_out], "val": [held_out]} for held_out in slabs]

    def cases(settings: DatasetSpec) -> Iterator[Case]:
        return _cases(slabs, stacks["test"], {0: 0, 255: 1, OUTSIDE: settings.ignore_value or 0})

    return [Contents(cases, _remarks(stacks), folds)]


def _slabs(pairs: Sequence[SlicePair]) -> dict[str, Sequence[SlicePair]]:
    """Cut the stack: slab name -> its consecutive slices; the slabs differ by one slice at most."""
    borders = np.linspace(0, len(pairs), SLABS + 1).round().astype(int)
    return {f"slab_{i}": pairs[borders[i] : borders[i + 1]] for i in range(SLABS)}


def _cases(
    slabs: Mapping[str, Sequence[SlicePair]], test: Sequence[SlicePair], table: Mapping[int, int]
) -> Iterator[Case]:
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


def _stack(pairs: Sequence[SlicePair], table: Mapping[int, int]) -> tuple[Array, Array]:
    """Return image and label of some slices, (Z, Y, X) uint8 both."""
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


def _remarks(stacks: Mapping[str, Sequence[SlicePair]]) -> list[str]:
    """Say how the folds came about, and what differs from the released stacks."""
    remarks = [f"the training stack was cut along z into {SLABS} slabs; fold i validates on slab_i"]
    for split, pairs in stacks.items():
        shape = (len(pairs), *read_png(pairs[0][0]).shape)
        if shape != _RELEASED[split]:
            remarks.append(f"the {split} stack has shape {shape}; the released one has {_RELEASED[split]} (z, y, x)")
    return remarks
