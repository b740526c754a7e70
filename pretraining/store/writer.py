"""Writing a store so that it can be stopped at any moment and continued to the very same bytes.

Four files only grow. Every few seconds they are brought to disk (fsync), and then the journal ``packing.json`` is
replaced (``store.journal``). To continue, the files are cut to the lengths that it holds. ``store.json`` is written
last, and the journal is removed.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import is_leftover, write_json
from pretraining.store.duplicates import NearDuplicates
from pretraining.store.journal import FILES, Journal, start_again
from pretraining.store.layout import (
    FORMAT_VERSION,
    IMAGE_BYTES,
    IMAGES_FILE,
    INDEX,
    INDEX_FILE,
    JOURNAL_FILE,
    MANIFEST_FILE,
    NAMES_FILE,
    REJECTED_FILE,
    SIZE,
    index_digest,
    manifest_checksum,
    place_suffix,
)
from pretraining.store.sources import SourceFile
from pretraining.store.tiles import Place, Tiles

FILES_PER_COMMIT = 5000
SECONDS_PER_COMMIT = 5.0
NEAR_DUPLICATE = "near duplicate"


class StoreWriter:
    """The files of an unfinished store, open for appending.

    Args:
        path: its folder, which exists.
        journal: where to continue; the files are cut to what it says.

    Raises:
        RetinaError: if a file is shorter than the journal says.
        OSError: if one cannot be written.
    """

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path = path
        self.journal = journal
        self._files: dict[str, BinaryIO] = {}
        for leftover in [entry for entry in path.iterdir() if is_leftover(entry.name)]:
            leftover.unlink()
        self._write_journal()  # before the other files, so that a folder without it is not ours
        for name, length in journal.bytes.items():
            self._files[name] = self._open(name, length)
        self._groups = {name: number for number, name in enumerate(journal.groups)}
        self._duplicates: NearDuplicates | None = None
        if journal.deduplicate is not None:
            self._duplicates = NearDuplicates(journal.deduplicate)
            self._duplicates.restore(np.fromfile(path / INDEX_FILE, INDEX))
        self._committed = time.monotonic(), journal.census.files

    def _open(self, name: str, length: int) -> BinaryIO:
        file = open(self.path / name, "ab")  # noqa: SIM115  # closed by close
        size = file.tell()
        if size < length:
            file.close()
            raise RetinaError(
                f"{self.path / name} has {size:,} bytes; its journal expects {length:,} or more. "
                f"{start_again(self.path)}"
            )
        file.truncate(length)
        return file

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # what does not fit on a full disk; it is not in the journal either
                file.close()

    def add(self, file: SourceFile, tiles: Tiles, counts: bool) -> None:
        """Append what one file gave.

        Args:
            file: where it comes from.
            tiles: its tiles, or why there are none.
            counts: whether it counts for the limit of rejected files.
        """
        journal = self.journal
        group = self._groups.setdefault(file.group, len(self._groups)) if tiles.places else -1
        kept, duplicates = self._without_duplicates(file, group, tiles)
        self._write_images(file, group, tiles, kept)
        self._write_rejected(file.name, [*tiles.rejected, *duplicates])
        journal.groups[:] = self._groups
        journal.images += len(kept)
        journal.pixel_sum += sum(tiles.sums[position] for position in kept)
        journal.pixel_squares += sum(tiles.squares[position] for position in kept)
        journal.near_duplicates += len(duplicates)
        if counts:
            self._count(tiles)
        journal.census.add(file)
        journal.last = file.name
        seconds, files = self._committed
        if time.monotonic() - seconds > SECONDS_PER_COMMIT or journal.census.files - files >= FILES_PER_COMMIT:
            self.commit()

    def _count(self, tiles: Tiles) -> None:
        """Count a file and, if it gave no tile, the reason."""
        self.journal.counted += 1
        if not tiles.places:
            reason = tiles.rejected[0][1].partition(":")[0]
            self.journal.rejected[reason] = self.journal.rejected.get(reason, 0) + 1

    def _without_duplicates(
        self, file: SourceFile, group: int, tiles: Tiles
    ) -> tuple[list[int], list[tuple[Place, str]]]:
        """Return which tiles to keep, and the others with the reason."""
        if self._duplicates is None:
            return list(range(len(tiles.places))), []
        kept: list[int] = []
        duplicates = []
        for position, (place, value) in enumerate(zip(tiles.places, tiles.hashes, strict=True)):
            twin = self._duplicates.find(group, value)
            if twin is None:
                self._duplicates.add(group, value, self.journal.images + len(kept))
                kept.append(position)
            else:
                own = twin - self.journal.images
                name = file.name + place_suffix(*tiles.places[kept[own]]) if own >= 0 else self._name(twin)
                duplicates.append((place, f"{NEAR_DUPLICATE} of {name}"))
        return kept, duplicates

    def _name(self, image: int) -> str:
        """Return the name of an image written before."""
        for name in (INDEX_FILE, NAMES_FILE):
            self._files[name].flush()
        record = np.fromfile(self.path / INDEX_FILE, INDEX, 1, offset=image * INDEX.itemsize)[0]
        with open(self.path / NAMES_FILE, "rb") as names:
            names.seek(int(record["name"]))
            line = names.readline().decode().removesuffix("\n")
        return line + place_suffix(int(record["page"]), int(record["y"]), int(record["x"]))

    def _write_images(self, file: SourceFile, group: int, tiles: Tiles, kept: list[int]) -> None:
        if not kept:
            return
        line = self.journal.bytes[NAMES_FILE]
        records = np.empty(len(kept), INDEX)
        for record, position in enumerate(kept):
            values = tiles.checksums[position], group, line, tiles.hashes[position], *tiles.places[position]
            records[record] = values
        chosen = tiles.images if len(kept) == len(tiles.images) else tiles.images[kept]
        self._append(IMAGES_FILE, chosen.data)
        self._append(INDEX_FILE, records.tobytes())
        self._append(NAMES_FILE, f"{file.name}\n".encode())

    def _write_rejected(self, name: str, rejected: Iterable[tuple[Place, str]]) -> None:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if not self.journal.bytes[REJECTED_FILE]:
            rows.writerow(["path", "reason"])
        rows.writerows([name + place_suffix(*place), reason] for place, reason in rejected)
        if text.tell():
            self._append(REJECTED_FILE, text.getvalue().encode())

    def _append(self, name: str, data: bytes | memoryview) -> None:
        self._files[name].write(data)
        self.journal.bytes[name] += len(data) if isinstance(data, bytes) else data.nbytes

    def commit(self) -> None:
        """Bring everything to disk: what was added so far is not lost any more."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._write_journal()
        self._committed = time.monotonic(), self.journal.census.files

    def _write_journal(self) -> None:
        write_json(self.path / JOURNAL_FILE, {"format_version": FORMAT_VERSION, **asdict(self.journal)})

    def finish(self, source: dict[str, Any]) -> None:
        """Write ``store.json``.

        Args:
            source: what to remember of the source.
        """
        journal = self.journal
        pixels = journal.images * IMAGE_BYTES
        mean = journal.pixel_sum / pixels
        variance = (journal.pixel_squares * pixels - journal.pixel_sum**2) / pixels**2
        manifest = {
            "format_version": FORMAT_VERSION,
            "count": journal.images,
            "size": SIZE,
            "mean": mean / 255,
            "std": math.sqrt(variance) / 255,
            "groups": journal.groups,
            "bytes": {name: journal.bytes[name] for name in FILES[:3]},
            "sha256": index_digest(self.path),
            "options": {"deduplicate": journal.deduplicate},
            "rejected": journal.rejected,
            "near_duplicates": journal.near_duplicates,
            "source": source,
        }
        write_json(self.path / MANIFEST_FILE, manifest | {"checksum": manifest_checksum(manifest)})
        (self.path / JOURNAL_FILE).unlink()
