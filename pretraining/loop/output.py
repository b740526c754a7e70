"""The output folder of a run, held by one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_retina.files import is_leftover, locked, make_folder


@contextmanager
def held_output(folder: Path) -> Iterator[None]:
    """Make the output folder and hold it for the duration; what a killed run left half written is removed.

    Raises:
        RetinaError: if it cannot be written to, or another run writes to it.
    """
    make_folder(folder, "Choose another output folder with -o")
    busy = f"another pre-training is writing to {folder}. Wait until it has ended, or choose another folder with -o"
    with locked(folder, busy):
        for path in folder.iterdir():
            if is_leftover(path.name):
                path.unlink()
        yield
