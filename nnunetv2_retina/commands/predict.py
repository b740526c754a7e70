"""``retina_predict``: predict a folder of images; see ``nnunetv2_retina.prediction.folder``."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_conversion.command import SLICES
from dataset_conversion.own_data.new_images import add_reading
from nnunetv2_retina import console
from nnunetv2_retina.commands.model_options import add_model_options, model_folder
from nnunetv2_retina.console import add_settings, config_file, read_settings, say
from nnunetv2_retina.console.engines import Workers
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder
from nnunetv2_retina.prediction.settings import InstanceSettings, PredictionSettings, RunSettings

if TYPE_CHECKING:
    from dataset_conversion.own_data.layout import Location
    from nnunetv2_retina.prediction.case_files import Origin
    from nnunetv2_retina.prediction.model import Model

MOST_VOXELS = 1 << 29
"""Of a Zarr volume."""


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_predict",
        "Predict a folder of images with a 2d model of nnU-Net, RETINA's or any other: the same labels as "
        "nnUNetv2_predict, faster and in bounded memory, or the mean over three planes, or instances.",
    )
    parser.add_argument(
        "-i", type=Path, required=True, metavar="PATH",
        help="a folder of images named CASE_0000.png and so on; or one, or a file, of whatever retina_convert reads",
    )  # fmt: skip
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="where to write; made if not there")
    add_model_options(parser, checkpoint=True)
    nnunet = parser.add_argument_group("as in nnUNetv2_predict")
    nnunet.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: cuda where there is one")
    add_settings(nnunet, PredictionSettings, ("step_size", "mirroring"))
    add_settings(nnunet, RunSettings, ("probabilities", "continued", "parts", "part", "preparing", "writing"))
    own = parser.add_argument_group("of RETINA")
    add_settings(own, RunSettings, ("output_format", "overlay"))
    add_reading(own)
    add_settings(own, PredictionSettings, ("batch_size", "precision", "force"))
    add_settings(own, Workers)
    mode = own.add_mutually_exclusive_group()
    for name, text in (
        ("stack", "slice by slice (default, unless dataset.json says otherwise)"),
        ("orthoplane", "mean of the probabilities over xy, xz and yz"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    own.add_argument(
        "--instances",
        action="store_true",
        help="also CASE_instances, a table of their sizes, shapes and distances (CASE_instances.csv), and objects.html",
    )
    add_settings(own, InstanceSettings)
    config_file.add_option(own)
    parser.set_defaults(**{
        # a text: converted and checked like an option
        name: workers if workers.strip().isdecimal() else f"{workers} (of ${variable})"
        for name, variable in (("preparing", "nnUNet_npp"), ("writing", "nnUNet_nps"))
        if (workers := os.environ.get(variable))
    })  # fmt: skip
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Predict as the options say.

    Raises:
        RetinaError: for a wrong option, model or image.
    """
    from nnunetv2_retina.nnunet import models

    settings = read_settings(PredictionSettings, arguments, mode=arguments.mode)
    instances = read_settings(InstanceSettings, arguments)
    if not arguments.instances and instances != InstanceSettings():
        raise RetinaError("--instance-distance, --instance-size and --instance-units are of --instances. Add it")
    plan = read_settings(RunSettings, arguments, instances=instances if arguments.instances else None)
    workers = read_settings(Workers, arguments)
    folder = model_folder(arguments)
    folds = models.check(folder, arguments.f, arguments.chk)
    lacking = [fold for fold in models.folds_without(folder, [arguments.chk]) if fold.isdecimal()]
    if arguments.f is None and lacking:
        say(f"left out, for they have no {arguments.chk}: folds {', '.join(lacking)}")
    with _images(arguments, folder) as (images, origins):
        from nnunetv2_retina.prediction.model import Model

        model = Model(str(folder.resolve()), tuple(folds), arguments.chk, arguments.device, settings)
        _predict(arguments, model, images, origins, plan, workers)


@contextmanager
def _images(arguments: argparse.Namespace, model: Path) -> Iterator[tuple[Path, dict[str, Origin]]]:
    """Yield the folder of images as nnU-Net names them, the given one or one that is made of other images; and those.

    Raises:
        RetinaError: if there is no image, or one that does not suit the model.
    """
    from dataset_conversion.readers.hdf5 import split_location
    from nnunetv2_retina.nnunet.datasets import read_dataset_json
    from nnunetv2_retina.nnunet.inputs import holds_cases, list_cases

    contents, source = read_dataset_json(model), arguments.i
    how = [option for option in (SLICES, "--hdf5", "--spacing") if vars(arguments)[option[2:].replace("-", "_")]]
    named = source.is_dir() and not arguments.slices_as_volume and holds_cases(source, contents)
    if named and how:
        raise RetinaError(
            f"{source} holds images named as nnU-Net has them, which say themselves what {how[0]} would. Leave it out"
        )
    if (
        not split_location(str(source))[0].exists()
        or named
        or (source.is_dir() and not arguments.slices_as_volume and not _readable(source))
    ):
        list_cases(source, contents)
        yield source, {}
        return
    beside = None
    if arguments.scheduler is not None:  # where other machines see it
        beside = make_folder(arguments.o.parent, "Give another output folder with -o").absolute()
    with tempfile.TemporaryDirectory(prefix="retina_predict-", dir=beside) as scratch:
        images = Path(scratch) / "images"
        origins, remarks = _read(arguments, images, model)
        number = len(list_cases(images, contents))
        say(f"{number} {'image' if number == 1 else 'images'} of {source} read as retina_convert images does")
        for remark in remarks:
            say(f"  - {remark}")
        yield images, origins


