"""Images for pre-training from nnU-Net's raw data sets and from folders beside them: one folder of links, a source.

Each data set, and each folder, becomes a group of its own under its own name, by which trainings later tell whether the
pre-training saw their images. Test images are left out unless asked for; their group has ``_test`` behind its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_folder, link, make_folder
from nnunetv2_retina.nnunet.datasets import IMAGES_TR, IMAGES_TS, RAW, find_dataset

TEST = "_test"
"""What a data set's name has behind it as the group of its test images."""
_NO_LINKS = (
    "Choose an output folder on a file system with symbolic links (on Windows they need the developer mode), or give "
    "one folder of images as SOURCE"
)


def collect(folder: Path, datasets: Sequence[str], also: Sequence[Path] = (), with_test: bool = False) -> Path:
    """Make a folder of links to folders of images, or check that it is as it would be made.

    Args:
        folder: to make.
        datasets: numbers or names of data sets in ``$nnUNet_raw``, whose training images are taken.
        also: further folders of images.
        with_test: take the test images of the data sets, too.

    Returns:
        The folder.

    Raises:
        RetinaError: for a data set or folder that is not there, two of one name, a folder that holds other links, or a
            file system without links.
    """
    wanted: dict[str, Path] = {}
    for name, path in _groups(datasets, also, with_test):
        if name in wanted:
            raise RetinaError(f"{name} is there twice: {wanted[name]} and {path}. Name each once, or rename a folder")
        wanted[name] = path.resolve()
    make_folder(folder, "Choose another output folder (-o)")
    linked = {path.name: path.resolve() for path in folder.iterdir()}
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
