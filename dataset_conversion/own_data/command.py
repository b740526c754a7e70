"""The subcommand ``retina_convert folder``. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_conversion.command import SHARED, SLICES, SLICES_HELP, Command
from nnunetv2_retina.console import add_settings, read_settings
from nnunetv2_retina.console.engines import Workers
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.protocol import FEW_LABELS, Protocol

if TYPE_CHECKING:
    from dataset_conversion.own_data.like import Settings
    from dataset_conversion.own_data.mask_values import LabelNames
    from dataset_conversion.writer.record import CaseProgress

_HELP = "your own images and masks: PNG, TIFF, NIfTI, NRRD, MRC, HDF5, OME-Zarr, N5"
_DESCRIPTION = """\
Your own images and masks as an nnU-Net data set. SOURCE is one of

  FOLDER            with images/ and masks/ (or labels/), files of equal names: images/a.png, masks/a.tif
  FOLDER            with train/ and test/, each such a pair; test/ may have images/ only
  FOLDER --slices-as-volume   of which images/ and masks/ hold numbered slices of a volume, or a folder of them for each
  IMAGE MASK        one image file and its mask file
  IMAGE MASK --box Z0:Z1,Y0:Y1,X0:X1 ...            of which the boxes alone are annotated: the rest is ignored
  IN.zarr LABELS.zarr --box Z0:Z1,Y0:Y1,X0:X1 ...   parts of a volume (N5 too) that are annotated; only they are read

A FOLDER may have boxes/, too, with NAME.txt (a box on each line) or NAME.csv (rectangles that napari has saved) for
each image that is annotated in part: docs/correcting.md.

Read are .png .bmp .tif .tiff .nii .nii.gz .nrrd .mrc .rec .map .h5 .hdf5 .hdf, and .jpg for images only.
All cases are 2D (Y, X), or all are 3D (Z, Y, X). Large volumes are read slab by slab: docs/volumes.md.

HDF5. For files in images/ and masks/ give the paths inside once: --hdf5 raw --hdf5-mask labels.
Without masks/ the masks are read from the files in images/. For one file:
  retina_convert folder FILE.h5::raw FILE.h5::labels -d 801 --name Mine
One * stands for the volume's name where a file holds several ('FILE.h5::*/raw' 'FILE.h5::*/labels').
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser._negative_number_matcher = re.compile(r"-\d+(=.*)?$")  # --labels -2=NAME names no option
    parser.add_argument("source", metavar="SOURCE", help="a folder, or an image file")
    parser.add_argument("mask", metavar="MASK", nargs="?", help="the mask file, if SOURCE is an image file")
    parser.add_argument("-d", "--id", type=int, required=True, metavar="ID", help="data set ID, 1 to 999")
    parser.add_argument("--name", help="data set name (default: the name of SOURCE)")
    add_reading(parser)
    default = Protocol()
    parser.add_argument(
        "--few-labels", action="store_true",
        help="training settings for few labelled images, from the weights that come with the package: "
        f"{', '.join(f'{key} {value}' for key, value in FEW_LABELS.items())}",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, help=f"training steps (default {default.iterations})")
    parser.add_argument(
        "--learning-rate",
        type=float,
        help=f"at the first step (default {default.learning_rate:g}, for pre-trained weights; a short training from "
        "random initialisation gets further with 0.03)",
    )
    parser.add_argument("--batch-size", type=int, help=f"patches per step (default {default.batch_size})")
    parser.add_argument("--iterations-per-epoch", type=int, help=f"default {default.iterations_per_epoch}")
    parser.add_argument("--patch-size", type=int, help=f"side of a patch in pixels (default {default.patch_size})")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    add_settings(parser, Workers, SHARED)


