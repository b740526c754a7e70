"""Which of a benchmark's files are on disk: looked for by name, and not hashed as ``fetch`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_conversion.downloads import catalogue
from dataset_conversion.downloads.catalogue import RemoteFile
from dataset_conversion.downloads.fetch import find_present
from dataset_conversion.downloads.http_transfer import part_path
from dataset_conversion.readers.archives import SourceFile
from nnunetv2_retina.console.wording import format_bytes

PRESENT, PARTIAL, MISSING = "present", "partial", "missing"


@dataclass(frozen=True)
class FileStatus:
    """One file of a benchmark on disk."""

    name: str
    state: str
    """``PRESENT``, ``PARTIAL`` (interrupted) or ``MISSING``."""
    size: int
    """Bytes on disk; 0 for members of an archive that was unpacked by hand."""


def status(key: str, folder: Path) -> list[FileStatus]:
    """Return the state of every file of a benchmark in a folder, at any depth.

    Raises:
        RetinaError: for an unknown key, or a folder that does not exist.
    """
    files = catalogue.collection(key).files
    present = find_present(files, folder)
    return [_file_status(file, folder, present[file.name]) for file in files]


def _file_status(file: RemoteFile, folder: Path, present: dict[str, SourceFile]) -> FileStatus:
    if present:
        return FileStatus(file.name, PRESENT, present[file.name].size if file.name in present else 0)
    part = part_path(folder / file.name)
    if part.is_file():
        return FileStatus(file.name, PARTIAL, part.stat().st_size)
    return FileStatus(file.name, MISSING, 0)


def describe(files: Sequence[FileStatus]) -> str:
    """Put the files' states into a few words."""
    present = sum(file.state == PRESENT for file in files)
    if present == len(files):
        return "complete"
    parts = [f"{present} of {len(files)} files"] if present else []
    parts += [f"{format_bytes(file.size)} of {file.name}" for file in files if file.state == PARTIAL]
    return ", ".join(parts) or "nothing"
