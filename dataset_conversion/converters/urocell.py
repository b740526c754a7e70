"""The UroCell benchmark: lysosomes and mitochondria, five labelled FIB-SEM volumes of the project's repository."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dataset_conversion.benchmarks import UROCELL, spec
from dataset_conversion.converters.converter import add_benchmark_arguments, run_benchmark
from dataset_conversion.readers.archives import SourceFile, find
from dataset_conversion.readers.checked import check_pair, read_source_image
from dataset_conversion.readers.pixels import check_values, first_position, format_position, integer_label
from dataset_conversion.spec import Array, Case
from dataset_conversion.writer.raw_dataset import CaseRecord, write_raw_dataset
from nnunetv2_retina.errors import RetinaError

HELP = "lysosomes and mitochondria in the mouse urothelium (UroCell)"
DESCRIPTION = """\
The UroCell benchmark as Dataset808_UroCell. SOURCE holds the repository (its zip, or unpacked), or of it, for the
volumes fib1-1-0-3, -3-2-1, -3-3-0 and -4-3-0 (training) and fib1-0-0-0 (test):

  data/VOLUME.nii.gz                                    the image
  mito/binary/VOLUME.nii.gz  lyso/binary/VOLUME.nii.gz  the masks; mito/ and lyso/ of before 2021 and 2022 do as well

Each training volume becomes three cases, with its xy, xz and yz planes as slices; they share a fold. The test volume
is written once. Rows where data are missing are cut off. Labels: 1 lysosome, 2 mitochondrion.
"""
TEST = "fib1-0-0-0"
VOLUMES = ("fib1-1-0-3", "fib1-3-2-1", "fib1-3-3-0", "fib1-4-3-0", TEST)
"""Those with labels of both organelles; the last one is the test volume (CEM500K's benchmark scripts)."""
FIRST_ROW = {TEST: 12, "fib1-1-0-3": 54}
"""In the rows before this one, along y, data are missing (CEM500K's benchmark scripts, axis 1 of SimpleITK)."""
SPACING = (16.0, 16.0, 16.0)
"""nm. The voxels are about 15 x 16 x 16 (z, y, x) and the masks' headers are wrong. Written as cubes: nnU-Net slices
along the axis of the largest spacing, which would be y."""
ORIENTATIONS = {"xy": (0, 1, 2), "xz": (1, 0, 2), "yz": (2, 0, 1)}
"""Planes that become slices -> order of the axes z, y, x: the axis that is left over goes first."""
_AGAIN = "Is it the file of the original repository? Download it again."


def convert_urocell(
    source: str | Path,
    dataset_id: int | None = None,
    *,
    protocol: str = "clean",
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[CaseRecord], None] | None = None,
) -> Path:
    """Convert the five labelled volumes.

    Args:
        source: a folder with the files, or the repository's zip archive.
        dataset_id: instead of 808.
        protocol: ``clean`` or ``paper``; they do not differ here.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace an existing data set of the same ID and name.
        progress: called after each written case.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for missing or damaged files, an image and masks that do not fit, or masks that overlap.
    """
    names = {f"data/{volume}.nii.gz": [f"data/{volume}.nii.gz"] for volume in VOLUMES}
    for organelle in ("mito", "lyso"):
        for volume in VOLUMES:
            new, old = f"{organelle}/binary/{volume}.nii.gz", f"{organelle}/{volume}.nii.gz"
            names[new] = [new, old]
    files = find(source, names)
    settings = spec(
        UROCELL,
        protocol,
        dataset_id=dataset_id,
        source=str(source),
        remarks=["voxel size: written as 16 x 16 x 16 nm (about 15 x 16 x 16); the masks' headers hold none of use"],
    )
    return write_raw_dataset(settings, _cases(files), root, overwrite, progress)


