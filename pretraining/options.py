"""The options of ``retina_pretrain``, and what is made of them. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2_retina import console
from nnunetv2_retina.console import config_file
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError
from pretraining.augmentation.draws import AugmentationSettings
from pretraining.recipe import Execution, Recipe
from pretraining.recipes import OF_RECIPES, RECIPES, belongs, recipe_of, values_for
from pretraining.store.drawing import Drawing

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
SOURCE = "folder tree, .zip or .tar of images (TIFF, PNG, JPEG, NIfTI), or an OME-Zarr volume"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; those not given have the values of ``--config``, else those of the named recipe.

    A recipe that the command line names takes the place of what recipes set in the file, and of what its arm lacks.
    """
    configured = config_file.given(make_parser, arguments)
    named = any(argument.partition("=")[0] == "--recipe" for argument in arguments)
    if named:
        of_recipes = OF_RECIPES | {"recipe", "image_normalisation"}
        configured = {name: value for name, value in configured.items() if name not in of_recipes}
    recipe, arm = _chosen(configured, arguments)
    if named:
        configured = {name: value for name, value in configured.items() if belongs(name, arm)}
    parser = make_parser()
    normalised = _augmentation(recipe).normalisation == "image"
    parser.set_defaults(**{**values_for(recipe, arm), "arm": arm, "image_normalisation": normalised})
    config_file.apply(parser, configured)
    return parser.parse_args(arguments)


def _chosen(configured: Mapping[str, Any], arguments: Sequence[str]) -> tuple[str, str]:
    """Return the names of the recipe and of the arm, which may be another than the recipe's own."""
    parser = make_parser()
    parser.set_defaults(arm=None)
    config_file.apply(parser, configured)
    given = parser.parse_args(arguments)
    recipe = given.recipe or recipe_of(given.arm)
    return recipe, given.arm or RECIPES[recipe].get("arm", Recipe().arm)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser, whose defaults are the published recipe's."""
    parser = console.parser(
        "retina_pretrain", _DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, nargs="?", metavar="SOURCE", help=f"{SOURCE}, or a store")
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
        "--init", type=weights, metavar="FILE",
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
    add_packing(parser, images)
    return parser


def weights(text: str) -> str | Path:
    """Return a name of the catalogue as it is, and else a path."""
    from nnunetv2_retina.weights.catalogue import WEIGHTS

    return text if text in WEIGHTS else Path(text)


def add_packing(parser: argparse.ArgumentParser, images: argparse._ActionsContainer) -> None:
    """Add the options of packing, to a group of the parser or to itself."""
    images.add_argument(
        "--deduplicate", type=int, nargs="?", const=12, metavar="BITS",
        help="drop images within so many of 64 bits (default 12) of an earlier one of the same source",
    )  # fmt: skip
    images.add_argument(
        "--max-rejected", type=float, default=5, metavar="PERCENT",
        help="stop if more files than this cannot be used (default 5)",
    )  # fmt: skip
    console.add_settings(parser.add_argument_group("crops drawn from an OME-Zarr volume"), Drawing)


def read_recipe(args: argparse.Namespace) -> Recipe:
    """Return what defines the weights, but for the fingerprint of those to start from."""
    augmentation = _augmentation(args.recipe or recipe_of(args.arm))
    augmentation = replace(augmentation, normalisation="image" if args.image_normalisation else "published")
    exclude = _patterns(args.exclude) if args.exclude else ()
    return console.read_settings(Recipe, args, exclude=exclude, augmentation=augmentation)


def _augmentation(recipe: str) -> AugmentationSettings:
    settings: AugmentationSettings = RECIPES[recipe].get("augmentation", AugmentationSettings())
    return settings


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


def packing(args: argparse.Namespace, bar: ProgressBar) -> dict[str, Any]:
    """Return the options of ``pack``."""
    return {
        "deduplicate": args.deduplicate,
        "max_rejected": args.max_rejected / 100,
        "progress": bar.update,
        "drawing": console.read_settings(Drawing, args),
    }
