"""How far a piece of work is: lines now and then, a bar on a terminal, never 0 s left."""

import io
import time

import pytest

from nnunetv2_retina.console import progress
from nnunetv2_retina.console.progress import BYTES, ProgressBar
from nnunetv2_retina.console.wording import time_left


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_half_minute_without_a_terminal(clock):
    out = io.StringIO()
    with ProgressBar("pre-training", 1000, "steps", out=out, rate=("images", 8)) as bar:
        for done in range(1, 61):
            bar.update(done, note=f"loss {1 / done:.2f}")
            clock[0] += 1 if done > 1 else 60  # the first step is slow, and measured as the others
    assert out.getvalue().splitlines() == [
        "pre-training: 2 of 1,000 steps, 0.133 images/s, 16 h 38 min left, loss 0.50",
        "pre-training: 32 of 1,000 steps, 2.76 images/s, 47 min left, loss 0.03",
    ]


def test_short_work_says_nothing_without_a_terminal(clock):
    out = io.StringIO()
    with ProgressBar("scoring", 3, "cases", out=out) as bar:
        for done in range(4):
            bar.update(done)
            clock[0] += 9
    assert out.getvalue() == ""


def test_a_continued_download_is_measured_from_where_it_went_on(clock):
    bar = ProgressBar("a.bin", 10_000_000, BYTES)
    bar.update(9_000_000)
    clock[0] += 2
    assert bar.in_words(9_200_000) == "9.2 MB of 10.0 MB, 100.0 kB/s, < 1 min left"


def test_nothing_is_foretold_without_a_total_or_at_the_end(clock):
    bar = ProgressBar("packing", None, "files")
    bar.update(0)
    clock[0] += 10
    assert bar.in_words(20_000) == "20,000 files, 2,000 files/s"
    assert ProgressBar("packing", 5, "files").in_words(5) == "5 of 5 files"
    bar.total = 20_000
    assert bar.in_words(20_000) == "20,000 of 20,000 files, 2,000 files/s"


def test_a_terminal_gets_a_bar_that_goes_away(clock):
    lines: list[str] = []
    out = Terminal()
    with ProgressBar("case_1", 400, "tiles", out=out, say=lines.append) as bar:
        bar.update(0)
        clock[0] += 50
        time.sleep(0.11)  # tqdm draws ten times a second
        bar.update(100)
        bar.message("a line that stays")
    text = out.getvalue()
    assert " 25% |" in text and "100 of 400 tiles, 2 tiles/s, 2 min left" in text
    assert "a line that stays\n" in text and text.endswith("\r") and not lines


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "< 1 min left"), (59.9, "< 1 min left"), (600, "10 min left")])
def test_time_left_never_is_nothing(seconds, words):
    assert time_left(seconds) == words
