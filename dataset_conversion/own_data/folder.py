"""A user's own images and masks as an nnU-Net raw data set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dataset_conversion.own_data.layout import Hdf5Paths, Pair, case_names, find_pairs
from dataset_conversion.own_data.mask_values import LabelNames, MaskMap, declared_map, found_map, parse_labels
from dataset_conversion.readers.pixels import count_values, integer_label
from dataset_conversion.spec import Case, DatasetSpec, dataset_folder_name
from dataset_conversion.writer.raw_dataset import CaseRecord, write_raw_dataset
from dataset_conversion.writer.target_folder import check_free, raw_root
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol

HELP = "your own images and masks: PNG, TIFF, NIfTI, NRRD, MRC, HDF5"
DESCRIPTION = """\
Your own images and masks as an nnU-Net data set. SOURCE is one of

  FOLDER            with images/ and masks/ (or labels/), files of equal names: images/a.png, masks/a.tif
  FOLDER            with train/ and test/, each such a pair; test/ may have images/ only
  IMAGE MASK        one image file and its mask file

Read are .png .bmp .tif .tiff .nii .nii.gz .nrrd .mrc .rec .map .h5 .hdf5 .hdf, and .jpg for images only.
All cases are 2D (Y, X), or all are 3D (Z, Y, X).

HDF5. For files in images/ and masks/ give the paths inside once: --hdf5 raw --hdf5-mask labels.
Without masks/ the masks are read from the files in images/. For one file:
  retina_convert folder FILE.h5::raw FILE.h5::labels -d 801 --name Mine
