"""``retina_import_weights``: make a checkpoint of other weights; see ``nnunetv2_retina.weights.importing``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_retina import console
from nnunetv2_retina.console import say
from nnunetv2_retina.files import check_file


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_import_weights",
        "Turn weights of other origin into a checkpoint for nnUNetv2_train -pretrained_weights: published RETINA "
        "weights, the ImageNet-21k hybrid R50+ViT-B_16 (.npz of the authors, or timm's), a ResNet-50 of MoCo v2 "
        "(CEM500K's) or torchvision for the UNet-ResNet50, or a checkpoint of RETINA or nnU-Net with another position "
        "grid; PyTorch, .npz or .safetensors.",
    )
    parser.add_argument("source", type=Path, metavar="IN", help="the weights file")
    parser.add_argument("target", type=Path, metavar="OUT", help="the checkpoint to write, for example weights.pth")
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
    check_file(arguments.source, "weights file")

    from nnunetv2_retina.weights.importing import advise, import_weights
    from nnunetv2_retina.weights.translation import summarise

    imported = import_weights(arguments.source, arguments.target, arguments.overwrite, arguments.trust)
    say(f"{arguments.source}: {imported.kind}")
    for line in summarise(imported.steps):
        say(line)
    say(advise(imported))


main = console.command(parser, run)
