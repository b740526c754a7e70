"""Find a data set's files in what a user downloaded: unpacked at any depth, or still inside zip archives.

    files = find(source, ["train-images.tif", "train-labels.tif"])
    files["train-images.tif"].read()
    slices = find_all(source, ["Train_In/*.png", "Train_Out/*.png"])["Train_In/*.png"]

A name is the end of a path, whole components only: ``mito/binary/a.nii.gz`` is found below ``UroCell-master/`` too.
"""

from __future__ import annotations

import difflib
import lzma
import os
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from nnunetv2_retina.errors import RetinaError, one_line, shorten
from nnunetv2_retina.files import check_zip_members

ZIP = ".zip"
_OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_MACOS = "__MACOSX"
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, LookupError, ValueError,
    OSError,
)  # fmt: skip
"""What zipfile raises for a damaged archive, an unknown method or a password."""
_SHOWN_FILES = 8


@dataclass(frozen=True)
class SourceFile:
    """A file, or a member of a zip archive."""

    path: Path
    """The file itself, or the archive."""
    member: str | None = None
    """Path inside the archive; None for a plain file."""

    def __str__(self) -> str:
        """Return ``folder/a.tif``, or ``folder/all.zip: data/a.tif``."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return PurePosixPath((self.member or self.path.name).replace("\\", "/")).name

    def open(self) -> IO[bytes]:
        """Return the content as a stream. Reading a damaged archive member to its end raises ``zipfile.BadZipFile``.

        Raises:
            RetinaError: if it cannot be opened.
        """
        if self.member is None:
            try:
                return self.path.open("rb")
            except OSError as error:
                raise RetinaError(f"{self.path} cannot be read: {error.strerror}. Check its permissions.") from error
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.open(self.member)  # the archive's file stays open until this stream is closed
        except ZIP_ERRORS as error:
            raise _damaged(self.path, error, self.member) from error

    def read(self) -> bytes:
        """Return the whole content; the checksum of an archive member is verified.

        Raises:
            RetinaError: if the file cannot be read, or the archive is damaged.
        """
        with self.open() as stream:
            try:
                return stream.read()
            except ZIP_ERRORS as error:
                if self.member is None:
                    raise RetinaError(f"{self.path} cannot be read: {error}. Check the disk.") from error
                raise _damaged(self.path, error, self.member) from error

    @property
    def size(self) -> int:
        """Return the size of the content in bytes.

        Raises:
            RetinaError: if the archive is damaged.
        """
        if self.member is None:
            return self.path.stat().st_size
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.getinfo(self.member).file_size
        except ZIP_ERRORS as error:
            raise _damaged(self.path, error, self.member) from error

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield a path for readers that need one: the file itself, or a copy that is removed when the block ends.

        Raises:
            RetinaError: if the archive is damaged.
        """
        if self.member is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="retina_convert-") as folder:
            target = Path(folder) / self.name
            with self.open() as stream, target.open("wb") as copy:
                try:
                    shutil.copyfileobj(stream, copy, 1 << 20)
                except ZIP_ERRORS as error:
                    raise _damaged(self.path, error, self.member) from error
            yield target


def find(
    source: str | Path, names: Sequence[str] | Mapping[str, Sequence[str]], lenient: bool = False
) -> dict[str, SourceFile]:
    """Find files by name.

    A plain file goes before one in an archive, then the one nearest to the top.

    Args:
        source: a folder, or one zip archive.
        names: ends of paths with ``/``; or name -> the paths it may have, the first found counting.
        lenient: leave out what is not there, and take the first of two files equally near to the top.

    Returns:
        Each given name -> the file.

    Raises:
        RetinaError: naming all missing files and those found instead; for two files equally near to the top; for a
            source that is neither folder nor zip archive.
    """
    inventory = _Inventory(Path(source))
    wanted = names if isinstance(names, Mapping) else {name: (name,) for name in names}
    files = {name: inventory.one(paths, lenient) for name, paths in wanted.items()}
    missing = [name for name, file in files.items() if file is None]
    if missing and not lenient:
        raise inventory.missing(missing)
    return {name: file for name, file in files.items() if file is not None}


def find_all(
    source: str | Path, patterns: Sequence[str] | Mapping[str, Sequence[str]], lenient: bool = False
) -> dict[str, list[SourceFile]]:
    """Find all files of folders, such as ``Train_In/*.png``; wildcards in the last part only.

    The files of one pattern come from one folder: unpacked before archived, then the one nearest to the top.

    Args:
        source: a folder, or one zip archive.
        patterns: ends of paths with ``/``; or name -> patterns, the first with a file counting.
        lenient: as for ``find``.

    Returns:
        Each pattern (or name) -> its files, in natural order of their names (``a2`` before ``a10``).

    Raises:
        RetinaError: as ``find``, for every pattern without a file.
    """
    inventory = _Inventory(Path(source))
    wanted = patterns if isinstance(patterns, Mapping) else {pattern: (pattern,) for pattern in patterns}
    chosen = {name: inventory.folder(alternatives, lenient) for name, alternatives in wanted.items()}
    missing = [name for name, files in chosen.items() if not files]
    if missing and not lenient:
        raise inventory.missing(missing)
    return {name: files for name, files in chosen.items() if files}


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers by value: ``z9`` before ``z10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


