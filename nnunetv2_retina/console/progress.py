"""How far a long piece of work is: a bar on a terminal (tqdm, which nnU-Net brings), a line now and then elsewhere.

with ProgressBar("scoring", total=12, unit="cases") as progress:
    for number, case in enumerate(cases, start=1):
        ...
        progress.update(number)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, TextIO

from nnunetv2_retina.console import say as print_line
from nnunetv2_retina.console.wording import format_bytes, time_left

BYTES = "bytes"
"""A unit that is shown as kB, MB and GB."""
EVERY = 30.0
"""Seconds between two lines where there is no terminal, and before the first."""
_MEASURED = 1.0
"""Seconds before a rate is shown."""
_BAR = "{desc}  {percentage:3.0f}% |{bar}| {in_words}"
_NO_BAR = "{desc}  {in_words}"


class ProgressBar:
    """Shows what is done, the rate and the time left, which is the mean since the first ``update``.

    Args:
        what: is being done, in a few words.
        total: of what is done in the end; None: not known.
        unit: what is counted, in the plural, or ``BYTES``.
        say: takes lines where there is no terminal; None: they go to ``out``.
        out: where the bar goes; None: stderr.
        rate: unit of the rate and how many of it one of ``unit`` is, such as images in a step; None: ``unit`` itself.
        shown: whether to show anything.
    """

    def __init__(
        self,
        what: str,
        total: float | None = None,
        unit: str = "",
        *,
        say: Callable[[str], None] | None = None,
        out: TextIO | None = None,
        rate: tuple[str, float] | None = None,
        shown: bool = True,
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self._out = out or sys.stderr
        self._say = say or (lambda line: print_line(line, self._out))
        self._rate_unit, self._each = rate or (unit, 1.0)
        self._on_terminal = shown and self._out.isatty()
        self._shown = shown
        self._bar: Any = None
        self._last = monotonic()
        self._first: tuple[float, float] | None = None
        self._note = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: float, total: float | None = None, note: str = "") -> None:
        """Show how much is done by now, of the given total if that has changed, and a note beside it."""
        if not self._shown:
            return
        now = monotonic()
        self.total = self.total if total is None else total
        self._first = self._first or (now, done)
        self._note = note
        if self._on_terminal:
            self._draw(done)
        elif now - self._last >= EVERY and now > self._first[0]:
            self._last = now
            self._say(f"{self.what}: {self.in_words(done)}")

    def in_words(self, done: float) -> str:
        """Put into words what is done: ``3 of 12 cases, 0.50 cases/s, 2 min left``."""
        of = "" if self.total is None else f" of {self._amount(self.total)}"
        unit = "" if self.unit in ("", BYTES) else f" {self.unit}"
        return ", ".join(filter(None, (f"{self._amount(done)}{of}{unit}", *self._speed(done), self._note)))

    def message(self, text: str) -> None:
        """Write a line that stays above the bar."""
        if self._bar is not None:
            self._bar.clear()
        print_line(text, self._out)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _speed(self, done: float) -> tuple[str, ...]:
        """Return the rate, and the time left if there is something left."""
        if self._first is None:
            return ()
        seconds, since = monotonic() - self._first[0], done - self._first[1]
        if seconds < _MEASURED or since <= 0:
            return ()
        rate = since / seconds
        shown = format_bytes(rate) if self.unit == BYTES else f"{_short(rate * self._each)} {self._rate_unit}"
        left = None if self.total is None or done >= self.total else time_left((self.total - done) / rate)
        return (f"{shown}/s", left) if left else (f"{shown}/s",)

    def _amount(self, number: float) -> str:
        return format_bytes(number) if self.unit == BYTES else f"{number:,.0f}"

    def _format(self) -> str:
        return _NO_BAR if self.total is None else _BAR

    def _draw(self, done: float) -> None:
        if self._bar is None:
            self._bar = _bar(self)
        self._bar.total = self.total
        self._bar.bar_format = self._format()
        self._bar.update(done - self._bar.n)


def _short(number: float) -> str:
    """Return a number of three digits, with a letter for thousands and millions."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _bar(progress: ProgressBar) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # no thread beside

        @property
        def format_dict(self) -> Mapping[str, Any]:
            return {**super().format_dict, "in_words": progress.in_words(self.n)}

    return Bar(
        desc=progress.what, total=progress.total, file=progress._out, leave=False, dynamic_ncols=True,
        bar_format=progress._format(),
    )  # fmt: skip
