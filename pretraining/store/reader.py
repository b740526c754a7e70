"""Reading a packed image store: random access to grey 224 x 224 images without decoding. Needs NumPy alone.

The files of a store are described in ``store.layout``.

Images are read with one positioned read each (``os.preadv``) into the caller's array instead of through a memory map:
one request instead of up to 13 page faults from a disk, no growth of the process's resident memory, other threads run
meanwhile, and a file cut short meanwhile is an error instead of a crash (SIGBUS). From the page cache it takes 14
microseconds an image where the map takes 9 (measured on two cores). The index is memory-mapped.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json
from pretraining.store.layout import (
    FORMAT_VERSION,
    IMAGE_BYTES,
    IMAGES_FILE,
    INDEX,
    INDEX_FILE,
    JOURNAL_FILE,
    MANIFEST_FILE,
    NAMES_FILE,
    SIZE,
    fastest_crc32,
    index_digest,
    manifest_checksum,
    place_suffix,
)

_CHUNK = 1 << 16


class ImageStore:
    """A finished store, open for reading. Safe to share between threads, to inherit by fork and to pickle.

    Args:
        path: the store's folder.

    Raises:
        RetinaError: if there is none, its packing is unfinished, it has another format version, a file is missing or
            has another size, or the index or the names are damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = _read_manifest(self.path)
        _check_sizes(self.path, manifest)
        self.fingerprint: str = manifest["sha256"]
        if index_digest(self.path) != self.fingerprint:
            raise RetinaError(
                f"{self.path}: {INDEX_FILE} or {NAMES_FILE} is damaged (their SHA-256 is not the one recorded when "
                f"they were written). {_again(self.path)}"
            )
        self.manifest = manifest
        self.groups: tuple[str, ...] = tuple(manifest["groups"])
        self.mean: float = manifest["mean"]
        self.std: float = manifest["std"]
        self._index: NDArray[Any] = np.memmap(self.path / INDEX_FILE, INDEX, "r", shape=(manifest["count"],))
        with open(self.path / NAMES_FILE, "rb") as file:
            self._names = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file = os.open(self.path / IMAGES_FILE, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        self._lock = threading.Lock()
        self._crc32 = fastest_crc32()

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path]]:
        return ImageStore, (self.path,)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def group_index(self) -> NDArray[np.int32]:
        """(N,) int32: which of ``groups`` each image belongs to. A read-only view of the memory-mapped index."""
        return self._index["group"]

    @property
    def checksums(self) -> NDArray[np.uint32]:
        """(N,) uint32: CRC-32 of each image's 224 x 224 bytes. A read-only view of the memory-mapped index."""
        return self._index["crc32"]

    def name(self, index: int) -> str:
        """Return the source file, with what was cut out of it: ``fafb/a.tif``, ``big.tif [page=3, y=224, x=0]``."""
        record = self._index[index]
        return self._full_name(int(record["name"]), int(record["page"]), int(record["y"]), int(record["x"]))

    def names(self) -> Iterator[str]:
        """Yield all names in the order of the images; memory does not grow with their number."""
        for start in range(0, len(self), _CHUNK):
            part = self._index[start : start + _CHUNK][["name", "page", "y", "x"]]
            yield from (self._full_name(*record) for record in part.tolist())

    def _full_name(self, offset: int, page: int, y: int, x: int) -> str:
        line = self._names[offset : self._names.find(b"\n", offset)]
        return line.decode() + place_suffix(page, y, x)

    def read(self, indices: NDArray[np.integer[Any]], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read some images, each checked against its CRC-32.

        Args:
            indices: (B,) integers in 0 to N - 1, in any order, also repeated.
            out: (B, 224, 224) uint8, C-contiguous, to read into; None makes one.

        Returns:
            (B, 224, 224) uint8: ``out``.

        Raises:
            IndexError: for an index outside 0 to N - 1.
            ValueError: for an ``out`` of another shape or type.
            RetinaError: if an image's bytes have changed since it was packed, or cannot be read.
        """
        indices = np.asarray(indices)
        shape = (len(indices), SIZE, SIZE)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}; expected C-contiguous uint8 {shape}")
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices {indices.min()} to {indices.max()}; expected 0 to {len(self) - 1}")
        target = out.reshape(-1).data
        checksums, wanted, crc32 = self.checksums[indices].tolist(), indices.tolist(), self._crc32
        for position in np.argsort(indices, kind="stable").tolist():  # in the order of the file, for spinning disks
            piece = target[position * IMAGE_BYTES : (position + 1) * IMAGE_BYTES]
            complete = self._fill(piece, wanted[position] * IMAGE_BYTES)
            if not complete or crc32(piece) != checksums[position]:
                raise self._damaged(wanted[position], complete)
        return out

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every image once.

        Args:
            progress: called with the number of images read and the number of all.

        Raises:
            RetinaError: at the first image whose bytes have changed.
        """
        batch = 256
        out = np.empty((batch, SIZE, SIZE), np.uint8)
        for start in range(0, len(self), batch):
            indices = np.arange(start, min(start + batch, len(self)))
            self.read(indices, out[: len(indices)])
            if progress is not None:
                progress(start + len(indices), len(self))

    def _fill(self, piece: memoryview, offset: int) -> bool:
        """Read bytes of the images' file at an offset, and return whether there were enough."""
        try:
            if hasattr(os, "preadv"):
                return os.preadv(self._file, [piece], offset) == len(piece)
            with self._lock:  # no positioned reads on Windows
                os.lseek(self._file, offset, os.SEEK_SET)
                data = os.read(self._file, len(piece))
        except OSError as error:
            raise RetinaError(
                f"{self.path / IMAGES_FILE} cannot be read ({error.strerror}). Check the disk or the network, then "
                "start the same command again."
            ) from error
        if len(data) == len(piece):
            piece[:] = data
        return len(data) == len(piece)

    def _damaged(self, index: int, complete: bool) -> RetinaError:
        what = "differs from what was packed (its CRC-32 is another one)" if complete else "is cut short"
        return RetinaError(
            f"{self.path}: image {index} ({self.name(index)}) {what}: the disk, the memory or a copy is faulty. "
            f"{_again(self.path)}"
        )


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read ``store.json``, and check that it is whole and of this version."""
    file = path / MANIFEST_FILE
    if not path.is_dir():
        reason = "that is a file" if path.exists() else "no such folder"
        raise RetinaError(f"no image store at {path}: {reason}. Pack one: retina_pretrain pack SOURCE {path}")
    if not file.is_file():
        if (path / JOURNAL_FILE).is_file():
            raise RetinaError(
                f"{path}: the packing of this store is unfinished. Finish it with the command that began it, or: "
                f"retina_pretrain pack SOURCE {path}"
            )
        raise RetinaError(f"{path} is not an image store (no {MANIFEST_FILE}). {_again(path)}")
    manifest = read_json(file, _again(path))
    version = manifest.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise RetinaError(
            f"{path} is a store of format version {version}; this installation reads version {FORMAT_VERSION}. "
            "Install the version of nnunetv2-retina that packed it, or pack again: retina_pretrain pack SOURCE STORE"
        )
    if manifest.get("checksum") != manifest_checksum(manifest):
        raise RetinaError(f"{file} is damaged or was edited: its checksum does not fit. {_again(path)}")
    return manifest


def _check_sizes(path: Path, manifest: dict[str, Any]) -> None:
    for name, expected in manifest["bytes"].items():
        file = path / name
        if not file.is_file():
            raise RetinaError(f"{path}: {name} is missing. {_again(path)}")
        if file.stat().st_size != expected:
            raise RetinaError(f"{file} has {file.stat().st_size:,} bytes; expected {expected:,}. {_again(path)}")


def _again(path: Path) -> str:
    return f"Copy the store again, or delete {path} and pack it again: retina_pretrain pack SOURCE {path}"
