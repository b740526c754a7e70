"""What the score of a trained TransUNet hangs on: its transformer blocks, their attention, the deep features at all.

    python benchmarks/ablation.py -m MODEL_FOLDER [MODEL_FOLDER ...] -i IMAGES -l LABELS [-f 0] [-device cpu]

Every model predicts the images as it is, and with a part of it switched off, nothing being trained anew: ``no blocks``
hands the tokens past the transformer's blocks to its last norm, ``no attention`` leaves the blocks nothing but their
MLPs, ``skips alone`` replaces every token by the mean over the patch, so that the decoder sees where something is
through the CNN's skip connections alone. Prints the data set's IoU for each. Give validation images, not test images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.output import as_json
from nnunetv2_retina.network import TransUNet
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.prediction.folder import FolderRun
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings, RunSettings


def no_blocks(network: TransUNet) -> None:
    """Hand the tokens past the blocks."""
    network.transformer.forward = network.transformer.norm.forward


def no_attention(network: TransUNet) -> None:
    """Leave each block its MLP."""
    for block in network.transformer.blocks:
        block.attn.forward = torch.zeros_like


def skips_alone(network: TransUNet) -> None:
    """Take the place out of the deep features."""
    transformer = network.transformer.forward

    def mean_token(tokens: Tensor) -> Tensor:  # (B, N, D)
        return transformer(tokens).mean(dim=1, keepdim=True).expand_as(tokens)

    network.transformer.forward = mean_token


VARIANTS: dict[str, Callable[[TransUNet], None]] = {
    "intact": lambda network: None,
    "no blocks": no_blocks,
    "no attention": no_attention,
    "skips alone": skips_alone,
}


def changed(predictor: Predictor, variant: str) -> Predictor:
    """Return a predictor whose network has a part switched off, made anew: it predicts with a copy of the network."""
    VARIANTS[variant](predictor.nnunet.network)
    return Predictor(predictor.nnunet, predictor.settings)


def score(model: Path, variant: str, options: argparse.Namespace) -> float | None:
    """IoU of the model with a part switched off."""
    settings = PredictionSettings(mirroring=False, step_size=options.step_size)
    predictor = Predictor.from_model_folder(model, [options.f], options.checkpoint, options.device, settings)
    predictor = changed(predictor, variant)
    with tempfile.TemporaryDirectory() as folder:
        FolderRun(predictor, options.i, Path(folder), RunSettings(), lambda line: None).run()
        found = evaluate(Path(folder), options.l, read_dataset_json(model))
    return as_json(found)["mean"]["iou"]


def main() -> None:
    """Print a table: one line a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", type=Path, nargs="+", required=True, help="folders of trained TransUNets")
    parser.add_argument("-i", type=Path, required=True, help="folder of images")
    parser.add_argument("-l", type=Path, required=True, help="folder of their labels")
    parser.add_argument("-f", default="0", help="fold; default: %(default)s")
    parser.add_argument("-device", default=None)
    parser.add_argument("--checkpoint", default="checkpoint_final.pth")
    parser.add_argument("--step_size", type=float, default=1.0)
    options = parser.parse_args()
    print("  ".join(f"{name:>12}" for name in VARIANTS))
    for model in options.m:
        scores = (score(model, variant, options) for variant in VARIANTS)
        print(
            "  ".join(f"{'undefined' if iou is None else f'{iou:.3f}':>12}" for iou in scores), f" {model}", flush=True
        )


if __name__ == "__main__":
    main()
