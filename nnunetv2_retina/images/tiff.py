"""TIFF files: every full image in them, or their first series as one stack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_retina.images.picture import (
    MOST_PACKED,
    Array,
    ImageError,
    Picture,
    check_size,
    orientation_remark,
    oriented,
)
from nnunetv2_retina.images.tiff_file import check_ome, full_images, is_one_page_stack, is_stack_in_planes, opened

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG = (6, 7, 33007, 34892)
LOSSY = (*_JPEG, 33003, 33004, 33005, 34927, 50001)
"""Compressions that change values: JPEG, the lossy JPEG 2000, WebP."""
WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, PALETTE, _YCBCR = 0, 1, 2, 3, 6
ORIENTATION = 274
_OPACITY = {1, 2}
"""What TIFF calls an additional sample that holds alpha; 0: something else."""


def read_pages(source: bytes | Path, most_bytes: int) -> list[Picture]:
    """Read every image of a file but thumbnails and transparency masks, in the file's order.

    Raises:
        ImageError: if one of them cannot be read.
    """
    with opened(source) as tiff:
        pages = full_images(tiff)
        if is_one_page_stack(tiff):
            return _planes(_read_series(tiff, most_bytes))
        check_size(sum(page.nbytes for page in pages), most_bytes, f"{len(pages)} images of {_size(pages[0].shape)}")
        return [plane for page in pages for plane in _planes(_read_page(page, most_bytes))]


@dataclass(frozen=True)
class Stack:
    """The first series of a file, to be read some planes at a time."""

    path: Path
    shape: tuple[int, ...]
    """Of all its planes: (Z, Y, X), with an axis of colours after the first or at the end where it has them."""
    dtype: np.dtype[Any]
    first: Picture
    """Its first plane, (1, Y, X), and all that says how the numbers are meant."""

    def pictures(self, parts: Iterable[range]) -> Iterator[Picture]:
        """Yield some planes at a time, (n, Y, X), each as ``first``.

        Raises:
            ImageError: if they cannot be read; at the end, if tifffile reported an error.
        """
        with opened(self.path) as tiff:
            for part in parts:
                yield _read_planes(tiff, part)


def read_stack(path: Path, most_bytes: int, most_whole: int | None = None) -> Picture | Stack:
    """Read the first series of a file: an image, or a stack with the axes that the file names.

    Args:
        path: the file.
        most_bytes: that it may take, decoded.
        most_whole: bytes beyond which it is opened only, if it can be read plane by plane; None: it is read.

    Raises:
        ImageError: if it cannot be read, or lies in several files.
    """
    with opened(path) as tiff:
        pages = full_images(tiff)
        if tiff.is_ome:
            check_ome(tiff)
        if len(pages) > 1 or is_one_page_stack(tiff) or is_stack_in_planes(tiff):
            if most_whole is not None and _series_bytes(tiff) > most_whole and _lies_in_planes(tiff.series[0]):
                series, believed = tiff.series[0], max(most_bytes, MOST_PACKED * tiff.filehandle.size)
                check_size(_series_bytes(tiff), believed, _size(series.shape))
                return Stack(path, series.shape, series.dtype, _read_planes(tiff, range(1)))
            return _read_series(tiff, most_bytes)
        return _read_page(pages[0], most_bytes)


def _read_page(page: Any, most_bytes: int) -> Picture:
    check_size(page.nbytes, most_bytes, _size(page.shape))
    return _picture(page.asarray(maxworkers=1), page.axes, page)


def _read_series(tiff: Any, most_bytes: int) -> Picture:
    series = tiff.series[0]
    check_size(_series_bytes(tiff), most_bytes, _size(series.shape))
    array, axes = series.asarray(maxworkers=1), series.axes
    if "S" not in axes and "C" in axes and array.shape[axes.index("C")] in (3, 4):
        axes = axes.replace("C", "S")  # colours as channels, which is how ImageJ saves a composite
    return _picture(array, axes, series.keyframe, _series_remark(tiff))


def _series_bytes(tiff: Any) -> int:
    return int(tiff.series[0].size * tiff.series[0].dtype.itemsize)


def _series_remark(tiff: Any) -> tuple[str, ...]:
    """Say that there are more images than the first, which is taken.

    Raises:
        ImageError: if they are alike, so that none of them can be meant.
    """
    number, shape = len(tiff.series), tiff.series[0].shape
    if number == 1:
        return ()
    if all(series.shape == shape for series in tiff.series):
        raise ImageError(
            f"the file holds {number} images of {_size(shape)}, not one stack of them; save them as one stack, or each "
            "to a file of its own"
        )
    return (f"the file holds {number} images of different shape; the first was taken",)


def _lies_in_planes(series: Any) -> bool:
    """Tell whether a series is a stack along one axis, each plane of which is found without the others."""
    axes, shape = series.axes, series.shape
    if axes[1:].replace("S", "") != "YX" or axes[0] in "CS" or shape[0] < 2 or series.is_multifile or series.transform:
        return False
    return series.dataoffset is not None or (len(series) == shape[0] and series.keyframe.shape == shape[1:])


def _read_planes(tiff: Any, part: range) -> Picture:
    """Read some planes of a series that lies in planes."""
    series = tiff.series[0]
    sides = (len(part), *series.shape[1:])
    if series.dataoffset is not None:
        start = series.dataoffset + part.start * math.prod(sides[1:]) * series.dtype.itemsize
        kind = tiff.byteorder + series.dtype.char
        array = tiff.filehandle.read_array(kind, math.prod(sides), start).reshape(sides)
    else:
        array = np.zeros(sides, series.dtype)  # as tifffile leaves a page that is not there
        for plane, page in zip(array, (series[index] for index in part), strict=True):
            if page is not None:
                plane[...] = page.asarray(maxworkers=1)
    return _picture(array, series.axes, series.keyframe, _series_remark(tiff))


def _picture(array: Array, axes: str, page: Any, remarks: tuple[str, ...] = ()) -> Picture:
    _check_colours(page)
    alpha = None
    if "S" in axes:
        array, alpha = _split(np.moveaxis(array, axes.index("S"), -1), page.extrasamples)
        axes = axes.replace("S", "")
    if not axes.endswith("YX"):
        raise ImageError(f"a TIFF with axes {axes}; expected ...YX")
    turn = page.tags.valueof(ORIENTATION, 1)
    y = len(axes) - 2
    return Picture(
        values=oriented(array.view(np.uint8) if array.dtype == bool else array, turn, y),
        axes=axes,
        alpha=None if alpha is None else oriented(alpha, turn, y),
        palette=_palette(page.colormap) if page.photometric == PALETTE else None,
        white_is_zero=page.photometric == WHITE_IS_ZERO,
        bits=min(page.bitspersample, 8),
        lossy=int(page.compression) in LOSSY,
        is_tiff=True,
        remarks=(*remarks, *orientation_remark(turn)),
    )


def _check_colours(page: Any) -> None:
    kind = page.photometric
    if kind in (WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, PALETTE) or (kind == _YCBCR and page.compression in _JPEG):
        return
    raise ImageError(f"a TIFF with colours of kind {getattr(kind, 'name', kind)}; expected grey or RGB")


def _split(samples: Array, extra: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Split (..., C) into grey or RGB and the opacity; ``extra``: what the file says of the samples beyond the colours.

    Raises:
        ImageError: for what is neither, such as two channels of a microscope.
    """
    number = samples.shape[-1]
    if number > 4:
        raise ImageError(f"{number} channels; expected grey or RGB, with alpha or without")
    values = samples[..., :3] if number > 2 else samples[..., 0]
    alpha = samples[..., -1] if number in (2, 4) else None
    if number == 2 and not set(extra) & _OPACITY and np.ptp(samples[..., 1]) > 0:
        raise ImageError(
            "two channels, the second of which the file does not call alpha; save one to a file of its own"
        )
    return values, alpha


def has_grey_palette(page: Any) -> bool:
    """Tell whether the palette of a page that has one holds nothing but grey levels."""
    table = _palette(page.colormap)
    return bool((table == table[:, :1]).all())


def _palette(colours: Any) -> Array:
    table = np.moveaxis(np.asarray(colours), 0, -1)
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)


def _planes(picture: Picture) -> list[Picture]:
    """Split a stack into its images."""
    if picture.axes == "YX":
        return [picture]
    values = picture.values.reshape(-1, *picture.values.shape[len(picture.axes) - 2 :])
    return [
        Picture(
            values=plane, palette=picture.palette, white_is_zero=picture.white_is_zero, bits=picture.bits,
            lossy=picture.lossy, remarks=picture.remarks,
        )
        for plane in values
    ]  # fmt: skip


def _size(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} pixels"
