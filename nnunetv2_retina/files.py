"""Files that appear under their names whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_retina.errors import RetinaError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the name of a temporary file beside ``path``; on success it becomes ``path``, on failure it is removed."""
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
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
        text: what it is to hold.
        advice: what to do if it cannot be written, for the message.

    Raises:
        RetinaError: if it cannot be written; an earlier file of that name then stays as it was.
    """
    try:
        with replacing(path) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RetinaError(f"cannot write {path} ({error.strerror or error}). {advice}") from error
    return path
