"""``retina_benchmark``: run a study of systems, data sets and seeds, and report it; see ``nnunetv2_retina.study``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunetv2_retina import console
from nnunetv2_retina.console import add_settings, read_settings, say
from nnunetv2_retina.console.engines import Workers


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_benchmark",
        "Run a study: data sets x systems x seeds, scored at several iteration counts, and report it. The same command "
        "continues a study that was stopped; finished runs are never made again, and a run that fails stops no other. "
        "Several of these commands may share one output folder: each takes the next run.",
    )
    add = parser.add_argument
    add("study", type=Path, metavar="STUDY.yaml", help="see studies/ for examples")
    add("-o", type=Path, required=True, metavar="FOLDER", help="for runs and report")
    add("-device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    add_settings(parser, Workers)
    add("--part", metavar="I/N", help="only every N-th run, from the I-th, for machines that share no folder")
    add("--merge", type=Path, nargs="+", default=[], metavar="FOLDER", help="take finished runs of other folders first")
    add(
        "--no-rehearsal",
        action="store_true",
        help="do not try every system on every data set for a few steps first; there is no estimate then",
    )
    only = parser.add_mutually_exclusive_group()
    for name, text in (
        ("estimate", "rehearse, say how long everything will take, and stop"),
        ("report", "report what is finished, and stop"),
    ):
        only.add_argument(f"--{name}", dest="only", action="store_const", const=name, help=text)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the study as the options say.

    Returns:
        1 if a run failed, else 0.

    Raises:
        RetinaError: for a wrong option, file or folder.
    """
    from nnunetv2_retina.study.study_file import read_study

    workers = read_settings(Workers, arguments)
    read_study(arguments.study)  # a wrong file is refused before torch and nnU-Net are loaded

    from nnunetv2_retina.study.command import StudyOptions, run_study

    options = StudyOptions(
        device=arguments.device,
        workers=workers,
        part=arguments.part,
        merge=arguments.merge,
        rehearse=not arguments.no_rehearsal,
        only=arguments.only,
    )
    page, outcome = run_study(arguments.study, arguments.o, options, say)
    if outcome.failed:
        say(f"{len(outcome.failed)} failed; the same command tries them again", sys.stderr)
    if page is not None:
        say(str(page))
    return 1 if outcome.failed else 0


main = console.command(parser, run)
