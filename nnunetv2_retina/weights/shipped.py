"""Weights by a name in place of a path: those that come with the package (see ``open/README.md``), and fetched ones."""

from __future__ import annotations

import os
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights.catalogue import OPEN as OPEN
from nnunetv2_retina.weights.catalogue import WEIGHTS, nearest


def about(text: str) -> str | None:
    """Return what is told of shipped weights, in Markdown, by their name; None for others and for a file."""
    card = WEIGHTS[text].path.parent / "README.md" if text == OPEN else None
    return None if card is None else card.read_text(encoding="utf-8")


def resolve(text: str | os.PathLike[str], folder: Path | None = None) -> str:
    """Return the path that a name of weights stands for, and any other text as a path with ``~`` replaced.

    A file that is called like one of the names is given as ``./open``.

    Args:
        text: a name of ``catalogue.WEIGHTS``, or a path.
        folder: that relative paths are meant from; None: the working folder.

    Raises:
        RetinaError: for a name whose weights were not fetched yet, or a word that is neither a name nor a file.
    """
    name = os.fspath(text)
    entry = WEIGHTS.get(name)
    if entry is None:
        path = os.path.expanduser(name)
        if _is_word(name) and not os.path.exists((folder or Path()) / path):
            raise RetinaError(f"no weights are called {name}, and there is no such file. {nearest(name)}")
        return path
    if not entry.is_here:
        raise RetinaError(f"the weights {name} are not at {entry.path} yet. Run once: retina_import_weights {name}")
    return str(entry.path)


def _is_word(text: str) -> bool:
    """Tell whether a text may be meant as a name: no folder, no ending."""
    return bool(text) and not set(text) & {"/", os.sep, "~", "$"} and not Path(text).suffix
