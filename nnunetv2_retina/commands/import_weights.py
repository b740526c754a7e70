"""``retina_import_weights``: make a checkpoint of other weights; see ``nnunetv2_retina.weights.importing``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_retina import console
from nnunetv2_retina.commands import named_weights
from nnunetv2_retina.console import say
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_file
from nnunetv2_retina.weights.catalogue import WEIGHTS, nearest


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_import_weights",
        "Turn weights of other origin into a checkpoint for nnUNetv2_train -pretrained_weights: published RETINA "
        "weights, the ImageNet-21k hybrid R50+ViT-B_16 (.npz of the authors, or timm's), a ResNet-50 of MoCo v2 "
        "(CEM500K's) or torchvision for the UNet-ResNet50, or a checkpoint of RETINA or nnU-Net with another position "
        "grid; PyTorch, .npz or .safetensors.",
    )
    parser.add_argument("source", type=Path, nargs="?", metavar="IN", help="the weights file, or a name of --list")
    parser.add_argument(
        "target", type=Path, nargs="?", metavar="OUT",
        help="the checkpoint to write, for example weights.pth; not needed for a name, which then stands for the "
        "weights wherever weights are asked for",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="weights with a name: licence, where from, whether here")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let IN run code while it is read, as some old files need: only if you trust whoever made it",
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Import as the options say.

    Raises:
        RetinaError: for a file that cannot be read, is not known, or cannot be written.
    """
    if arguments.list:
        for line in named_weights.table():
            say(line)
        return
    source, target, overwrite = _files(arguments)
    check_file(source, "weights file")

    from nnunetv2_retina.weights.importing import advise, import_weights
    from nnunetv2_retina.weights.translation import summarise

    imported = import_weights(source, target, overwrite, arguments.trust)
    say(f"{source}: {imported.kind}")
    for line in summarise(imported.steps):
        say(line)
    say(advise(imported))


def _files(arguments: argparse.Namespace) -> tuple[Path, Path, bool]:
    """Return what to read, what to write, and whether to write over it."""
    if arguments.source is None:
        raise RetinaError("which weights? Give IN and OUT, or a name; --list lists the names")
    name = str(arguments.source)
    entry = WEIGHTS.get(name)
    if entry is None:
        if arguments.target is None:
            raise RetinaError(
                f"no weights are called {arguments.source}, and OUT is not given. {nearest(str(arguments.source))}"
            )
        return arguments.source, arguments.target, arguments.overwrite
    if entry.shipped is None:
        return (
            named_weights.published_file(entry),
            arguments.target or entry.path,
            not arguments.target or arguments.overwrite,
        )
    if arguments.target is None:
        raise RetinaError(
            f"the weights {entry.name} come with the package: nothing is to be fetched. To copy them, give OUT"
        )
    return entry.shipped, arguments.target, arguments.overwrite


main = console.command(parser, run)
