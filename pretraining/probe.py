"""What frozen features know of a label: ridge regression from each 16 px cell's features to the label's share in it.

The regression is fitted on few labelled images and scored by its AUC on the cells of images that it never saw: a cell
counts as positive if at least half of it has the label. Its strength is chosen within the training images, by folds of
whole tiles, or of bands of cells where there are fewer tiles than folds. A transformer has learned something if its
tokens score above those that enter it. Takes seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_folder
from nnunetv2_retina.network.transunet import STRIDE, TransUNet
from nnunetv2_retina.nnunet.datasets import IMAGES_TR, LABELS_TR, RAW, find_dataset, read_dataset_json
from pretraining.objectives.tokens import patchify
from pretraining.store.decoding import RejectionError, decode

TILE = 224
FOLDS = 4
STRENGTHS = 10.0 ** np.arange(-1, 7)
"""Strengths of the ridge penalty that the folds try."""
SECTIONS = 8
"""Labelled sections of a data set that a probe uses during a pre-training."""
SUBSETS = 3

Array = NDArray[np.float64]
Extract = Callable[[Tensor], Mapping[str, Tensor]]
"""Tiles (T, 1, 224, 224) to named features, (T, N, C) each, N cells in rows."""


class Cells:
    """The labels' shares in the cells of some sections, and the sections' tiles.

    Args:
        sections: name, grey levels and labels, (Y, X) each, 224 px and more.
        label: the class.
    """

    def __init__(self, sections: Sequence[tuple[str, NDArray[np.float32], NDArray[np.int64]]], label: int) -> None:
        self.names = [name for name, _, _ in sections]
        self.tiles: list[Tensor] = []
        self.shares: list[Array] = []
        for _, grey, labels in sections:
            self.tiles.append(cut((grey - grey.mean()) / max(float(grey.std()), 1e-8)))
            self.shares.append(shares_of(labels, label))

    def where(self, patterns: Sequence[str]) -> list[int]:
        """Return the numbers of the sections whose names fit a pattern."""
        return [i for i, name in enumerate(self.names) if any(fnmatch(name, pattern) for pattern in patterns)]


def shares_of(labels: NDArray[Any], label: int) -> Array:
    """Return the share of a class in each cell of the tiles of a label image, (cells,)."""
    shares: Array = patchify(cut((labels == label).astype(np.float32))).mean(2).flatten().double().numpy()
    return shares


def is_positive(shares: Array) -> NDArray[np.bool_]:
    """Tell which cells count as having the class."""
    return np.asarray(shares >= 0.5)


class DatasetProbe:
    """A probe on labelled sections of an nnU-Net data set, for measurements during a pre-training.

    Of up to eight sections that hold the label, evenly over the data set, every other one is scored, and the regression
    is fitted on one of the rest at a time.

    Args:
        dataset: number or name of a data set in ``$nnUNet_raw``.
        label: the class.

    Raises:
        RetinaError: if it is not there, cannot be read, or has fewer than four sections with the label.
    """

    def __init__(self, dataset: str, label: int = 1) -> None:
        folder = find_dataset(dataset, RAW)
        holding = list(_holding(folder, label))
        chosen = sorted({round(place) for place in np.linspace(0, len(holding) - 1, SECTIONS)} if holding else ())
        if len(chosen) < 4:
            raise RetinaError(
                f"--probe {dataset}: label {label} fills half a cell of {STRIDE} x {STRIDE} px in {len(chosen)} "
                f"labelled sections of at least {TILE} x {TILE} px; expected 4 and more. Name another data set, or "
                "another class with --probe-label"
            )
        pages = groupby((holding[i] for i in chosen), key=itemgetter(0))
        files = ((name, [number for _, number in group]) for name, group in pages)
        self.cells = Cells([section for name, numbers in files for section in _sections(folder, name, numbers)], label)
        self.test = list(range(1, len(chosen), 2))
        self.subsets = [[i] for i in range(0, len(chosen), 2)][:SUBSETS]
        check_both(self.cells, self.test, f"--probe {dataset}")

    def measure(self, network: TransUNet, device: torch.device) -> dict[str, float]:
        """Return the mean AUC after one labelled section, by name of the features; the network's mode is kept."""
        training = network.training
        tiles = [tiles.to(device) for tiles in self.cells.tiles]
        features = compute(network_features(network), tiles)
        network.train(training)
        return {
            f"probe_{name.replace(' ', '_').lower()}": float(
                np.mean([probe(features[name], self.cells.shares, subset, self.test) for subset in self.subsets])
            )
            for name in ("CNN 1/16", "tokens in", "tokens out")
        }


def check_both(cells: Cells, sections: Sequence[int], source: str) -> None:
    """Check that some cells of sections have the class and some have not, without which nothing can be scored.

    Raises:
        RetinaError: naming the source.
    """
    positive = is_positive(np.concatenate([cells.shares[i] for i in sections]))
    if positive.all() or not positive.any():
        raise RetinaError(
            f"{source}: of {len(positive)} cells of {STRIDE} x {STRIDE} px to score on, {positive.sum()} have the "
            "label in half of them or more; expected some with it and some without. Choose other images, or another "
            "class"
        )


