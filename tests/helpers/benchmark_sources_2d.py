"""Kasthuri++ and Perez files in exactly the layout of their downloads, small; see ``benchmark_sources``."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
from helpers.benchmark_sources import Written, coordinates, patches, zipped
from PIL import Image

KASTHURI_SHAPES = {"train": (12, 40, 44), "test": (4, 36, 38)}
KASTHURI_SPACING = (30.0, 3.0, 3.0)
SLAB_BORDERS = (0, 2, 5, 7, 10, 12)
PEREZ_STRUCTURES = ("lysosomes", "mitochondria", "nuclei", "nucleoli")
PEREZ_NUMBERS = {"train": (1, 2, 3, 9, 10), "test": (1, 11)}
PEREZ_PARTS = {"train": ("training_images", "training_labels"), "test": ("test_images", "ground_truth")}


def png(array: np.ndarray) -> bytes:
    """(Y, X), or (Y, X, 3) for RGB."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def rgb(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[..., None], 3, axis=-1)


def store(folder: Path, members: dict[str, bytes], archive: str | None) -> None:
    """As one zip archive, or as the files in it."""
    if archive is not None:
        zipped(folder / archive, members)
        return
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def kasthuri_members() -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Files of the archive, and train and test as (image, mask): masks RGB of 0, 255 and 2; numbers without zeros."""
    members, stacks = {}, {}
    for split, shape in KASTHURI_SHAPES.items():
        image = coordinates(shape, np.uint8, start=len(split))
        mask = np.array([0, 255, 2], np.uint8)[patches(shape, 3)]
        image[:, :5] = 0  # padding
        stacks[split] = image, mask
        for z in range(len(image)):
            for part, content in (("In", image[z]), ("Out", rgb(mask[z]))):
                members[f"Kasthuri++/{split.capitalize()}_{part}/slice{z}.png"] = png(content)
    return members, stacks


def kasthuri(folder: Path, packed: bool = True, outside: int = 2) -> dict[str, Written]:
    """``kasthuri_pp.zip``, or what is in it; ``outside``: the label that mask value 2 becomes (0 with ``paper``)."""
    members, stacks = kasthuri_members()
    store(folder, members, "kasthuri_pp.zip" if packed else None)
    expected = {}
    for split, (image, mask) in stacks.items():
        label = np.select([mask == 255, mask == 2], [1, outside]).astype(np.uint8)
        borders = SLAB_BORDERS if split == "train" else (0, len(image))
        for i, (start, end) in enumerate(pairwise(borders)):
            name, part = (f"slab_{i}", "Tr") if split == "train" else ("test", "Ts")
            expected[name] = Written(image[start:end], label[start:end], KASTHURI_SPACING, part)
    return expected


def perez_members() -> tuple[dict[str, bytes], dict[str, dict[str, Written]]]:
    """Files of the archive, and structure -> case -> what it becomes. Image and mask have different prefixes."""
    members: dict[str, bytes] = {}
    expected: dict[str, dict[str, Written]] = {}
    for s, structure in enumerate(PEREZ_STRUCTURES):
        expected[structure] = {}
        for split, numbers in PEREZ_NUMBERS.items():
            shape = (len(numbers), 44 + s, 50)
            volume, masks = coordinates(shape, np.uint8, start=s) // 7 + 68, patches(shape, 2, start=s)
            for z, number in enumerate(numbers):
                images, labels = PEREZ_PARTS[split]
                members[f"supplemental_data/{images}/{structure}/{structure}_orig.{number:03d}.png"] = png(volume[z])
                members[f"supplemental_data/{labels}/{structure}/gt-{s}.{number:03d}.png"] = png(masks[z])
                name, part = f"{split}_{number:03d}", "Tr" if split == "train" else "Ts"
                expected[structure][name] = Written(volume[z], masks[z], (999, 1, 1), part)
    return members, expected


def perez(folder: Path, packed: bool = True) -> dict[str, dict[str, Written]]:
    """``chm-supplemental_data.zip``, or what is in it."""
    members, expected = perez_members()
    store(folder, members, "chm-supplemental_data.zip" if packed else None)
    return expected
