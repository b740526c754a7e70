"""Random reads from an image store against OpenCV reading the same files: how many times faster the store is.

    pip install opencv-python-headless
    python benchmarks/image_store.py FOLDER [--uncompressed]

FOLDER is a tree of 224 x 224 images, such as CEM500K; it is packed into a temporary folder first. Batches of random
images are read in turn by ``ImageStore.read``, which checks every image's CRC-32, and by ``cv2.imread(path,
IMREAD_GRAYSCALE)``, as the authors' loader does, in pairs, because a machine's speed drifts; both in one thread, both
from the page cache. The median of the pairs' ratios is printed. ``--uncompressed`` compares with uncompressed TIFFs
written from the packed images: the easiest format to decode, and CEM500K's by its size (25 GB for 0.5 million images).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pretraining.store.packing import pack
from pretraining.store.reader import SIZE, ImageStore

PAIRS = 40
BATCH = 256


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def write_uncompressed(store: ImageStore, folder: Path) -> list[str]:
    """The store's images as uncompressed TIFFs; their paths."""
    import tifffile

    paths = [str(folder / f"{index}.tif") for index in range(len(store))]
    for index, path in enumerate(paths):
        tifffile.imwrite(path, store.read(np.array([index]))[0])
    return paths


def compare(store: ImageStore, paths: list[str]) -> None:
    """Print the medians of alternating batches."""
    generator = np.random.default_rng(0)
    out = np.empty((BATCH, SIZE, SIZE), np.uint8)
    pairs = []
    for pair in range(PAIRS + 2):
        indices = generator.integers(0, len(store), BATCH)
        chosen = [paths[index] for index in indices]
        ours = seconds(lambda indices=indices: store.read(indices, out))  # type: ignore[misc]
        theirs = seconds(lambda chosen=chosen: [cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in chosen])  # type: ignore[misc]
        if pair >= 2:
            pairs.append((ours / BATCH * 1e6, theirs / BATCH * 1e6))
        expected = np.stack([cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in chosen[:8]])
        if not np.array_equal(out[:8], expected):
            raise SystemExit("the store and OpenCV disagree")
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(other / own for own, other in pairs)
    print(
        f"{PAIRS} pairs of {BATCH} images: store {ours:.1f} us an image, cv2.imread {theirs:.1f} us an image (medians)"
    )
    print(f"ratio {ratio:.1f}")


def main() -> None:
    """Pack, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--uncompressed", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        store = pack(args.folder, Path(temporary) / "store")
        duration = time.perf_counter() - start
        print(f"packed {len(store):,} images in {duration:.1f} s: {len(store) / duration:,.0f} images/s")
        if args.uncompressed:
            paths = write_uncompressed(store, Path(temporary))
        else:
            paths = [str(args.folder / name) for name in store.names()]
        compare(store, paths)


if __name__ == "__main__":
    main()
