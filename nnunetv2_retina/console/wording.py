"""How numbers and tables are put into words, alike in every command and page."""

from __future__ import annotations

import math
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Put a time into words of two units at most: ``5 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``; ``-`` for NaN."""
    if math.isnan(seconds):
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == round(seconds) else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def time_left(seconds: float) -> str:
    """Put the time that is left into words; an estimate never says 0 s: ``< 1 min left``, ``3 h 20 min left``."""
    return f"{'< 1 min' if seconds < 60 else duration(seconds)} left"


def format_bytes(number: float) -> str:
    """Put a number of bytes into words: ``12.3 MB``, in decimal units, as browsers and disks give them."""
    size = float(number)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def format_rows(rows: Sequence[Sequence[str]], left: int | None = None) -> list[str]:
    """Return the lines of a table; every row has the same number of cells.

    Args:
        rows: the header among them.
        left: how many columns are aligned on the left; those after them, numbers, on the right. None: all.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) if left is None else left
    lines = []
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row[:left], widths, strict=False)]
        cells += [text.rjust(width) for text, width in zip(row[left:], widths[left:], strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
