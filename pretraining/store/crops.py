"""Crops drawn from a stored volume (OME-Zarr, or a Zarr array): a source of images that never reads the whole.

Places are drawn evenly over the volume, or a box of it, from a seed: 224 x 224 in xy, and of volumes whose voxels are
nearly cubes in xz and yz too, as CEM500K was cut (Conrad & Narayan, eLife 2021). Types wider than 8 bits are mapped to
0-255 as in ``store.tiles``, with percentiles of the first 64 crops. Left out as empty, and listed in ``rejected.csv``:
crops of which one grey value fills more than half, and crops whose grey values deviate by less than a quarter of what
those of the more structured of the first 64 do (their upper quartile): padding and bare resin.

Memory: one crop's chunks, and the places.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import Box, parse_box
from nnunetv2_retina.images.levels import Level
from nnunetv2_retina.images.ome_zarr import StoredArray, open_volume
from nnunetv2_retina.images.spacing import NEARLY_CUBES
from pretraining.store.decoding import RejectionError
from pretraining.store.drawing import Drawing
from pretraining.store.layout import SIZE
from pretraining.store.sources import Source, SourceFile, printable
from pretraining.store.tiles import SMALLEST, limits, page_to_uint8

PLANES = {"xy": 0, "xz": 1, "yz": 2}
"""Name of a plane: the axis (of z, y, x) across it."""
SAMPLE = 64
EMPTY = 0.25
FILLED = 0.5
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


class CropSource(Source):
    """Crops of one volume.

    Raises:
        RetinaError: for what is no volume, or a mask, a level or a box that is not there, or one too small for a crop.
    """

    def __init__(self, path: Path, drawing: Drawing) -> None:
        super().__init__(path)
        self.drawing = drawing
        volume = open_volume(path, unstated=(1.0, 1.0, 1.0))
        self.level: Level = volume.levels[0] if drawing.level is None else volume.level(drawing.level)
        if np.dtype(self.level.dtype) == np.bool_:
            raise RetinaError(
                f"{path} holds true and false, a mask; expected grey levels. Give the volume of the image"
            )
        whole = tuple(slice(0, n) for n in self.level.shape)
        self.box: Box = parse_box(drawing.box, self.level.shape) if drawing.box else (whole[0], whole[1], whole[2])
        sides = tuple(self.level.spacing)
        cubes = volume.version is not None and max(sides) <= NEARLY_CUBES * min(sides)
        extent = [part.stop - part.start for part in self.box]
        self.planes = [
            name
            for name, across in PLANES.items()
            if (cubes or name == "xy") and min(n for axis, n in enumerate(extent) if axis != across) >= SMALLEST
        ]
        if not self.planes:
            raise RetinaError(
                f"{path}: {' x '.join(map(str, extent))} voxels (z, y, x) to draw from; expected at least {SMALLEST} "
                "along y and x. Take a finer level or a larger box"
            )
        self._extent = extent
        self._modified = max(
            (file.stat().st_mtime_ns for at in (path, path / self.level.path) for name in _METADATA
             if (file := at / name).is_file()), default=0,
        )  # fmt: skip

    def __iter__(self) -> Iterator[SourceFile]:
        pixel = np.dtype(self.level.dtype).itemsize
        for plane, box in sorted(self._places, key=self._chunk):
            z, y, x = (part.start for part in box)
            name = f"{plane}_z{z:06d}_y{y:06d}_x{x:06d}.png"
            size = pixel * int(np.prod([part.stop - part.start for part in box]))
            yield SourceFile(
                name, printable(self.name), size, self._modified, None, partial(self._png, box), optional=True
            )

    def count(self) -> int:
        """Return the number of crops, empty ones included."""
        return len(self._places)

    def about(self) -> dict[str, Any]:
        """Return what was drawn, for the record."""
        return {**asdict(self.drawing), "level": self.level.path, "planes": self.planes, "shape": self.level.shape}

    @cached_property
    def _places(self) -> list[tuple[str, Box]]:
        """Return the crops without repeats, in the order in which they were drawn."""
        rng = np.random.default_rng(self.drawing.crop_seed)
        drawn: dict[tuple[str, tuple[int, ...]], Box] = {}
        for _ in range(self.drawing.crops):
            plane = self.planes[rng.integers(len(self.planes))]
            sides = [1 if axis == PLANES[plane] else min(SIZE, n) for axis, n in enumerate(self._extent)]
            starts = [
                int(part.start + rng.integers(n - side + 1))
                for part, n, side in zip(self.box, self._extent, sides, strict=True)
            ]
            z, y, x = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
            drawn[plane, tuple(starts)] = (z, y, x)
        return [(plane, box) for (plane, _), box in drawn.items()]

    def _chunk(self, place: tuple[str, Box]) -> tuple[Any, ...]:
        """Return a key by which crops of one chunk come together."""
        plane, box = place
        starts = [part.start for part in box]
        return (*(start // n for start, n in zip(starts, self.level.chunks, strict=True)), plane, *starts)

    @cached_property
    def _array(self) -> StoredArray:
        return StoredArray(str(self.path), self.level)

    @cached_property
    def _reference(self) -> tuple[float, float, float]:
        """Return the grey values that are mapped to 0 and 255, and the deviation of a structured crop."""
        pages = [self._page(box) for _, box in self._places[:SAMPLE]]
        try:
            low, high = limits([page.ravel() for page in pages]) if pages[0].dtype.itemsize > 1 else (0.0, 0.0)
        except RejectionError as rejection:
            raise RetinaError(
                f"{self.path}: {rejection}, in the first {len(pages)} crops. Draw from another part with --box, or "
                "replace such values"
            ) from rejection
        deviations = [float(page_to_uint8(page, low, high).std()) for page in pages]
        return low, high, float(np.quantile(deviations, 0.75))

    def _page(self, box: Box) -> NDArray[Any]:
        values = self._array.read(box)
        return values.reshape([n for n in values.shape if n > 1])

    def _png(self, box: Box) -> bytes:
        """Return a crop as a PNG.

        Raises:
            RejectionError: if it is empty or has values that are not finite.
        """
        low, high, usual = self._reference
        page = self._page(box)
        if page.dtype.kind == "f" and not np.isfinite(page).all():
            raise RejectionError("not finite: some of its values are infinite or not a number")
        grey = page_to_uint8(page, low, high)
        filled = np.bincount(grey.ravel(), minlength=256).max() / grey.size
        if filled > FILLED:
            raise RejectionError(f"empty: one grey value fills {filled:.0%} of it")
        if grey.std() < EMPTY * usual:
            raise RejectionError(f"empty: its grey values deviate by {grey.std():.1f}, those of others by {usual:.1f}")
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(grey).save(out, "PNG", compress_level=0)
        return out.getvalue()
