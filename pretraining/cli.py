"""The command ``retina_pretrain``: arguments in, one function call each. ``--help`` imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_retina import console
from nnunetv2_retina.console import config_file
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.datasets import RAW, find_dataset
from pretraining.options import SOURCE, add_packing, make_parser, packing, parse, read_recipe, weights
from pretraining.recipe import Execution
from pretraining.store.drawing import Drawing

if TYPE_CHECKING:
    from pretraining.job import Job

STOPPED = 75
"""Exit status of a run that a signal stopped: a temporary failure, the same command continues."""

IMAGES = "images"
"""Folder of links in the output folder, for ``--dataset``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``retina_pretrain`` and return the exit status: 75 if a signal stopped it, else as ``console.run``."""
    console.hide_deprecations(argv)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["pack"]:
        return _pack(arguments[1:])
    if arguments[:1] == ["verify"]:
        return _verify(arguments[1:])
    if arguments[:1] == ["look"]:
        return _look(arguments[1:])
    return console.run(lambda: _run(parse(arguments), arguments))


def _run(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    settings = dict(vars(args))
    if args.dataset and args.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            args.source = _source(args, Path(folder))
            return _run_on(args, arguments, settings)
    args.source = _source(args, args.output)
    return _run_on(args, arguments, settings)


def _source(args: argparse.Namespace, folder: Path) -> Path:
    """Return SOURCE, or the folder of links, inside another, to what is named instead."""
    if bool(args.dataset) == (args.source is not None):
        got = "both SOURCE and --dataset" if args.dataset else "neither SOURCE nor --dataset"
        raise RetinaError(f"got {got}; expected one of them. Name a folder of images, or data sets in $nnUNet_raw")
    if args.source is not None:
        if args.also or args.with_test:
            raise RetinaError("--also and --with-test go with --dataset, and SOURCE was given. Name the data sets")
        source: Path = args.source
        return source
    from pretraining.loop.output import check_apart
    from pretraining.store.collection import collect, find_groups

    groups = find_groups(args.dataset, args.also, args.with_test)
    check_apart(args.output, groups.values())
    return collect(folder / IMAGES, groups)


def _run_on(args: argparse.Namespace, arguments: Sequence[str], settings: Mapping[str, Any]) -> int:
    """Run with the source found; ``settings`` are the options as they were parsed."""
    _check_source(args.source, console.read_settings(Drawing, args))
    job = _job(args)
    several = args.num_gpus if "WORLD_SIZE" not in os.environ else 1

    from pretraining.dry_run import dry_run
    from pretraining.job import pretrain
    from pretraining.loop.processes import CPU, Processes, start_several

    Processes(CPU, count=several).share(job.recipe.batch_size, job.recipe.normed_together)
    if args.dry_run:
        dry_run(job, _say, several)
        return 0
    if several > 1:
        start_several(several, arguments)

    def begun() -> None:
        config_file.write(args.output, make_parser(), settings, leave_out=("output", "dry_run"))

    outcome = pretrain(job, _say, begun)
    if int(os.environ.get("RANK", "0")) == 0:
        console.say(str(outcome.checkpoint))
    return STOPPED if outcome.stopped else 0


def _job(args: argparse.Namespace) -> Job:
    """Return what is asked for; what can be checked without torch is."""
    recipe, execution = read_recipe(args), console.read_settings(Execution, args)
    if execution.probe:
        find_dataset(execution.probe, RAW)
    if args.num_gpus < 1:
        raise RetinaError(f"--num-gpus is {args.num_gpus}; expected at least 1, or leave it out")

    from pretraining.job import Job

    return Job(
        source=args.source, output=args.output, store=args.store, init=args.init, recipe=recipe, execution=execution,
        packing=packing(args, ProgressBar("packing", unit="files")),
    )  # fmt: skip


def _check_source(source: Path, drawing: Drawing) -> None:
    """Refuse a source without images before torch is imported and a network built.

    Raises:
        RetinaError: if the source is missing, has no file with an image's ending, or nothing can be drawn from it.
    """
    from pretraining.store.archives import open_source
    from pretraining.store.cache import is_store
    from pretraining.store.packing_errors import no_images
    from pretraining.store.sources import IMAGE_ENDINGS

    if is_store(source):
        if drawing != Drawing():
            raise RetinaError(
                f"{source} is a store: its crops are drawn. Leave out --crops, --level, --box, --crop-seed"
            )
        return
    if not any(file.ending in IMAGE_ENDINGS for file in open_source(source, drawing)):
        raise RetinaError(no_images(open_source(source)))


def _say(text: str) -> None:
    console.say(text, sys.stderr)


def _pack(arguments: Sequence[str]) -> int:
    parser = console.parser("retina_pretrain pack", "Pack images for fast random access.")
    parser.add_argument("source", type=Path, metavar="SOURCE", help=SOURCE)
    parser.add_argument("store", type=Path, metavar="STORE", help="folder to write; an unfinished one is continued")
    add_packing(parser, parser)
    args = parser.parse_args(arguments)

    def run() -> None:
        from pretraining.store.packing import pack

        with ProgressBar("packing", unit="files") as bar:
            store = pack(args.source, args.store, **packing(args, bar))
        _say(f"{len(store):,} images of {len(store.groups)} sources; what was left out: {store.path / 'rejected.csv'}")
        console.say(str(store.path))

    return console.run(run)


def _verify(arguments: Sequence[str]) -> int:
    parser = console.parser("retina_pretrain verify", "Read and check every packed image.")
    parser.add_argument("store", type=Path, metavar="STORE")
    args = parser.parse_args(arguments)

    def run() -> None:
        from pretraining.store.reader import ImageStore

        store = ImageStore(args.store)
        with ProgressBar("reading", unit="images") as bar:
            store.verify(bar.update)
        console.say(f"{len(store):,} images are as they were packed")

    return console.run(run)


def _look(arguments: Sequence[str]) -> int:
    parser = console.parser(
        "retina_pretrain look",
        "Draw what weights make of a few images before they see a label: degraded images and what is restored of them; "
        "of weights whose decoder was never trained, as by distillation, the tokens in colours.",
    )
    parser.add_argument(
        "weights", type=weights, metavar="WEIGHTS", help="a file, or a name of retina_import_weights --list"
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=f"{SOURCE}, or a store")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="the .png file to write")
    args = parser.parse_args(arguments)

    def run() -> None:
        _check_source(args.source, Drawing())

        from pretraining.look import look

        console.say(look(args.weights, args.source, args.picture))
        console.say(str(args.picture))

    return console.run(run)


if __name__ == "__main__":
    sys.exit(main())
