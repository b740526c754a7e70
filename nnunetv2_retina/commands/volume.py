"""``retina_volume``: volumes that outgrow memory; see ``nnunetv2_retina.volumes``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_retina import console
from nnunetv2_retina.commands.model_options import add_model_options, model_folder
from nnunetv2_retina.console import add_settings, read_settings, say
from nnunetv2_retina.console.engines import Workers
from nnunetv2_retina.prediction.settings import InstanceSettings, PredictionSettings
from nnunetv2_retina.volumes.settings import VolumeSettings, parse_pixel, parse_spacing

if TYPE_CHECKING:
    from nnunetv2_retina.volumes.run import VolumeRun


FROM_SPACING = "--from-spacing"


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_volume",
        "Predict volumes larger than memory, block by block, from OME-Zarr to OME-Zarr: the labels of the whole "
        "volume, whatever the blocks. A run that was stopped or killed goes on with the same command.",
    )
    console.add_subcommands(parser, COMMANDS)
    return parser


def _input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", metavar="IN.zarr", help="OME-Zarr image (0.4 or 0.5), Zarr array, or N5: a folder or URL"
    )


def _output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("output", type=Path, metavar="OUT.zarr", help=text)


def _add_info(parser: argparse.ArgumentParser) -> None:
    _input(parser)
    add_model_options(parser, checkpoint=True)
    _add_prediction(parser)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    _input(parser)
    _output(parser, "where to write; the same command goes on with it")
    add_model_options(parser, checkpoint=True)
    _add_prediction(parser)
    parser.add_argument("--dry-run", action="store_true", help="say blocks, memory, tiles and time; write nothing")


def _add_prediction(parser: argparse.ArgumentParser) -> None:
    nnunet = parser.add_argument_group("as in nnUNetv2_predict")
    nnunet.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: cuda where there is one")
    add_settings(nnunet, PredictionSettings, ("step_size", "mirroring"))
    own = parser.add_argument_group("of RETINA")
    add_settings(own, PredictionSettings, ("batch_size", "precision", "force"))
    mode = own.add_mutually_exclusive_group()
    for name, text in (("stack", "slice by slice"), ("orthoplane", "mean of the probabilities over xy, xz and yz")):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    add_settings(own, VolumeSettings)


def _add_status(parser: argparse.ArgumentParser) -> None:
    _output(parser, "an output, finished or not")


def _add_instances(parser: argparse.ArgumentParser) -> None:
    _output(parser, "a finished prediction; labels/instances, objects.csv and objects.html are written into it")
    add_settings(parser, InstanceSettings)
    add_settings(parser, Workers, ("workers", "scheduler"))


def _instances(arguments: argparse.Namespace) -> None:
    settings, workers = read_settings(InstanceSettings, arguments), read_settings(Workers, arguments)
    from nnunetv2_retina.volumes.instances import TABLE, InstanceRun

    task = InstanceRun(arguments.output, settings, say)
    with workers.engine(say) as engine:
        count = task.run(engine)
    say(f"{count} instances are in {arguments.output}/labels/instances, and in objects.csv")
    from nnunetv2_retina.report.objects import PAGE, write_objects_page

    tables = {arguments.output.resolve().name: arguments.output / TABLE}
    say(f"histograms of the objects: {write_objects_page(tables, arguments.output / PAGE)}")


def _add_rescale(parser: argparse.ArgumentParser) -> None:
    _input(parser)
    _output(parser, "the new volume; the same command goes on with it")
    parser.add_argument("--spacing", required=True, metavar="Y,X", help="of the new level, in nm")
    parser.add_argument(
        FROM_SPACING, metavar="Z,Y,X", help="of IN.zarr, in nm, where its metadata do not state it or state it wrong"
    )
    parser.add_argument("--level", metavar="PATH", help="level to start from (default: the finest)")
    add_settings(parser, Workers, ("workers", "scheduler"))


def _rescale(arguments: argparse.Namespace) -> None:
    workers = read_settings(Workers, arguments)
    pixel = parse_pixel(arguments.spacing)
    steps = None if arguments.from_spacing is None else parse_spacing(arguments.from_spacing, FROM_SPACING)
    from nnunetv2_retina.images.ome_zarr import open_volume
    from nnunetv2_retina.volumes import store
    from nnunetv2_retina.volumes.rescale import rescale

    volume = open_volume(arguments.input, steps, option=FROM_SPACING)
    store.check_apart(arguments.input, arguments.output)
    level = volume.levels[0] if arguments.level is None else volume.level(arguments.level)
    with workers.engine(say) as engine:
        rescale(volume, level, arguments.output, pixel, engine, say)
    say(f"wrote {arguments.output}")


def _add_view(parser: argparse.ArgumentParser) -> None:
    _input(parser)
    _output(parser, "a prediction of it, finished or not")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the files' server (default: any)")


def _view(arguments: argparse.Namespace) -> None:
    from nnunetv2_retina.volumes import view

    view.serve(arguments.input, arguments.output, arguments.port, say)


def _run_of(arguments: argparse.Namespace, output: Path) -> VolumeRun:
    """Return the run that the options describe."""
    settings = read_settings(VolumeSettings, arguments)
    prediction = read_settings(PredictionSettings, arguments, mode=arguments.mode)
    from nnunetv2_retina.images.ome_zarr import open_volume
    from nnunetv2_retina.nnunet import models

    folder = model_folder(arguments)
    folds = models.check(folder, arguments.f, arguments.chk)
    open_volume(arguments.input, settings.steps)  # refused before torch is loaded

    import torch

    from nnunetv2_retina.console.machine import available_cores, keep_freed_memory
    from nnunetv2_retina.prediction.model import Model
    from nnunetv2_retina.volumes.run import VolumeRun

    keep_freed_memory()
    torch.set_num_threads(available_cores())
    model = Model(str(folder.resolve()), tuple(folds), arguments.chk, arguments.device, prediction)
    return VolumeRun(arguments.input, output, model, settings, say)


def _info(arguments: argparse.Namespace) -> None:
    from nnunetv2_retina.images.ome_zarr import open_volume
    from nnunetv2_retina.volumes.status import describe_volume

    settings = read_settings(VolumeSettings, arguments)
    for line in describe_volume(open_volume(arguments.input, settings.steps)):
        say(line)
    if arguments.m is None and arguments.d is None:
        say("which level fits a model, and how long it takes: give the model with -m, or -d and -tr")
        return
    for line in _run_of(arguments, Path("OUT.zarr")).outline():
        say(line)


def _predict(arguments: argparse.Namespace) -> None:
    run = _run_of(arguments, arguments.output)
    if arguments.dry_run:
        for line in run.outline():
            say(line)
    elif run.run():
        say(f"labels are in {arguments.output}")


def _status(arguments: argparse.Namespace) -> None:
    from nnunetv2_retina.volumes.status import status

    for line in status(arguments.output):
        say(line)


COMMANDS: console.Subcommands = {
    "info": (_add_info, _info, "say what a volume holds and, with a model, what a prediction would take"),
    "predict": (_add_predict, _predict, "predict a volume"),
    "instances": (_add_instances, _instances, "number the objects of a prediction"),
    "view": (_add_view, _view, "show a volume and its labels in neuroglancer"),
    "rescale": (_add_rescale, _rescale, "write a level at the spacing of a model"),
    "status": (_add_status, _status, "say how far a prediction is"),
}


def run(arguments: argparse.Namespace) -> None:
    """Do what the subcommand says.

    Raises:
        RetinaError: for a volume, model, option or output that does not fit.
    """
    COMMANDS[arguments.command][1](arguments)


main = console.command(parser, run)
