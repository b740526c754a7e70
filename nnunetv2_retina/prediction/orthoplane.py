"""Orthoplane inference of a 2D model: the mean of its class probabilities over the planes xy, xz and yz.

As in RETINA and CEM500K (Xing et al. 2025; Conrad and Narayan 2021), but in float32 with one decision at the end, where
the released code adds up bytes. The volume is preprocessed once; the other planes are views of the result.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NEARLY_CUBES, Spacing
from nnunetv2_retina.prediction.sliding_window import Region, SlidingWindow, Source, TensorSource

SPARE_BYTES = 2**29
"""Probabilities larger than the volume and this much more go to a file."""


def check_volume(shape: Sequence[int], spacing: Spacing, force: bool = False) -> None:
    """Refuse 2D images and anisotropic volumes.

    Args:
        shape: (slices, rows, columns) of the preprocessed volume.
        spacing: along the same axes, in any unit.
        force: accept any spacing.

    Raises:
        RetinaError: for a 2D image, or an anisotropic volume without ``force``.
    """
    if shape[0] == 1:
        raise RetinaError(
            f"a 2D image of {shape[1]} x {shape[2]} pixels has no xz and yz planes: orthoplane inference takes "
            "volumes. Predict it with --stack"
        )
    ratio = max(spacing) / min(spacing)
    if ratio > NEARLY_CUBES and not force:
        sides = " x ".join(f"{side:g}" for side in spacing)
        raise RetinaError(
            f"the volume's voxels (z, y, x) are {sides}, {ratio:.1f} to 1; orthoplane inference shows the network the "
            f"other planes as they are and expects at most {NEARLY_CUBES:g} to 1. Predict it with --stack, or insist "
            "with --force"
        )


def mean_probabilities(
    window: SlidingWindow,
    data: Tensor | Source,
    probabilities: Callable[[Tensor], Tensor],
    scratch: Path | None = None,
    spare_bytes: int = SPARE_BYTES,
    whole_slices: bool = False,
    bytes_per_voxel: int = 8,
    region: Region | None = None,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Predict a volume along its three axes, or a region of it.

    The planes xz and yz keep their axes in the volume's order: rows are z, columns are x or y.

    Args:
        window: of a 2D model.
        data: (channels, z, y, x) float32, normalised, or a source of it.
        probabilities: logits (heads, ...) float16 -> probabilities (heads, ...) float32.
        scratch: folder for a temporary file of heads * voxels * 4 bytes, where that is much more than the volume takes
            itself; None: the system's. The file is removed in the end.
        spare_bytes: see ``SPARE_BYTES``.
        whole_slices: see ``SlidingWindow.parts``.
        bytes_per_voxel: what the caller will need for a voxel of a part.
        region: see ``SlidingWindow.parts``.

    Yields:
        Slices, rows and their probabilities (heads, slices, rows, columns) float32 on the CPU, in order.
    """
    source = TensorSource(data) if isinstance(data, Tensor) else data
    region = region or (slice(0, source.shape[1]), slice(0, source.shape[2]), slice(0, source.shape[3]))
    shape = (*(part.stop - part.start for part in region), window.heads)  # heads last: a plane touches few pages
    in_memory = 4 * math.prod(shape) <= 4 * math.prod(source.shape) + spare_bytes
    with tempfile.TemporaryDirectory(prefix="orthoplane_", dir=scratch) as folder:
        total = _Total(shape, None if in_memory else Path(folder) / "probabilities.raw")
        try:
            needed = 4 * 4 * window.heads + bytes_per_voxel
            for axis in (1, 2):
                turned = _turned(region, axis)
                for part in window.parts(source.turned(axis), bytes_per_voxel=needed, region=turned):
                    place = _within(part.slices, turned[0]), _within(part.rows, turned[1])
                    total.add(axis, *place, probabilities(part.logits))
                    del part
            for part in window.parts(source, whole_slices, needed, region):
                mean = probabilities(part.logits).cpu()
                mean += total.values(_within(part.slices, region[0]), _within(part.rows, region[1]))
                mean /= 3
                place = part.slices, part.rows
                del part
                yield *place, mean
                del mean
        finally:
            total.close()


def _turned(region: Region, axis: int) -> Region:
    """Return the region in the volume turned by ``Source.turned``."""
    first, second = (part for other, part in enumerate(region) if other != axis)
    return region[axis], first, second


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


class _Total:
    """Sums of probabilities (z, y, x, heads) float32, in memory or in a file whose pages are given back after use."""

    def __init__(self, shape: tuple[int, ...], path: Path | None) -> None:
        self._map: mmap.mmap | None = None
        if path is None:
            self._values = np.zeros(shape, np.float32)
            return
        size = 4 * int(np.prod(shape))
        try:
            with path.open("w+b") as file:
                if hasattr(os, "posix_fallocate"):  # a full disk shows here, not at some later write
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise RetinaError(
                f"no room for a temporary file of {size / 2**30:.1f} GiB in {path.parent.parent} ({error.strerror}), "
                "which the probabilities of three planes need. Free some, or predict with --stack"
            ) from error
        self._values = np.frombuffer(self._map, np.float32).reshape(shape)

    def add(self, axis: int, slices: slice, rows: slice, values: Tensor) -> None:
        """Add the probabilities (heads, slices, rows, columns) of a part of the volume turned by ``Source.turned``."""
        turned = np.moveaxis(self._values, axis, 0)
        turned[slices, rows] += values.movedim(0, -1).cpu().numpy()
        self._release()

    def values(self, slices: slice, rows: slice) -> Tensor:
        """Return the sums (heads, slices, rows, x)."""
        values = torch.from_numpy(self._values[slices, rows].copy()).movedim(-1, 0)
        self._release()
        return values

    def _release(self) -> None:
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # of a file: the values stay in it

    def close(self) -> None:
        """Give the memory back, and let go of the file."""
        self._values = np.zeros(0, np.float32)
        if self._map is not None:
            self._map.close()
