"""The command ``retina_pretrain``: arguments in, one function call each. ``--help`` imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nnunetv2_retina import console
from nnunetv2_retina.console import config_file
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.datasets import RAW, find_dataset
from pretraining.recipe import RECIPES, Execution, Recipe, recipe_of
from pretraining.store.drawing import Drawing

STOPPED = 75
"""Exit status of a run that a signal stopped: a temporary failure, the same command continues."""

_DESCRIPTION = """\
Pre-train a TransUNet on electron-microscopy images without labels, by restoring masked and degraded images (RETINA;
Xing, Xie, Bader, PLoS Comput Biol 2025). The defaults are the published recipe. The same command continues a run that
was stopped or killed. Also:

  retina_pretrain pack SOURCE STORE    prepare the images alone: once, for several runs or machines
  retina_pretrain verify STORE         read every packed image and compare it with its checksum
  retina_pretrain look WEIGHTS SOURCE PICTURE.png    draw what weights restore of images, or tell apart in them
"""
_EPILOG = """\
In the output folder: checkpoint_final.pth (for nnUNetv2_train -pretrained_weights), checkpoint_latest.pth, log.jsonl,
progress.png, reconstructions_*.png. Several machines: start it with torchrun on each.
"""
_SOURCE = "folder tree, .zip or .tar of images (TIFF, PNG, JPEG, NIfTI), or an OME-Zarr volume"


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
    return console.run(lambda: _run(_parse(arguments), arguments))


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
    from pretraining.store.collection import collect

    return collect(folder / IMAGES, args.dataset, args.also, args.with_test)


def _run_on(args: argparse.Namespace, arguments: Sequence[str], settings: Mapping[str, Any]) -> int:
    """Run with the source found; ``settings`` are the options as they were parsed."""
    _check_source(args.source, console.read_settings(Drawing, args))
    recipe, execution = _recipe(args), console.read_settings(Execution, args)
    if execution.probe:
        find_dataset(execution.probe, RAW)

    import torch

    from pretraining.job import Job, dry_run, pretrain
    from pretraining.loop.processes import Processes, start_several

    job = Job(
        source=args.source, output=args.output, store=args.store, init=args.init, recipe=recipe, execution=execution,
        packing=_packing(args, ProgressBar("packing", unit="files")),
    )  # fmt: skip
    if args.dry_run:
        dry_run(job, _say)
        return 0
    if args.num_gpus < 1:
        raise RetinaError(f"--num-gpus is {args.num_gpus}; expected at least 1, or leave it out")
    if args.num_gpus > 1 and "WORLD_SIZE" not in os.environ:
        Processes(torch.device("cpu"), count=args.num_gpus).share(recipe.batch_size, recipe.normed_together)
        start_several(args.num_gpus, arguments)

    def begun() -> None:
        config_file.write(args.output, _parser(), settings, leave_out=("output", "dry_run"))

    outcome = pretrain(job, _say, begun)
    if int(os.environ.get("RANK", "0")) == 0:
        console.say(str(outcome.checkpoint))
    return STOPPED if outcome.stopped else 0


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


def _recipe(args: argparse.Namespace) -> Recipe:
    augmentation = RECIPES[args.recipe or recipe_of(args.arm)].get("augmentation", Recipe().augmentation)
    if args.image_normalisation:
        augmentation = replace(augmentation, normalisation="image")
    exclude = _patterns(args.exclude) if args.exclude else ()
    return console.read_settings(Recipe, args, exclude=exclude, augmentation=augmentation)


def _patterns(path: Path) -> tuple[str, ...]:
    """Return the lines of a file that are neither empty nor comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RetinaError(f"--exclude: {path} cannot be read as a text file ({error})") from error
    patterns = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not patterns:
        raise RetinaError(f"--exclude: {path} holds no pattern; expected one a line, such as cremi*")
    return patterns


def _packing(args: argparse.Namespace, bar: ProgressBar) -> dict[str, Any]:
    return {
        "deduplicate": args.deduplicate,
        "max_rejected": args.max_rejected / 100,
        "progress": bar.update,
        "drawing": console.read_settings(Drawing, args),
    }


