"""What packing says when it cannot go on, and what to do then."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from pretraining.store.archives import ARCHIVE_ENDINGS, Archive
from pretraining.store.crops import CropSource
from pretraining.store.journal import Journal
from pretraining.store.layout import IMAGE_BYTES, INDEX, JOURNAL_FILE, REJECTED_FILE
from pretraining.store.sources import IMAGE_ENDINGS, Source
from pretraining.store.writer import StoreWriter

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def other_option(path: Path, packed: int | None, asked: int | None) -> str:
    def spelt(value: int | None) -> str:
        return "without near-duplicate removal" if value is None else f"with --deduplicate {value}"

    return f"{path} was packed {spelt(packed)}, not {spelt(asked)}. Give the same option, or choose another store"


def not_writable(path: Path, error: OSError) -> str:
    return f"the store {path} cannot be written ({error.strerror}). Change the permissions, or choose another folder"


def check_rejected(source: Source, writer: StoreWriter, limit: float) -> None:
    journal = writer.journal
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(journal.rejected.items()))
    if not journal.counted:
        writer.close()
        shutil.rmtree(writer.path)
        raise RetinaError(no_images(source))
    if not journal.images:
        raise RetinaError(
            f"no image of {source.path} can be used: of {journal.counted:,} files {reasons}. What is wrong with each: "
            f"{writer.path / REJECTED_FILE}"
        )
    if journal.rejected_share > limit:
        raise RetinaError(
            f"{sum(journal.rejected.values()):,} of {journal.counted:,} files in {source.path} cannot be used "
            f"({journal.rejected_share:.1%}; allowed are {limit:.1%}): {reasons}. They are listed in "
            f"{writer.path / REJECTED_FILE}. To go on without them, raise the limit: "
            f"--max-rejected {_next_percent(journal.rejected_share)}; nothing needs to be packed again. To repair them "
            f"first, do so, delete the folder {writer.path}, and give the same command"
        )


def _next_percent(share: float) -> int:
    return min(100, int(100 * share) + 1)


def no_images(source: Source) -> str:
    if isinstance(source, CropSource):
        return (
            f"all {source.count():,} crops of {source.path} are empty (padding or bare resin). Draw more with --crops, "
            "or from another part with --box"
        )
    advice = "Check the path"
    if not isinstance(source, Archive) and any(file.name.lower().endswith(ARCHIVE_ENDINGS) for file in source):
        advice = "Give the archive in it as the source, or unpack it"
    return f"no images in {source.path}: none of its files ends in {', '.join(IMAGE_ENDINGS)}. {advice}"


@contextmanager
def explain_full_disk(path: Path, total: int | None) -> Iterator[None]:
    """Explain errors of writing the store."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise RetinaError(not_writable(path, error)) from error
        raise RetinaError(
            f"no space is left for {path} ({error.strerror}): {_space(path, total)}. Free some, then give the same "
            "command again to continue; or delete the folder and choose another store"
        ) from error


def _space(path: Path, total: int | None) -> str:
    """Say how much is written, free and needed."""
    free = shutil.disk_usage(path).free
    journal = Journal.read(path / JOURNAL_FILE) if (path / JOURNAL_FILE).is_file() else Journal()
    done, each = journal.census.files, IMAGE_BYTES + INDEX.itemsize
    written = f"{sum(journal.bytes.values()):,} bytes are written and {free:,} are free"
    if total is None:
        return f"{written}; every image takes {each:,} bytes"
    needed = int((total - done) * each * (journal.images / done if done else 1))
    return f"{written}, but about {needed:,} more are needed for the {total - done:,} files to come"