One * stands for the volume's name where a file holds several ('FILE.h5::*/raw' 'FILE.h5::*/labels').
"""


def convert_folder(
    source: str | Path,
    dataset_id: int,
    name: str,
    *,
    mask: str | Path | None = None,
    labels: LabelNames | None = None,
    ignore: int | None = None,
    spacing: Sequence[float] | None = None,
    hdf5: Hdf5Paths | None = None,
    protocol: Protocol | None = None,
    held_out: Collection[str] = (),
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[CaseRecord], None] | None = None,
) -> Path:
    """Convert a folder, or one image and its mask.

    Args:
        source: a folder, or an image file (``FILE.h5::path`` for HDF5); see ``DESCRIPTION``.
        dataset_id: 1 to 999.
        name: the part after ``Dataset123_``.
        mask: the mask file, if ``source`` is a file.
        labels: mask value -> class name; None: the values found, named ``label_1``, ...
        ignore: mask value of unannotated voxels; it becomes nnU-Net's ignore label.
        spacing: nm along z, y, x (or y, x); None: what the image files state, else 1.
        hdf5: paths inside HDF5 files.
        protocol: training settings for ``dataset.json``; None: the defaults.
        held_out: stems of training images that become test cases.
        root: folder of raw data sets; None: ``$nnUNet_raw``.
        overwrite: replace an existing data set of the same ID and name.
        progress: called after each written case.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for anything a user can put right; nothing is left on disk then.
    """
    check_free(raw_root(root), dataset_folder_name(dataset_id, name), overwrite, elsewhere=root is None)
    pairs, remarks = find_pairs(str(source), None if mask is None else str(mask), hdf5)
    pairs = [replace(pair, split="test") if pair.name in held_out else pair for pair in pairs]
    names = case_names(pair.name for pair in pairs)
    mask_map, more = (declared_map(labels, ignore), ()) if labels else found_map(_found_values(pairs), ignore)
    if mask_map.changes:
        remarks.append(f"mask values stored as: {mask_map.describe()}")
    spec = DatasetSpec(
        id=dataset_id,
        name=name,
        labels=mask_map.labels,
        source=str(source) if mask is None else f"{source} {mask}",
        protocol=protocol or Protocol(),
        remarks=(*remarks, *more),
    )
    size = None if spacing is None else tuple(spacing)
    return write_raw_dataset(spec, _cases(pairs, names, mask_map, size), root, overwrite, progress)


def _cases(
    pairs: list[Pair], names: dict[str, str], mask_map: MaskMap, spacing: tuple[float, ...] | None
) -> Iterator[Case]:
    for pair in pairs:
        image = pair.image.read()
        mask = None if pair.mask is None else pair.mask.read(mask=True)
        remarks = [*image.remarks, *(f"mask: {text}" for text in (mask.remarks if mask else ()))]
        yield Case(
            name=names[pair.name],
            image=image.array,
            label=None if mask is None else mask_map.apply(mask.array, pair.name),
            spacing=_fitting(spacing, image.array.ndim) if spacing else image.spacing,
            split=pair.split,
            source=str(pair.image),
            remarks=tuple(remarks),
        )


def _fitting(spacing: tuple[float, ...], ndim: int) -> tuple[float, ...]:
    """z, y, x given for 2D images: y, x count. The writer refuses what does not fit."""
    return spacing[-2:] if ndim == 2 and len(spacing) == 3 else spacing


def _found_values(pairs: list[Pair]) -> set[int]:
    """Every value in any mask; the masks are read one by one, and again on writing."""
    found: set[int] = set()
    for pair in pairs:
        if pair.mask is not None:
            found |= count_values(integer_label(pair.mask.read(mask=True).array, pair.name)).keys()
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``retina_convert folder``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument("source", metavar="SOURCE", help="a folder, or an image file")
    parser.add_argument("mask", metavar="MASK", nargs="?", help="the mask file, if SOURCE is an image file")
    parser.add_argument("-d", "--id", type=int, required=True, metavar="ID", help="data set ID, 1 to 999")
    parser.add_argument("--name", help="data set name (default: the name of SOURCE)")
    parser.add_argument(
        "--labels", nargs="+", metavar="VALUE=NAME",
        help="names of mask values: 1=mitochondria 2=lysosome; any=NAME takes all others (default: values as found)",
    )  # fmt: skip
    parser.add_argument("--ignore", type=int, metavar="VALUE", help="mask value of voxels nobody annotated")
    parser.add_argument(
        "--spacing", nargs="+", type=float, metavar="NM",
        help="voxel size in nm: z y x, for 2D images y x (default: from the files, else 1)",
    )  # fmt: skip
    parser.add_argument("--hdf5", metavar="PATH", help="path of the image inside HDF5 files")
    parser.add_argument("--hdf5-mask", metavar="PATH", help="path of the mask inside HDF5 files")
    default = Protocol()
    parser.add_argument("--iterations", type=int, help=f"training steps (default {default.iterations})")
    parser.add_argument(
        "--learning-rate",
        type=float,
        help=f"at the first step (default {default.learning_rate:g}, for pre-trained weights; a short training from "
        "random initialisation gets further with 0.03)",
    )
    parser.add_argument("--batch-size", type=int, help=f"patches a step (default {default.batch_size})")
    parser.add_argument("--iterations-per-epoch", type=int, help=f"default {default.iterations_per_epoch}")
    parser.add_argument("--patch-size", type=int, help=f"side of a patch in pixels (default {default.patch_size})")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")


def run(args: argparse.Namespace, progress: Callable[[CaseRecord], None] | None = None) -> Path:
    """Convert as the command line says. Returns the data set's folder."""
    names = ("iterations", "iterations_per_epoch", "learning_rate", "batch_size", "patch_size")
    given = {name: getattr(args, name) for name in names}
    return convert_folder(
        args.source,
        args.id,
        args.name or _default_name(args.source),
        mask=args.mask,
        labels=parse_labels(args.labels) if args.labels else None,
        ignore=args.ignore,
        spacing=args.spacing,
        hdf5=Hdf5Paths(args.hdf5, args.hdf5_mask),
        protocol=Protocol(**{key: value for key, value in given.items() if value is not None}),
        overwrite=args.overwrite,
        progress=progress,
    )


def _default_name(source: str) -> str:
    stem = Path(source.partition("::")[0]).resolve().name.split(".")[0]
    name = next(iter(case_names([stem]).values()))
    if not name or name == "case":
        raise RetinaError(f"no data set name can be made from {source}. Give one: --name NAME")
    return name
