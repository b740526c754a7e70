"""Whether a file of volumes or images is whole: what its header announces lies in it, and its checksums fit.

The libraries that read such files fill what a cut one lacks with zeros, without a word.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

from nnunetv2_retina.images import single, tiff
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.images.tiff_file import full_images, opened

_BLOCK = 1 << 22
_GZIP, _META = b"\x1f\x8b", (b"ObjectTy", b"NDims")
_SIGNATURE = 8
_NIFTI_1, _NIFTI_2 = 348, 540
"""Bytes of a NIfTI header, with which it begins."""
_NIFTI_BITS = {2: 8, 256: 8, 4: 16, 512: 16, 8: 32, 768: 32, 16: 32, 1024: 64, 1280: 64, 64: 64}
"""Codes of the types of numbers."""
_LONGEST_HEADER = 1 << 20
_MRC, _MRC_NAME = 1024, 208
"""Bytes of an MRC header, and where its name is."""
_MRC_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, 101: 4}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "ulonglong", "uint64", "uint64_t", "double"), 8),
}
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}


def check_whole(path: Path) -> None:
    """Check that a NIfTI, NRRD, MetaImage, MRC, TIFF or PNG file is complete; files of other kinds pass.

    Args:
        path: the file; its content tells the kind, not its name.

    Raises:
        ImageError: if it is empty, cut off or damaged. The text is the reason alone.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(_SIGNATURE)
        file.seek(0)
        if not start:
            raise ImageError("the file is empty")
        if path.suffix.lower() == ".gz" and not start.startswith(_GZIP):
            raise ImageError(f"its name says gzip, its content is none: it begins with {start!r}")
        try:
            _check(file, start)
        except (struct.error, ValueError, OverflowError) as error:
            raise ImageError(f"its header cannot be read ({error})") from error
    if start.startswith(tiff.SIGNATURES):
        _check_tiff(path)


def _check_tiff(path: Path) -> None:
    try:
        with opened(path) as pages:
            full_images(pages)
    except ImageError:
        raise
    except Exception as error:  # tifffile raises whatever its parsers do
        raise ImageError(f"its tags cannot be read ({error})") from error


def _check(file: IO[bytes], start: bytes) -> None:
    size = os.fstat(file.fileno()).st_size
    if start.startswith(_GZIP):
        length, header = _unpack(file)
        check_volume(header, length)
    elif start.startswith(b"NRRD"):
        _check_nrrd(file, size)
    elif start.startswith(_META):
        _check_meta(file, size)
    elif start.startswith(single.PNG):
        single.check_png(file.read())
    else:
        check_volume(file.read(_MRC), size)


def check_volume(header: bytes, length: int) -> None:
    """Check that an unpacked NIfTI or MRC file has the length that its header announces; other files pass.

    Args:
        header: its first 1024 bytes.
        length: its bytes.

    Raises:
        ImageError: if it is cut off, or its header does not fit its data.
    """
    if header[_MRC_NAME : _MRC_NAME + 3] == b"MAP":
        _check_length(_mrc_length(header), length, longer=True)
    elif _byte_order(header) is not None:
        _check_length(_nifti_length(header), length)


def is_nifti_2(path: Path) -> bool:
    """Tell whether a file, packed or not, is the newer form of NIfTI."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    with gzip.open(path) if packed else path.open("rb") as stream:
        return nifti_version(stream.read(4)) == 2


def nifti_version(start: bytes) -> int | None:
    """Return 1 or 2 for the beginning of an unpacked NIfTI file; None for another file."""
    order = _byte_order(start)
    return None if order is None else 1 + (struct.unpack(f"{order}i", start[:4])[0] == _NIFTI_2)


def nrrd_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a NRRD file's header, in lower-case names, and the bytes that it takes."""
    with path.open("rb") as file:
        return _read_fields(file, ":"), file.tell()


def _unpack(file: IO[bytes]) -> tuple[int, bytes]:
    """Unpack gzip data to their end, where the checksum is; return their length and first bytes."""
    length, header = 0, b""
    try:
        with gzip.open(file) as stream:
            while block := stream.read(_BLOCK):
                header = header or block[:_MRC]
                length += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"its gzip data are cut off or damaged ({error})") from error
    return length, header


def _byte_order(start: bytes) -> str | None:
    """Return the byte order of a NIfTI file by its first number, the length of its header; None for another file."""
    for order in "<>":
        if len(start) >= 4 and struct.unpack(f"{order}i", start[:4])[0] in (_NIFTI_1, _NIFTI_2):
            return order
    return None