_Groups = dict[tuple[Path | None, tuple[str, ...]], list[SourceFile]]
"""(The archive or None, the folders above) -> files there."""


class _Inventory:
    """Every file of a source: its parts below the source, and where it is."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.entries: list[tuple[tuple[str, ...], SourceFile]] = []
        self.damaged: list[RetinaError] = []
        if source.is_dir():
            plain = list(_walk(source))
            self.entries += [(path.relative_to(source).parts, SourceFile(path)) for path in plain]
            for path in plain:
                if path.suffix.lower() == ZIP:
                    self._add_archive(path)
        elif source.is_file() and (source.suffix.lower() == ZIP or zipfile.is_zipfile(source)):
            self._add_archive(source)
            if self.damaged:
                raise self.damaged[0]
        else:
            raise _no_source(source)

    def _add_archive(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                check_zip_members(archive)
                members = [info.filename for info in archive.infolist() if not info.is_dir()]
        except ZIP_ERRORS as error:
            self.damaged.append(_damaged(path, error))
            return
        for member in dict.fromkeys(members):
            parts = tuple(part for part in member.replace("\\", "/").split("/") if part)
            if parts and _MACOS not in parts and not parts[-1].startswith("."):
                self.entries.append((parts, SourceFile(path, member)))

    def one(self, paths: Sequence[str], lenient: bool) -> SourceFile | None:
        """Return the file at the first of these paths that exists."""
        for path in paths:
            wanted = tuple(path.split("/"))
            fitting = [entry for entry in self.entries if entry[0][-len(wanted) :] == wanted]
            if fitting:
                places = {(None if file.member is None else file.path, parts[:-1]): [file] for parts, file in fitting}
                return self._nearest(places, lenient)[0]
        return None

    def folder(self, patterns: Sequence[str], lenient: bool) -> list[SourceFile]:
        """Return the files of one folder that fit the first pattern with any, in natural order."""
        for pattern in patterns:
            *above, last = pattern.split("/")
            groups: _Groups = {}
            for parts, file in self.entries:
                if fnmatchcase(parts[-1], last) and parts[len(parts) - 1 - len(above) : -1] == tuple(above):
                    groups.setdefault((None if file.member is None else file.path, parts[:-1]), []).append(file)
            if groups:
                return sorted(self._nearest(groups, lenient), key=lambda file: natural_key(file.name))
        return []

    def _nearest(self, groups: _Groups, lenient: bool) -> list[SourceFile]:
        """Prefer plain files to archived ones, then the fewest folders above; two alike are an error."""
        ranks = {key: (key[0] is not None, len(key[1])) for key in groups}
        nearest = [files for key, files in groups.items() if ranks[key] == min(ranks.values())]
        if len(nearest) > 1 and not lenient:
            raise RetinaError(
                f"{self.source} holds the same file twice: {nearest[0][0]} and {nearest[1][0]}; expected one. "
                "Move one of them away, or give the folder that holds the right one."
            )
        return nearest[0]

    def missing(self, names: Sequence[str]) -> RetinaError:
        """Return the error for missing files."""
        if self.damaged:  # they are probably in there
            return RetinaError(f"{self.damaged[0]} Missing without it: {shorten(names)}.")
        folder = "folder" if self.source.is_dir() else "archive"
        paths = self._similar(names)
        found = f"found {shorten(paths, _SHOWN_FILES)}" if paths else f"the {folder} is empty"
        packed = [parts[-1] for parts, _ in self.entries if parts[-1].lower().endswith(_OTHER_ARCHIVES)]
        advice = f" Unpack {packed[0]} first: of archives only .zip is read." if packed else ""
        return RetinaError(
            f"{self.source}: missing {shorten(names, 12)}; {found}.{advice} Give the folder with the files as "
            "downloaded (unpacked or zip), or fetch them with --download."
        )

    def _similar(self, names: Sequence[str]) -> list[str]:
        """Return the paths of all files, those most like the missing ones first."""
        paths = ["/".join(parts) for parts, _ in self.entries]
        close = difflib.get_close_matches(names[0], paths[:2000], n=2, cutoff=0.5)
        return close + [path for path in sorted(paths, key=natural_key) if path not in close]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; follow links, leave out hidden files and folders."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != _MACOS)
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(where) / name


def _damaged(path: Path, error: BaseException, member: str | None = None) -> RetinaError:
    what = f"{path} cannot be read as a zip archive" if member is None else f"{path}: {member} cannot be read"
    if isinstance(error, OSError) and error.strerror:
        return RetinaError(f"{what} ({error.strerror}). Check the disk, and the space in {tempfile.gettempdir()}")
    if isinstance(error, RuntimeError):  # a method zipfile does not know, or a password
        return RetinaError(f"{what} ({one_line(error)}). Unpack it with another program and give that folder.")
    return RetinaError(
        f"{what} ({one_line(error)}); expected a complete archive. The file is damaged or its download was cut off: "
        "delete it and download it again."
    )


def _no_source(source: Path) -> RetinaError:
    expected = "Expected a folder with the files as downloaded, or one zip archive."
    if not source.exists():
        return RetinaError(f"{source}: no such file or folder. {expected}")
    archive = " Unpack it first." if source.name.lower().endswith(_OTHER_ARCHIVES) else ""
    return RetinaError(f"{source} is a file, and no zip archive. {expected}{archive}")
