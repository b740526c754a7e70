"""The images and masks that the quickstart starts from: generated volumes, or the user's own with some held out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.quickstart.settings import QuickstartSettings

Files = dict[str, Path]
"""Name of an image -> its file."""

_MASK_FOLDERS = ("masks", "labels")
SLICES, MASKS_INSIDE = "--slices-as-volume", "--hdf5-mask"
"""Options of ``retina_convert folder`` that change where images and masks are."""
_LEAST_TRAIN, _MOST_HELD_OUT = 2, 10
_Z_STEP, _NM_PER_PIXEL = 5.0, 8.0


@dataclass(frozen=True)
class Source:
    """A folder with train/ and test/, each with images/ and masks/, as ``retina_convert folder`` reads it."""

    folder: Path
    summary: str
    """What is in it, in a sentence."""
    options: tuple[str, ...] = ()
    """What else ``retina_convert folder`` needs to know."""


def write_generated(folder: Path, settings: QuickstartSettings) -> Source:
    """Generate volumes and write them as TIFF files.

    Args:
        folder: made here.
        settings: numbers of volumes, their shape and seed.
    """
    import tifffile

    from nnunetv2_retina.quickstart.synthetic import LABELS, generate_volume

    for index in range(settings.train_volumes + settings.test_volumes):
        part = "train" if index < settings.train_volumes else "test"
        arrays = generate_volume(settings.shape, settings.seed + index, _Z_STEP)
        for kind, array in zip(("images", "masks"), arrays, strict=True):
            path = folder / part / kind / f"{part}_{index:02d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, array, compression="zlib")
    spacing = (_Z_STEP * _NM_PER_PIXEL, _NM_PER_PIXEL, _NM_PER_PIXEL)
    names = [f"{value}={name}" for name, value in LABELS.items() if value]
    return Source(
        folder,
        f"{settings.train_volumes} generated volumes to train on and {settings.test_volumes} held out, "
        f"{' x '.join(map(str, settings.shape))} voxels (z, y, x) each; the task is to find the mitochondria.",
        ("--labels", *names, "--spacing", *(f"{step:g}" for step in spacing)),
    )


@dataclass(frozen=True)
class OwnImages:
    """The user's folder, and which of its images are held out for the scores."""

    folder: Path
    train: Files
    """Training images with masks."""
    test: Files
    """Test images with masks."""
    held_out: tuple[str, ...]
    """Training images that are scored instead; none where there are test images with masks."""
    options: tuple[str, ...] = ()
    """Of ``retina_convert folder``."""

    @classmethod
    def examine(cls, folder: Path, options: Sequence[str] = ()) -> OwnImages:
        """Read the layout of a folder; nothing is written.

        Args:
            folder: laid out as for ``retina_convert folder``.
            options: of that command, which say where images and masks are.

        Raises:
            RetinaError: for another layout, or too few images.
        """
        if not folder.is_dir():
            raise RetinaError(f"{folder} is not a folder; expected one with images/ and masks/, or train/ and test/.")
        split = (folder / "train").is_dir()
        train = _with_masks(folder / "train" if split else folder, options)
        test = _with_masks(folder / "test", options, required=False) if split else {}
        held_out = [] if test else sorted(train)[-_held_out_number(len(train)) :]
        if len(train) - len(held_out) < _LEAST_TRAIN:
            raise RetinaError(
                f"{folder} holds {len(train)} training images with masks and {len(test)} test images with masks; "
                f"expected at least {_LEAST_TRAIN} to train on and 1 to score. Cut larger images into parts, one file "
                "each."
            )
        return cls(folder, train, test, tuple(held_out), tuple(options))

    def lay_out(self, folder: Path) -> Source:
        """Return where train/ and test/ are; where images are held out, make both in ``folder`` from links."""
        rest = f"{len(self.train) - len(self.held_out)} images of {self.folder} to train on"
        if not self.held_out:
            return Source(self.folder, f"{rest}, and its {len(self.test)} test images for the scores.", self.options)
        split = (self.folder / "train").is_dir()
        for kind in ("images", "masks"):
            for name, path in _files(self.folder / "train" if split else self.folder, kind, self.options).items():
                _link(path, folder / ("test" if name in self.held_out else "train") / kind)
            for path in _files(self.folder / "test", kind, self.options).values() if split else ():
                _link(path, folder / "test" / kind)
        return Source(folder, f"{rest}; held out for the scores: {', '.join(self.held_out)}.", self.options)


def _with_masks(folder: Path, options: Sequence[str], required: bool = True) -> Files:
    images, masks = _files(folder, "images", options), _files(folder, "masks", options)
    if not masks and MASKS_INSIDE in options:
        masks = images
    if required and not (images and masks):
        held = shorten(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise RetinaError(
            f"{folder} holds {held}; expected images/ and masks/ (or labels/) with files of equal names, or train/ and "
            "test/, each with such a pair."
        )
    return {name: path for name, path in images.items() if name in masks}


def _files(folder: Path, kind: str, options: Sequence[str]) -> Files:
    """Return the files in ``images/``, or in ``masks/`` or ``labels/``, or the folders of slices; none without it."""
    names = _MASK_FOLDERS if kind == "masks" else (kind,)
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    files = sorted(found.iterdir()) if found else []
    wanted = Path.is_dir if SLICES in options else Path.is_file
    return {_stem(path): path for path in files if wanted(path) and not path.name.startswith(".")}


def _stem(path: Path) -> str:
    if path.is_dir():
        return path.name
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def _held_out_number(images: int) -> int:
    """Return a fifth: the last by name, so that slices of one stack that follow each other stay together."""
    return max(1, min(images // 5, _MOST_HELD_OUT))


def _link(path: Path, folder: Path) -> None:
    """Put a link to a file into a folder; a copy where the system has no links."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / path.name).symlink_to(path.resolve())
    except OSError:
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, folder / path.name)
