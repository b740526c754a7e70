"""Small volumes in every layout that is read slab by slab, and the bounds that make them large."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from dataset_conversion.readers import images, slabs

VOLUME = np.random.default_rng(1).integers(3, 250, (11, 20, 24), dtype=np.uint8)
DEEP = VOLUME.astype(np.uint16) * 257
SIGNED = VOLUME.view(np.int8)
"""As IMOD stores bytes."""
GREY = np.stack([VOLUME] * 3, -1)


def make_large(monkeypatch) -> None:
    """Let every volume pass for large, and slabs have three planes of ``VOLUME``."""
    monkeypatch.setattr(slabs, "WHOLE", 0)
    monkeypatch.setattr(images, "WHOLE", 0)
    monkeypatch.setattr(slabs, "SLAB", 3 * VOLUME[0].nbytes + 1)


def hdf5(array: np.ndarray, axes: str | None = None, **options) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            item = file.create_dataset("raw", data=array, **options)
            item.attrs["resolution"] = (40.0, 8.0, 4.0, 2.0)[: array.ndim]
            if axes is not None:
                item.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in axes]})

    return write


def tiff(array: np.ndarray, **options) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


def mrc(array: np.ndarray, pack: Callable[[bytes], bytes] | None = None, **header) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(np.ascontiguousarray(array))
            file.voxel_size = (40, 40, 400)
            file.set_extended_header(np.zeros(160, "V1"))
            for name, value in header.items():
                file.header[name] = value
        if pack is not None:
            path.write_bytes(pack(path.read_bytes()))

    return write


def itk(array: np.ndarray, compressed: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((4.0, 4.0, 40.0))
        image.SetOrigin((1.0, 2.0, 3.0))
        sitk.WriteImage(sitk.Flip(image, [True, False, False]), str(path), useCompression=compressed)

    return write


def big_endian(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(DEEP.T, np.diag([4, 4, 40, 1]), nibabel.Nifti1Header(endianness=">")), path)


def truncated(path: Path) -> None:
    """As ImageJ writes more than 4 GB: one page for all planes."""
    tifffile.imwrite(path, DEEP, truncate=True, metadata={"axes": "ZYX"}, photometric="minisblack")


_IMOD = np.frombuffer(bytes(40) + np.array([1146047817, 0], "<i4").tobytes() + bytes(52), "V100")[0]
LAYOUTS: dict[str, Callable[[Path], object]] = {
    "plain.h5": hdf5(VOLUME),
    "chunks.h5": hdf5(DEEP.astype(">u2"), chunks=(4, 10, 7), compression="gzip"),
    "turned.h5": hdf5(VOLUME.transpose(2, 0, 1), "xzy", chunks=(5, 4, 20)),
    "time.h5": hdf5(VOLUME[None, ..., None], "tzyxc", chunks=(1, 4, 20, 24, 1)),
    "unnamed.h5": hdf5(VOLUME[None]),
    "grey.h5": hdf5(GREY, "zyxc", chunks=(2, 20, 24, 3)),
    "bool.h5": hdf5(VOLUME > 100),
    "float.h5": hdf5(VOLUME.astype(float), chunks=(3, 20, 24)),
    "volume.mrc": mrc(DEEP),
    "float.mrc": mrc(VOLUME.astype(np.float32)),
    "big.mrc": mrc(DEEP.astype(">u2")),
    "signed.mrc": mrc(SIGNED),
    "imod.rec": mrc(SIGNED, extra2=_IMOD),
    "turned.mrc": mrc(DEEP.swapaxes(1, 2), mapc=2, mapr=1),
    "gzip.mrc": mrc(DEEP, gzip.compress),
    "bzip2.map": mrc(VOLUME.astype(np.int16), bz2.compress),
    "pages.tif": tiff(DEEP),
    "packed.tif": tiff(DEEP, compression="zlib", predictor=True, rowsperstrip=7),
    "lzw.tif": tiff(VOLUME, compression="lzw"),
    "tiled.tif": tiff(VOLUME, compression="deflate", tile=(16, 16)),
    "imagej.tif": tiff(VOLUME, imagej=True, metadata={"axes": "ZYX", "spacing": 40, "unit": "nm"}),
    "time.tif": tiff(VOLUME, imagej=True, metadata={"axes": "TYX"}),
    "ome.tif": tiff(DEEP, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm"}),
    "big.tif": tiff(DEEP, bigtiff=True, byteorder=">"),
    "truncated.tif": truncated,
    "grey.tif": tiff(GREY, photometric="rgb", compression="zlib"),
    "planar.tif": tiff(np.moveaxis(GREY, -1, 1), photometric="rgb", planarconfig="separate"),
    "negative.tif": tiff(VOLUME, photometric="miniswhite"),
    "turned.tif": tiff(VOLUME, extratags=[(274, 3, 1, 3, True)]),
    "plain.nii": itk(DEEP, False),
    "packed.nii.gz": itk(VOLUME.astype(np.float32), True),
    "big.nii.gz": big_endian,
    "plain.nrrd": itk(DEEP, False),
    "big.nrrd": lambda path: path.write_bytes(
        b"NRRD0004\ntype: ushort\ndimension: 3\nsizes: 24 20 11\nendian: big\nencoding: raw\n\n"
        + DEEP.astype(">u2").tobytes()
    ),
    "packed.nrrd": itk(VOLUME.astype(np.int16), True),
}
"""File name -> the function that writes it."""


def write_slices(folder: Path, volume: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, plane in enumerate(volume):
        Image.fromarray(plane).save(folder / f"z_{number:02d}.png")


def write_layout(name: str, folder: Path) -> Path:
    LAYOUTS[name](folder / name)
    return folder / name
