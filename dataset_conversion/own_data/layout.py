"""Find the images and masks of a user's own data, and names for its cases."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dataset_conversion.command import SLICES
from dataset_conversion.own_data.boxes import Annotated, box_lists, box_text, parts, read_boxes
from dataset_conversion.own_data.numbered import check_numbers, find_volumes, open_slices, say_unread
from dataset_conversion.readers.hdf5 import HDF5_SUFFIXES, SEPARATOR, match_datasets, split_location
from dataset_conversion.readers.images import SUPPORTED, ImageFile, file_stem, file_suffix, open_image
from dataset_conversion.readers.slabs import Volume
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import check_links
from nnunetv2_retina.images.ome_zarr import is_zarr, open_volume, volume_stem

MASK_FOLDERS = ("masks", "labels")
BOX_FOLDER = "boxes"
FIRST_CHANNEL = "_0000"
"""What nnU-Net puts after the name of an image, and not of its mask."""
EXPECTED = (
    "Expected images/ and masks/ (or labels/) with files of equal names, or train/ and test/ each with such a pair "
    "(test/ may have images/ only). New images alone, for retina_predict: retina_convert images IN OUT -d ID."
)


@dataclass(frozen=True)
class Location:
    """A file, and the data set inside it if it is HDF5; a Zarr volume, its level and a part of it; numbered slices."""

    path: Path
    dataset: str | None = None
    box: str | None = None
    slices: tuple[Path, ...] = ()
    """Of one volume, in their order; then ``path`` is their folder."""

    def __str__(self) -> str:
        name = str(self.path) if self.dataset is None else f"{self.path}{SEPARATOR}{self.dataset}"
        return name if self.box is None else f"{name} {self.box}"

    def open(self, mask: bool = False) -> ImageFile[Volume]:
        """Read the file, or leave a large volume in it: see ``images.open_image``."""
        if self.slices:
            return open_slices(self.slices, mask)
        return open_image(self.path, self.dataset, mask, self.box)


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case."""

    name: str
    """The files' common stem."""
    split: str
    image: Location
    mask: Location | None
    boxes: tuple[Annotated, ...] = ()
    """What of the mask is annotated; empty: all of it."""


@dataclass(frozen=True)
class Hdf5Paths:
    """Data set paths inside the HDF5 files; each may hold one ``*``, which stands for the volume's name."""

    image: str | None = None
    mask: str | None = None


def find_pairs(
    source: str,
    mask: str | None = None,
    hdf5: Hdf5Paths | None = None,
    boxes: Sequence[str] = (),
    slices: bool = False,
) -> tuple[list[CaseFiles], list[str]]:
    """Find the cases of a folder, or of one image file (``FILE.h5::path`` for HDF5) and its mask file.

    Of a Zarr volume and its labels, each box is a case, named by where it begins. Of an image file they say what of its
    mask is annotated; of a folder, the files in ``boxes/`` do.

    With ``slices`` the image files of a folder, or of each folder in it, are the slices of one volume.

    Returns:
        Training cases, then test cases, each by name; and remarks.

    Raises:
        RetinaError: for a layout that is not the expected one, or an image or mask without its partner.
    """
    hdf5 = hdf5 or Hdf5Paths()
    path, dataset = split_location(source)
    if not path.exists():
        raise RetinaError(f"{path}: no such file or folder. {EXPECTED}")
    if slices and (is_zarr(path) or path.is_file()):
        raise RetinaError(f"{SLICES} is for folders of slices; {path} is a single image. Leave it out")
    if is_zarr(path):
        return _volume(Location(path, dataset), mask, read_boxes(boxes)), []
    if path.is_file():
        pairs = _single(Location(path, dataset or hdf5.image), mask, hdf5)
        return [replace(pair, boxes=read_boxes(boxes)) for pair in pairs], []
    if boxes:
        raise RetinaError(
            f"--box is for one image; {path} is a folder. Put a file for each image into {path / BOX_FOLDER}: NAME.txt "
            "with a box on each line, or NAME.csv of napari's rectangles"
        )
    if mask is not None:
        raise RetinaError(f"{path} is a folder, so its masks lie in it; got also {mask}. {EXPECTED}")
    remarks: list[str] = []
    parted = (path / "train").is_dir()
    training, test = path / "train" if parted else path, path / "test"
    pairs = _pairs(training, "train", hdf5, remarks, slices)
    tested = test.is_dir() and (parted or (test / "images").is_dir())
    if tested:
        pairs += _pairs(test, "test", hdf5, remarks, slices)
        remarks += _left_out(test, _folders(test))
    remarks += _left_out(training, _folders(training) + (["test"] if tested and not parted else []))
    if parted:
        remarks += _left_out(path, ["train", "test"])
    _check_both_splits(pairs)
    return pairs, remarks


