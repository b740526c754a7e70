"""Images for pre-training from nnU-Net's raw data sets and from folders beside them: one folder of links, a source.

Each data set, and each folder, becomes a group of its own under its own name, by which trainings later tell whether the
pre-training saw their images. Test images are left out unless asked for; their group has ``_test`` behind its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_folder, link, make_folder
from nnunetv2_retina.nnunet.datasets import IMAGES_TR, IMAGES_TS, RAW, find_dataset
from pretraining.store.sources import is_passed_over

TEST = "_test"
"""What a data set's name has behind it as the group of its test images."""
_NO_LINKS = (
    "Choose an output folder on a file system with symbolic links (on Windows they need the developer mode), or give "
    "one folder of images as SOURCE"
)


def find_groups(datasets: Sequence[str], also: Sequence[Path] = (), with_test: bool = False) -> dict[str, Path]:
    """Find folders of images.

    Args:
        datasets: numbers or names of data sets in ``$nnUNet_raw``, whose training images are taken.
        also: further folders of images.
        with_test: take the test images of the data sets, too.

    Returns:
        Name of each group: its folder.

    Raises:
        RetinaError: for a data set or folder that is not there, two of one name, or a name that packing passes over.
    """
    wanted: dict[str, Path] = {}
    for name, path in _groups(datasets, also, with_test):
        if name in wanted:
            raise RetinaError(f"{name} is there twice: {wanted[name]} and {path}. Name each once, or rename a folder")
        if is_passed_over(name):
            raise RetinaError(f"{path}: folders of such a name are passed over as no images. Rename it, or link to it")
        wanted[name] = path.resolve()
    return wanted


def collect(folder: Path, wanted: Mapping[str, Path]) -> Path:
    """Make a folder of links to folders of images, or check that it is as it would be made.

    Args:
        folder: to make.
        wanted: what ``find_groups`` found.

    Returns:
        The folder.

    Raises:
        RetinaError: for a folder that holds other links, or a file system without links.
    """
    make_folder(folder, "Choose another output folder (-o)")
    # Not what packing passes over either: a system's files, and those that other processes of the run leave or make.
    linked = {path.name: path.resolve() for path in folder.iterdir() if not is_passed_over(path.name)}
    other = sorted(name for name, path in linked.items() if wanted.get(name) != path)
    if other:
        raise RetinaError(
            f"{folder} was made for other images: {', '.join(other)}. Name the same data sets and folders as at the "
            "start, or choose another output folder (-o)"
        )
    for name in wanted.keys() - linked.keys():
        link(folder / name, wanted[name], _NO_LINKS, exist_ok=True)  # other processes of the run make it, too
    return folder


def _groups(datasets: Sequence[str], also: Sequence[Path], with_test: bool) -> list[tuple[str, Path]]:
    groups = []
    for dataset in datasets:
        raw = find_dataset(dataset, RAW)
        groups.append((raw.name, check_folder(raw / IMAGES_TR, "folder of training images")))
        if with_test:
            groups.append((raw.name + TEST, check_folder(raw / IMAGES_TS, "folder of test images")))
    return groups + [(path.resolve().name, check_folder(path, "folder of images")) for path in also]
