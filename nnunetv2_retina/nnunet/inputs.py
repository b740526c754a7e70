"""Images as nnU-Net takes them: a file for each channel, named CASE_0000, CASE_0001 and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import check_folder, check_links
from nnunetv2_retina.nnunet.datasets import channel_count
from nnunetv2_retina.nnunet.labels import choose_reader, reading

_COMPANIONS, _COMPANION_ENDINGS = ("Thumbs.db", "desktop.ini"), (".json", ".txt", ".csv", ".md")
"""Files that lie beside images and are none."""


@dataclass(frozen=True)
class InputCase:
    """One image: a name and a file for each channel, in their order."""

    name: str
    files: tuple[Path, ...]


def list_cases(folder: Path, dataset_json: Mapping[str, Any]) -> list[InputCase]:
    """List the images of a folder, sorted by their names.

    A single file may hold all channels, as RGB images do; how many it holds shows when it is read.

    Args:
        folder: with CASE_0000<ending>, CASE_0001<ending>, ...
        dataset_json: a loaded ``dataset.json``, which tells the ending and the number of channels.

    Raises:
        RetinaError: if there is no such folder or image, a link to nothing, or a case has another number of channels.
    """
    ending, channels = str(dataset_json["file_ending"]), channel_count(dataset_json)
    names, pattern = _names(folder), _pattern(ending)
    check_links(folder / name for name in names if pattern.fullmatch(name))
    files: dict[str, list[Path]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            files.setdefault(match[1], []).append(folder / name)
    if not files:
        held = f"it holds {shorten(names, 3)}" if names else "it is empty"
        raise RetinaError(
            f"no images in {folder}: {held}. Expected names like CASE_0000{ending}, the ending and the channel number "
            "that the model was trained with. retina_convert writes them"
        )
    cases = [InputCase(name, tuple(paths)) for name, paths in sorted(files.items())]
    for case in cases:
        wanted = [f"{case.name}_{channel:04d}{ending}" for channel in range(channels)]
        if [file.name for file in case.files] not in (wanted, wanted[:1]):
            number = f"{channels} {'channel' if channels == 1 else 'channels'}: {shorten(wanted)}"
            raise RetinaError(
                f"case {case.name} in {folder} has {shorten(file.name for file in case.files)}; the model takes "
                f"{number}. Give each case just these. If the four digits number slices of a volume, add "
                f"--slices-as-volume; if they number images, rename them, as in {case.name}_0001a{ending}"
            )
    return cases


def holds_cases(folder: Path, dataset_json: Mapping[str, Any]) -> bool:
    """Tell whether a file of a folder is named as nnU-Net has it."""
    pattern = _pattern(str(dataset_json["file_ending"]))
    return any(pattern.fullmatch(name) for name in _names(folder))


def left_out(folder: Path, dataset_json: Mapping[str, Any]) -> list[str]:
    """Name the files of a folder that ``list_cases`` passes over, each with the reason; not those that belong to it."""
    ending = str(dataset_json["file_ending"])
    reasons = []
    for name in _names(folder):
        if _pattern(ending).fullmatch(name) or name in _COMPANIONS or name.endswith(_COMPANION_ENDINGS):
            continue
        if not name.endswith(ending):
            reasons.append(f"{name} (expected the ending {ending})")
        else:
            reasons.append(f"{name} (expected a channel number before the ending: {name[: -len(ending)]}_0000{ending})")
    return reasons


def _names(folder: Path) -> list[str]:
    """Return the names of the files of a folder, also of links to nothing; no hidden ones."""
    entries = check_folder(folder, "input folder").iterdir()
    return sorted(path.name for path in entries if not path.is_dir() and not path.name.startswith("."))


def _pattern(ending: str) -> re.Pattern[str]:
    return re.compile(r"(.+)_(\d{4})" + re.escape(ending))


def first_channel(folder: Path, case: str, ending: str) -> Path:
    """Return the path of a case's first channel."""
    return folder / f"{case}_0000{ending}"


def read_channel(path: Path, dataset_json: Mapping[str, Any]) -> NDArray[Any]:
    """Read one channel of an image, (Z, Y, X); Z is 1 for an image of two axes.

    Raises:
        RetinaError: if it cannot be read.
    """
    reader = choose_reader(dataset_json, path)
    with reading(path):
        images, _ = reader().read_images([str(path)])
        if not images[0].size:
            raise ValueError("no image in the file")
    channel: NDArray[Any] = images[0]
    return channel