def _say(text: str) -> None:
    console.say(text, sys.stderr)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; those not given have the values of ``--config``, else those of the named recipe.

    A recipe that the command line names takes the place of the file's.
    """
    parser, configured = _parser(), config_file.given(_parser, arguments)
    if any(argument.partition("=")[0] == "--recipe" for argument in arguments):
        of_recipe = {"recipe", "image_normalisation", *(entry.name for entry in fields(Recipe))}
        configured = {name: value for name, value in configured.items() if name not in of_recipe}
    config_file.apply(parser, configured)
    given = parser.parse_args(arguments)
    values = {**RECIPES[given.recipe or recipe_of(given.arm)]}
    augmentation = values.pop("augmentation", Recipe().augmentation)
    parser.set_defaults(**values, image_normalisation=augmentation.normalisation == "image")
    config_file.apply(parser, configured)
    return parser.parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "retina_pretrain", _DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, nargs="?", metavar="SOURCE", help=f"{_SOURCE}, or a store")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the run")

    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--recipe", choices=tuple(RECIPES),
        help="where the defaults below come from: the RETINA paper, or what suits an arm (default: published; mae and "
        "simclr with these arms, which are the recipes of their own papers)",
    )  # fmt: skip
    console.add_settings(recipe, Recipe)
    recipe.add_argument(
        "--image-normalisation", action="store_true", help="normalise each image by its own mean and deviation"
    )
    recipe.add_argument(
        "--init", type=_weights, metavar="FILE",
        help="weights to start from: a checkpoint, what retina_import_weights reads, or a name of its --list",
    )  # fmt: skip

    execution = parser.add_argument_group("execution (may change when a run is continued)")
    execution.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="processes on this machine, one a GPU (default 1)"
    )
    console.add_settings(execution, Execution)
    config_file.add_option(execution)
    execution.add_argument(
        "--dry-run", action="store_true", help="check everything, estimate the time, and write nothing"
    )

    images = parser.add_argument_group("images")
    images.add_argument(
        "--dataset", nargs="+", default=[], metavar="ID",
        help="instead of SOURCE: the training images of data sets in $nnUNet_raw, numbers or names",
    )  # fmt: skip
    images.add_argument(
        "--also", nargs="+", type=Path, default=[], metavar="FOLDER", help="with --dataset: folders of further images"
    )
    images.add_argument("--with-test", action="store_true", help="with --dataset: its test images, too")
    images.add_argument("--exclude", type=Path, metavar="FILE", help="patterns of image names to leave out, one a line")
    images.add_argument("--store", type=Path, metavar="FOLDER", help="where packed images go (default: beside SOURCE)")
    _add_packing(parser, images)
    return parser


def _weights(text: str) -> str | Path:
    """Return a name of the catalogue as it is, and else a path."""
    from nnunetv2_retina.weights.catalogue import WEIGHTS

    return text if text in WEIGHTS else Path(text)


def _add_packing(parser: argparse.ArgumentParser, images: argparse._ActionsContainer) -> None:
    images.add_argument(
        "--deduplicate", type=int, nargs="?", const=12, metavar="BITS",
        help="drop images within so many of 64 bits (default 12) of an earlier one of the same source",
    )  # fmt: skip
    images.add_argument(
        "--max-rejected", type=float, default=5, metavar="PERCENT",
        help="stop if more files than this cannot be used (default 5)",
    )  # fmt: skip
    console.add_settings(parser.add_argument_group("crops drawn from an OME-Zarr volume"), Drawing)


def _pack(arguments: Sequence[str]) -> int:
    parser = console.parser("retina_pretrain pack", "Pack images for fast random access.")
    parser.add_argument("source", type=Path, metavar="SOURCE", help=_SOURCE)
    parser.add_argument("store", type=Path, metavar="STORE", help="folder to write; an unfinished one is continued")
    _add_packing(parser, parser)
    args = parser.parse_args(arguments)

    def run() -> None:
        from pretraining.store.packing import pack

        with ProgressBar("packing", unit="files") as bar:
            store = pack(args.source, args.store, **_packing(args, bar))
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
        "weights", type=_weights, metavar="WEIGHTS", help="a file, or a name of retina_import_weights --list"
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder tree, .zip or .tar of images")
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
