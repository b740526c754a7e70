"""What a run tells of its progress."""

import io
import json

import pytest

from nnunetv2_retina.errors import RetinaError
from pretraining.loop import progress
from pretraining.loop.progress import ProgressLine, TensorBoard, plot, write_log


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_half_minute_tells_speed_and_time_left(clock):
    out = io.StringIO()
    line = ProgressLine(1000, 8, out)
    for done in range(1, 61):
        line.update(done, 0.5)
        clock[0] += 1 if done > 1 else 60  # the first step is slow
    assert out.getvalue().splitlines() == [
        "step 2 of 1,000  loss 0.5000  0.1 images/s  16 h 38 min left",
        "step 32 of 1,000  loss 0.5000  8.0 images/s  16 min left",
    ]


def test_no_speed_is_told_of_no_time(clock):
    out = io.StringIO()
    line = ProgressLine(3, 4, out)
    clock[0] += 100
    line.update(1, 1.0)
    line.update(2, 1.0)
    assert out.getvalue() == ""


def test_log_and_plot_follow_the_history(tmp_path):
    history = [{"epoch": i, "train_loss": 1 / i, "held_out_loss": 2 / i, "learning_rate": 0.1} for i in (1, 2)]
    write_log(tmp_path, history)
    write_log(tmp_path, history[:1])
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1]
    plot(tmp_path, history)
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(RetinaError, match="--tensorboard needs the package tensorboard: pip install"):
        TensorBoard(tmp_path)
