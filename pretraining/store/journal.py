"""How far packing has come: ``packing.json``, from which it is continued."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json
from pretraining.store.layout import (
    FORMAT_VERSION,
    IMAGES_FILE,
    INDEX_FILE,
    NAMES_FILE,
    REJECTED_FILE,
)
from pretraining.store.sources import Census

FILES = (IMAGES_FILE, INDEX_FILE, NAMES_FILE, REJECTED_FILE)
"""They only grow while a store is written."""


@dataclass
class Journal:
    """How far packing has come. All numbers are exact integers, so stopping leaves no trace in the result."""

    deduplicate: int | None = None
    census: Census = field(default_factory=Census)
    """Of the files done."""
    last: str = ""
    """Name of the last file done."""
    counted: int = 0
    """Files that count for the limit of rejected ones."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Of those the rejected ones, by reason."""
    near_duplicates: int = 0
    """Images left out as such."""
    images: int = 0
    pixel_sum: int = 0
    pixel_squares: int = 0
    groups: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))

    @staticmethod
    def read(path: Path) -> Journal:
        """Read ``packing.json``.

        Raises:
            RetinaError: if it is damaged or of another version.
        """
        content = read_json(path, start_again(path.parent))
        try:
            version = content.pop("format_version")
            content["census"] = Census(**content["census"])
            journal = Journal(**content)
        except (KeyError, TypeError) as error:
            raise RetinaError(f"{path} is damaged. {start_again(path.parent)}") from error
        if version != FORMAT_VERSION:
            raise RetinaError(
                f"{path} is of format version {version}; this installation writes version {FORMAT_VERSION}. "
                f"{start_again(path.parent)}"
            )
        return journal

    @property
    def rejected_share(self) -> float:
        return sum(self.rejected.values()) / max(self.counted, 1)


def start_again(path: Path) -> str:
    """Return the advice to pack from the start."""
    return f"To pack from the start, delete the folder {path} and give the same command"