def add_reading(group: argparse._ActionsContainer) -> None:
    """Add the options that say how images and masks are read."""
    group.add_argument(
        "--labels", nargs="+", metavar="VALUE=NAME",
        help="names of mask values: 1=mitochondria 2=lysosome; any=NAME takes all others (default: values as found)",
    )  # fmt: skip
    group.add_argument("--ignore", type=int, metavar="VALUE", help="mask value of unannotated voxels")
    group.add_argument(
        "--spacing", nargs="+", type=float, metavar="NM",
        help="voxel size in nm: z y x, for 2D images y x (default: from the files, else 1)",
    )  # fmt: skip
    group.add_argument(
        "--box", nargs="+", default=(), metavar="BOX",
        help="parts that are annotated: 0:64,0:512,512:1024 (2D images: 0:512,512:1024), or a file of such lines or of "
        "rectangles that napari has saved",
    )  # fmt: skip
    group.add_argument(
        "--like", metavar="DATASET",
        help="take names of mask values, pixel size and training settings from a data set, or from a model's folder",
    )  # fmt: skip
    group.add_argument(SLICES, action="store_true", help=SLICES_HELP)
    group.add_argument("--hdf5", metavar="PATH", help="path of the image inside HDF5 files")
    group.add_argument("--hdf5-mask", metavar="PATH", help="path of the mask inside HDF5 files")


def typed_reading(args: argparse.Namespace) -> list[str]:
    """Return the options of ``add_reading`` that were given, as they are typed."""
    parser = argparse.ArgumentParser()
    add_reading(parser)
    words: list[str] = []
    for action in parser._actions:
        value = getattr(args, action.dest, action.default)
        if action.dest == "help" or value == action.default:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [action.option_strings[0], *(f"{item:g}" if isinstance(item, float) else str(item) for item in values)]
    return words


def _run(args: argparse.Namespace, progress: CaseProgress | None) -> str:
    from dataset_conversion.own_data.folder import convert_folder
    from dataset_conversion.own_data.layout import Hdf5Paths
    from dataset_conversion.own_data.mask_values import parse_labels
    from dataset_conversion.writer.summary import summary

    names = ("iterations", "iterations_per_epoch", "learning_rate", "batch_size", "patch_size")
    given: dict[str, Any] = {**FEW_LABELS} if args.few_labels else {}
    given |= {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    like = _like(args)
    labels: LabelNames | None = parse_labels(args.labels) if args.labels else None
    ignore, spacing, unit = args.ignore, None, None
    if like is not None:
        labels, ignore = like.labels, like.ignore if ignore is None else ignore
        spacing, unit = like.spacing, like.unit
    folder = convert_folder(
        args.source,
        args.id,
        args.name or _default_name(args.source),
        mask=args.mask,
        labels=labels,
        ignore=ignore,
        spacing=Spacing.of(args.spacing, NANOMETRES) if args.spacing else spacing,
        unit=unit,
        hdf5=Hdf5Paths(args.hdf5, args.hdf5_mask),
        boxes=args.box,
        slices=args.slices_as_volume,
        protocol=replace(like.protocol if like else Protocol(), **given),
        stated={*(like.stated if like else ()), *given},
        overwrite=args.overwrite,
        progress=progress,
        workers=read_settings(Workers, args),
    )
    return summary(folder)


def _like(args: argparse.Namespace) -> Settings | None:
    from dataset_conversion.own_data.like import settings_of

    if args.like is None:
        return None
    if args.labels:
        raise RetinaError(
            "--like takes the names of mask values from a data set, and --labels gives others. Leave one out"
        )
    return settings_of(args.like)


def _default_name(source: str) -> str:
    from dataset_conversion.own_data.layout import case_names

    stem = Path(source.partition("::")[0]).resolve().name.split(".")[0]
    name = next(iter(case_names([stem]).values()))
    if not name or name == "case":
        raise RetinaError(f"no data set name can be made from {source}. Give one: --name NAME")
    return name


COMMAND = Command(_HELP, _DESCRIPTION, _add_arguments, _run)
