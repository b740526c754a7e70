"""Where the packed images of a source lie when no store is given: beside it, or in a fallback folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError
from pretraining.store.archives import open_source
from pretraining.store.drawing import Drawing
from pretraining.store.layout import JOURNAL_FILE, MANIFEST_FILE
from pretraining.store.packing import pack
from pretraining.store.packing_errors import no_images
from pretraining.store.reader import ImageStore
from pretraining.store.sources import IMAGE_ENDINGS, STORE_ENDING


def open_or_pack(source: Path, store: Path | None, fallback: Path, **options: Any) -> ImageStore:
    """Open a store, or pack a source into its cache and open that.

    Args:
        source: a store, a folder tree of images, or an archive of one.
        store: where the packed images go; None: ``SOURCE.retina_store`` beside the source, if that can be written to.
        fallback: where they go otherwise.
        options: of ``pack``.

    Raises:
        RetinaError: as ``pack`` and ``ImageStore``.
    """
    if is_store(source):
        return ImageStore(source)
    return pack(source, store or cache_folder(source, fallback), **options)


def count_images(source: Path, store: Path | None, drawing: Drawing | None = None) -> tuple[int, str]:
    """Return how many images a run would have, as far as is known without writing anything, and what was counted.

    Raises:
        RetinaError: if there are none, or a store is damaged.
    """
    cache = store or _beside(open_source(source).path) if not is_store(source) else source
    if (Path(cache) / MANIFEST_FILE).is_file() or is_store(source):
        return len(ImageStore(cache)), f"images in the store {cache}"
    count = sum(1 for file in open_source(source, drawing) if file.ending in IMAGE_ENDINGS)
    if not count:
        raise RetinaError(no_images(open_source(source)))
    return count, f"image files in {source}, not packed yet"


def is_store(path: str | Path) -> bool:
    """Tell whether a folder is a store, finished or not."""
    return any((Path(path) / name).is_file() for name in (MANIFEST_FILE, JOURNAL_FILE))


def cache_folder(source: Path, fallback: Path) -> Path:
    """Return the store of a source: beside it if that exists or can be written, else the fallback."""
    beside = _beside(open_source(source).path)
    if (beside / MANIFEST_FILE).is_file():
        return beside
    if is_store(fallback) and not is_store(beside):
        return fallback
    return beside if _writable(beside if beside.exists() else beside.parent) else fallback


def _beside(source: Path) -> Path:
    return source.with_name(source.name + STORE_ENDING)


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