def _nifti_length(header: bytes) -> int:
    """Return the bytes that a NIfTI file needs by its header; 0 for one whose data lie in another file."""
    order = _byte_order(header)
    second = nifti_version(header) == 2
    if len(header) < (_NIFTI_2 if second else _NIFTI_1):
        raise ImageError("its header is cut off")
    if second:
        (kind, bits), dims = struct.unpack_from(f"{order}2h", header, 12), struct.unpack_from(f"{order}8q", header, 16)
        offset, magic = struct.unpack_from(f"{order}q", header, 168)[0], header[4:7]
    else:
        (kind, bits), dims = struct.unpack_from(f"{order}2h", header, 70), struct.unpack_from(f"{order}8h", header, 40)
        offset, magic = struct.unpack_from(f"{order}f", header, 108)[0], header[344:347]
    if not 1 <= dims[0] <= 7:
        raise ImageError(f"its header says {dims[0]} axes")
    if kind in _NIFTI_BITS and bits != _NIFTI_BITS[kind]:
        raise ImageError(f"its header says type {kind} and {bits} bits a voxel; expected {_NIFTI_BITS[kind]}: damaged")
    if not magic.startswith(b"n+"):
        return 0
    return int(offset + (math.prod(dims[1 : dims[0] + 1]) * bits + 7) // 8)


def mrc_surplus(path: Path) -> int:
    """Return how many bytes more than its header announces an MRC file has, also one without the format's name.

    Raises:
        ImageError: if it has fewer, or its header is none.
    """
    check_whole(path)
    with path.open("rb") as file:
        header, size = file.read(_MRC), os.fstat(file.fileno()).st_size
    if header.startswith((_GZIP, b"BZh")):
        return 0
    _check_length(needed := _mrc_length(header), size, longer=True)
    return size - needed


def _mrc_length(header: bytes) -> int:
    """Return the bytes that an MRC file needs by its header; in the wrong byte order they would be far more."""
    if len(header) < _MRC:
        raise ImageError("its header is cut off")
    needed = []
    for order in "><":
        columns, rows, sections, kind = sides = struct.unpack_from(f"{order}4i", header)
        (more,) = struct.unpack_from(f"{order}i", header, 92)
        if kind in _MRC_BITS and min(*sides[:3], more + 1) > 0:
            needed.append(_MRC + int(more) + (int(columns) * _MRC_BITS[kind] + 7) // 8 * int(rows) * int(sections))
    if not needed:
        raise ImageError(f"its header says {columns} x {rows} x {sections} voxels of type {kind}, none of MRC's")
    return min(needed)


def _check_nrrd(file: IO[bytes], size: int) -> None:
    fields = _read_fields(file, ":")
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in _NRRD_BYTES or "data file" in fields or "datafile" in fields:
        return
    needed = math.prod(map(int, fields.get("sizes", "").split())) * _NRRD_BYTES[kind]
    skipped = any(fields.get(f"{what}{space}skip", "0") != "0" for what in ("byte", "line") for space in (" ", ""))
    if encoding == "raw":
        _check_length(needed, size - file.tell(), longer=skipped)
    elif encoding in ("gzip", "gz"):
        _check_length(needed, _unpack(file)[0], longer=skipped)


def _check_meta(file: IO[bytes], size: int) -> None:
    fields = _read_fields(file, "=", last="elementdatafile")
    kind = fields.get("elementtype", "").removeprefix("MET_")
    if kind not in _META_BYTES or fields.get("elementdatafile") != "LOCAL":
        return
    channels = int(fields.get("elementnumberofchannels", "1"))
    needed = math.prod(map(int, fields.get("dimsize", "").split())) * channels * _META_BYTES[kind]
    rest = size - file.tell()
    if fields.get("compresseddata", "False").lower() != "true":
        _check_length(needed, rest, longer="headersize" in fields)
    elif rest < (packed := int(fields.get("compresseddatasize", "0"))):
        _check_length(packed, rest, longer=True)


def _read_fields(file: IO[bytes], separator: str, last: str = "") -> dict[str, str]:
    """Read lines ``name: value`` up to an empty line, or to the one named ``last``."""
    fields: dict[str, str] = {}
    while line := file.readline(_LONGEST_HEADER).decode("utf-8", "replace"):
        name, separated, value = line.strip().partition(separator)
        if separated and not line.startswith("#"):
            fields[name.strip().lower()] = value.removeprefix("=").strip()
        if not line.strip() or name.strip().lower() == last:
            return fields
    raise ImageError("its header is cut off")


def _check_length(needed: int, present: int, longer: bool = False) -> None:
    """Compare lengths; ``longer``: the file may hold more than what is announced."""
    if present < needed:
        raise ImageError(f"its header announces {needed:,} bytes; {present:,} are there: cut off")
    if present > needed > 0 and not longer:
        raise ImageError(
            f"its header announces {needed:,} bytes; {present:,} are there: another size or type than the data's. Save "
            "it again with the program that made it"
        )
