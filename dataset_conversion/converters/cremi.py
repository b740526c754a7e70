"""The CREMI benchmark: synaptic clefts, samples A, B and C of the challenge's training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from dataset_conversion.converters.converter import Contents
from dataset_conversion.readers.archives import SourceFile, find
from dataset_conversion.readers.hdf5 import list_datasets, listing
from dataset_conversion.readers.slabs import Array
from dataset_conversion.spec import IGNORE, Case, DatasetSpec
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

SAMPLES = {"A": "train", "B": "train", "C": "test"}
"""Sample -> part of the data set, as in CEM500K's benchmark scripts."""
RAW, CLEFTS = "volumes/raw", "volumes/labels/clefts"
RESOLUTION = Spacing(40.0, 4.0, 4.0, NANOMETRES)
"""What the attribute ``resolution`` of both data sets must say."""
BACKGROUND_ID, INVALID_ID = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFE)
"""Values of ``volumes/labels/clefts`` (cremi.org/data); every other value is the number of a cleft."""
_AGAIN = "Is it a sample of the CREMI training data, and complete? Download it again."


def find_contents(source: Path, _: Sequence[str]) -> list[Contents]:
    """Find the three samples.

    Raises:
        RetinaError: for missing files.
    """
    files = find(source, [f"sample_{sample}_20160501.hdf" for sample in SAMPLES])
    return [Contents(lambda settings: _cases(files, settings))]


def _cases(files: dict[str, SourceFile], settings: DatasetSpec) -> Iterator[Case]:
    invalid_as = settings.labels.get(IGNORE, 1)
    for sample, split in SAMPLES.items():
        yield _case(f"sample_{sample}", split, files[f"sample_{sample}_20160501.hdf"], invalid_as)


def _case(name: str, split: str, source: SourceFile, invalid_as: int) -> Case:
    with source.on_disk() as path:
        image, label, invalid = _read(source, path, invalid_as)
    treatment = "ignored" if invalid_as > 1 else "counted as cleft"
    remarks = (f"{invalid} invalid voxels, {treatment}",)
    return Case(name, image, label, RESOLUTION, split, source=str(source), remarks=remarks)


def _read(source: SourceFile, path: Path, invalid_as: int) -> tuple[Array, Array, int]:
    """Return image, label and number of invalid voxels."""
    names = list_datasets(path)
    missing = [wanted for wanted in (RAW, CLEFTS) if wanted not in names]
    if missing:
        raise RetinaError(f"{source}: no data set {' and '.join(missing)}. {listing(names)} {_AGAIN}")
    with h5py.File(path, "r") as file:
        raw, clefts = file[RAW], file[CLEFTS]
        _check(raw, clefts, source)
        try:
            image = raw[()]
            label, invalid = binary_clefts(clefts, invalid_as)
        except OSError as error:
            raise RetinaError(f"{source}: cannot be read to its end ({error}). {_AGAIN}") from error
        if label.all():
            raise RetinaError(
                f"{source}: {CLEFTS} holds no background (0x{BACKGROUND_ID:x}); its first value is "
                f"{int(clefts[0, 0, 0])}. Expected that value wherever there is no cleft. {_AGAIN}"
            )
    return image, label, invalid


def _check(raw: h5py.Dataset, clefts: h5py.Dataset, source: SourceFile) -> None:
    """Check types, shapes and resolution, before anything large is read."""
    types = str(raw.dtype), str(clefts.dtype)
    if types != ("uint8", "uint64"):
        exchanged = " The two look exchanged." if types == ("uint64", "uint8") else ""
        raise RetinaError(
            f"{source}: {RAW} is {types[0]} and {CLEFTS} is {types[1]}; expected uint8 and uint64.{exchanged} {_AGAIN}"
        )
    if raw.shape != clefts.shape or raw.ndim != 3:
        padded = " This is the padded version: take sample_?_20160501.hdf." if "offset" in clefts.attrs else ""
        raise RetinaError(
            f"{source}: {RAW} has shape {raw.shape}, {CLEFTS} {clefts.shape}; expected one (z, y, x).{padded} {_AGAIN}"
        )
    for item, name in ((raw, RAW), (clefts, CLEFTS)):
        if "resolution" not in item.attrs:
            attributes = ", ".join(item.attrs) or "none"
            raise RetinaError(f"{source}: {name} has no attribute resolution (it has {attributes}). {_AGAIN}")
        resolution = tuple(float(step) for step in np.atleast_1d(item.attrs["resolution"]))
        if resolution != tuple(RESOLUTION):
            raise RetinaError(
                f"{source}: {name} has resolution {resolution}; expected {tuple(RESOLUTION)} nm. {_AGAIN}"
            )


def binary_clefts(clefts: h5py.Dataset, invalid_as: int) -> tuple[Array, int]:
    """Return the label of a data set of clefts, which is eight times larger and so is read piece by piece.

    Args:
        clefts: (Z, Y, X) uint64.
        invalid_as: label of invalid voxels.

    Returns:
        (Z, Y, X) uint8: 0 background, 1 cleft, ``invalid_as``; and the number of invalid voxels.
    """
    label = np.empty(clefts.shape, np.uint8)
    invalid = 0
    for part in _parts(clefts):
        block = clefts[part]
        target = label[part]
        np.not_equal(block, BACKGROUND_ID, out=target, casting="unsafe")
        if target.any():
            where = block == INVALID_ID
            invalid += int(np.count_nonzero(where))
            target[where] = invalid_as
    return label, invalid


def _parts(dataset: h5py.Dataset) -> Iterator[tuple[slice, ...]]:
    """Yield boxes that cover a data set: its chunks, so that each is unpacked once, or its planes."""
    if dataset.chunks is not None:
        yield from dataset.iter_chunks()
    else:
        yield from ((slice(z, z + 1), slice(None), slice(None)) for z in range(dataset.shape[0]))
