"""Numbers and tables in words."""

import math

import pytest

from nnunetv2_retina.console.wording import duration, format_bytes, format_rows


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (5, "5 s"),
        (45.4, "45 s"),
        (720, "12 min"),
        (12240, "3 h 24 min"),
        (4 * 86400 + 3600, "4 d 1 h"),
        (math.nan, "-"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bytes_are_in_decimal_units() -> None:
    assert [format_bytes(size) for size in (999, 1500, 2.5e6, 3e12)] == ["999 bytes", "1.5 kB", "2.5 MB", "3000.0 GB"]


def test_columns_are_aligned() -> None:
    rows = [["case", "IoU"], ["a", "0.5"], ["longer", "undefined"]]
    assert format_rows(rows) == ["  case    IoU", "  a       0.5", "  longer  undefined"]
    assert format_rows(rows, left=1) == ["  case          IoU", "  a             0.5", "  longer  undefined"]
