"""One run at a time in an output folder, whatever became of the last one."""

import os

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import LOCK
from pretraining.cli import main
from pretraining.loop.output import held_output


def test_a_second_run_is_refused_and_touches_nothing(tmp_path, capsys):
    output, source = tmp_path / "run", tmp_path / "images"
    source.mkdir()
    (source / "image.png").touch()  # a source without images is refused before that
    with held_output(output):
        live = output / f"checkpoint_latest.pth.{os.getpid()}.tmp"
        live.touch()
        with (
            pytest.raises(RetinaError, match=r"another pre-training is writing to .*run\. Wait until .* with -o"),
            held_output(output),
        ):
            pass
        assert main([str(source), "-o", str(output), "--device", "cpu"]) == 2
        assert "another pre-training is writing to" in capsys.readouterr().err
        assert live.exists()


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    names = ["checkpoint_latest.pth.17.tmp", "log.jsonl.4.tmp", ".12.probe", "mine.tmp", "log.jsonl"]
    for name in names:
        (output / name).touch()
    with held_output(output):
        assert sorted(path.name for path in output.iterdir()) == sorted([LOCK, *names[3:]])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RetinaError, match=r"cannot write to .*file.* Choose another output folder"),
        held_output(tmp_path / "file"),
    ):
        pass
