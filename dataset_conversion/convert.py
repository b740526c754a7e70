"""The command ``retina_convert``: one subcommand a source of data, each ending in an nnU-Net raw data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_conversion.available import availability
from dataset_conversion.converters import cremi, guay, kasthuri, perez, urocell
from dataset_conversion.corpora import cem500k
from dataset_conversion.own_data import folder
from dataset_conversion.writer.record import CaseRecord
from dataset_conversion.writer.summary import summary
from nnunetv2_retina.errors import RetinaError

COMMANDS: dict[str, Any] = {
    "folder": folder,
    "cremi": cremi,
    "guay": guay,
    "kasthuri": kasthuri,
    "perez": perez,
    "urocell": urocell,
    "cem500k": cem500k,
}
"""Subcommand -> module with ``HELP``, ``add_arguments(parser)`` and ``run(args, progress)``, which returns the folder
of the data set written, several, or a text to print."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``retina_convert``. Returns the exit status: 0, or 2 with the reason on stderr for a user's error."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.list is None and args.command is None:
        parser.error(f"a COMMAND is needed: {', '.join(COMMANDS)}; or --list")
    try:
        if args.list is not None:
            print(availability(args.list))
            return 0
        written = COMMANDS[args.command].run(args, _show_progress if sys.stderr.isatty() else None)
    except (RetinaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for item in written if isinstance(written, list) else [written]:
        print(summary(item) if isinstance(item, Path) else item)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="retina_convert", description="Make an nnU-Net data set for RETINA.")
    parser.add_argument(
        "--list", nargs="?", const=Path(), type=Path, metavar="FOLDER",
        help="show the benchmarks, their size and licence, and what of them is in FOLDER (default: here)",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP))
    return parser


def _show_progress(record: CaseRecord) -> None:
    print(f"  {record.split}  {record.name}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
