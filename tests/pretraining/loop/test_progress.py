"""What a run writes of its progress."""

import json

import pytest

from nnunetv2_retina.errors import RetinaError
from pretraining.loop.progress import check_tensorboard, plot, write_log


def test_log_and_plot_follow_the_history(tmp_path):
    history = [{"epoch": i, "train_loss": 1 / i, "held_out_loss": 2 / i, "learning_rate": 0.1} for i in (1, 2)]
    write_log(tmp_path, history)
    write_log(tmp_path, history[:1])
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1]
    plot(tmp_path, history)
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_what_there_is_no_number_for_is_null(tmp_path):
    write_log(tmp_path, [{"epoch": 1.0, "held_out_loss": float("nan"), "note": "nan"}])
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1.0, "held_out_loss": null, "note": "nan"}\n'
    plot(tmp_path, [{"epoch": 1.0, "train_loss": 1.0, "held_out_loss": float("nan"), "learning_rate": 0.1}])


def test_tensorboard_is_optional(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(RetinaError, match="--tensorboard needs the package tensorboard: pip install"):
        check_tensorboard()
