"""``retina_quickstart``: run the whole chain on small data; see ``nnunetv2_retina.quickstart.run``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dataset_conversion.own_data.command import add_reading, typed_reading
from nnunetv2_retina import console
from nnunetv2_retina.console import add_settings, read_settings, say
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_file, check_folder
from nnunetv2_retina.quickstart.settings import DEFAULT_OUTPUT, QuickstartSettings
from nnunetv2_retina.weights import shipped


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_quickstart",
        "Run the whole chain on generated EM-like volumes, or on images of your own: convert, preprocess, train a tiny "
        "network from pre-trained weights and from random numbers, predict images that were held out, score and draw "
        "them. Minutes on two CPU cores. Everything goes into one folder; nnU-Net's own folders are not touched.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=DEFAULT_OUTPUT, metavar="FOLDER",
        help=f"where to write (default {DEFAULT_OUTPUT})",
    )  # fmt: skip
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="images and masks of your own, laid out as for 'retina_convert folder': images/ and masks/ (some are "
        "then held out for the scores), or train/ and test/ with both in each (default: generated volumes)",
    )
    add_settings(parser, QuickstartSettings)
    add_reading(parser.add_argument_group("with --data, as in retina_convert folder"))
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="use an output folder that holds other files; they are left alone. A folder that an earlier quickstart "
        "made is always replaced",
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Run the chain as the options say.

    Raises:
        RetinaError: for a wrong option or folder, or a step that failed.
    """
    settings = read_settings(QuickstartSettings, arguments)
    check_file(Path(shipped.resolve(settings.weights)), "checkpoint")
    options = typed_reading(arguments)
    if arguments.data is None and options:
        raise RetinaError(f"{options[0]} says how images of your own are read. Add --data FOLDER, or leave it out")
    if arguments.data is not None:
        check_folder(arguments.data, "folder of images and masks")

    from nnunetv2_retina.quickstart.run import run_quickstart

    say(str(run_quickstart(arguments.output, arguments.data, settings, arguments.overwrite, say, options)))


main = console.command(parser, run)