def _volume(image: Location, mask: str | None, boxes: Sequence[Annotated]) -> list[CaseFiles]:
    if mask is None:
        raise RetinaError(
            f"{image} is a volume without its labels. Give the Zarr volume of the labels as second argument"
        )
    path, level = split_location(mask)
    stem, cases = volume_stem(image.path), []
    chosen: list[str | None] = [None]
    if boxes:
        volume = open_volume(image.path, unstated=(1, 1, 1))
        opened = volume.levels[0] if image.dataset is None else volume.level(image.dataset)
        chosen = [box_text(part) for part in parts(boxes, opened.shape)]
    for box in chosen:
        corner = "" if box is None else "_" + "_".join(part.partition(":")[0] for part in box.split(","))
        cases.append(CaseFiles(stem + corner, "train", replace(image, box=box), Location(path, level, box)))
    return cases


def _single(image: Location, mask: str | None, hdf5: Hdf5Paths) -> list[CaseFiles]:
    if mask is not None:
        mask_path, inside = split_location(mask)
        mask_location = Location(mask_path, inside or hdf5.mask)
    elif hdf5.mask is not None:
        mask_location = Location(image.path, hdf5.mask)
    else:
        raise RetinaError(
            f"{image} is a file without its mask. Give the mask file as second argument, for HDF5 "
            f"FILE.h5{SEPARATOR}PATH, or a folder. {EXPECTED}"
        )
    stem = file_stem(image.path)
    images, masks = _expand(image, stem), _expand(mask_location, stem)
    return _match(images, masks, "train", str(image), str(mask_location))


def _pairs(folder: Path, split: str, hdf5: Hdf5Paths, remarks: list[str], slices: bool) -> list[CaseFiles]:
    if not (folder / "images").is_dir():
        raise RetinaError(f"{folder} holds {_contents(folder)}; there is no images/. {EXPECTED}")
    images = image_files(folder / "images", hdf5.image, remarks, slices)
    mask_folder = next((folder / name for name in _mask_folder(folder)), None)
    if mask_folder is not None:
        masks = image_files(mask_folder, hdf5.mask, remarks, slices)
    elif hdf5.mask is not None:
        masks = image_files(folder / "images", hdf5.mask, [])
    elif split == "test":
        masks = {}
    else:
        raise RetinaError(f"{folder} holds {_contents(folder)}; there is no masks/ or labels/. {EXPECTED}")
    cases = _match(images, masks, split, str(folder / "images"), str(mask_folder or folder))
    for case in cases:
        if case.mask is not None and case.image.slices:
            check_numbers(case.image.slices, case.mask.slices)
    lists = box_lists(folder / BOX_FOLDER, [case.name for case in cases if case.mask is not None])
    return [replace(case, boxes=lists.get(case.name, ())) for case in cases]


def _mask_folder(folder: Path) -> list[str]:
    """Return the name of the folder of masks in a folder, or nothing."""
    return [name for name in MASK_FOLDERS if (folder / name).is_dir()][:1]


def _folders(folder: Path) -> list[str]:
    """Return the names of the folders that are read in one, there or not."""
    return ["images", *(_mask_folder(folder) or MASK_FOLDERS), BOX_FOLDER]


def _left_out(folder: Path, read: list[str]) -> list[str]:
    """Say which folders and images beside those that are read are not."""
    names = [
        path.name + ("/" if path.is_dir() else "")
        for path in sorted(folder.iterdir())
        if path.name not in read and not path.name.startswith(".") and (path.is_dir() or file_suffix(path) in SUPPORTED)
    ]
    if not names:
        return []
    return [f"not read in {folder}: {shorten(names)} (read are {', '.join(f'{name}/' for name in read)})"]


def _match(
    images: dict[str, Location], masks: dict[str, Location], split: str, image_place: str, mask_place: str
) -> list[CaseFiles]:
    """Match by name; only test images may be without a mask."""
    images = _without_channel(images, masks)
    lone_images = [name for name in images if name not in masks]
    lone_masks = [name for name in masks if name not in images]
    if lone_masks:
        raise RetinaError(
            f"no image for mask {lone_masks[0]} ({masks[lone_masks[0]]}){_more(lone_masks)}; expected a file "
            f"of the same name in {image_place}.{_similar(lone_masks[0], lone_images)} "
            "Add the image, or remove the mask."
        )
    if lone_images and split == "train":
        raise RetinaError(
            f"no mask for training image {lone_images[0]} ({images[lone_images[0]]}){_more(lone_images)}; expected "
            f"a file of the same name in {mask_place}. Add the mask, remove the image, or put it into test/images."
        )
    return [CaseFiles(name, split, images[name], masks.get(name)) for name in sorted(images)]


def _without_channel(images: dict[str, Location], masks: dict[str, Location]) -> dict[str, Location]:
    """Take nnU-Net's channel number from the names of images whose masks have none: ``x_0000`` belongs to ``x``."""
    named: dict[str, Location] = {}
    for name, location in images.items():
        bare = name.removesuffix(FIRST_CHANNEL)
        _add(named, bare if name not in masks and bare in masks else name, location)
    return named


