"""``retina_report``: one page about a trained model; see ``nnunetv2_retina.report.page``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_retina import console
from nnunetv2_retina.commands.model_options import add_model_options, model_folder
from nnunetv2_retina.console import add_settings, read_settings, say
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.report.settings import ReportSettings


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_report",
        "Write one HTML page about a trained model of nnU-Net, RETINA's or any other: what was trained, what was "
        "transferred, training curves, scores by the data set's rule, pictures of the worst and best cases. The file "
        "needs no other and opens offline. Without --predictions and --labels, the validation predictions that nnU-Net "
        "made at the end of the training are scored. --watch 30 follows a training that is running.",
    )
    add_model_options(parser)
    add_settings(parser.add_argument_group("cases"), ReportSettings)
    parser.add_argument("-o", type=Path, metavar="FILE", help="the page; default: report.html in the model folder")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Write the report that the options ask for.

    Raises:
        RetinaError: for a wrong option, model or file.
    """
    settings = read_settings(ReportSettings, arguments, folds=arguments.f)
    folder = model_folder(arguments)

    from nnunetv2_retina.report.page import write_model_report
    from nnunetv2_retina.report.watching import watch_model_report

    if settings.watch is not None:
        watch_model_report(folder, arguments.o, settings, say)
        return
    with ProgressBar("scoring", unit="cases") as bar:
        page = write_model_report(folder, arguments.o, settings, bar.update)
    say(str(page))


main = console.command(parser, run)
