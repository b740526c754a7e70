"""Files of a prediction: input cases, what of them is finished, and results that appear whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunetv2_retina.errors import RetinaError, shorten

UNFINISHED = ".unfinished"
"""Folder inside the output folder where results are written before they get their names."""


@dataclass(frozen=True)
class Case:
    """One image: a name and a file for each channel, in their order."""

    name: str
    files: tuple[Path, ...]


def list_cases(folder: Path, ending: str, channels: int) -> list[Case]:
    """The images of a folder, named CASE_0000<ending>, CASE_0001<ending>, ... as nnU-Net expects.

    A single file may hold all channels, as RGB images do; how many it does, shows when it is read.

    Raises:
        RetinaError: if there is no such folder or image, or a case has another number of channels.
    """
    if not folder.is_dir():
        raise RetinaError(f"no input folder {folder}: {'that is a file' if folder.exists() else 'no such folder'}")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(ending))
    found: dict[str, list[Path]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            found.setdefault(match[1], []).append(folder / name)
    if not found:
        held = f"it holds {shorten(names, 3)}" if names else "it is empty"
        raise RetinaError(
            f"no images in {folder}: {held}. Expected names like CASE_0000{ending}, the ending and the channel number "
            "that the model was trained with. retina_convert writes them"
        )
    cases = [Case(name, tuple(files)) for name, files in sorted(found.items())]
    for case in cases:
        wanted = [f"{case.name}_{channel:04d}{ending}" for channel in range(channels)]
        if [file.name for file in case.files] not in (wanted, wanted[:1]):
            raise RetinaError(
                f"case {case.name} in {folder} has {shorten(file.name for file in case.files)}; the model takes "
                f"{channels} {'channel' if channels == 1 else 'channels'}: {shorten(wanted)}. Give each case just these"
            )
    return cases


def missing(cases: Sequence[Case], folder: Path, endings: Sequence[str]) -> list[Case]:
    """Those that do not have a file of each ending in the output folder yet."""
    return [case for case in cases if not all((folder / f"{case.name}{ending}").is_file() for ending in endings)]


@contextmanager
def appearing(folder: Path, name: str, last: str) -> Iterator[Path]:
    """Yield a folder to write results of a case into; then move them to ``folder``, the one named ``last`` last.

    What a killed run leaves is in a folder of its own and is overwritten by the next; it never has a final name.

    Raises:
        RetinaError: if they cannot be written.
    """
    unfinished = folder / UNFINISHED / name
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        for path in sorted(unfinished.iterdir(), key=lambda path: path.name == last):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, folder / path.name)
    except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise RetinaError(
            f"the result of {name} cannot be written to {folder} ({reason}). See that it is writable "
            "and has room, then continue with --continue_prediction"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, unless it holds something or is not there."""
    try:
        folder.rmdir()
    except OSError:
        return


def write_records(
    folder: Path, dataset_json: Mapping[str, Any], plans: Mapping[str, Any], arguments: Mapping[str, Any]
) -> None:
    """Write dataset.json, plans.json and the arguments beside the predictions, as nnU-Net does for what comes after.

    Raises:
        RetinaError: if the folder cannot be made or written.
    """
    told = dict(arguments)
    recursive_fix_for_json_export(told)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_json(told, str(folder / "predict_from_raw_data_args.json"))
        save_json(dict(dataset_json), str(folder / "dataset.json"), sort_keys=False)
        save_json(dict(plans), str(folder / "plans.json"), sort_keys=False)
    except OSError as error:
        raise RetinaError(
            f"the output folder {folder} cannot be written ({error.strerror}). Give another with -o"
        ) from error
