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
from pretraining.store.packing_errors import no_images, other_option
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
        RetinaError: as ``pack`` and ``ImageStore``; for a store that is given another one, or was packed otherwise.
    """
    opened = open_packed(source, store, fallback, **options)
    return pack(source, store or cache_folder(source, fallback), **options) if opened is None else opened


def open_packed(source: Path, store: Path | None, fallback: Path, **options: Any) -> ImageStore | None:
    """Open what ``open_or_pack`` would open; None if it would have to pack. Writes nothing.

    Raises:
        RetinaError: as ``open_or_pack``.
    """
    if is_store(source):
        return _given_store(source, store, options.get("deduplicate"))
    folder = store or cache_folder(source, fallback)
    return pack(source, folder, **options) if (folder / MANIFEST_FILE).is_file() else None


def _given_store(source: Path, store: Path | None, deduplicate: int | None) -> ImageStore:
    if store is not None:
        raise RetinaError(
            f"{source} is a store, and --store {store} is where images that are not packed would go. Leave one out"
        )
    opened = ImageStore(source)
    packed = opened.manifest["options"]["deduplicate"]
    if deduplicate not in (None, packed):
        raise RetinaError(other_option(source, packed, deduplicate))
    return opened


def count_images(source: Path, drawing: Drawing | None = None) -> int:
    """Return how many image files a source has, or crops would be drawn from it.

    Raises:
        RetinaError: if there are none.
    """
    count = sum(1 for file in open_source(source, drawing) if file.ending in IMAGE_ENDINGS)
    if not count:
        raise RetinaError(no_images(open_source(source)))
    return count


def is_store(path: str | Path) -> bool:
    """Tell whether a folder is a store, finished or not."""
    return any((Path(path) / name).is_file() for name in (MANIFEST_FILE, JOURNAL_FILE))


def cache_folder(source: Path, fallback: Path) -> Path:
    """Return the store of a source: beside it if that exists or can be written, else the fallback."""
    beside = folder_beside(open_source(source).path)
    if (beside / MANIFEST_FILE).is_file():
        return beside
    if is_store(fallback) and not is_store(beside):
        return fallback
    return beside if _writable(beside if beside.exists() else beside.parent) else fallback


def folder_beside(source: Path) -> Path:
    """Return where the packed images of a source go by default."""
    return source.parent / (source.name + STORE_ENDING)


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
