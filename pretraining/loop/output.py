"""The output folder of a run, held by one run at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import is_leftover, locked, make_folder


def check_apart(folder: Path, images: Iterable[Path], store: Path | None = None) -> None:
    """Check that a run would not write among its own images, nor into their store.

    Args:
        folder: the output folder, which need not exist.
        images: folders, archives or stores of images.
        store: where packed images go, or will go.

    Raises:
        RetinaError: if the output folder is one of them or lies in one.
    """
    output = folder.expanduser().resolve()
    places = [(path, "the images") for path in images] + ([(store, "the store of packed images")] if store else [])
    for path, what in places:
        if (resolved := path.expanduser().resolve()) == output or resolved in output.parents:
            raise RetinaError(
                f"the output folder {folder} is in {what}, {path}: what a run writes would count among them. Choose "
                "another one outside of it (-o)"
            )


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