def _cases(files: dict[str, SourceFile]) -> Iterator[Case]:
    for volume in VOLUMES:
        source = str(files[f"data/{volume}.nii.gz"])
        image, label, remarks = cut_off(volume, *read_volume(volume, files))
        if volume == TEST:
            yield Case(volume, image, label, SPACING, "test", source=source, remarks=remarks)
            continue
        for planes, axes in ORIENTATIONS.items():
            turned, turned_label = (np.ascontiguousarray(array.transpose(axes)) for array in (image, label))
            name = f"{volume}_{planes}"
            yield Case(name, turned, turned_label, SPACING, group=volume, source=source, remarks=remarks)


def read_volume(volume: str, files: dict[str, SourceFile]) -> tuple[Array, Array]:
    """Image and label of one volume, whole.

    Args:
        volume: one of ``VOLUMES``.
        files: ``data/NAME``, ``mito/binary/NAME`` and ``lyso/binary/NAME`` -> file.

    Returns:
        (Z, Y, X) image, grey levels as stored; (Z, Y, X) uint8: 0 background, 1 lysosome, 2 mitochondrion.

    Raises:
        RetinaError: as ``convert_urocell``.
    """
    image_file = files[f"data/{volume}.nii.gz"]
    image = _smallest(read_source_image(image_file).array)
    lyso = _mask(files[f"lyso/binary/{volume}.nii.gz"], image, image_file)
    mito = _mask(files[f"mito/binary/{volume}.nii.gz"], image, image_file)
    both = lyso & mito
    if both.any():
        raise RetinaError(
            f"{volume}: {int(both.sum())} voxels are lysosome and mitochondrion at once, the first at "
            f"{format_position(first_position(both))}; expected none. {_AGAIN}"
        )
    return image, lyso.astype(np.uint8) + 2 * mito.astype(np.uint8)


def cut_off(volume: str, image: Array, label: Array) -> tuple[Array, Array, tuple[str, ...]]:
    """Image and label, (Z, Y, X), without the rows where data are missing, and what to report of them.

    The published masks go on through these rows, so labelled voxels are lost with them, as in the published scores.

    Raises:
        RetinaError: for a volume that has no other rows.
    """
    row = FIRST_ROW.get(volume, 0)
    if row == 0:
        return image, label, ()
    if image.shape[1] <= row:
        raise RetinaError(f"data/{volume}.nii.gz has {image.shape[1]} rows along y; expected more than {row}. {_AGAIN}")
    grey, lost = image[:, :row], np.bincount(label[:, :row].ravel(), minlength=3)
    remark = (
        f"the volume's first {row} rows along y, where data are missing, were cut off as in CEM500K's benchmark "
        f"scripts (grey levels {grey.min():g} to {grey.max():g}; {lost[1]} lysosome and {lost[2]} mitochondrion voxels)"
    )
    return image[:, row:], label[:, row:], (remark,)


def _mask(file: SourceFile, image: Array, image_file: SourceFile) -> Array:
    """(Z, Y, X) bool."""
    mask = read_source_image(file, mask=True).array
    if image.ndim != 3:
        raise RetinaError(f"{image_file} has shape {image.shape}; expected a volume (z, y, x). {_AGAIN}")
    check_pair(image, mask, str(image_file), str(file), 1)
    mask = integer_label(mask, str(file))
    check_values(mask, (0, 1), str(file), _AGAIN)
    return mask > 0


def _smallest(image: Array) -> Array:
    """The image as uint8 where that changes no value: the published files hold grey levels 0 to 255 as float."""
    if image.dtype.kind == "f" and np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255:
        small = image.astype(np.uint8)
        return small if np.array_equal(small, image) else image
    return image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``retina_convert urocell``."""
    add_benchmark_arguments(parser, "urocell", DESCRIPTION)


def run(args: argparse.Namespace, progress: Callable[[CaseRecord], None] | None = None) -> Path:
    """Convert as the command line says. Returns the data set's folder."""
    return run_benchmark(args, "urocell", convert_urocell, progress)
