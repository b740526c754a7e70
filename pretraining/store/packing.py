"""Packing a folder or an archive of images into a store: in parallel, and so that it can be stopped at any moment.

What is taken, and how it becomes 224 x 224 uint8, is in ``store.tiles``; order and groups of the files are in
``sources``; the store's files in ``reader``.

Of the files, those count as rejected that give no image at all, whether they have an image's name or not: a data set of
``.mrc`` files is not to be passed over in silence. Accompanying files (``COMPANIONS``: text, tables, settings, scripts)
are listed in ``rejected.csv`` but do not count, nor do near duplicates or single tiles of a file that gives others.

Memory does not grow with the number of images, but for the names of one folder or of a zip
(``pretraining.store.sources``) and, with near-duplicate removal, up to 50 bytes an image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import LOCK, is_leftover, locked, make_folder
from pretraining.store.archives import Archive, open_source
from pretraining.store.crops import CropSource
from pretraining.store.decode_workers import Work, content_of, decode_all, default_workers
from pretraining.store.drawing import Drawing
from pretraining.store.journal import Journal, start_again
from pretraining.store.layout import JOURNAL_FILE, MANIFEST_FILE
from pretraining.store.packing_errors import (
    check_rejected,
    explain_full_disk,
    other_option,
)
from pretraining.store.reader import ImageStore
from pretraining.store.sources import IMAGE_ENDINGS, Census, Source, SourceFile
from pretraining.store.writer import StoreWriter

MAX_REJECTED = 0.05
COMPANIONS = (
    "", ".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".rst", ".html", ".htm",
    ".pdf", ".log", ".py", ".m", ".sh", ".ipynb", ".md5", ".sha256", ".url",
)  # fmt: skip
"""Endings of files that usually lie beside images."""
FEW_FILES = 256
"""Up to so many are decoded in this process: starting others would take longer."""

Progress = Callable[[int, int | None], None]


def pack(
    source: str | Path,
    store: str | Path,
    *,
    deduplicate: int | None = None,
    max_rejected: float = MAX_REJECTED,
    workers: int | None = None,
    progress: Progress | None = None,
    drawing: Drawing | None = None,
) -> ImageStore:
    """Pack a source, continue packing it, or open the finished store if the source is still the same.

    Args:
        source: folder tree of images, or a zip or tar of one, or a Zarr volume.
        store: the folder to write.
        deduplicate: leave out an image whose 64-bit difference hash is within this Hamming distance of an earlier one's
            of the same group; None keeps all. The CEM projects use 12.
        max_rejected: the largest share of the files that may give no image, 0 to 1.
        workers: decoding processes; None: one a core, up to 8. The result does not depend on it.
        progress: called after each file with the number of files done and of all (None: not known).
        drawing: what is drawn from a Zarr volume.

    Raises:
        RetinaError: if the source is missing or holds no images; the store cannot be written, is full, or holds
            something else; more files are rejected than allowed (continue with a higher limit); the source or the
            options differ from those the store was begun with.
    """
    check_options(deduplicate, max_rejected, workers)
    opened, path = open_source(source, drawing), Path(store).expanduser().absolute()
    if (path / MANIFEST_FILE).is_file():
        return _reuse(opened, path, deduplicate)
    if path.resolve() == opened.path or opened.path in path.resolve().parents:
        raise RetinaError(f"the store {path} lies in the source {opened.path}; expected a folder outside of it")
    total = opened.count()
    if next(iter(opened), None) is None:
        raise RetinaError(f"{opened.path} is empty: expected images ({', '.join(IMAGE_ENDINGS)}). Check the path")
    if workers is None:
        workers = 1 if total is not None and total <= FEW_FILES else default_workers()
    busy = f"another process is packing into {path}. Wait until it has ended, or choose another store"
    with explain_full_disk(path, total), locked(_prepare(path), busy):
        writer = StoreWriter(path, _journal(path, deduplicate))
        try:
            _write(opened, writer, workers, progress, total)
            writer.commit()
            check_rejected(opened, writer, max_rejected)
            writer.finish(_remember(opened, writer.journal))
        finally:
            writer.close()
    return ImageStore(path)


def check_options(
    deduplicate: int | None = None, max_rejected: float = MAX_REJECTED, workers: int | None = None
) -> None:
    """Check options of ``pack``, which raises the same.

    Raises:
        RetinaError: for a number that is out of range.
    """
    if deduplicate is not None and not 0 <= deduplicate <= 64:
        raise RetinaError(f"deduplicate is {deduplicate}; expected a number of bits from 0 to 64 (CEM500K: 12)")
    if not 0 <= max_rejected <= 1:
        raise RetinaError(f"the largest share of rejected files is {max_rejected:.0%}; expected 0 to 100 %")
    if workers is not None and workers < 1:
        raise RetinaError(f"workers is {workers}; expected at least 1")


def _reuse(source: Source, path: Path, deduplicate: int | None) -> ImageStore:
    """Open a finished store, if the source and the options are those it was packed with."""
    store = ImageStore(path)
    (path / JOURNAL_FILE).unlink(missing_ok=True)  # killed between writing the one and removing the other
    packed = store.manifest["options"]["deduplicate"]
    if packed != deduplicate:
        raise RetinaError(other_option(path, packed, deduplicate))
    differences = Census(**store.manifest["source"]["census"]).differences(source.census())
    if differences:
        raise RetinaError(
            f"{source.path} is not what {path} was packed from: it has {differences}. To use the store as it is, give "
            f"it as the source: {path}. To pack the images as they are now, delete the folder {path} and give the same "
            "command"
        )
    return store


def _prepare(path: Path) -> Path:
    """Make the store's folder, and refuse one that holds anything else."""
    make_folder(path, "Change the permissions, or choose another folder for the store")
    others = [entry.name for entry in path.iterdir() if entry.name != LOCK and not is_leftover(entry.name)]
    if others and JOURNAL_FILE not in others:
        raise RetinaError(
            f"{path} holds other files ({shorten(sorted(others), 3)}) and is no image store; expected a new or an "
            "empty folder. Choose another one"
        )
    return path


