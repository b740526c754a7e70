"""Where images come from: a folder tree, or a zip or tar of one read in place. Lists files; decodes nothing.

The order is fixed: in each folder first the files, then the folders, sorted by name. A folder and a zip of it give the
same list; a tar is taken in the order in which it was written, since it can only be read from front to end.

A file's group, the source it comes from, is the first folder below SOURCE. Files that lie directly in SOURCE belong to
the part of their names before ``-LOC-`` if they have one (so the CEM projects name crops: volume-em/cem-dataset,
``dataset/deduplicated/deduplicate.py``), else to SOURCE's own name. The usual outermost folder of an archive, named
like the archive, is not counted.

Hidden files and folders, ``__MACOSX``, ``Thumbs.db``, ``desktop.ini`` and image stores are passed over in silence.

Memory: of a folder tree only the names of one folder (and of the folders beside those above it) are held at a time; of
a tar, one file's name; of a zip the whole directory, since Python's reader keeps it (about 1 kB a file).
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from nnunetv2_retina.errors import RetinaError
from pretraining.store.reader import NAMES_ENCODING

IMAGE_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_ENDINGS = (".zip", *TAR_ENDINGS)
STORE_ENDING = ".retina_store"
_PASSED_OVER = ("__macosx", "thumbs.db", "desktop.ini")
_LOCATION = "-LOC-"
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)


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
    """Its content, if it is in an archive. To be called, if at all, before the next file is asked for."""

    @property
    def ending(self) -> str:
        return os.path.splitext(self.name)[1].lower()


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
        """In words, what ``now`` has differently; empty if nothing."""
        words = {"files": "files", "bytes": "bytes in all", "newest": "as date of the newest file"}
        old, new = asdict(self), asdict(now)
        found = [f"{new[key]} instead of {old[key]} {text}" for key, text in words.items() if new[key] != old[key]]
        return ", ".join(found or (["other file names"] if self.names != now.names else []))


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
        """The number of files, if that is quickly found out."""
        return sum(1 for _ in _walk(self.path, "", ()))

    def census(self) -> Census:
        """Of the whole source; for an archive of the archive file, which needs no reading."""
        census = Census()
        for file in self:
            census.add(file)
        return census

    def group(self, relative: str) -> str:
        """Which group a path below the source belongs to."""
        first, slash, _ = relative.partition("/")
        if not slash:
            first = relative.split(_LOCATION)[0] if _LOCATION in relative else self.name
        return printable(first)


class Archive(Source):
    """A zip or tar of a folder tree."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        ending = next(ending for ending in ARCHIVE_ENDINGS if path.name.lower().endswith(ending))
        self.name = path.name[: -len(ending)]
        self.is_zip = ending == ".zip"

    def __iter__(self) -> Iterator[SourceFile]:
        try:
            yield from self._zip_members() if self.is_zip else self._tar_members()
        except RetinaError:
            raise
        except _ARCHIVE_ERRORS as error:
            raise _damaged(self.path, error) from error

    def count(self) -> int | None:
        return sum(1 for _ in self) if self.is_zip else None

    def census(self) -> Census:
        info = self.path.stat()
        return Census(1, info.st_size, info.st_mtime_ns)

    def group(self, relative: str) -> str:
        return super().group(relative.removeprefix(f"{self.name}/"))

    def _zip_members(self) -> Iterator[SourceFile]:
        with zipfile.ZipFile(self.path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir() and not _is_passed_over(info.filename)]
            for info in sorted(members, key=lambda info: _walk_order(info.filename)):
                if info.flag_bits & 1:
                    raise RetinaError(f"{self.path} is encrypted; expected a zip without a password. Unpack it first")
                date = int("".join(f"{part:02d}" for part in info.date_time))
                yield self._member(info.filename, info.file_size, date, _ZipReader(self.path, archive, info))

    def _tar_members(self) -> Iterator[SourceFile]:
        with tarfile.open(self.path, "r:*") as archive:
            while (member := archive.next()) is not None:
                if member.isfile() and not _is_passed_over(member.name):
                    yield self._member(
                        member.name, member.size, int(member.mtime), _TarReader(self.path, archive, member)
                    )
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps all of them
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(512) != bytes(512):  # reading just stops there
                raise tarfile.ReadError("it ends without an end mark")

    def _member(self, name: str, size: int, modified: int, read: Callable[[], bytes]) -> SourceFile:
        relative = str(PurePosixPath(name.replace("\\", "/") if self.is_zip else name))
        return SourceFile(printable(relative), self.group(relative), size, modified, None, read)


class UnreadableMemberError(Exception):
    """One file of a zip cannot be unpacked; the others may be."""


@dataclass(frozen=True)
class _ZipReader:
    path: Path
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def __call__(self) -> bytes:
        try:
            return self.archive.read(self.info)
        except OSError as error:
            raise _damaged(self.path, error) from error
        except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
            raise UnreadableMemberError(str(error)) from error


@dataclass(frozen=True)
class _TarReader:
    path: Path
    archive: tarfile.TarFile
    member: tarfile.TarInfo

    def __call__(self) -> bytes:
        try:
            file = self.archive.extractfile(self.member)
            data = b"" if file is None else file.read()
            if len(data) != self.member.size:
                raise tarfile.ReadError("unexpected end of data")
        except _ARCHIVE_ERRORS as error:
            raise _damaged(self.path, error) from error
        return data


def _damaged(path: Path, error: Exception) -> RetinaError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RetinaError(
        f"{path} cannot be read as an archive ({reason}): it is incomplete, damaged or of another kind. Copy or "
        "download it again, then start the same command again"
    )


def open_source(path: str | Path) -> Source:
    """A folder tree or an archive.

    Raises:
        RetinaError: if there is nothing at ``path``, or it is a file of another kind.
    """
    path = Path(path).expanduser().resolve()
    if path.is_dir():
        return Source(path)
    if not path.exists():
        raise RetinaError(f"no images at {path}: no such folder or file. Check the path")
    if not path.is_file() or not path.name.lower().endswith(ARCHIVE_ENDINGS):
        raise RetinaError(
            f"{path} is a single file; expected a folder of images or an archive ({', '.join(ARCHIVE_ENDINGS)}). "
            "Give the folder that it lies in"
        )
    return Archive(path)


def printable(name: str) -> str:
    """A name as it can be written into a text file of one line a name."""
    text = name.encode(*NAMES_ENCODING).decode()
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _is_passed_over(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return any(
        (part.startswith(".") and part not in (".", ".."))
        or part.lower() in _PASSED_OVER
        or part.endswith(STORE_ENDING)
        for part in parts
    )


def _walk_order(name: str) -> list[tuple[bool, str]]:
    """Sort key of a path: files of a folder before its folders, as ``_walk`` goes."""
    *folders, file = PurePosixPath(name.replace("\\", "/")).parts
    return [*((True, folder) for folder in folders), (False, file)]


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _walk(
    folder: str | Path, prefix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Files below a folder with their relative names. Links are followed, except to a folder they lie in."""
    files, folders = [], []
    try:
        own = os.stat(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_passed_over(entry.name):
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
    files.sort(key=_entry_name)
    for entry in files:
        yield entry, prefix + entry.name
    del files
    here = (*above, (own.st_dev, own.st_ino))
    for entry in sorted(folders, key=_entry_name):
        info = entry.stat()
        if (info.st_dev, info.st_ino) not in here:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", here)


def _entry_name(entry: os.DirEntry[str]) -> str:
    return entry.name
