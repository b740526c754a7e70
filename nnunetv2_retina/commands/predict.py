"""Options of ``retina_predict``: nnU-Net's names for what nnU-Net has, and what a run makes of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.machine import available_cores
from nnunetv2_retina.nnunet import models
from nnunetv2_retina.prediction.folder import FolderRun, RunSettings
from nnunetv2_retina.prediction.instances import UNITS, InstanceSettings
from nnunetv2_retina.prediction.predictor import PredictionSettings, Predictor


def parser() -> argparse.ArgumentParser:
    """The command line of ``retina_predict``."""
    parser = argparse.ArgumentParser(
        prog="retina_predict",
        description="Predict a folder of images with a 2d model of nnU-Net, RETINA's or any other: the same labels as "
        "nnUNetv2_predict, faster and in bounded memory, or the mean over three planes, or instances.",
    )
    parser.add_argument("-i", type=Path, required=True, metavar="FOLDER", help="images, named CASE_0000.png and so on")
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="where to write; made if not there")
    _add_model(parser)
    _add_nnunet(parser)
    _add_own(parser)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("-m", type=Path, metavar="FOLDER", help="model folder, instead of -d -tr -p -c")
    group.add_argument("-d", metavar="DATASET", help="number or name of the data set it was trained on")
    group.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="default: nnUNetTrainer")
    group.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="default: nnUNetPlans")
    group.add_argument("-c", default="2d", metavar="CONFIGURATION", help="a 2d one; default: 2d")
    group.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average, or all; default: every one trained")
    group.add_argument("-chk", default="checkpoint_final.pth", metavar="NAME", help="default: checkpoint_final.pth")


def _add_nnunet(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("as in nnUNetv2_predict")
    group.add_argument("-device", choices=("cuda", "cpu", "mps"), help="default: cuda where there is one")
    group.add_argument("-step_size", type=float, default=0.5, metavar="SHARE", help="of a tile; default: 0.5")
    group.add_argument("--disable_tta", action="store_true", help="no mirroring: faster, less accurate")
    group.add_argument("--save_probabilities", action="store_true", help="also CASE.npz; needs memory for all classes")
    group.add_argument("--continue_prediction", "--c", action="store_true", help="leave finished cases alone")
    for name, what in (("npp", "read and preprocessed"), ("nps", "written")):
        default = int(os.environ.get(f"nnUNet_{name}") or 3)
        group.add_argument(
            f"-{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"cases {what} at once, beside the prediction; 0: one after the other; default: {default}",
        )


def _add_own(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of RETINA")
    group.add_argument("--batch-size", type=int, metavar="N", help="tiles at once; default: what suits the device")
    mode = group.add_mutually_exclusive_group()
    mode.add_argument("--stack", action="store_true", help="slice by slice (default, if dataset.json does not tell)")
    mode.add_argument("--orthoplane", action="store_true", help="mean of the probabilities over xy, xz and yz")
    group.add_argument("--force", action="store_true", help="--orthoplane on anisotropic volumes too")
    defaults = InstanceSettings()
    group.add_argument("--instances", action="store_true", help="also CASE_instances and a table of their classes")
    group.add_argument(
        "--instance-distance",
        type=float,
        default=defaults.min_distance,
        metavar="D",
        help=f"middles of two instances are at least this far apart; default: {defaults.min_distance:g}",
    )
    group.add_argument(
        "--instance-size",
        type=float,
        default=defaults.min_size,
        metavar="S",
        help=f"leave out smaller instances; default: {defaults.min_size:g}",
    )
    group.add_argument(
        "--instance-units",
        choices=UNITS,
        default=defaults.units,
        help="of distance and size; physical: those of the image's spacing, nm in converted data sets",
    )


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Do what the options say.

    Raises:
        RetinaError: for a wrong option, model or image.
    """
    if (arguments.m is None) == (arguments.d is None):
        raise RetinaError("which model? Give either -m MODEL_FOLDER, or -d DATASET with -tr, -p and -c")
    instances = InstanceSettings(
        min_distance=arguments.instance_distance,
        min_size=arguments.instance_size,
        units=arguments.instance_units,
    )
    settings = PredictionSettings(
        mode="stack" if arguments.stack else "orthoplane" if arguments.orthoplane else None,
        mirroring=not arguments.disable_tta,
        batch_size=arguments.batch_size,
        step_size=arguments.step_size,
        force=arguments.force,
    )
    folder = arguments.m or models.find(arguments.d, arguments.tr, arguments.p, arguments.c)
    torch.set_num_threads(available_cores())
    predictor = Predictor.from_model_folder(folder, arguments.f, arguments.chk, arguments.device, settings)
    folds = len(predictor.window.models)
    say(f"{folder}: {folds} {'fold' if folds == 1 else 'folds'}, {predictor.mode}, on {predictor.window.device}")
    plan = RunSettings(
        probabilities=arguments.save_probabilities,
        instances=instances if arguments.instances else None,
        continued=arguments.continue_prediction,
        preparing=arguments.npp,
        writing=arguments.nps,
    )
    done = FolderRun(predictor, arguments.i, arguments.o, plan, say).run()
    say(f"{len(done)} predicted, in {arguments.o}")
