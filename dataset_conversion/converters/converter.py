"""Options that the subcommands of all five benchmarks share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dataset_conversion.benchmarks import PROTOCOLS, datasets
from dataset_conversion.writer.record import CaseRecord
from nnunetv2_retina.errors import RetinaError


def add_benchmark_arguments(parser: argparse.ArgumentParser, benchmark: str, description: str) -> None:
    """Declare SOURCE, -d, --protocol, --overwrite and --download.

    Args:
        parser: the subcommand's.
        benchmark: ``cremi``, ``guay``, ``kasthuri``, ``perez`` or ``urocell``.
        description: which files SOURCE holds; shown as it is laid out.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description
    written = datasets(benchmark)
    default = ", ".join(str(dataset.id) for dataset in written)
    several = "; the structures chosen get consecutive IDs from here on" if len(written) > 1 else ""
    parser.add_argument(
        "source", metavar="SOURCE", type=Path, help="folder with the files as downloaded, or a zip of them"
    )
    parser.add_argument("-d", "--id", type=int, metavar="ID", help=f"data set ID (default {default}{several})")
    unannotated = next((dataset.unannotated for dataset in written if dataset.unannotated), None)
    effect = f": {unannotated} are ignored; paper: counted as in the paper" if unannotated else "; no difference here"
    parser.add_argument("--protocol", choices=PROTOCOLS, default="clean", help=f"default clean{effect}")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    parser.add_argument("--download", action="store_true", help="first fetch what is missing into SOURCE")


def source_folder(args: argparse.Namespace, benchmark: str) -> Path:
    """The folder (or zip archive) to read, after ``--download`` has fetched what was missing.

    Raises:
        RetinaError: if the folder does not exist, or a download fails.
    """
    folder: Path = args.source
    if args.download:
        from dataset_conversion.downloads import fetch  # only here: conversion works without a network

        fetch.fetch(benchmark, folder, fetch.ProgressLine(sys.stderr) if sys.stderr.isatty() else None)
    if not folder.exists():
        raise RetinaError(
            f"{folder} does not exist; expected a folder with the files as downloaded, or a zip archive of them. "
            "Correct the path, or add --download to fetch them there."
        )
    return folder


def run_benchmark(
    args: argparse.Namespace,
    benchmark: str,
    convert: Callable[..., Path],
    progress: Callable[[CaseRecord], None] | None,
) -> Path:
    """Convert a benchmark of one data set as the command line says. Returns the data set's folder."""
    return convert(
        source_folder(args, benchmark),
        args.id,
        protocol=args.protocol,
        overwrite=args.overwrite,
        progress=progress,
    )
