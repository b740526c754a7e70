"""OME-Zarr volumes for tests, of both versions."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

needs_zarr = pytest.mark.skipif(importlib.util.find_spec("zarr") is None, reason="needs the extra volumes")
SMALL = ("--chunk", "8", "--shard", "8,32,32")


def cells(shape, seed=0, border=0) -> np.ndarray:
    """(z, y, x) uint8: smooth structures, never 0 but for a border of so many voxels."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (1, 3, 3))
    noise -= noise.min()
    image = (40 + 150 * noise / noise.max()).astype(np.uint8)
    for axis in range(3):
        rows = np.moveaxis(image, axis, 0)
        rows[:border] = 0
        rows[len(rows) - border :] = 0
    return np.asarray(image)


def multiscales(levels, axes="zyx", unit="nanometer", origin=None) -> dict[str, Any]:
    """The metadata of one image: ``levels`` are pairs of path and scale, ``origin`` is where they all begin."""
    moved = [] if origin is None else [{"type": "translation", "translation": list(origin)}]
    return {
        "axes": [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in axes],
        "datasets": [
            {"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(scale)}, *moved]}
            for path, scale in levels
        ],
        "name": "test",
    }


def write(
    folder: Path, image: np.ndarray, version="0.5", spacing=(1, 1, 1), chunks=(8, 16, 16), levels=1, **options
) -> Path:
    """Write an image and coarser levels of it; return the folder."""
    import zarr

    group = zarr.create_group(str(folder), zarr_format=2 if version == "0.4" else 3)
    named = []
    lead = (1,) * (image.ndim - 3)
    for level in range(levels):
        factor = 2**level
        part = image[..., ::1, ::factor, ::factor]
        keys = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == "0.4" else {}
        array = group.create_array(str(level), shape=part.shape, chunks=lead + chunks, dtype=part.dtype, **keys)
        array[:] = part
        scale = [spacing[0], spacing[1] * factor, spacing[2] * factor]
        named.append((str(level), [1.0] * len(lead) + scale))
    about = multiscales(named, **options)
    if version == "0.4":
        group.attrs["multiscales"] = [{**about, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [about]}
    return folder


def labels(folder: Path, level="0") -> np.ndarray:
    """The labels of an output."""
    import zarr

    return np.asarray(zarr.open_array(str(folder / level), mode="r")[:])


def files(folder: Path) -> dict[str, bytes]:
    """The contents of an output's data files, by their paths."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".retina" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
