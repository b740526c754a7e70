"""Voxels that lie in a file one plane after the other, packed or not, as NIfTI, NRRD and MRC have them."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from dataset_conversion.readers.slabs import Array, Slabs, plane_ranges
from nnunetv2_retina.images.picture import ImageError

Unpack = Callable[[IO[bytes]], IO[bytes]]


def unpack_gzip(file: IO[bytes]) -> IO[bytes]:
    """Return what a stream of gzip data holds, from where it stands."""
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


_BEGINNINGS: dict[bytes, Unpack] = {b"\x1f\x8b": unpack_gzip, b"BZ": bz2.BZ2File}


def unpacking(path: Path) -> Unpack | None:
    """Return how a file is unpacked, by what it begins with; None for one that is not packed."""
    with path.open("rb") as file:
        return _BEGINNINGS.get(file.read(2))


def raw_planes(
    path: Path,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    header: int,
    unpack: Unpack | None = None,
    skipped: int = 0,
    read_as: npt.DTypeLike | None = None,
) -> Slabs:
    """Return a volume whose planes are read from a file as they follow each other.

    Args:
        path: the file.
        shape: (Z, Y, X).
        dtype: as stored, with its byte order.
        header: bytes before the voxels, counted in the unpacked data.
        unpack: for a packed file.
        skipped: bytes before the packed data, of a header that is not packed.
        read_as: type to convert to; None: as stored.
    """
    stored = np.dtype(dtype)
    kind = stored if read_as is None else np.dtype(read_as)

    def blocks() -> Iterator[Array]:
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            file.seek(skipped)
            if unpack is not None:
                file = stack.enter_context(unpack(file))
            file.seek(header, 1)
            for z in plane_ranges(shape, stored):
                sides = (len(z), *shape[1:])
                data = file.read(prod(sides) * stored.itemsize)
                if len(data) < prod(sides) * stored.itemsize:
                    raise ImageError(f"it ends before plane {z.stop} of {shape[0]}: cut off")
                yield np.frombuffer(data, stored).reshape(sides).astype(kind, copy=False)

    return Slabs(shape, kind, blocks)
