"""The subcommand ``retina_convert images``: new images alone, in the format that a trained model takes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_conversion.command import SHARED, SLICES, SLICES_HELP, Command
from nnunetv2_retina.console import add_settings, read_settings, say
from nnunetv2_retina.console.engines import ALONE, Workers
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dataset_conversion.own_data.layout import Location
    from dataset_conversion.readers.decoded import Place
    from dataset_conversion.readers.images import ImageFile
    from dataset_conversion.readers.slabs import Volume
    from dataset_conversion.writer.record import CaseProgress

_HELP = "new images without masks, to predict them: in the format of a data set's images"
_DESCRIPTION = """\
New images in the format that a model of a data set takes, for retina_predict -i OUT. Read are the formats of
retina_convert folder; files become OUT/NAME_0000.png (or .tif, .nii.gz: what the data set has).
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="IN",
        type=Path,
        help="an image file (FILE.h5::PATH for HDF5), a Zarr volume, or a folder of image files",
    )
    parser.add_argument("target", metavar="OUT", type=Path, help="a folder to make")
    parser.add_argument(
        "-d", "--dataset", required=True, metavar="DATASET",
        help="whose format: an ID, a name, or a folder with dataset.json, such as a model's",
    )  # fmt: skip
    add_reading(parser)
    add_settings(parser, Workers, SHARED)


def add_reading(group: argparse._ActionsContainer) -> None:
    """Add the options that say how images are read."""
    group.add_argument(SLICES, action="store_true", help=SLICES_HELP)
    group.add_argument("--hdf5", metavar="PATH", help="path of the image inside HDF5 files")
    group.add_argument(
        "--spacing",
        nargs="+",
        type=float,
        metavar="NM",
        help="voxel size in nm: z y x (default: from the files, else 1)",
    )


def given_spacing(arguments: argparse.Namespace) -> Spacing | None:
    """Return what ``--spacing`` says."""
    return Spacing.of(arguments.spacing, NANOMETRES) if arguments.spacing else None


def _run(args: argparse.Namespace, progress: CaseProgress | None) -> str:
    remarks = convert_images(
        args.source, args.target, args.dataset, args.hdf5, given_spacing(args), args.slices_as_volume,
        read_settings(Workers, args),
    )  # fmt: skip
    shown = ["", "Remarks", *(f"  - {text}" for text in remarks)] if remarks else []
    number = sum(1 for _ in args.target.iterdir())
    return "\n".join(
        [f"Wrote {number} images to {args.target}", *shown, "", "Next", f"  retina_predict -i {args.target}"]
    )


def convert_images(
    source: Path,
    target: Path,
    dataset: str | Path,
    hdf5: str | None = None,
    spacing: Spacing | None = None,
    slices: bool = False,
    workers: Workers = ALONE,
) -> list[str]:
    """Write images alone, named ``CASE_0000`` and so on, CASE with letters that every program takes.

    Args:
        source: an image file, or a folder of them.
        target: a folder that is not there yet.
        dataset: whose ``file_ending`` counts: its ID, name or folder.
        hdf5: path of the image inside HDF5 files.
        spacing: of all images; None: what they state, else 1.
        slices: numbered slices in the folder, or in each folder in it, are one volume.
        workers: who shares the images.

    Returns:
        Remarks on how files were read, and which were not.

    Raises:
        RetinaError: for an image that cannot be read or does not suit the data set; nothing is left on disk then.
    """
    from dataset_conversion.own_data.layout import case_names

    remarks: list[str] = []
    if workers.scheduler is not None:  # its workers may be at home elsewhere
        source = source.absolute()
    files = find_images(source, hdf5, slices, remarks)
    named = {case: files[name] for name, case in case_names(files).items()}
    write_images(named, target, dataset, spacing, remarks, workers)
    return remarks


