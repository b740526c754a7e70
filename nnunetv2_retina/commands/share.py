"""``retina_share``: trained models for others, and back; see ``nnunetv2_retina.sharing``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_retina import console
from nnunetv2_retina.commands.model_options import add_model_options, model_folder
from nnunetv2_retina.console import say
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.sharing.settings import About

if TYPE_CHECKING:
    from nnunetv2_retina.sharing.bundle import Bundle


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_share",
        "Write a trained model for others: a package of the BioImage Model Zoo, or a folder for the Hugging Face Hub. "
        "Both become a model folder of nnU-Net again. Nothing is uploaded.",
    )
    console.add_subcommands(parser, COMMANDS)
    return parser


def _add_zoo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, metavar="OUT.zip", help="the package to write")
    _add_model(parser)


def _add_hub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, metavar="OUT", help="the folder to write")
    _add_model(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser, checkpoint=True)
    about = parser.add_argument_group("what no file of the model knows")
    about.add_argument("--licence", required=True, metavar="ID", help="of the weights, such as CC-BY-4.0 (SPDX)")
    about.add_argument("--author", required=True, action="append", metavar="NAME", help="may be given several times")
    about.add_argument("--name", metavar="TEXT", help="default: of the data set and the trainer")
    about.add_argument("--about", metavar="TEXT", help="what the model is for (default: its classes)")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="what zoo or hub wrote: a .zip, or a folder")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER",
        help="model folder to make (default: its place in $nnUNet_results)",
    )  # fmt: skip


def _bundle(arguments: argparse.Namespace) -> tuple[Bundle, About]:
    about = About(
        licence=arguments.licence, authors=tuple(arguments.author), name=arguments.name, text=arguments.about
    )  # fmt: skip
    from nnunetv2_retina.nnunet import models

    folder = model_folder(arguments)
    models.check(folder, arguments.f, arguments.chk)
    from nnunetv2_retina.sharing import card
    from nnunetv2_retina.sharing.bundle import read_bundle

    bundle = read_bundle(folder, arguments.f, arguments.chk)
    say(f"{folder}: {card.folds_in_words(bundle)}")
    return bundle, about


def _zoo(arguments: argparse.Namespace) -> None:
    bundle, about = _bundle(arguments)
    from nnunetv2_retina.sharing.zoo import write_zoo_package

    written = write_zoo_package(bundle, about, arguments.output)
    say(f"weights: {', '.join(written.formats)}")
    if written.tested:
        say("bioimageio.core's test of the package passed")
    else:
        say('not tested, for bioimageio.core is not installed: pip install ".[zoo]", then bioimageio test PACKAGE')
    say(str(written.path))


def _hub(arguments: argparse.Namespace) -> None:
    bundle, about = _bundle(arguments)
    from nnunetv2_retina.sharing.hub import write_hub_folder

    upload = write_hub_folder(bundle, about, arguments.output)
    say(f"{arguments.output}: read README.md there, and complete it. To upload it, with a name of your own for USER:")
    say(upload)


def _import(arguments: argparse.Namespace) -> None:
    if not arguments.package.exists():
        raise RetinaError(f"no package at {arguments.package}: no such file or folder")
    from nnunetv2_retina.sharing.importing import import_package

    folder = import_package(arguments.package, arguments.output)
    say(f"{folder}: every file is as it was packed. Predict with: retina_predict -i images -o out -m {folder}")


COMMANDS: console.Subcommands = {
    "zoo": (_add_zoo, _zoo, "write a 2d model as a package of the BioImage Model Zoo"),
    "hub": (_add_hub, _hub, "write a model as a folder for the Hugging Face Hub, with a model card"),
    "import": (_add_import, _import, "make a model folder of what zoo or hub wrote, every hash checked"),
}


def run(arguments: argparse.Namespace) -> None:
    """Carry out the subcommand.

    Raises:
        RetinaError: for a wrong option, model or package.
    """
    COMMANDS[arguments.command][1](arguments)


main = console.command(parser, run)
