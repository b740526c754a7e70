"""What frozen features know of a label: ``pretraining.probe`` over several networks, classes and numbers of labels.

    python benchmarks/probe.py DATA [CHECKPOINT ...] --train 'images.02?' 'images.03[0-3]' --test 'images.036' ...

DATA holds ``images/`` and ``masks/``: grey images and label images of the same names, or of the same order. The
regression is fitted on 1 and on more labelled images, each number on several random subsets. The same images are used
for:

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
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread
from torch import Tensor

from nnunetv2_retina.console.wording import format_rows
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.transunet import NetworkConfig, TransUNet
from nnunetv2_retina.weights.checkpoint import load
from pretraining.objectives.teacher import efficientnet_lite0
from pretraining.objectives.tokens import patchify
from pretraining.probe import TILE, Cells, Extract, check_both, compute, is_positive, network_features, probe, to_cells


def read_pairs(pairs: Sequence[tuple[Path, Path]]) -> list[tuple]:
    """Return the name, grey levels and labels of each pair of files."""
    sections = []
    for image, mask in pairs:
        grey, labels = imread(image).astype(np.float32), imread(mask).astype(np.int64)
        if grey.shape != labels.shape or grey.ndim != 2 or min(grey.shape) < TILE:
            raise SystemExit(f"{image} is {grey.shape} and its mask {labels.shape}; expected equal, grey, {TILE} px")
        sections.append((image.stem, grey, labels))
    return sections


def where(cells: Cells, patterns: Sequence[str]) -> list[int]:
    """Return the numbers of the images whose names fit a pattern, at least one."""
    fitting = cells.where(patterns)
    if not fitting:
        raise SystemExit(f"{patterns} fit no image; the names look like {cells.names[0]}")
    return fitting


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the image and mask files of a folder, matched by name, or else by order."""
    images, masks = (sorted(path for path in (folder / name).glob("*.*")) for name in ("images", "masks"))
    if not images or len(images) != len(masks):
        raise SystemExit(f"{folder}: {len(images)} files in images/, {len(masks)} in masks/; expected as many, not 0")
    return list(zip(images, masks, strict=True))


def pixels(tiles: Tensor) -> dict[str, Tensor]:
    """Return the pixels of each cell."""
    return {"pixels": patchify(tiles)}


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


def draw_subsets(cells: Cells, train: Sequence[int], count: int, number: int, seed: int) -> list[list[int]]:
    """Draw different random subsets of ``count`` training images that have the label somewhere."""
    labelled = [i for i in train if is_positive(cells.shares[i]).any()]
    if not labelled:
        raise SystemExit(
            f"none of the {len(train)} images to fit on has the label in half a cell. Give others: --train"
        )
    if not 1 <= count <= len(labelled):
        raise SystemExit(
            f"--labelled {count}: {len(labelled)} of {len(train)} images to fit on have the label in half a cell; "
            f"expected 1 to {len(labelled)}. Give other numbers with --labelled, or other images with --train"
        )
    rng = np.random.default_rng([seed, count])
    drawn = {tuple(sorted(rng.choice(labelled, count, replace=False))) for _ in range(20 * number)}
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
    wanted = [pair for pair in pairs if any(fnmatch(pair[0].stem, p) for p in (*args.train, *args.test))]
    cells = Cells(read_pairs(wanted), args.label)
    test = where(cells, args.test)
    try:
        check_both(cells, test, f"--test {' '.join(args.test)}")
    except RetinaError as error:
        raise SystemExit(str(error)) from error
    train = [i for i in where(cells, args.train) if i not in test]
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