def _journal(path: Path, deduplicate: int | None) -> Journal:
    """Return the journal to begin with: a new one, or that of the packing that was stopped."""
    if not (path / JOURNAL_FILE).is_file():
        return Journal(deduplicate)
    journal = Journal.read(path / JOURNAL_FILE)
    if not journal.images:  # nothing to lose, and perhaps other files or options this time
        return Journal(deduplicate)
    if journal.deduplicate != deduplicate:
        raise RetinaError(other_option(path, journal.deduplicate, deduplicate))
    return journal


def _write(source: Source, writer: StoreWriter, workers: int, progress: Progress | None, total: int | None) -> None:
    """Decode and append all files that are not there yet."""
    files: deque[SourceFile] = deque()  # handed out and not yet back

    def work(remaining: Iterator[SourceFile]) -> Iterator[Work]:
        for file in remaining:
            files.append(replace(file, path=None, read=None))
            yield Work(file.name, content_of(file), file.size)

    remaining = iter(source)
    _skip(remaining, source, writer)
    hashes = writer.journal.deduplicate is not None
    for tiles in decode_all(work(remaining), hashes, workers):
        file = files.popleft()
        expected = not file.optional or bool(tiles.places)
        writer.add(file, tiles, expected and file.ending not in COMPANIONS)
        if progress is not None:
            progress(writer.journal.census.files, total)


def _skip(remaining: Iterator[SourceFile], source: Source, writer: StoreWriter) -> None:
    """Pass over the files that were packed before, if they are still the same."""
    done, census, last = writer.journal.census, Census(), ""
    while census.files < done.files and (file := next(remaining, None)) is not None:
        census.add(file)
        last = file.name
    if census != done:
        raise RetinaError(
            f"the first {done.files:,} files of {source.path} are not those that were packed before packing was "
            f"stopped: there are {done.differences(census)}; the last one was {writer.journal.last} and now is "
            f"{last or 'missing'}. {start_again(writer.path)}"
        )


def _remember(source: Source, journal: Journal) -> dict[str, Any]:
    census = source.census() if isinstance(source, Archive) else journal.census
    drawn = {"drawn": source.about()} if isinstance(source, CropSource) else {}
    return {"path": str(source.path), "census": asdict(census), **drawn}
