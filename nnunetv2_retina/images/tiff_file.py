"""Opening TIFF files and checking that they are whole: tifffile only logs what is missing, or fills it with zeros."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_retina.images.lzw import check_lzw
from nnunetv2_retina.images.picture import ImageError

_REDUCED_OR_MASK = 1 | 4
_LZW = 5


@contextmanager
def opened(source: bytes | Path) -> Iterator[Any]:
    """Yield a ``tifffile.TiffFile``.

    Raises:
        ImageError: at the end, if tifffile reported an error meanwhile, such as pages that are missing.
    """
    import tifffile

    with _complaints() as complaints, ExitStack() as files:

        def enter(**flags: bool) -> Any:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            return files.enter_context(tifffile.TiffFile(file, **flags))

        tiff = enter()
        yield enter(is_shaped=False) if _is_written_plane_by_plane(tiff) else tiff
    if complaints:
        raise ImageError(complaints[0][:200])


def _is_written_plane_by_plane(tiff: Any) -> bool:
    """Tell whether tifffile takes planes of one kind for images of their own: it noted each one's shape on writing."""
    if not tiff.is_shaped or len(tiff.pages) < 2:
        return False
    kinds = {(series.shape, series.dtype, series.axes, len(series.pages)) for series in tiff.series}
    return len(tiff.series) == len(tiff.pages) and len(kinds) == 1


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect tifffile's messages of errors instead of logging them."""
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield messages
    finally:
        logger.removeFilter(collect)


def _all_pages(tiff: Any) -> list[Any]:
    pages: dict[int, Any] = {}
    for page in tiff.pages:
        if page.offset in pages:  # tifffile would go round for ever
            raise ImageError(f"after {len(pages)} images its list of them begins anew: damaged")
        pages[page.offset] = page
    return list(pages.values())


def full_images(tiff: Any) -> list[Any]:
    """Return the pages that are images of their own, not thumbnails or transparency masks.

    Raises:
        ImageError: if there are none, or the data of one of them do not all lie in the file.
    """
    listed = _all_pages(tiff)
    pages = [page for page in listed if not page.subfiletype & _REDUCED_OR_MASK]
    if not pages:
        raise ImageError("no image in the file")
    size, number = tiff.filehandle.size, len(listed)
    for page in pages:
        ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        end = page.dataoffsets[0] + page.nbytes if page.is_contiguous else max(ends, default=0)
        if end > size:
            raise ImageError(f"image {page.index + 1} of {number} ends at byte {end:,}; the file has {size:,}: cut off")
        if not end or 0 in page.databytecounts:
            raise ImageError(f"image {page.index + 1} of {number} has parts that were never written")
        _check_parts(page, f"image {page.index + 1} of {number}")
        if page.compression == _LZW and page.fillorder == 1:
            for at, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                tiff.filehandle.seek(at)
                check_lzw(tiff.filehandle.read(count))
    return pages


def _check_parts(page: Any, name: str) -> None:
    """Check that an image's strips or tiles are as many, and uncompressed ones as long, as its size needs."""
    if 0 in page.shape:
        raise ImageError(f"{name} has shape {page.shape}")
    if page.is_contiguous:
        length, listed = page.nbytes, sum(page.databytecounts)
        row = -(-length // page.imagelength)
        if not length - row < listed < length + row:
            raise ImageError(f"{name} needs {length:,} bytes by its size and type; it lists {listed:,}: damaged")
    elif (parts := math.prod(page.chunked)) != len(page.dataoffsets):
        raise ImageError(f"{name} has {parts} parts by its size; it lists {len(page.dataoffsets)}: damaged")


def is_one_page_stack(tiff: Any) -> bool:
    """Tell whether one page describes a whole stack: ImageJ beyond 4 GB, tifffile's truncated series, MetaMorph."""
    first = tiff.pages[0]
    truncated = first.is_shaped and '"truncated": true' in first.description
    if len(tiff.pages) > 1 or not (tiff.is_imagej or truncated or tiff.is_stk):
        return False
    return bool(tiff.series) and tiff.series[0].ndim > first.ndim


def is_stack_in_planes(tiff: Any) -> bool:
    """Tell whether one page holds slices as colour planes: tifffile's default for three or four, named as slices."""
    first = tiff.pages[0]
    return bool(first.is_shaped and first.axes == "SYX" and '"axes": "ZYX"' in first.description)


def check_ome(tiff: Any) -> None:
    """Check that an OME-TIFF holds all planes of its images.

    Raises:
        ImageError: if the planes lie in several files, of which this is one, or some are missing.
    """
    import tifffile

    ome = tifffile.xml2dict(tiff.ome_metadata or "").get("OME", {})
    if "BinaryOnly" in ome:
        raise ImageError(
            f"one file of several of an OME-TIFF; {ome['BinaryOnly'].get('MetadataFile')} describes all. {_MERGE}"
        )
    needed, own = 0, ome.get("UUID")
    for image in _listed(ome.get("Image")):
        pixels = image.get("Pixels", {})
        planes = pixels.get("SizeZ", 1) * pixels.get("SizeT", 1) * pixels.get("SizeC", 1)
        needed += planes // max(1, tiff.pages[0].samplesperpixel)
        for data in _listed(pixels.get("TiffData")):
            identity = data.get("UUID") if isinstance(data, dict) else None
            if isinstance(identity, dict) and own and identity.get("value") != own:
                raise ImageError(
                    f"one file of several of an OME-TIFF (another is {identity.get('FileName')}). {_MERGE}"
                )
    if needed > len(tiff.pages):
        raise ImageError(f"holds {len(tiff.pages)} of the {needed} planes that its OME description lists: cut off")


_MERGE = "Save all in one file (Fiji: File > Import > Bio-Formats, then File > Save As > Tiff)"


def _listed(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [] if entry is None else [entry]