def _read(arguments: argparse.Namespace, target: Path, model: Path) -> tuple[dict[str, Origin], list[str]]:
    """Write images under their own names, with nnU-Net's ending; return where they come from, and remarks."""
    from dataset_conversion.own_data.new_images import find_images, given_spacing, write_images
    from nnunetv2_retina.prediction.case_files import Origin

    remarks: list[str] = []
    volumes = {} if arguments.slices_as_volume else _volumes(arguments.i)
    others = arguments.slices_as_volume or _holds_files(arguments.i)
    locations = find_images(arguments.i, arguments.hdf5, arguments.slices_as_volume, remarks) if others else {}
    if twice := sorted(locations.keys() & volumes.keys()):
        raise RetinaError(f"{arguments.i} holds two images called {twice[0]}, one of them a Zarr volume. Rename one")
    locations |= volumes
    known = write_images(locations, target, model, given_spacing(arguments), remarks)
    origins = {}
    for name, location in locations.items():
        spacing, place = known[name]
        geometry = None if place is None else place.geometry()
        origins[name] = Origin(location.slices or (location.path,), bool(location.slices), spacing, geometry)
    return origins, remarks


def _readable(folder: Path) -> bool:
    """Tell whether a folder is or holds what ``retina_convert`` reads."""
    return _holds_files(folder) or bool(_stores(folder))


def _holds_files(source: Path) -> bool:
    """Tell whether it is a file, or a folder of image files."""
    from dataset_conversion.readers.hdf5 import split_location
    from dataset_conversion.readers.images import SUPPORTED, file_suffix
    from nnunetv2_retina.images.ome_zarr import is_zarr

    source, inside = split_location(str(source))
    if source.is_file() or is_zarr(source) or inside is not None:
        return source.is_file()
    return any(file_suffix(path) in SUPPORTED for path in source.iterdir() if path.is_file())


def _stores(source: Path) -> list[Path]:
    """Return a Zarr volume, or those in a folder."""
    from nnunetv2_retina.images.ome_zarr import is_zarr

    paths = [source] if is_zarr(source) else sorted(source.iterdir()) if source.is_dir() else []
    return [path for path in paths if path.is_dir() and is_zarr(path)]


def _volumes(source: Path) -> dict[str, Location]:
    """Return name -> location of a Zarr volume, or of those in a folder.

    Raises:
        RetinaError: for one that is too large to be read whole.
    """
    from dataset_conversion.own_data.layout import Location
    from nnunetv2_retina.images.ome_zarr import open_volume, volume_stem

    paths = _stores(source)
    for path in paths:
        voxels = math.prod(open_volume(path, unstated=(1, 1, 1)).levels[0].shape)
        if voxels > MOST_VOXELS:
            raise RetinaError(
                f"{path} has {voxels:,} voxels; up to {MOST_VOXELS:,} are read whole. Predict it block by block: "
                f"retina_volume predict {path} OUT.zarr"
            )
    return {volume_stem(path): Location(path) for path in paths}


def _predict(
    arguments: argparse.Namespace,
    model: Model,
    images: Path,
    origins: dict[str, Origin],
    plan: RunSettings,
    workers: Workers,
) -> None:
    import torch

    from nnunetv2_retina.console.machine import available_cores, keep_freed_memory
    from nnunetv2_retina.prediction.folder import FolderRun

    keep_freed_memory()
    torch.set_num_threads(available_cores())
    predictor = model.load()
    folds = len(predictor.window.models)
    say(f"{model.folder}: {folds} {'fold' if folds == 1 else 'folds'}, {predictor.mode}, on {predictor.window.device}")

    def begun() -> None:
        config_file.write(arguments.o, parser(), vars(arguments), leave_out=("o",))

    folder = FolderRun(predictor, images, arguments.o, plan, say, origins, begun, model, workers)
    done = folder.run()
    say(f"{len(done)} predicted, in {arguments.o}")
    if plan.instances is not None:
        from nnunetv2_retina.report.objects import PAGE, folder_tables, write_objects_page

        tables = folder_tables(arguments.o, folder.names)
        say(f"histograms of the objects: {write_objects_page(tables, arguments.o / PAGE)}")


main = console.command(parser, run)
