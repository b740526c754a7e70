"""The command ``retina_convert``: one subcommand for each source of data; each writes an nnU-Net raw data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_conversion.command import Command
from dataset_conversion.converters.commands import BENCHMARK_COMMANDS
from dataset_conversion.corpora import cem500k
from dataset_conversion.own_data import command as own_data
from dataset_conversion.own_data import new_images
from nnunetv2_retina import console
from nnunetv2_retina.console.progress import ProgressBar

if TYPE_CHECKING:
    from dataset_conversion.writer.record import CaseRecord

COMMANDS: dict[str, Command] = {
    "folder": own_data.COMMAND,
    "images": new_images.COMMAND,
    **BENCHMARK_COMMANDS,
    "cem500k": cem500k.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``retina_convert`` and return its exit status (see ``console.run``)."""
    console.hide_deprecations(argv)
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.list is None and arguments.command is None:
        parser.error(f"a COMMAND is needed: {', '.join(COMMANDS)}; or --list")
    return console.run(lambda: console.say(_answer(arguments)))


def _answer(arguments: argparse.Namespace) -> str:
    if arguments.list is not None:
        from dataset_conversion.available import availability

        return availability(arguments.list)
    with ProgressBar("converting", unit="cases") as bar:
        done = count(1)

        def show(record: CaseRecord, number: int | None) -> None:
            bar.update(next(done), number, f"{record.split} {record.name}")

        return COMMANDS[arguments.command].run(arguments, show)


def _parser() -> argparse.ArgumentParser:
    parser = console.parser("retina_convert", "Make an nnU-Net data set for RETINA.")
    parser.add_argument(
        "--list", nargs="?", const=Path(), type=Path, metavar="FOLDER",
        help="show the benchmarks, their size and licence, and which of their files are in FOLDER (default: here)",
    )  # fmt: skip
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(
            subparsers.add_parser(
                name,
                help=command.help,
                description=command.description,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
