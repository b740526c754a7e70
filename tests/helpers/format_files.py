"""One small file of each image format that conversion reads, with the array that it holds."""

from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import mrcfile
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from helpers.image_bytes import pillow, tiff

PLANE = np.random.default_rng(0).integers(0, 256, (30, 26), dtype=np.uint8)
VOLUME = np.random.default_rng(1).integers(0, 256, (4, 20, 24), dtype=np.uint8)
DEEP = VOLUME.astype(np.uint16) * 257
FLAT = np.full((30, 26), 90, np.uint8)
"""What JPEG keeps."""


def _itk(array: np.ndarray, compressed: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((4.0, 4.0, 40.0))
        sitk.WriteImage(image, str(path), useCompression=compressed)

    return write


def _mrc(path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(DEEP)
        file.voxel_size = (40, 40, 400)


def _hdf5(**options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("volume/raw", data=VOLUME, **options).attrs["resolution"] = (40.0, 4.0, 4.0)

    return write


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


FORMATS: dict[str, tuple[np.ndarray, Callable[[Path], None]]] = {
    "grey.png": (PLANE, _bytes(pillow(PLANE, "PNG"))),
    "grey16.png": (DEEP[0], _bytes(imagecodecs.png_encode(DEEP[0]))),
    "rgb.png": (PLANE, _bytes(pillow(np.dstack([PLANE] * 3), "PNG"))),
    "palette.png": (PLANE, _bytes(pillow(Image.fromarray(PLANE).convert("P"), "PNG"))),
    "grey.bmp": (PLANE, _bytes(pillow(PLANE, "BMP"))),
    "grey.jpg": (FLAT, _bytes(pillow(FLAT, "JPEG"))),
    "grey.tif": (PLANE, _bytes(tiff(PLANE))),
    "negative.tif": (PLANE, _bytes(tiff(255 - PLANE, photometric="miniswhite"))),
    "packed.tif": (DEEP[0], _bytes(tiff(DEEP[0], compression="zlib", predictor=True, tile=(16, 16)))),
    "lzw.tif": (PLANE, _bytes(tiff(PLANE, compression="lzw", rowsperstrip=7))),
    "stack.tif": (DEEP, _bytes(tiff(DEEP))),
    "imagej.tif": (VOLUME, _bytes(tiff(VOLUME, imagej=True, metadata={"axes": "ZYX", "spacing": 40, "unit": "nm"}))),
    "ome.ome.tif": (VOLUME, _bytes(tiff(VOLUME, ome=True, metadata={"axes": "ZYX"}))),
    "plain.nii": (VOLUME, _itk(VOLUME, False)),
    "packed.nii.gz": (DEEP, _itk(DEEP, True)),
    "plain.nrrd": (DEEP, _itk(DEEP, False)),
    "packed.nrrd": (VOLUME, _itk(VOLUME, True)),
    "volume.mrc": (DEEP, _mrc),
    "whole.h5": (VOLUME, _hdf5()),
    "packed.h5": (VOLUME, _hdf5(chunks=(2, 10, 12), compression="gzip")),
    "summed.h5": (VOLUME, _hdf5(chunks=(4, 20, 24), fletcher32=True)),
}
"""File name -> what is shown, and the function that writes it."""


def write_format(name: str, folder: Path) -> Path:
    """Write one of ``FORMATS``."""
    FORMATS[name][1](folder / name)
    return folder / name
