"""Whether a TransUNet's transformer has learned to look: how evenly its attention is spread over the tokens.

    python benchmarks/attention.py CHECKPOINT [CHECKPOINT ...] -i IMAGES

For the network at random initialisation, then for every checkpoint (of ``retina_pretrain`` or of a training), on
patches of 224 x 224 from the images:

- evenness of attention, block by block: the entropy of a token's attention weights as a share of its maximum, mean over
  tokens and heads. At 1 every token is given the same mean over the patch, whatever and wherever it is.
- standard deviation of the position embeddings, and of the tokens that they are added to.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread
from torch import Tensor

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.transunet import Attention
from nnunetv2_retina.weights.checkpoint import load

PATCH, GRID = 224, 3


def patches(folder: Path) -> Tensor:
    """(P, 1, 224, 224) float32: patches on a grid of every image, each image normalised by its mean and deviation."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        image = imread(path).astype(np.float32)
        if image.ndim != 2 or min(image.shape) < PATCH:
            raise SystemExit(f"{path}: shape {image.shape}; expected a grey image of at least {PATCH} x {PATCH}")
        image = (image - image.mean()) / max(image.std(), 1e-8)
        rows, columns = (np.linspace(0, length - PATCH, GRID).astype(int) for length in image.shape)
        found += [image[row : row + PATCH, column : column + PATCH] for row in rows for column in columns]
    if not found:
        raise SystemExit(f"{folder} holds no files; expected grey images")
    return torch.from_numpy(np.stack(found))[:, None]


def evenness(attention: Attention, x: Tensor) -> float:
    """Entropy of the attention weights as a share of its maximum, mean over tokens and heads.

    Args:
        attention: the layer.
        x: (B, N, D), what it is given.
    """
    query, key = (layer(x).unflatten(-1, (attention.num_heads, -1)) for layer in (attention.query, attention.key))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    logarithms = scores.log_softmax(-1)
    return float(-(logarithms.exp() * logarithms).sum(-1).mean() / math.log(x.shape[1]))


@torch.inference_mode()
def describe(network: TransUNet, images: Tensor) -> list[str]:
    """The line of a network."""
    even: list[float] = []
    for block in network.transformer.blocks:
        block.attn.register_forward_pre_hook(lambda layer, inputs: even.append(evenness(layer, inputs[0])))
    features, _ = network.eval().cnn(images.expand(-1, 3, -1, -1))
    tokens = network.embedding(features)
    network.transformer(tokens)
    position, token = network.embedding.pos_embed.std(), network.embedding.proj(features).std()
    return [
        " ".join(f"{value:.3f}" for value in even),
        f"{position:.3f} / {token:.2f}",
    ]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="all of one size")
    parser.add_argument("-i", type=Path, required=True, help="folder of grey images")
    options = parser.parse_args()
    images = patches(options.i)
    loaded = [load(path) for path in options.checkpoints]
    config = NetworkConfig.from_dict(loaded[0].retina["network"])
    print("evenness of attention | position embeddings / tokens")
    torch.manual_seed(0)
    print(*describe(TransUNet(1, 1, config), images), "random initialisation", sep="  |  ", flush=True)
    for found in loaded:
        outputs = next(value for name, value in found.weights.items() if ".seg_layers." in name).shape[0]
        network = TransUNet(1, outputs, config)
        network.load_state_dict(found.weights)
        print(*describe(network, images), found.path, sep="  |  ", flush=True)


if __name__ == "__main__":
    main()
