"""Compute the hashes of downloaded files, and remember those that were not published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json, stream_digest, write_text

RECORD = "checksums.json"
_ADVICE = (
    "It is the record of earlier downloads. Correct it, or delete it: the files as they are now then count as right."
)
_DIGITS = {"sha256": 64, "md5": 32, "git_blob": 40}


@dataclass(frozen=True)
class Checksum:
    """What a file's content must hash to.

    Raises:
        RetinaError: for an unknown algorithm, or digits that cannot be one of its hashes.
    """

    algorithm: str
    """``sha256``, ``md5``, or ``git_blob``: SHA-1 of ``b"blob <length>\\0"`` and the content."""
    digest: str
    """Lower-case hexadecimal."""

    def __post_init__(self) -> None:
        if _DIGITS.get(self.algorithm) != len(self.digest) or set(self.digest) - set("0123456789abcdef"):
            raise RetinaError(
                f"checksum {self.algorithm} {self.digest!r}; expected {', '.join(_DIGITS)}, in lower-case hexadecimal"
            )

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest}"


def compute(stream: IO[bytes], size: int, algorithm: str) -> Checksum:
    """Return the checksum of a stream of ``size`` bytes."""
    if algorithm == "git_blob":
        return Checksum(algorithm, stream_digest(stream, "sha1", f"blob {size}\0".encode()))
    return Checksum(algorithm, stream_digest(stream, algorithm))


def compute_file(path: Path, algorithm: str) -> Checksum:
    """Return the checksum of a file."""
    with path.open("rb") as stream:
        return compute(stream, path.stat().st_size, algorithm)


def recorded(folder: Path, name: str) -> Checksum | None:
    """Return the sha256 that was recorded for a file when it was first used; None if there is none.

    Raises:
        RetinaError: for a record that cannot be read.
    """
    entry = _read(folder / RECORD).get(name)
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        raise RetinaError(f"{folder / RECORD}: the entry of {name} has no sha256. {_ADVICE}")
    return Checksum("sha256", entry["sha256"])


def record(folder: Path, name: str, checksum: Checksum, origin: str) -> None:
    """Remember a file's sha256 in ``checksums.json`` beside it.

    Args:
        folder: which holds the file, and the record.
        name: the file's path below it.
        checksum: of algorithm ``sha256``.
        origin: the address it came from, or how it came to be there.

    Raises:
        RetinaError: for an existing record that cannot be read or replaced.
    """
    path = folder / RECORD
    entries = _read(path)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entries[name] = {"sha256": checksum.digest, "origin": origin, "recorded": date}
    write_text(path, json.dumps(entries, indent=2) + "\n", "Is the folder read-only?")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, _ADVICE) if path.is_file() else {}
