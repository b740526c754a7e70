"""Images in a zip or tar of a folder tree, read in place.

A folder and a zip of it give the same list of files; a tar is taken in the order in which it was written, since it can
only be read from front to end.

Memory: of a tar, one file's name; of a zip the whole directory, since Python's reader keeps it (about 1 kB a file).
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError, one_line
from nnunetv2_retina.files import check_zip_members
from nnunetv2_retina.images.ome_zarr import is_zarr
from pretraining.store.crops import CropSource
from pretraining.store.decoding import TOO_LARGE, UNREADABLE, RejectionError, most_bytes
from pretraining.store.drawing import Drawing
from pretraining.store.sources import Census, Source, SourceFile, is_passed_over, printable

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_ENDINGS = (".zip", *TAR_ENDINGS)
_BLOCK = 1 << 20
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)


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
        except Exception as error:  # on a damaged directory zipfile and tarfile raise whatever they stumble over
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
            check_zip_members(archive)
            members = [info for info in archive.infolist() if not info.is_dir() and not is_passed_over(info.filename)]
            for info in sorted(members, key=lambda info: _walk_order(info.filename)):
                if info.flag_bits & 1:
                    raise RetinaError(f"{self.path} is encrypted; expected a zip without a password. Unpack it first")
                date = int("".join(f"{part:02d}" for part in info.date_time))
                yield self._member(info.filename, info.file_size, date, _ZipReader(self.path, archive, info))

    def _tar_members(self) -> Iterator[SourceFile]:
        with tarfile.open(self.path, "r:*") as archive:
            while (member := archive.next()) is not None:
                if member.isfile() and not is_passed_over(member.name):
                    yield self._member(
                        member.name, member.size, int(member.mtime), _TarReader(self.path, archive, member)
                    )
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps all of them
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(512) != bytes(512):  # reading just stops there
                raise tarfile.ReadError("it ends without an end mark")
            while archive.fileobj.read(_BLOCK):  # the checksum of compressed data is behind them
                pass

    def _member(self, name: str, size: int, modified: int, read: Callable[[], bytes]) -> SourceFile:
        relative = str(PurePosixPath(name.replace("\\", "/") if self.is_zip else name))
        return SourceFile(printable(relative), self.group(relative), size, modified, None, read)


@dataclass(frozen=True)
class _ZipReader:
    path: Path
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def __call__(self) -> bytes:
        _check_growth(self.info.file_size, self.info.compress_size)
        try:
            return self.archive.read(self.info)
        except OSError as error:
            raise _damaged(self.path, error) from error
        except Exception as error:  # see above
            raise RejectionError(f"{UNREADABLE}: {one_line(error)}") from error


@dataclass(frozen=True)
class _TarReader:
    path: Path
    archive: tarfile.TarFile
    member: tarfile.TarInfo

    def __call__(self) -> bytes:
        _check_growth(self.member.size, self.path.stat().st_size)
        try:
            file = self.archive.extractfile(self.member)
            data = b"" if file is None else file.read()
            if len(data) != self.member.size:
                raise tarfile.ReadError("unexpected end of data")
        except _ARCHIVE_ERRORS as error:
            raise _damaged(self.path, error) from error
        return data


def _check_growth(size: int, packed: int) -> None:
    """Refuse to unpack a file that says it is far larger than what is packed."""
    if size > most_bytes(packed):
        raise RejectionError(
            f"{TOO_LARGE}: {format_bytes(size)} unpacked from {format_bytes(packed)}; expected at most "
            f"{format_bytes(most_bytes(packed))}"
        )


def _damaged(path: Path, error: Exception) -> RetinaError:
    return RetinaError(
        f"{path} cannot be read as an archive ({one_line(error)}): it is incomplete, damaged or of another kind. Copy "
        "or download it again, then start the same command again"
    )


def open_source(path: str | Path, drawing: Drawing | None = None) -> Source:
    """Open a folder tree, an archive, or a Zarr volume.

    Args:
        path: of it.
        drawing: what is drawn from a volume; None: what ``Drawing`` says.

    Raises:
        RetinaError: if there is nothing at ``path``, it is a file of another kind, or ``drawing`` is for no volume.
    """
    path = Path(path).expanduser().resolve()
    if path.is_dir() and is_zarr(path):
        return CropSource(path, drawing or Drawing())
    if drawing not in (None, Drawing()):
        raise RetinaError(
            f"--crops, --level, --box and --crop-seed are for Zarr volumes, and {path} is none. Leave them out"
        )
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


def _walk_order(name: str) -> list[tuple[bool, str]]:
    """Return the sort key of a path: files of a folder before its folders, as ``sources`` walks."""
    *folders, file = PurePosixPath(name.replace("\\", "/")).parts
    return [*((True, folder) for folder in folders), (False, file)]
