"""Where images come from: a folder tree; archives of one are in ``store.archives``. Lists files; decodes nothing.

The order is fixed: in each folder first the files, then the folders, sorted by name.

A file's group, the source it comes from, is the first folder below SOURCE. Files that lie directly in SOURCE belong to
the part of their names before ``-LOC-`` if they have one (so the CEM projects name crops: volume-em/cem-dataset,
``dataset/deduplicated/deduplicate.py``), else to SOURCE's own name. The usual outermost folder of an archive, named
like the archive, is not counted.

Hidden files and folders, ``__MACOSX``, ``Thumbs.db``, ``desktop.ini`` and image stores are passed over in silence.

Memory: only the names of one folder (and of the folders beside those above it) are held at a time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from pretraining.store.layout import NAMES_ENCODING

IMAGE_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".nii", ".nii.gz")
STORE_ENDING = ".retina_store"
_PASSED_OVER = ("__macosx", "thumbs.db", "desktop.ini")
_LOCATION = "-LOC-"


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    name: str
    """Path below the source, with ``/``; characters that are no text, and line ends, as escapes."""
    group: str
    size: int
    """Bytes."""
    modified: int
    """Its date: nanoseconds since 1970, or what the archive has."""
    path: str | None = None
    """Where it lies, unless it is in an archive."""
    read: Callable[[], bytes] | None = None
    """Its content, if it is no file of its own. To be called, if at all, before the next file is asked for."""
    optional: bool = False
    """Whether it may well give no image: it does not count as rejected then."""

    @property
    def ending(self) -> str:
        """Return the ending in lower case; of a compressed file with what is in it, as ``.nii.gz``."""
        stem, ending = os.path.splitext(self.name.lower())
        return os.path.splitext(stem)[1] + ending if ending == ".gz" else ending


@dataclass
class Census:
    """What is compared to tell whether a source is still the same: cheap, without reading the files."""

    files: int = 0
    bytes: int = 0
    newest: int = 0
    """Date of the newest file."""
    names: int = 0
    """CRC-32 over all names in order."""

    def add(self, file: SourceFile) -> None:
        self.files += 1
        self.bytes += file.size
        self.newest = max(self.newest, file.modified)
        self.names = zlib.crc32(file.name.encode() + b"\n", self.names)

    def differences(self, now: Census) -> str:
        """Say what ``now`` has differently; empty if nothing."""
        words = {"files": "files", "bytes": "bytes in all", "newest": "as date of the newest file"}
        old, new = asdict(self), asdict(now)
        changed = [f"{new[key]} instead of {old[key]} {text}" for key, text in words.items() if new[key] != old[key]]
        return ", ".join(changed or (["other file names"] if self.names != now.names else []))


class Source:
    """A folder tree. Iterating lists its files; see the module's text for order and groups."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def __iter__(self) -> Iterator[SourceFile]:
        for entry, relative in _walk(self.path, "", ()):
            info = entry.stat(follow_symlinks=not _is_broken_link(entry))
            yield SourceFile(printable(relative), self.group(relative), info.st_size, info.st_mtime_ns, entry.path)

    def count(self) -> int | None:
        """Return the number of files, or None if counting would mean reading all of them."""
        return sum(1 for _ in _walk(self.path, "", ()))

    def census(self) -> Census:
        """Return the census of the whole source; for an archive that of its file, which needs no reading."""
        census = Census()
        for file in self:
            census.add(file)
        return census

    def group(self, relative: str) -> str:
        """Return the group that a path below the source belongs to."""
        first, slash, _ = relative.partition("/")
        if not slash:
            first = relative.split(_LOCATION)[0] if _LOCATION in relative else self.name
        return printable(first)


def printable(name: str) -> str:
    """Return a name as it can be written into a text file of one line a name."""
    text = name.encode(*NAMES_ENCODING).decode()
    return text.replace("\r", "\\r").replace("\n", "\\n")


def is_passed_over(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return any(
        (part.startswith(".") and part not in (".", ".."))
        or part.lower() in _PASSED_OVER
        or part.endswith(STORE_ENDING)
        for part in parts
    )


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _listed(folder: str | Path) -> tuple[os.stat_result, list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return what the system says of a folder, its files and its folders, in no order."""
    files, folders = [], []
    try:
        own = os.stat(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_passed_over(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry)
                elif entry.is_file() or _is_broken_link(entry):  # no sockets and the like
                    files.append(entry)
    except OSError as error:
        raise RetinaError(
            f"the folder {folder} cannot be listed ({error.strerror}). Check its permissions and the disk, then start "
            "the same command again"
        ) from error
    return own, files, folders


def _walk(
    folder: str | Path, prefix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield the files below a folder with their relative names. Links are followed, except to a folder they lie in."""
    own, files, folders = _listed(folder)
    for entry in sorted(files, key=_entry_name):
        yield entry, prefix + entry.name
    del files
    here = (*above, (own.st_dev, own.st_ino))
    for entry in sorted(folders, key=_entry_name):
        info = entry.stat()
        if (info.st_dev, info.st_ino) not in here:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", here)


def _entry_name(entry: os.DirEntry[str]) -> str:
    return entry.name
