"""The options that name a trained model, in nnU-Net's words: alike in every command that takes one."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_folder

CHECKPOINT = "checkpoint_final.pth"


def add_model_options(parser: argparse.ArgumentParser, checkpoint: bool = False) -> None:
    """Add -m, -d, -tr, -p, -c and -f; with ``checkpoint`` also -chk."""
    group = parser.add_argument_group("model")
    which = group.add_mutually_exclusive_group()
    which.add_argument("-m", type=Path, metavar="FOLDER", help="model folder, instead of -d -tr -p -c")
    which.add_argument("-d", metavar="DATASET", help="number or name of the data set it was trained on")
    group.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="default: nnUNetTrainer")
    group.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="default: nnUNetPlans")
    group.add_argument("-c", default="2d", metavar="CONFIGURATION", help="default: 2d")
    group.add_argument("-f", nargs="+", metavar="FOLD", help="folds, or all; default: every numbered one, else all")
    if checkpoint:
        group.add_argument("-chk", default=CHECKPOINT, metavar="NAME", help=f"default: {CHECKPOINT}")


def model_folder(arguments: argparse.Namespace) -> Path:
    """Return the model folder that the options name.

    Raises:
        RetinaError: if neither -m nor -d is given, or there is no such model.
    """
    if arguments.m is None and arguments.d is None:
        raise RetinaError("which model? Give either -m MODEL_FOLDER, or -d DATASET with -tr, -p and -c")
    if arguments.m is not None:
        return check_folder(arguments.m, "model folder")
    from nnunetv2_retina.nnunet import models

    return models.find(arguments.d, arguments.tr, arguments.p, arguments.c)
