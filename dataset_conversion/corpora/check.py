"""Check that a folder holds a complete pre-training corpus: read every image, and count all other files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from dataset_conversion.downloads.catalogue import Corpus
from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError, one_line, shorten

IMAGES = (".tif", ".tiff", ".png")
UNFINISHED = (".part", ".partial", ".aspx", ".aspera-ckpt", ".tmp")
"""Endings that wget, browsers, Aspera and others give to what they have not finished."""
PACKED = (".zip", ".tar", ".gz", ".tgz")
LEAST_SHARE = 0.9
"""The publications give round numbers of images; with fewer than this share of them, something is missing."""
SHOWN = 10
_WORKERS, _BATCH = 8, 2000


@dataclass
class Check:
    """What a folder of images holds."""

    images: int = 0
    size: int = 0
    """Bytes of all images."""
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(height, width) -> readable images."""
    unreadable: list[str] = field(default_factory=list)
    """Path and reason."""
    other_types: list[str] = field(default_factory=list)
    """Paths of readable images that are not 8-bit grey."""
    unfinished: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """Ending -> files that are no images."""


def check(folder: str | Path, progress: Callable[[int], None] | None = None) -> Check:
    """Read every image below a folder to its end.

    Args:
        folder: searched to any depth.
        progress: called with the number of images read so far.

    Raises:
        RetinaError: if it is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RetinaError(f"{folder} is not a folder; expected the folder of the downloaded images. Correct the path.")
    result = Check()
    images = _images(folder, result)
    with ThreadPoolExecutor(_WORKERS) as pool:
        while batch := list(islice(images, _BATCH)):
            for path, (size, shape, problem) in zip(batch, pool.map(_read, batch), strict=True):
                result.images += 1
                result.size += size
                if shape is None:
                    result.unreadable.append(f"{path} ({problem})")
                    continue
                result.shapes[shape] += 1
                if problem is not None:
                    result.other_types.append(f"{path} ({problem})")
            if progress is not None:
                progress(result.images)
    return result


def _images(folder: Path, result: Check) -> Iterator[str]:
    """Yield the paths of images; note all other files in ``result``."""
    for where, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path, ending = os.path.join(where, name), os.path.splitext(name)[1].lower()
            if ending in IMAGES:
                yield path
            elif ending in UNFINISHED:
                result.unfinished.append(path)
            elif ending in PACKED:
                result.packed.append(path)
            else:
                result.others[ending or name] += 1


def _read(path: str) -> tuple[int, tuple[int, int] | None, str | None]:
    """Return an image's bytes, its (height, width) if it can be read, and what is wrong or unusual with it."""
    size = 0
    try:
        size = os.path.getsize(path)
        with Image.open(path) as image:
            image.load()
            width, height = image.size
            return size, (height, width), None if image.mode == "L" else f"mode {image.mode}"
    except Exception as error:  # Pillow raises whatever its decoders do
        return size, None, "empty" if size == 0 else one_line(error)


def problems(result: Check, corpus: Corpus) -> list[str]:
    """Return the reasons not to use a download as it is."""
    reasons = []
    if result.unreadable:
        reasons.append(f"{len(result.unreadable)} images cannot be read: {shorten(result.unreadable, SHOWN)}")
    if result.unfinished:
        reasons.append(f"{len(result.unfinished)} files are unfinished: {shorten(result.unfinished, SHOWN)}")
    if result.images < LEAST_SHARE * corpus.images:
        packed = f"; unpack {shorten(result.packed)}" if result.packed else ""
        reasons.append(f"{result.images:,} images; {corpus.title} has about {corpus.images:,}{packed}")
    return reasons


def describe(result: Check, corpus: Corpus, folder: str | Path) -> str:
    """Put a finished check into words."""
    usual = (corpus.image_size, corpus.image_size)
    smaller = tiny = larger = 0
    for (height, width), count in result.shapes.items():
        if min(height, width) < corpus.least_image_size:
            tiny += count
        elif max(height, width) > corpus.image_size:
            larger += count
        elif (height, width) != usual:
            smaller += count
    rows = [
        f"{result.images:,} images, {format_bytes(result.size)} (published: about {corpus.images:,}, {corpus.size})",
        f"{result.shapes[usual]:,} of {corpus.image_size} x {corpus.image_size} pixels, {smaller:,} smaller remainders "
        f"(both sides at least {corpus.least_image_size}), {tiny:,} smaller still, {larger:,} larger",
        f"{len(result.unreadable):,} unreadable",
    ]
    if result.other_types:
        rows.append(f"{len(result.other_types):,} not 8-bit grey: {shorten(result.other_types, 3)}")
    if result.packed:
        rows.append(f"not unpacked: {shorten(result.packed, 3)}")
    if result.others:
        rows.append("other files: " + ", ".join(f"{count:,} {name}" for name, count in result.others.most_common(5)))
    return "\n".join([f"{corpus.title} in {folder}", *(f"  {row}" for row in rows)])
