"""The augmentation of whole batches against albumentations 1.3.1 with the same settings, on one thread.

    pip install --target PEER --no-deps albumentations==1.3.1 qudida opencv-python-headless PyYAML scikit-learn joblib
    PYTHONPATH=PEER OMP_NUM_THREADS=1 python benchmarks/augmentation.py FOLDER_OF_IMAGES

The images are 224 x 224. The two alternate, batch by batch on the same images, and the median ratio of the pairs is
printed: without reading, and with OpenCV's reading of the files on the side of albumentations (on ours the images come
from memory, as they do from an image store).

    python benchmarks/augmentation.py --alone [--device cuda] [--batch 256]

Ours alone, on random images; needs torch and NumPy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretraining.augmentation.views import AugmentationSettings, augment, draw

SETTINGS = AugmentationSettings()
SIZE = 224


def seconds(function: Callable[[], object], device: str) -> float:
    """Wall time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Ours:
    """The next batch of the stream, from images in memory."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.first = 0

    def __call__(self) -> object:
        draws = draw(SETTINGS, 0, self.first, len(self.images))
        self.first += len(self.images)
        return augment(self.images, draws, SETTINGS)


class Albumentations:
    """The transforms of the released ``pretrainer.py``."""

    def __init__(self) -> None:
        import albumentations as peer

        one, s = peer.Compose, SETTINGS
        if peer.__version__ != "1.3.1":
            raise SystemExit(f"albumentations is {peer.__version__}; expected 1.3.1. Install it as described above")
        self.geometry = one(
            [
                peer.HorizontalFlip(p=s.horizontal_flip_p),
                peer.VerticalFlip(p=s.vertical_flip_p),
                peer.Rotate(limit=s.rotation_degrees, p=s.rotation_p),
                peer.RandomResizedCrop(height=SIZE, width=SIZE, scale=s.crop_area, ratio=s.crop_aspect),
            ]
        )
        self.degrade = one(
            [
                peer.RandomBrightnessContrast(s.brightness, s.contrast, p=s.contrast_p),
                peer.GaussNoise(var_limit=s.noise_variance, p=s.noise_p),
                peer.GaussianBlur(p=s.blur_p),
                peer.CoarseDropout(s.holes[1], s.hole_size, s.hole_size, s.holes[0], fill_value=0, p=s.holes_p),
            ]
        )
        self.normalise = one([peer.Normalize(mean=s.mean, std=s.std)])

    def __call__(self, images: Sequence[np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Inputs and targets of a batch."""
        targets = [self.geometry(image=image)["image"] for image in images]
        inputs = [self.degrade(image=target)["image"] for target in targets]
        both = ([self.normalise(image=image)["image"] for image in some] for some in (inputs, targets))
        first, second = (np.stack(some) for some in both)
        return first, second


def against_albumentations(folder: Path, batch: int, pairs: int) -> None:
    """Print the medians of both and of the pairs' ratios."""
    import cv2

    cv2.setNumThreads(0)
    files = [
        str(path) for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".tif", ".tiff", ".png", ".jpg")
    ]
    if len(files) < batch:
        raise SystemExit(f"{folder}: got {len(files)} images; expected at least a batch of {batch}")
    files = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:batch]]
    images = [cv2.imread(name, 0) for name in files]
    if any(image.shape != (SIZE, SIZE) for image in images):
        raise SystemExit(f"{folder}: expected images of {SIZE} x {SIZE} pixels")
    ours, peer = Ours(torch.from_numpy(np.stack(images))), Albumentations()
    tasks: list[Callable[[], object]] = [ours, lambda: peer(images), lambda: peer([cv2.imread(n, 0) for n in files])]
    for task in tasks:
        task()
    times = [[seconds(task, "cpu") for task in tasks] for _ in range(pairs)]
    mine, theirs, reading = (batch / statistics.median(column) for column in zip(*times, strict=True))
    print(f"{pairs} pairs of {batch} images, 1 thread, OpenCV {cv2.__version__}: images a second (medians)")
    print(f"ours {mine:.0f}, albumentations {theirs:.0f}, albumentations with reading {reading:.0f}")
    for name, column in (("without", 1), ("with", 2)):
        ratio = statistics.median(row[column] / row[0] for row in times)
        print(f"ours / albumentations {name} reading: {ratio:.2f}")


def alone(device: str, batch: int, repeats: int) -> None:
    """Print the median, and on a GPU the largest use of its memory."""
    images = torch.randint(0, 256, (batch, SIZE, SIZE), dtype=torch.uint8).to(device)
    ours = Ours(images)
    for _ in range(3):
        ours()
    drawing = statistics.median(seconds(lambda: draw(SETTINGS, 0, 0, batch), device) for _ in range(repeats))
    median = statistics.median(seconds(ours, device) for _ in range(repeats))
    print(
        f"{device}: {batch} images in {1e3 * median:.2f} ms, {batch / median:.0f} a second "
        f"({1e3 * drawing:.2f} ms of it to draw)"
    )
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}, at most {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone or arguments.device == "cuda":
        alone(arguments.device, arguments.batch, arguments.repeats)
    elif arguments.folder is None:
        parser.error("got no FOLDER_OF_IMAGES; give one, or --alone")
    else:
        against_albumentations(arguments.folder, arguments.batch, arguments.repeats)


if __name__ == "__main__":
    main()
