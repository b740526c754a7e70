"""What frozen features know of a label: ridge regression from each 16 px cell's features to the label's share in it.

    python benchmarks/probe.py DATA [CHECKPOINT ...] --train 'images.02?' 'images.03[0-3]' --test 'images.036' ...

DATA holds ``images/`` and ``masks/``: grey images and label images of the same names, or of the same order. The
regression is fitted on 1 and on more labelled images, each number on several random subsets, and scored by its AUC on
the cells of images that it never saw: a cell counts as positive if at least half of it has the label. Its strength is
chosen within the training images, by folds of whole tiles. The same images are used for:

- the 256 pixels of a cell;
- a network at random initialisation: CNN at 1/4, 1/8 and 1/16, the tokens before and after the transformer;
- the same of each checkpoint (of ``retina_pretrain`` or of a training), and its tokens after blocks of random numbers;
- the ImageNet teacher of ``--arm distil`` at 1/8 and 1/16, if it is installed.

A transformer has learned something if its tokens are above those that enter it and those of random blocks, by more than
the subsets differ. Seconds a network on a CPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.io import imread
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.transunet import STRIDE, NetworkConfig, TransUNet
from nnunetv2_retina.weights.checkpoint import load
from nnunetv2_retina.wording import format_rows
from pretraining.objectives.teacher import efficientnet_lite0
from pretraining.objectives.tokens import patchify

TILE = 224
FOLDS = 4
STRENGTHS = 10.0 ** np.arange(-1, 7)
"""Of the ridge penalty, tried in the folds."""

Array = NDArray[np.float64]
Extract = Callable[[Tensor], Mapping[str, Tensor]]
"""Tiles (T, 1, 224, 224) to named features, (T, N, C) each, N cells in rows."""


class Cells:
    """The labels' shares in the cells of some images, and the images' tiles.

    Args:
        pairs: image and mask files.
        label: the class.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], label: int) -> None:
        self.names = [image.stem for image, _ in pairs]
        self.tiles, self.shares = [], []
        for image, mask in pairs:
            pixels = imread(image).astype(np.float32)
            marked = (imread(mask) == label).astype(np.float32)
            if pixels.shape != marked.shape or pixels.ndim != 2 or min(pixels.shape) < TILE:
                raise SystemExit(
                    f"{image} is {pixels.shape} and its mask {marked.shape}; expected equal, grey, {TILE} px"
                )
            self.tiles.append(cut((pixels - pixels.mean()) / max(float(pixels.std()), 1e-8)))
            self.shares.append(patchify(cut(marked)).mean(2).flatten().double().numpy())

    def where(self, patterns: Sequence[str]) -> list[int]:
        """Return the numbers of the images whose names fit a pattern."""
        fitting = [i for i, name in enumerate(self.names) if any(fnmatch(name, pattern) for pattern in patterns)]
        if not fitting:
            raise SystemExit(f"{patterns} fit no image; the names look like {self.names[0]}")
        return fitting


