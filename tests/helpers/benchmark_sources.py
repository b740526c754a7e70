"""Files in exactly the layout of the benchmarks' downloads, small, each voxel telling where it is.

Every maker writes into a folder and returns what a right conversion holds: case name -> ``Written``.
"""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import SimpleITK
import tifffile

BACKGROUND, INVALID = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFE
CREMI_RESOLUTION = (40.0, 4.0, 4.0)
GUAY_VOLUMES = {"train": (5, 38, 42), "eval": (3, 38, 42), "test": (4, 35, 30)}
UROCELL_SHAPE = (33, 90, 36)
UROCELL_TRAIN = ("fib1-1-0-3", "fib1-3-2-1", "fib1-3-3-0", "fib1-4-3-0")
UROCELL_TEST = "fib1-0-0-0"
FIRST_ROW = {"fib1-0-0-0": 12, "fib1-1-0-3": 54}
BROKEN_PIXDIM = 57594928.0


class Written(NamedTuple):
    """One case as it must be after conversion."""

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, ...]
    part: str
    """``Tr`` or ``Ts``"""


def coordinates(shape, dtype, start=0):
    """(z=1, y=2, x=3) -> 10203, from ``start``; in 8 bits the three mixed so that no shift or turn goes unnoticed."""
    grid = np.indices(shape, dtype=np.int64)
    if np.dtype(dtype).itemsize == 1:
        return ((start + 7 * grid[-3] + 13 * grid[-2] + 31 * grid[-1]) % 251).astype(dtype)
    return (start + sum(axis * 100 ** (len(shape) - 1 - i) for i, axis in enumerate(grid))).astype(dtype)


def patches(shape, classes, start=0):
    """Boxes of 4 x 6 x 6 voxels, of the labels 0 to ``classes - 1`` in turn. uint8."""
    z, y, x = np.indices(shape)
    return ((start + z // 4 + y // 6 + 2 * (x // 6)) % classes).astype(np.uint8)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# -------------------------------------------------------------------------------------------------------------- CREMI


def cremi_sample(path: Path, raw: np.ndarray, clefts: np.ndarray, **create) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["file_format"] = "0.2"
        for name, array in (
            ("volumes/raw", raw),
            ("volumes/labels/clefts", clefts),
            ("volumes/labels/neuron_ids", np.ones(raw.shape, np.uint64)),
        ):
            file.create_dataset(name, data=array, **create).attrs["resolution"] = CREMI_RESOLUTION


def cremi(folder: Path, shape=(6, 36, 44), ignore=2) -> dict[str, Written]:
    """Three HDF5 files. ``ignore``: the label invalid voxels get."""
    expected = {}
    for start, sample in enumerate("ABC"):
        raw = coordinates(shape, np.uint8, 50 * start)
        label = patches(shape, 2, start)
        clefts = np.where(label == 1, np.uint64(1000) + raw, np.uint64(BACKGROUND))
        clefts[0, :2, :3] = INVALID
        label[0, :2, :3] = ignore
        cremi_sample(folder / f"sample_{sample}_20160501.hdf", raw, clefts, chunks=(2, 16, 20), compression="gzip")
        expected[f"sample_{sample}"] = Written(raw, label, CREMI_RESOLUTION, "Ts" if sample == "C" else "Tr")
    return expected


# --------------------------------------------------------------------------------------------------------------- Guay


def tiff(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="minisblack")
    return stream.getvalue()


def guay_members() -> tuple[dict[str, bytes], dict[str, Written]]:
    members, expected = {}, {}
    for start, (volume, shape) in enumerate(GUAY_VOLUMES.items()):
        image, label = coordinates(shape, np.int16, -30000 + start), patches(shape, 7, start)
        members[f"platelet_data/{volume}-images.tif"] = tiff(image)
        members[f"platelet_data/{volume}-labels.tif"] = tiff(label.astype(np.uint16))
        expected[volume] = Written(image, label, (40, 10, 10), "Ts" if volume == "test" else "Tr")
    members["platelet_data/train-error-weights.tif"] = tiff(np.ones(GUAY_VOLUMES["train"], np.float32))
    return members, expected


def guay(folder: Path) -> dict[str, Written]:
    """``platelet_data_1219.zip``."""
    members, expected = guay_members()
    zipped(folder / "platelet_data_1219.zip", members)
    return expected


# ------------------------------------------------------------------------------------------------------------ UroCell


def nifti(path: Path, array: np.ndarray, spacing=(15.0, 16.0, 16.0)) -> None:
    """``spacing`` along z, y, x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = SimpleITK.GetImageFromArray(array)
    volume.SetSpacing(tuple(reversed(spacing)))
    SimpleITK.WriteImage(volume, str(path), useCompression=True)


def urocell_volume(name: str, dtype=np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a whole volume; the rows that hold no data are black."""
    start = (*UROCELL_TRAIN, UROCELL_TEST).index(name)
    image = coordinates(UROCELL_SHAPE, dtype, 40 * start) + np.array(1, dtype)
    image[:, : FIRST_ROW.get(name, 0)] = 0
    return image, patches(UROCELL_SHAPE, 3, start)


def urocell(folder: Path, binary="binary/", dtype=np.uint8) -> dict[str, Written]:
    """The repository, unpacked; ``binary=""`` as it was before the labels moved."""
    expected = {}
    for volume in (*UROCELL_TRAIN, UROCELL_TEST):
        image, label = urocell_volume(volume, dtype)
        nifti(folder / f"data/{volume}.nii.gz", image.astype(np.float32))
        for organelle, value in (("lyso", 1), ("mito", 2)):
            path = folder / f"{organelle}/{binary}{volume}.nii.gz"
            nifti(path, (label == value).astype(np.float32), (BROKEN_PIXDIM,) * 3)
        row = FIRST_ROW.get(volume, 0)
        image, label = image[:, row:], label[:, row:]
        if volume == UROCELL_TEST:
            expected[volume] = Written(image, label, (16, 16, 16), "Ts")
            continue
        for planes, axes in (("xy", (0, 1, 2)), ("xz", (1, 0, 2)), ("yz", (2, 0, 1))):
            turned = image.transpose(axes), label.transpose(axes)
            expected[f"{volume}_{planes}"] = Written(*turned, (16, 16, 16), "Tr")
    nifti(folder / "data/fib1-2-2-3.nii.gz", np.zeros((2, 2, 2), np.float32))  # without labels of these organelles
    return expected


def pack(folder: Path, archive: Path, top: str) -> Path:
    """Everything in ``folder`` as a zip archive below the folder ``top``, as GitHub makes it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return zipped(archive, {f"{top}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files})
