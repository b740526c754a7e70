"""The form of a benchmark: what its subcommand accepts, and the way from downloaded files to data sets.

A benchmark's own module holds ``find_contents(source, structures)``, which finds its files and returns one ``Contents``
for each data set. Nothing heavy is imported before that module is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_conversion.benchmarks import PROTOCOLS, BenchmarkDataset, datasets, spec
from dataset_conversion.command import Command
from dataset_conversion.spec import Case, DatasetSpec
from dataset_conversion.writer.target_folder import check_target
from nnunetv2_retina.errors import RetinaError

if TYPE_CHECKING:
    from dataset_conversion.writer.record import CaseProgress


@dataclass(frozen=True)
class Contents:
    """The files that one data set is made from, found and not read yet."""

    cases: Callable[[DatasetSpec], Iterator[Case]]
    """Read the cases, one in memory at a time; the description says what becomes of unannotated voxels."""
    remarks: Sequence[str] = ()
    folds: Sequence[Mapping[str, list[str]]] | None = None
    """Fixed splits, where they depend on the files found."""

    def complete(self, settings: DatasetSpec) -> DatasetSpec:
        """Return the description with these remarks and folds."""
        protocol = settings.protocol if self.folds is None else replace(settings.protocol, folds=tuple(self.folds))
        return replace(settings, protocol=protocol, remarks=(*self.remarks, *settings.remarks))


def convert_benchmark(
    benchmark: str,
    source: str | Path,
    dataset_id: int | None = None,
    *,
    structures: Sequence[str] | None = None,
    protocol: str = "clean",
    download: bool = False,
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> list[Path]:
    """Convert a published benchmark; nothing is written before all targets are free and all files are found.

        convert_benchmark("cremi", "downloads", download=True)

    Args:
        benchmark: ``cremi``, ``guay``, ``kasthuri``, ``perez`` or ``urocell``.
        source: a folder with the files as downloaded, or a zip archive of them.
        dataset_id: of the first data set, the others follow; None: the default IDs.
        structures: the data sets wanted of a benchmark that has several; None: all.
        protocol: ``clean``: unannotated voxels are ignored; ``paper``: they count as in the published numbers, and the
            data set is trained as in the released code.
        download: first fetch what is missing into ``source``.
        root: see ``write_raw_dataset``.
        overwrite: see ``write_raw_dataset``.
        progress: see ``write_raw_dataset``.

    Returns:
        The folders of the data sets, in the order of their IDs.

    Raises:
        RetinaError: for missing or damaged files, contents that are not the benchmark's, or a target in the way.
    """
    wanted = _wanted(benchmark, structures)
    source = Path(source)
    described = [
        spec(
            dataset,
            protocol,
            dataset_id=None if dataset_id is None else dataset_id + number,
            source=str(source) if len(datasets(benchmark)) == 1 else f"{source}: {structure}",
        )
        for number, (structure, dataset) in enumerate(wanted.items())
    ]
    for settings in described:
        check_target(root, settings.folder_name, overwrite)
    _check_source(benchmark, source, download)

    from dataset_conversion.writer.raw_dataset import write_raw_dataset

    find_contents: Callable[[Path, Sequence[str]], list[Contents]]
    find_contents = import_module(f"{__package__}.{benchmark}").find_contents
    return [
        write_raw_dataset(contents.complete(settings), contents.cases(settings), root, overwrite, progress)
        for settings, contents in zip(described, find_contents(source, list(wanted)), strict=True)
    ]


def _structures(benchmark: str) -> dict[str, BenchmarkDataset]:
    """Return the data sets by structure: ``lysosomes``, ``mitochondria``, ... for ``perez``."""
    return {dataset.key.removeprefix(f"{benchmark}_"): dataset for dataset in datasets(benchmark)}


def _wanted(benchmark: str, structures: Sequence[str] | None) -> dict[str, BenchmarkDataset]:
    known = _structures(benchmark)
    for structure in structures or ():
        if structure not in known:
            raise RetinaError(f"structure {structure!r}; expected one of {', '.join(known)}")
    return {name: dataset for name, dataset in known.items() if structures is None or name in structures}


def _check_source(benchmark: str, source: Path, download: bool) -> None:
    if download:
        from dataset_conversion.downloads import fetch

        fetch.fetch(benchmark, source, fetch.Arrivals())
    if not source.exists():
        raise RetinaError(
            f"{source} does not exist; expected a folder with the files as downloaded, or a zip archive of them. "
            "Correct the path, or add --download to fetch them there."
        )


def benchmark_command(benchmark: str, help: str, description: str) -> Command:
    """Return the subcommand of a benchmark.

    Args:
        benchmark: as for ``convert_benchmark``.
        help: one line.
        description: which files SOURCE holds; shown as it is laid out.
    """

    def run(arguments: argparse.Namespace, progress: CaseProgress | None) -> str:
        from dataset_conversion.writer.summary import summary

        folders = convert_benchmark(
            benchmark,
            arguments.source,
            arguments.id,
            structures=arguments.structure,
            protocol=arguments.protocol,
            download=arguments.download,
            overwrite=arguments.overwrite,
            progress=progress,
        )
        return "\n".join(map(summary, folders))

    return Command(help, description, lambda parser: _add_arguments(parser, benchmark), run)


def _add_arguments(parser: argparse.ArgumentParser, benchmark: str) -> None:
    structures = _structures(benchmark)
    default = ", ".join(str(dataset.id) for dataset in structures.values())
    parser.add_argument(
        "source", metavar="SOURCE", type=Path, help="folder with the files as downloaded, or a zip of them"
    )
    several = len(structures) > 1
    following = "; the structures chosen get consecutive IDs from here on" if several else ""
    parser.add_argument("-d", "--id", type=int, metavar="ID", help=f"data set ID (default {default}{following})")
    unannotated = next((dataset.unannotated for dataset in structures.values() if dataset.unannotated), None)
    trained = "trained with the schedule, patches, clipping and dropout of the paper's code"
    effect = f": {unannotated} are ignored; paper: counted as in the paper, and" if unannotated else "; paper:"
    parser.add_argument("--protocol", choices=PROTOCOLS, default="clean", help=f"default clean{effect} {trained}")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    parser.add_argument("--download", action="store_true", help="first fetch what is missing into SOURCE")
    parser.set_defaults(structure=None)
    if several:
        parser.add_argument(
            "--structure", nargs="+", choices=tuple(structures), metavar="NAME",
            help=f"write only these of {', '.join(structures)}",
        )  # fmt: skip