def cut(image: NDArray[np.float32]) -> Tensor:
    """Cut an image into tiles without overlap: (T, 1, 224, 224)."""
    rows, columns = (length // TILE for length in image.shape)
    whole = torch.from_numpy(image[: rows * TILE, : columns * TILE])
    return whole.reshape(rows, TILE, columns, TILE).transpose(1, 2).reshape(-1, 1, TILE, TILE)


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the image and mask files of a folder, matched by name, or else by order."""
    images, masks = (sorted(path for path in (folder / name).glob("*.*")) for name in ("images", "masks"))
    if not images or len(images) != len(masks):
        raise SystemExit(f"{folder}: {len(images)} files in images/, {len(masks)} in masks/; expected as many, not 0")
    return list(zip(images, masks, strict=True))


def pixels(tiles: Tensor) -> dict[str, Tensor]:
    """Return the pixels of each cell."""
    return {"pixels": patchify(tiles)}


def network_features(network: TransUNet, only: str | None = None) -> Extract:
    """Return what extracts a network's features; ``only`` those of this name."""
    network.eval()

    def extract(tiles: Tensor) -> dict[str, Tensor]:
        features, skips = network.cnn(tiles.expand(-1, 3, -1, -1))
        entering = network.embedding(features)
        named = {
            "CNN 1/4": to_cells(skips[1]),
            "CNN 1/8": to_cells(skips[0]),
            "CNN 1/16": to_cells(features),
            "tokens in": entering,
            "tokens out": network.transformer(entering),
        }
        return named if only is None else {only: named[only]}

    return extract


def to_cells(features: Tensor) -> Tensor:
    """Average a map over cells: (T, C, h, w) -> (T, N, C)."""
    return F.adaptive_avg_pool2d(features, TILE // STRIDE).flatten(2).transpose(1, 2)


def random_network(config: NetworkConfig, seed: int) -> TransUNet:
    """Return a network at its initialisation."""
    torch.manual_seed(seed)
    return TransUNet(1, 1, config)


def extractors(checkpoints: Sequence[Path], size: str, seed: int) -> Iterator[tuple[str, Extract]]:
    """Yield the name of each network, and what extracts its features."""
    yield "", pixels
    yield f"random {size}", network_features(random_network(NetworkConfig.named(size), seed))
    for path in checkpoints:
        loaded = load(path)
        network = random_network(NetworkConfig.from_dict(loaded.retina["network"]), seed)
        fitting = {name: value for name, value in loaded.weights.items() if ".seg_layers." not in name}
        network.load_state_dict(fitting, strict=False)
        name = path.parent.name if path.stem.startswith("checkpoint") else path.stem
        yield name, network_features(network)
        network.transformer = random_network(network.config, seed).transformer
        yield f"{name}, random blocks", network_features(network, "tokens out")
    try:
        teacher = efficientnet_lite0()
    except RetinaError:
        return
    yield "teacher", lambda tiles: dict(zip(("1/8", "1/16"), map(to_cells, teacher.features(tiles)), strict=True))


@torch.inference_mode()
def compute(extract: Extract, images: Sequence[Tensor]) -> dict[str, list[Array]]:
    """Return the features of every image by name, (cells, C) each."""
    named: dict[str, list[Array]] = {}
    for tiles in images:
        for name, values in extract(tiles).items():
            named.setdefault(name, []).append(values.flatten(0, 1).double().numpy())
    return named


def fit(features: Array, target: Array) -> tuple[Array, Array]:
    """Fit a ridge regression whose strength has the least squared error over folds of whole tiles.

    Args:
        features: (cells, C).
        target: (cells,).

    Returns:
        Weights (C,), and the offset, ().
    """
    mean, std = features.mean(0), features.std(0) + 1e-9
    scaled, centred = (features - mean) / std, target - target.mean()
    fold = np.arange(len(target)) // (TILE // STRIDE) ** 2 % FOLDS
    parts = [(scaled[fold == number], centred[fold == number]) for number in range(FOLDS)]
    squares = np.stack([inputs.T @ inputs for inputs, _ in parts])
    products = np.stack([inputs.T @ wanted for inputs, wanted in parts])
    errors = np.zeros(len(STRENGTHS))
    for (inputs, wanted), square, product in zip(parts, squares, products, strict=True):
        weights = solve(squares.sum(0) - square, products.sum(0) - product, STRENGTHS)
        errors += np.square(inputs @ weights - wanted[:, None]).sum(0)
    weights = solve(squares.sum(0), products.sum(0), STRENGTHS[errors.argmin()][None])[:, 0] / std
    return weights, target.mean() - mean @ weights


def solve(square: Array, product: Array, strengths: Array) -> Array:
    """Solve (square + strength) w = product for every strength: (C, S)."""
    values, vectors = np.linalg.eigh(square)
    return vectors @ ((vectors.T @ product)[:, None] / (values.clip(0)[:, None] + strengths))


def auc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive cell has a higher score than another."""
    count = int(positive.sum())
    ranks = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(ranks / (count * (len(positive) - count)))


def probe(features: Sequence[Array], shares: Sequence[Array], train: Sequence[int], test: Sequence[int]) -> float:
    """Return the AUC on the test images of a regression fitted on the training images."""
    inputs, target = (np.concatenate([values[i] for i in train]) for values in (features, shares))
    weights, offset = fit(inputs, target)
    held_out = np.concatenate([features[i] for i in test])
    return auc(held_out @ weights + offset, np.concatenate([shares[i] for i in test]) >= 0.5)


def draw_subsets(cells: Cells, train: Sequence[int], count: int, number: int, seed: int) -> list[list[int]]:
    """Draw different random subsets of ``count`` training images that have the label somewhere."""
    labelled = [i for i in train if (cells.shares[i] >= 0.5).any()]
    rng = np.random.default_rng([seed, count])
    drawn = {tuple(sorted(rng.choice(labelled, min(count, len(labelled)), replace=False))) for _ in range(20 * number)}
    return [list(map(int, subset)) for subset in sorted(drawn, key=lambda _: rng.random())[:number]]


def arguments() -> argparse.Namespace:
    """Return the parsed options."""
    parser = argparse.ArgumentParser(description="Probe frozen features with ridge regression.")
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder with images/ and masks/")
    add("checkpoints", type=Path, nargs="*", metavar="CHECKPOINT")
    add("--train", nargs="+", default=["*"], metavar="PATTERN", help="names of images to fit on (default: all others)")
    add("--test", nargs="+", required=True, metavar="PATTERN", help="names of images to score on")
    add("--label", type=int, default=1, metavar="N", help="class in the masks (default 1)")
    add("--labelled", type=int, nargs="+", default=[1, 5], metavar="N", help="training images (default 1 5)")
    add("--subsets", type=int, default=3, metavar="N", help="random subsets of each number (default 3)")
    add("--size", default="tiny", help="of the random network (default tiny)")
    add("--seed", type=int, default=0)
    add("-o", "--output", type=Path, metavar="FILE", help="write the scores as JSON")
    return parser.parse_args()


def main() -> None:
    """Print a table: a row a kind of features, a column a number of labelled images."""
    args = arguments()
    pairs = find_pairs(args.data)
    cells = Cells(
        [pair for pair in pairs if any(fnmatch(pair[0].stem, p) for p in (*args.train, *args.test))], args.label
    )
    test = cells.where(args.test)
    train = [i for i in cells.where(args.train) if i not in test]
    subsets = {count: draw_subsets(cells, train, count, args.subsets, args.seed) for count in args.labelled}
    print(
        f"{len(train)} images to fit on, {len(test)} to score on; AUC: mean (least to most of the subsets)", flush=True
    )
    scores: dict[str, dict[int, list[float]]] = {}
    rows = [["features", *(f"{count} labelled" for count in subsets)]]
    for name, extract in extractors(args.checkpoints, args.size, args.seed):
        for kind, features in compute(extract, cells.tiles).items():
            title = f"{name}: {kind}" if name else kind
            scores[title] = {
                count: [probe(features, cells.shares, subset, test) for subset in drawn]
                for count, drawn in subsets.items()
            }
            rows.append([title, *(f"{np.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in scores[title].values())])
    print("\n".join(format_rows(rows)))
    if args.output:
        args.output.write_text(json.dumps({"subsets": subsets, "auc": scores}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
