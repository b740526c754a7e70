"""One small file of each image format, and of each trap in it, with the array that it holds."""

from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import mrcfile
import numpy as np
import SimpleITK as sitk
from helpers.image_bytes import pillow, tiff
from PIL import Image

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


def _bytes(content: bytes | bytearray) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


FORMATS: dict[str, tuple[np.ndarray, Callable[[Path], object]]] = {
    "grey.png": (PLANE, _bytes(pillow(PLANE, "PNG"))),
    "grey16.png": (DEEP[0], _bytes(imagecodecs.png_encode(DEEP[0]))),
    "rgb.png": (PLANE, _bytes(pillow(np.dstack([PLANE] * 3), "PNG"))),
    "palette.png": (PLANE, _bytes(pillow(Image.fromarray(PLANE).convert("P"), "PNG"))),
    "grey.bmp": (PLANE, _bytes(pillow(PLANE, "BMP"))),
    "grey.jpg": (FLAT, _bytes(pillow(FLAT, "JPEG"))),
    "grey.tif": (PLANE, _bytes(tiff(PLANE))),
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

OBJECT = np.pad(np.ones((10, 8), np.uint8), ((5, 15), (6, 12)))
"""A mask: 1 in a rectangle."""
_LEVELS = np.random.default_rng(2).permutation(256).astype(np.uint8)


def _palette_png(indices: np.ndarray, colours: np.ndarray) -> bytes:
    image = Image.fromarray(indices).convert("P")
    image.frombytes(indices.tobytes())
    image.putpalette(colours.tobytes())
    return pillow(image, "PNG")


TRAPS: dict[str, tuple[np.ndarray, np.ndarray, Callable[[Path], object]]] = {
    "negative.tif": (PLANE, 255 - PLANE, _bytes(tiff(255 - PLANE, photometric="miniswhite"))),
    "negative16.tif": (DEEP[0], 65535 - DEEP[0], _bytes(tiff(65535 - DEEP[0], photometric="miniswhite"))),
    "one_bit.tif": (255 - OBJECT * 255, OBJECT, _bytes(tiff(OBJECT > 0, photometric="miniswhite"))),
    "one_bit.png": (OBJECT * 255, OBJECT, _bytes(pillow(Image.fromarray(OBJECT > 0), "PNG"))),
    "one_bit.bmp": (OBJECT * 255, OBJECT, _bytes(pillow(Image.fromarray(OBJECT > 0), "BMP"))),
    "four_bits.tif": ((PLANE >> 4) * 17, PLANE >> 4, _bytes(tiff(PLANE >> 4, bitspersample=4))),
    "levels.png": (_LEVELS[PLANE], _LEVELS[PLANE], _bytes(_palette_png(PLANE, np.tile(_LEVELS[:, None], 3)))),
    "levels.tif": (
        _LEVELS[PLANE], _LEVELS[PLANE],
        _bytes(tiff(PLANE, photometric="palette", colormap=np.tile(_LEVELS.astype(np.uint16) * 257, (3, 1)))),
    ),
    "turned.tif": (PLANE[::-1, ::-1], PLANE[::-1, ::-1], _bytes(tiff(PLANE, extratags=[(274, 3, 1, 3, True)]))),
    "alpha.png": (PLANE, PLANE, _bytes(pillow(np.dstack([PLANE, PLANE]), "PNG"))),
    "alpha.tif": (
        PLANE, PLANE, _bytes(tiff(np.dstack([PLANE, PLANE]), planarconfig="contig", extrasamples=["unassalpha"])),
    ),
    "content.png": (FLAT, FLAT, _bytes(pillow(FLAT, "JPEG"))),
}  # fmt: skip
"""File name -> what is shown, what a mask stores, and the function that writes it: what programs read differently."""


def write_format(name: str, folder: Path) -> Path:
    """Write one of ``FORMATS`` or ``TRAPS``."""
    (FORMATS.get(name) or TRAPS[name])[-1](folder / name)
    return folder / name
