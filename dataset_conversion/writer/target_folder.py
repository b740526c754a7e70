"""Where a data set goes: find $nnUNet_raw, refuse conflicts, and put a finished folder in place at once."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import locked
from nnunetv2_retina.nnunet.datasets import PREPROCESSED, RAW, RESULTS, nnunet_folder


def check_target(root: str | Path | None, folder_name: str, overwrite: bool) -> Path:
    """Return the folder that a data set is to have, after making sure that nothing is in its way.

    Args:
        root: folder of raw data sets; None: ``$nnUNet_raw``, and the ID must be unused in nnU-Net's other folders too.
        folder_name: such as ``Dataset801_CREMI``.
        overwrite: whether an existing data set of this very name may be replaced.

    Raises:
        RetinaError: if there is no such root, or naming the folder in the way.
    """
    folder = _raw_root(root)
    _check_free(folder, folder_name, overwrite, elsewhere=root is None)
    return folder / folder_name


def _raw_root(root: str | Path | None) -> Path:
    """Return the folder that holds the raw data sets: ``root``, or ``$nnUNet_raw``."""
    given = nnunet_folder(RAW) if root is None else root
    label = f"${RAW}" if root is None else "the target folder"
    if not given:
        raise RetinaError(
            f"${RAW} is not set; expected the folder of nnU-Net's raw data sets. Run: retina_doctor --init, which "
            "makes nnU-Net's three folders, or set the variable to yours"
        )
    path = Path(given).expanduser()
    if not path.exists():
        raise RetinaError(f"{label} is {path}, which does not exist. Create it: mkdir -p {path}")
    if not path.is_dir():
        raise RetinaError(f"{label} is {path}, which is a file; expected a folder. Correct the path.")
    return path


def _check_free(root: Path, folder_name: str, overwrite: bool, elsewhere: bool) -> None:
    """Refuse a data set that exists, or an ID that another data set uses.

    nnU-Net finds a data set by its ID alone, in its three folders together: two names for one ID stop it later.
    """
    prefix = folder_name.split("_", 1)[0] + "_"
    others = [nnunet_folder(name) for name in (PREPROCESSED, RESULTS) if elsewhere]
    folders = [root, *filter(None, others)]
    for folder in folders:
        taken = sorted(path.name for path in folder.glob(f"{prefix}*") if path.is_dir() and path.name != folder_name)
        if taken:
            raise RetinaError(
                f"ID {int(prefix[7:-1])} is already used by {taken[0]} in {folder}; expected an unused ID for "
                f"{folder_name}. Choose another one, or move that folder away."
            )
    if (root / folder_name).exists() and not overwrite:
        raise RetinaError(
            f"{root / folder_name} exists already. Choose another ID or name, or allow overwriting (--overwrite)."
        )


@contextmanager
def held_target(root: str | Path | None, folder_name: str, overwrite: bool) -> Iterator[Path]:
    """Yield the folder of ``check_target``, and hold its ID against other conversions for the duration.

    What conversions of this data set that were killed have left is removed, or put back where it was being replaced.

    Raises:
        RetinaError: as ``check_target``, or if another process is converting to this ID.
    """
    target = check_target(root, folder_name, overwrite)
    name = folder_name.split("_", 1)[0]
    busy = (
        f"another conversion is writing a data set with ID {int(name[7:])} to {target.parent}. Wait until it has "
        "ended, or choose another ID"
    )
    if not os.access(target.parent, os.W_OK):
        raise _not_writable(target.parent, "Permission denied")
    with locked(target.parent, busy, f".{name}.lock"):
        _tidy(target)
        yield check_target(root, folder_name, overwrite)  # another may have ended in between


def _tidy(target: Path) -> None:
    for retired in target.parent.glob(f".{target.name}.old-*"):
        if not target.exists():
            retired.rename(target)  # killed between the two renames of _replace
        shutil.rmtree(retired, ignore_errors=True)
    for partial in target.parent.glob(f".{target.name}.partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _not_writable(folder: Path, reason: str | None) -> RetinaError:
    return RetinaError(f"{folder} is not writable ({reason}). Change its permissions, or choose another folder.")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``target`` when the block ends well, and is removed when not.

    Its name begins with a dot, so nnU-Net never takes it for a data set. An existing target is replaced at the end.

    Raises:
        RetinaError: if the parent folder is not writable, or the finished folder cannot be put in place.
    """
    token = uuid.uuid4().hex[:8]
    partial = target.with_name(f".{target.name}.partial-{token}")
    try:
        partial.mkdir()
    except OSError as error:
        raise _not_writable(target.parent, error.strerror) from error
    try:
        yield partial
        _replace(partial, target, target.with_name(f".{target.name}.old-{token}"))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(partial: Path, target: Path, retired: Path) -> None:
    """Rename ``partial`` to ``target``; the old target comes back if that fails."""
    try:
        if target.exists():
            target.rename(retired)
        partial.rename(target)
    except OSError as error:
        if retired.exists() and not target.exists():
            retired.rename(target)
        raise RetinaError(
            f"cannot put {target} in place ({error.strerror}). Check the folder's permissions."
        ) from error
    shutil.rmtree(retired, ignore_errors=True)
