"""The files of a packed image store, and its checksums.

A store is a folder that ``pretraining.store.packing`` writes:

    images.bin     N x 224 x 224 uint8, one image after the other
    index.bin      N records of ``INDEX``
    names.txt      the source files' names in UTF-8, a line each, in the order of the images
    rejected.csv   path, reason: what was not taken
    store.json     written last: counts, sizes, groups, statistics, options, and a checksum over the index and the names
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 224
"""Height and width of every image."""
FORMAT_VERSION = 1
IMAGE_BYTES = SIZE * SIZE
INDEX = np.dtype(
    [
        ("crc32", "<u4"),  # of the image's bytes
        ("group", "<i4"),  # into store.json's groups
        ("name", "<u8"),  # where the file's line begins in names.txt
        ("hash", "<u8"),  # pretraining.store.duplicates.difference_hash, 0 without deduplication
        ("page", "<i4"),  # page of a file of several, else -1
        ("y", "<i4"),  # top left corner if the image was cut out of a larger one, else -1
        ("x", "<i4"),
    ]
)
IMAGES_FILE, INDEX_FILE, NAMES_FILE, REJECTED_FILE = "images.bin", "index.bin", "names.txt", "rejected.csv"
MANIFEST_FILE, JOURNAL_FILE = "store.json", "packing.json"
_PLACE = re.compile(r" \[(?:(?:page|y|x)=\d+(?:, |(?=\])))+\]$")
NAMES_ENCODING: tuple[str, str] = ("utf-8", "backslashreplace")


def place_suffix(page: int, y: int, x: int) -> str:
    """Return what is appended to a file's name for an image that is not the whole file; -1 stands for not cut."""
    parts = [f"{label}={value}" for label, value in (("page", page), ("y", y), ("x", x)) if value >= 0]
    return f" [{', '.join(parts)}]" if parts else ""


def without_place(name: str) -> str:
    """Return the name of the file that an image is of, or was cut out of: ``place_suffix`` undone."""
    return _PLACE.sub("", name)


def index_digest(path: Path) -> str:
    """Return the SHA-256, in hex, of a store's index and names."""
    digest = hashlib.sha256()
    for name in (INDEX_FILE, NAMES_FILE):
        with open(path / name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of a manifest's entries except the checksum itself."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def fastest_crc32() -> Callable[[Any], int]:
    """Return libdeflate's CRC-32 if imagecodecs is installed (2 instead of 10 microseconds an image), else zlib's."""
    try:
        from imagecodecs import deflate_crc32

        deflate_crc32(b"0")  # imagecodecs may have been built without it
    except ImportError:
        return zlib.crc32
    return deflate_crc32
