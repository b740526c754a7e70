"""What a run shows and writes: a line of progress, a JSON line an epoch, curves, pictures, TensorBoard if wanted."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from nnunetv2_retina.display.plots import Curve, curves
from nnunetv2_retina.display.sheets import grey_sheet
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import replacing
from nnunetv2_retina.wording import duration

LOG = "log.jsonl"
PLOT = "progress.png"
_SECONDS_BETWEEN_LINES = 30
_SECONDS_BETWEEN_UPDATES = 0.5
_SECONDS_TO_MEASURE = 1


class ProgressLine:
    """Images a second and the time left: one changing line in a terminal, a line every half minute elsewhere.

    Args:
        total: steps of the run.
        batch_size: images a step, over all processes.
        out: where to write; None: stderr.
    """

    def __init__(self, total: int, batch_size: int, out: TextIO | None = None) -> None:
        self.total = total
        self.batch_size = batch_size
        self.out = out or sys.stderr
        self._changing = self.out.isatty()
        self._written = time.monotonic()
        self._since: tuple[float, int] | None = None

    def update(self, done: int, loss: float) -> None:
        """Show how far it is after ``done`` steps. The speed leaves out the first step, which is slow."""
        now = time.monotonic()
        if self._since is None:
            self._since = now, done
        then, before = self._since
        due = now - self._written >= (_SECONDS_BETWEEN_UPDATES if self._changing else _SECONDS_BETWEEN_LINES)
        if due and now - then >= _SECONDS_TO_MEASURE:
            speed = (done - before) / (now - then)  # steps a second
            left = duration((self.total - done) / speed)
            images = f"{speed * self.batch_size:,.1f} images/s"
            self._write(f"step {done:,} of {self.total:,}  loss {loss:.4f}  {images}  {left} left")
            self._written = now
            if not self._changing:
                self._since = now, done

    def message(self, text: str) -> None:
        """Write a line that stays."""
        self.out.write(("\r\x1b[K" if self._changing else "") + text + "\n")
        self.out.flush()

    def _write(self, text: str) -> None:
        self.out.write(f"\r\x1b[K{text}" if self._changing else f"{text}\n")
        self.out.flush()


def write_log(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write ``log.jsonl`` anew, one line an epoch; a continued run thus drops epochs after its checkpoint."""
    with replacing(folder / LOG) as temporary:
        Path(temporary).write_text("".join(json.dumps(record) + "\n" for record in history), encoding="utf-8")


def plot(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write ``progress.png``: losses, learning rate and speed against the epoch."""
    epochs = [record["epoch"] for record in history]

    def series(key: str, name: str) -> Curve:
        return Curve(name, epochs, [record.get(key, float("nan")) for record in history])

    losses = [series("train_loss", "training"), series("held_out_loss", "held out")]
    if any("held_out_hole_loss" in record for record in history):
        losses.append(series("held_out_hole_loss", "held out, blanked pixels"))
        losses.append(series("held_out_unrestored_loss", "held out, input as it is"))
    panels = {
        "loss": losses,
        "learning rate": [series("learning_rate", "learning rate")],
        "images/s": [series("images_per_second", "images/s")],
    }
    with replacing(folder / PLOT) as temporary:
        curves(temporary, panels, "epoch", logarithmic=("loss",))


def write_pictures(folder: Path, images: Mapping[str, Tensor], names: Sequence[str], label: str) -> None:
    """Write ``reconstructions_LABEL.png``: a row an image, a column a title."""
    with replacing(folder / f"reconstructions_{label}.png") as temporary:
        grey_sheet(temporary, {title: stack.numpy() for title, stack in images.items()}, names)


class TensorBoard:
    """Writes the records of the epochs for TensorBoard.

    Raises:
        RetinaError: if the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RetinaError('--tensorboard needs the package tensorboard: pip install "tensorboard"') from error
        self.writer = SummaryWriter(os.fspath(folder / "tensorboard"))

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of one epoch."""
        for key, value in record.items():
            if key not in ("epoch", "iteration"):
                self.writer.add_scalar(key, value, record["iteration"])
        self.writer.flush()
