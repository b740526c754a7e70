"""Files: written whole or not at all, read with one message when they cannot be, hashed; folders: made, locked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from nnunetv2_retina.errors import RetinaError

LOCK = ".lock"
"""Name of the file that ``locked`` locks."""
_BLOCK = 1 << 20
_ZIP_END = struct.Struct("<4s6xH10x")
"""The end of a zip archive before its comment: its mark and the number of members."""
_MANY = 0xFFFF
"""More members than that number can hold."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the name of a temporary file beside ``path``; on success it becomes ``path``, on failure it is removed.

    The name holds more than the process's number: in containers of several machines that share a folder, all are 1.
    """
    temporary = f"{os.fspath(path)}.{os.urandom(3).hex()}.{os.getpid()}.tmp"
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_text(path: Path, text: str, advice: str) -> Path:
    """Write a text as UTF-8.

    Args:
        path: the file; its folder exists.
        text: the contents.
        advice: what to do if the file cannot be written, for the message.

    Raises:
        RetinaError: if it cannot be written; an earlier file of that name then stays as it was.
    """
    try:
        with replacing(path) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RetinaError(f"cannot write {path} ({error.strerror or error}). {advice}") from error
    return path


def check_file(path: Path, content: str) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        RetinaError: if it is not; ``content`` says what it should hold: "weights file".
    """
    if not path.is_file():
        raise RetinaError(f"no {content} at {path}: {'that is a folder' if path.is_dir() else 'no such file'}")
    return path


def check_links(paths: Iterable[Path]) -> None:
    """Check that no file is a link to something that is not there, which a search for files passes over.

    Raises:
        RetinaError: naming the first.
    """
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise RetinaError(
                f"{path} is a link to {path.readlink()}, which is not there. Is a drive not mounted? Remove the link, "
                "or bring the file back"
            )


def check_folder(folder: Path, content: str) -> Path:
    """Return ``folder`` if it is one.

    Raises:
        RetinaError: if it is not; ``content`` says what it should hold: "input folder".
    """
    if not folder.is_dir():
        raise RetinaError(f"no {content} {folder}: {'that is a file' if folder.exists() else 'no such folder'}")
    return folder


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file.
        advice: what to do if it cannot be read, for the message.

    Raises:
        RetinaError: if it is missing, damaged, or holds something other than an object.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RetinaError(f"there is no {path}. {advice}") from error
    except (OSError, ValueError) as error:
        raise RetinaError(f"{path} cannot be read as JSON ({error}). {advice}") from error
    if not isinstance(contents, dict):
        raise RetinaError(f"{path} holds a {type(contents).__name__}; expected an object {{...}}. {advice}")
    return contents


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write an object as JSON; the file appears whole or not at all."""
    with replacing(path) as temporary:
        Path(temporary).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def check_local(output: Path) -> None:
    """Check that an output is meant to be on this machine's file systems.

    Raises:
        RetinaError: for a URL, of which ``Path`` makes one slash of two, so that a folder ``s3:`` would be made here.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(output)):
        raise RetinaError(f"{output} is not a local folder; outputs are written to one. Copy it afterwards")


def check_page(path: Path, option: str) -> Path:
    """Refuse before the work what no page should be written to, such as an image; make the folder that it goes to.

    Args:
        path: of the page.
        option: that gave it.

    Raises:
        RetinaError: for a folder, or another ending than a page's.
    """
    if path.is_dir():
        raise RetinaError(f"{option} {path} is a folder; expected the name of a page, such as {path / 'page.html'}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise RetinaError(f"{option} {path}; expected the name of a page, such as {path.with_suffix('.html')}")
    make_folder(path.parent, f"Give another page with {option}")
    return path


def make_folder(folder: Path, advice: str) -> Path:
    """Make a folder and make sure that files can be written into it.

    Args:
        folder: made with its parents; it may exist.
        advice: what to do if it cannot be used, for the message.

    Raises:
        RetinaError: if it cannot be made or written to, or is a URL.
    """
    check_local(folder)
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another machine's process of the same number may have removed it
    except OSError as error:
        raise RetinaError(f"cannot write to {folder} ({error.strerror or error}). {advice}") from error
    return folder


def link(path: Path, target: Path, advice: str, exist_ok: bool = False) -> None:
    """Make a symbolic link to a file or folder.

    Args:
        path: of the link.
        target: what it leads to.
        advice: what to do where the file system or the user's rights allow no link.
        exist_ok: leave what is there, such as the link of another process.

    Raises:
        RetinaError: if it cannot be made.
    """
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except (OSError, NotImplementedError) as error:
        if exist_ok and isinstance(error, FileExistsError):
            return
        raise RetinaError(f"cannot link {path} to {target} ({error}). {advice}") from error


def is_leftover(name: str) -> bool:
    """Tell whether a file of this name is what ``replacing`` and ``make_folder`` leave when their process is killed."""
    return re.fullmatch(r".+\.\d+\.tmp|\.\d+\.probe", name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written in a folder, but not what another one that runs is writing.

    To be called before this process writes there: a file of its own number is from an earlier life, as in containers.
    """
    for path in folder.iterdir():
        if is_leftover(path.name) and not _runs(int(re.findall(r"\d+", path.name)[-1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if process == os.getpid():
        return False
    if sys.platform == "win32":  # where os.kill(process, 0) is Ctrl-C, not a question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@contextmanager
def locked(folder: Path, refusal: str, name: str = LOCK) -> Iterator[None]:
    """Hold a folder, which exists, against other processes that take the same lock.

    The lock ends with the process, however that ends; a killed one leaves its empty file. File systems and systems
    without locks (Windows) let everyone in.

    Args:
        folder: where the lock's file is.
        refusal: the error's text.
        name: of the file, for a lock of something inside the folder.

    Raises:
        RetinaError: with the text ``refusal``, if another process holds it.
    """
    path = folder / name
    with open(path, "a") as file:
        if not _take_lock(file.fileno()) or not _is_named(path, file.fileno()):
            raise RetinaError(refusal)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def _is_named(path: Path, file: int) -> bool:
    """Tell whether an open file still has its name: a holder that has just ended removes it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _take_lock(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def check_zip_members(archive: zipfile.ZipFile) -> None:
    """Check that a zip archive has as many members as it says, which ``zipfile`` does not: damage hides some.

    Raises:
        zipfile.BadZipFile: if it has not.
    """
    assert archive.fp is not None
    archive.fp.seek(-_ZIP_END.size - len(archive.comment), os.SEEK_END)
    mark, number = _ZIP_END.unpack(archive.fp.read(_ZIP_END.size))
    listed = len(archive.infolist())
    if mark == b"PK\5\6" and number not in (listed, _MANY):
        raise zipfile.BadZipFile(f"it says that it holds {number} files; {listed} are listed")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file's contents in hexadecimal; ``algorithm`` is a name that ``hashlib`` knows."""
    with path.open("rb") as file:
        return stream_digest(file, algorithm)


def stream_digest(stream: IO[bytes], algorithm: str, prefix: bytes = b"") -> str:
    """Return the digest of ``prefix`` and what a stream holds; ``algorithm`` as for ``file_digest``."""
    digest = hashlib.new(algorithm, prefix, usedforsecurity=False)
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
