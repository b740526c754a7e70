"""Files of a prediction: which cases are finished, and results that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunetv2_retina.errors import RetinaError, one_line, shorten
from nnunetv2_retina.files import LOCK, locked, make_folder, read_json, replacing
from nnunetv2_retina.nnunet.inputs import InputCase

_ARGUMENTS = "predict_from_raw_data_args.json"


def unfinished(folder: Path, part: str) -> Path:
    """Return the folder inside the output folder where a part's results are written before they get their names.

    Args:
        folder: the output folder.
        part: what tells this part from others that write to the folder; empty if it is all.
    """
    return folder / f".unfinished{part}"


def missing(cases: Sequence[InputCase], folder: Path, names: Callable[[InputCase], Sequence[str]]) -> list[InputCase]:
    """Return the cases of which a file, or a folder of slices, is not in the output folder yet."""
    return [case for case in cases if not all((folder / name).exists() for name in names(case))]


@contextmanager
def held(folder: Path, part: str = "") -> Iterator[None]:
    """Make the output folder and hold it for the duration; what a killed run left half written is removed.

    Raises:
        RetinaError: if it cannot be written to, or another run of the same part writes to it.
    """
    make_folder(folder, "Give another output folder with -o")
    busy = (
        f"another prediction is writing to {folder}. Wait until it has ended, then add --continue_prediction, or give "
        "another folder with -o"
    )
    with locked(folder, busy, LOCK + part):
        shutil.rmtree(unfinished(folder, part), ignore_errors=True)
        yield


def _flush(path: Path) -> None:
    """Bring a file, or the files of a folder, to the disk."""
    for file in path.iterdir() if path.is_dir() else (path,):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


@contextmanager
def appearing(folder: Path, name: str, last: str, part: str = "") -> Iterator[Path]:
    """Yield a folder to write results of a case into; then move them to ``folder``, the one named ``last`` last.

    What a killed run leaves is in a folder of its own and is overwritten by the next; it never has a final name.

    Raises:
        RetinaError: if they cannot be written.
    """
    partial = unfinished(folder, part) / name
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in sorted(partial.iterdir(), key=lambda path: path.name == last):
            _flush(path)
            if path.is_dir():
                _make_room(folder / path.name, path)
            os.replace(path, folder / path.name)
    except OSError as error:
        raise RetinaError(
            f"the result of {name} cannot be written to {folder} ({error.strerror or one_line(error)}). See that it is "
            "writable and has room, then continue with --continue_prediction"
        ) from error
    except RuntimeError as error:  # SimpleITK's for everything, a full disk included
        raise RetinaError(
            f"the result of {name} cannot be written to {folder} ({one_line(error)}). If there is room, another "
            "--output-format may hold it; then continue with --continue_prediction"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_room(earlier: Path, new: Path) -> None:
    """Remove an earlier folder of slices, if it holds nothing but what the new one has.

    Raises:
        RetinaError: if it holds something else.
    """
    if not earlier.exists():
        return
    others = {path.name for path in earlier.iterdir()} - {path.name for path in new.iterdir()}
    if others:
        raise RetinaError(
            f"{earlier} holds {shorten(sorted(others))}, which are no slices of this prediction. Give another folder "
            "with -o, or move it away"
        )
    shutil.rmtree(earlier)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, unless it holds something or is not there."""
    try:
        folder.rmdir()
    except OSError:
        return


def check_goes_on(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Refuse to finish a folder of predictions that was begun with another model or other settings.

    Args:
        folder: of the predictions. Where earlier versions or nnU-Net began it, nothing says with what.
        arguments: of this run, as ``write_records`` takes them.

    Raises:
        RetinaError: naming the first difference.
    """
    path = folder / _ARGUMENTS
    earlier = read_json(path, "Give another folder with -o").get("retina") if path.is_file() else None
    if not isinstance(earlier, Mapping):
        return
    for part in ("model", "instances"):
        begun, now = earlier.get(part) or {}, arguments["retina"][part] or {}
        differing = [name for name in {**begun, **now} if begun.get(name) != now.get(name)]
        if begun and now and differing:
            name = differing[0]
            raise RetinaError(
                f"{folder} was begun with {name} {begun.get(name)}; this run has {now.get(name)}, and would mix "
                "the two. Give another folder with -o, or leave --continue_prediction out to predict all anew"
            )


def write_records(
    folder: Path, dataset_json: Mapping[str, Any], plans: Mapping[str, Any], arguments: Mapping[str, Any]
) -> None:
    """Write dataset.json, plans.json and the arguments beside the predictions, as nnU-Net does for what comes after.

    Raises:
        RetinaError: if they cannot be written; earlier ones then stay as they were.
    """
    plain = dict(arguments)
    recursive_fix_for_json_export(plain)
    try:
        for name, contents, sort in (
            (_ARGUMENTS, plain, True),
            ("dataset.json", dict(dataset_json), False),
            ("plans.json", dict(plans), False),
        ):
            with replacing(folder / name) as temporary:
                save_json(contents, temporary, sort_keys=sort)
    except OSError as error:
        raise RetinaError(
            f"the output folder {folder} cannot be written ({error.strerror}). Give another with -o"
        ) from error