def find_images(source: Path, hdf5: str | None, slices: bool, remarks: list[str]) -> dict[str, Location]:
    """Return name -> location of an image file, of those of a folder, or of its volumes of slices.

    Raises:
        RetinaError: if there is none.
    """
    from dataset_conversion.own_data.layout import files_of, image_files
    from dataset_conversion.readers.hdf5 import split_location
    from nnunetv2_retina.images.ome_zarr import is_zarr

    path, inside = split_location(str(source))
    if not path.exists():
        raise RetinaError(f"{path}: no such file or folder. Check the path")
    if path.is_dir() and not is_zarr(path):
        return image_files(path, hdf5, remarks, slices, path.resolve().name)
    if slices:
        raise RetinaError(f"{SLICES} is for folders of slices; {path} is one image. Leave it out, or give the folder")
    return files_of(path, inside or hdf5)


def write_images(
    files: Mapping[str, Location],
    target: Path,
    dataset: str | Path,
    spacing: Spacing | None,
    remarks: list[str],
    workers: Workers = ALONE,
) -> dict[str, tuple[Spacing | None, Place | None]]:
    """Write images as ``convert_images`` does, under names that are given: name -> where it is.

    Returns:
        Name -> spacing, as given or as the file states it, and place, if the file states both; None if not known.
    """
    from dataset_conversion.writer.target_folder import atomic_folder
    from nnunetv2_retina.nnunet.datasets import channel_count, find_dataset_json, read_dataset_json

    contents = read_dataset_json(find_dataset_json(dataset))
    if channel_count(contents) != 1:
        raise RetinaError(
            f"data set {dataset} has {channel_count(contents)} channels; expected one: give each its file"
        )
    if target.exists():
        raise RetinaError(f"{target} exists already. Choose another folder, or move it away")
    if not target.absolute().parent.is_dir():
        raise RetinaError(f"{target.absolute().parent} is not a folder, so {target} cannot be made in it. Create it")
    images = [NewImage(name, location) for name, location in files.items()]
    with workers.engine(say) as engine, atomic_folder(target.absolute()) as folder:
        done = {image.name: seen for image, seen in engine.run(_Writing(folder, contents, spacing), images)}
    for image in images:
        remarks += [f"{image.name}: {text}" for text in done[image.name][2]]
    return {image.name: done[image.name][:2] for image in images}


@dataclass(frozen=True)
class NewImage:
    """An image to be written."""

    name: str
    location: Location


@dataclass(frozen=True)
class _Writing:
    """Reads an image and writes it; returns its spacing, its place and remarks."""

    folder: Path
    contents: dict[str, Any]
    """Of the data set's dataset.json."""
    spacing: Spacing | None

    def __call__(self, new: NewImage) -> tuple[Spacing | None, Place | None, tuple[str, ...]]:
        image = new.location.open()
        spacing = self.spacing or image.spacing
        if spacing is not None:
            spacing = _fitting(spacing, image.array.ndim, new.name)
        _write(self.folder, new.name, image, self.contents, spacing)
        place = image.place if self.spacing is None else None  # one that is given takes the place of the file's
        if place is not None and len(place.spacing) not in (image.array.ndim, 3):
            place = None  # of four axes, one of which is left out
        return spacing, place, tuple(image.remarks)


def _write(
    folder: Path, case: str, image: ImageFile[Volume], contents: dict[str, Any], spacing: Spacing | None
) -> None:
    from dataset_conversion.readers.pixels import check_image, storable_image
    from dataset_conversion.writer.case_files import TIFF, file_ending, write_array

    levels = check_image(image.array, case)
    array, ending = storable_image(image.array, levels), str(contents["file_ending"])
    if file_ending(array) != ending and not (array.ndim == 2 and ending == TIFF):
        raise RetinaError(
            f"case {case} is a {array.ndim}D image of type {array.dtype}, which is stored as {file_ending(array)}; the "
            f"data set's images are {ending}. Expected images like those it was made of: convert this one to their kind"
        )
    write_array(folder / f"{case}_0000{ending}", array, spacing or Spacing.of((1.0,) * array.ndim))


def _fitting(spacing: Spacing, axes: int, case: str) -> Spacing:
    fitting = spacing.for_axes(axes)
    if len(fitting) != axes:
        raise RetinaError(f"case {case} has {axes} axes; expected as many numbers for --spacing: z y x")
    return fitting


COMMAND = Command(_HELP, _DESCRIPTION, _add_arguments, _run)
