"""Pre-trained weights that come with the package, under a name in place of a path: see ``open/README.md`` beside."""

from __future__ import annotations

import os
from pathlib import Path

OPEN = "open"
"""Encoder of size ``tiny``, distilled on images whose licences allow its use for every purpose."""
_FILES = {OPEN: Path(__file__).parent / "open" / "tiny.pth"}


def about(text: str) -> str | None:
    """Return what is told of shipped weights, in Markdown, by their name; None for a file."""
    path = _FILES.get(text)
    return None if path is None else (path.parent / "README.md").read_text(encoding="utf-8")


def resolve(text: str | os.PathLike[str]) -> str:
    """Return the path that a name of shipped weights stands for, and any other text as a path with ``~`` replaced.

    A file that is called like one of the names is given as ``./open``.
    """
    return str(_FILES.get(os.fspath(text)) or os.path.expanduser(text))