def _add(locations: dict[str, Location], name: str, location: Location) -> None:
    if name in locations:
        raise RetinaError(
            f"two files for one case: {locations[name]} and {location} are both {name}; expected one. "
            "Rename or remove one."
        )
    locations[name] = location


def image_files(
    folder: Path, dataset: str | None, remarks: list[str], slices: bool = False, name: str | None = None
) -> dict[str, Location]:
    """Return name -> location of every readable file of a folder; with ``slices``, of every volume of slices.

    A volume whose slices lie in the folder itself is called ``name``; None: as the folder that this one is in.
    """
    if slices:
        volumes = find_volumes(folder, name or folder.resolve().parent.name, remarks)
        return {found: Location(paths[0].parent, slices=paths) for found, paths in volumes.items()}
    locations: dict[str, Location] = {}
    ignored = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        check_links([path])
        if path.is_dir() or file_suffix(path) not in SUPPORTED:
            ignored.append(path.name + ("/" if path.is_dir() else ""))
            continue
        inside = dataset if file_suffix(path) in HDF5_SUFFIXES else None
        for name, location in _expand(Location(path, inside), file_stem(path)).items():
            _add(locations, name, location)
    if not locations:
        contents = f"only {shorten(ignored)}" if ignored else "nothing"
        raise RetinaError(f"{folder} holds {contents}; expected files ending in {', '.join(SUPPORTED)}")
    say_unread(folder, ignored, remarks)
    return locations


def files_of(path: Path, dataset: str | None) -> dict[str, Location]:
    """Return name -> location of one image: of a Zarr volume, a file, or what of an HDF5 file fits a ``*``."""
    if is_zarr(path):
        return {volume_stem(path): Location(path, dataset)}
    return _expand(Location(path, dataset if file_suffix(path) in HDF5_SUFFIXES else None), file_stem(path))


def _expand(location: Location, stem: str) -> dict[str, Location]:
    """Return one entry, or one per data set that fits a ``*``, named ``STEM_`` and what the star stood for."""
    if location.dataset is None or "*" not in location.dataset:
        return {stem: location}
    if not location.path.is_file():
        raise RetinaError(f"{location.path}: no such file. Check the path.")
    fitting = match_datasets(location.path, location.dataset)
    return {f"{stem}_{part}": Location(location.path, name) for part, name in fitting.items()}


def _check_both_splits(pairs: list[CaseFiles]) -> None:
    names = {pair.name: pair for pair in pairs if pair.split == "train"}
    for pair in pairs:
        if pair.split == "test" and pair.name in names:
            raise RetinaError(
                f"the name {pair.name} is in train ({names[pair.name].image}) and in test ({pair.image}); expected "
                "different names. Rename one, or remove it if it is the same image: test images must not be trained on."
            )


def _contents(folder: Path) -> str:
    names = [path.name + ("/" if path.is_dir() else "") for path in sorted(folder.iterdir())]
    return shorten(names, 8) if names else "nothing"


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _similar(name: str, others: list[str]) -> str:
    close = difflib.get_close_matches(name, others, n=1)
    return f" The nearest is {close[0]}." if close else ""


def case_names(originals: Iterable[str]) -> dict[str, str]:
    """Choose names that nnU-Net and every file system accept: letters, digits, ``_`` and ``-``; all different.

    A name that needs no change keeps it; one that would meet another (also by capitals alone) gets ``_2``, ``_3``, ...

    Returns:
        Original name -> case name.
    """
    cleaned = {name: re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_-") or "case" for name in originals}
    result: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(cleaned, key=lambda original: (cleaned[original] != original, original)):
        candidate, number = cleaned[name], 1
        while candidate.lower() in used:
            number += 1
            candidate = f"{cleaned[name]}_{number}"
        used.add(candidate.lower())
        result[name] = candidate
    return result


def section_remarks(pairs: Iterable[CaseFiles]) -> list[str]:
    """Say so if the names of training cases look like sections of several volumes: ``vol1_z000``, ``vol1_z001``, ..."""
    stems: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.split == "train" and (match := re.fullmatch(r"(.*\w.*?)[._ -]+[A-Za-z]*\d+", pair.name)):
            stems.setdefault(match[1], []).append(pair.name)
    several = {stem: names for stem, names in stems.items() if len(names) > 1}
    if len(several) < 2:
        return []
    stem, names = next(iter(several.items()))
    return [
        f"names such as {names[0]} look like sections of {len(several)} volumes ({shorten(several)}), whose neighbours "
        "fall on both sides of a fold. To keep each volume together, write into the block retina of dataset.json "
        f'before planning: "groups": {{"{names[0]}": "{stem}", ...}}, an entry for each case'
    ]