def _holding(folder: Path, label: int) -> Iterator[tuple[str, int]]:
    """Yield each case and the page of its labels that hold a class in a cell, one image in memory at a time."""
    ending = read_dataset_json(folder)["file_ending"]
    for path in sorted(check_folder(folder / LABELS_TR, "folder of labels").iterdir()):
        if not path.name.endswith(ending) or path.name.startswith("."):
            continue  # such as the voxel sizes that nnU-Net keeps beside a TIFF
        for number, page in enumerate(_pages(path, labels=True)):
            if min(page.shape) >= TILE and is_positive(shares_of(page, label)).any():
                yield path.name.removesuffix(ending), number


def _sections(
    folder: Path, case: str, numbers: Sequence[int]
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.int64]]]:
    """Yield some pages of a case, which is read once."""
    ending = read_dataset_json(folder)["file_ending"]
    image = folder / IMAGES_TR / f"{case}_0000{ending}"
    all_labels, all_grey = _pages(folder / LABELS_TR / f"{case}{ending}", labels=True), _pages(image)
    if len(all_labels) != len(all_grey):
        raise RetinaError(
            f"--probe: {image} has {len(all_grey)} pages and its labels {len(all_labels)}; expected as many of both"
        )
    for number in numbers:
        labels, grey = all_labels[number], all_grey[number]
        if labels.shape != grey.shape:
            raise RetinaError(f"--probe: {image} is {grey.shape} and its labels {labels.shape}; expected equal shapes")
        yield f"{case} {number}", grey.astype(np.float32), labels.astype(np.int64)


def _pages(path: Path, labels: bool = False) -> list[NDArray[Any]]:
    try:
        return decode(path.read_bytes(), labels)
    except (OSError, RejectionError) as error:
        raise RetinaError(f"--probe: {path} cannot be read ({error}). Repair it, or leave --probe out") from error


def cut(image: NDArray[np.float32]) -> Tensor:
    """Cut an image into tiles without overlap: (T, 1, 224, 224)."""
    rows, columns = (length // TILE for length in image.shape)
    whole = torch.from_numpy(image[: rows * TILE, : columns * TILE])
    return whole.reshape(rows, TILE, columns, TILE).transpose(1, 2).reshape(-1, 1, TILE, TILE)


def network_features(network: TransUNet, only: str | None = None) -> Extract:
    """Return a function that extracts a network's features, or ``only`` those of one name."""
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


@torch.inference_mode()
def compute(extract: Extract, images: Sequence[Tensor]) -> dict[str, list[Array]]:
    """Return the features of every image by name, (cells, C) each."""
    named: dict[str, list[Array]] = {}
    for tiles in images:
        for name, values in extract(tiles).items():
            named.setdefault(name, []).append(values.flatten(0, 1).double().cpu().numpy())
    return named


def fit(features: Array, target: Array) -> tuple[Array, Array]:
    """Fit a ridge regression whose strength has the least squared error over folds.

    Args:
        features: (cells, C).
        target: (cells,).

    Returns:
        Weights (C,), and the offset, ().
    """
    mean, std = features.mean(0), features.std(0) + 1e-9
    scaled, centred = (features - mean) / std, target - target.mean()
    fold = folds(len(target))
    parts = [(scaled[fold == number], centred[fold == number]) for number in range(FOLDS)]
    squares = np.stack([inputs.T @ inputs for inputs, _ in parts])
    products = np.stack([inputs.T @ wanted for inputs, wanted in parts])
    errors = np.zeros(len(STRENGTHS))
    for (inputs, wanted), square, product in zip(parts, squares, products, strict=True):
        weights = solve(squares.sum(0) - square, products.sum(0) - product, STRENGTHS)
        errors += np.square(inputs @ weights - wanted[:, None]).sum(0)
    weights = solve(squares.sum(0), products.sum(0), STRENGTHS[errors.argmin()][None])[:, 0] / std
    return weights, target.mean() - mean @ weights


def folds(cells: int) -> NDArray[np.int64]:
    """Return the fold of each cell, (cells,): that of its tile, or with fewer tiles than folds of a band of rows."""
    side = TILE // STRIDE
    tile, row = np.arange(cells) // side**2, np.arange(cells) // side
    return tile % FOLDS if cells >= FOLDS * side**2 else row * FOLDS * side // cells


def solve(square: Array, product: Array, strengths: NDArray[Any]) -> Array:
    """Solve (square + strength) w = product for every strength: (C, S)."""
    values, vectors = np.linalg.eigh(square)
    weights: Array = vectors @ ((vectors.T @ product)[:, None] / (values.clip(0)[:, None] + strengths))
    return weights


def auc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive cell has a higher score than another.

    Raises:
        RetinaError: if all cells are positive, or none is.
    """
    from scipy.stats import rankdata

    count = int(positive.sum())
    if count in (0, len(positive)):
        raise RetinaError(f"{count} of {len(positive)} cells have the label; expected some with it and some without")
    ranks = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(ranks / (count * (len(positive) - count)))


def probe(features: Sequence[Array], shares: Sequence[Array], train: Sequence[int], test: Sequence[int]) -> float:
    """Return the AUC on the test images of a regression fitted on the training images."""
    inputs, target = (np.concatenate([values[i] for i in train]) for values in (features, shares))
    weights, offset = fit(inputs, target)
    held_out = np.concatenate([features[i] for i in test])
    return auc(held_out @ weights + offset, is_positive(np.concatenate([shares[i] for i in test])))
