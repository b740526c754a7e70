"""What a run writes: a JSON line an epoch, curves, pictures, TensorBoard if wanted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunetv2_retina.display.plots import Curve, curves
from nnunetv2_retina.display.sheets import grey_sheet
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import replacing

LOG = "log.jsonl"
PLOT = "progress.png"


def write_log(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write ``log.jsonl`` anew, one line an epoch; a continued run thus drops epochs after its checkpoint."""
    lines = [json.dumps({key: _plain(value) for key, value in record.items()}) + "\n" for record in history]
    with replacing(folder / LOG) as temporary:
        Path(temporary).write_text("".join(lines), encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return None, which JSON has, for what is no number: there was nothing to measure."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def check_tensorboard() -> None:
    """Check that the package tensorboard is there.

    Raises:
        RetinaError: if it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise RetinaError('--tensorboard needs the package tensorboard: pip install "tensorboard"') from error


class TensorBoard:
    """Writes the records of the epochs for TensorBoard, which ``check_tensorboard`` has found."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(os.fspath(folder / "tensorboard"))

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of one epoch."""
        for key, value in record.items():
            if key not in ("epoch", "iteration"):
                self.writer.add_scalar(key, value, record["iteration"])
        self.writer.flush()
