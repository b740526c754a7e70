"""A folder held by one process, until that ends, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.checks import known

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import is_leftover, locked, remove_leftovers, replacing

HOLD = "import sys, time, pathlib; from nnunetv2_retina.files import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1]), ''): print(flush=True); time.sleep(60)"


def test_a_lock_ends_with_its_process(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        known(process.stdout).readline()
        with pytest.raises(RetinaError, match="somebody else"), locked(tmp_path, "somebody else"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(tmp_path, "somebody else"):
            pass


def test_a_lock_is_given_back(tmp_path):
    for _ in range(2):
        with locked(tmp_path, "held"), pytest.raises(RetinaError, match="held"), locked(tmp_path, "held"):
            pass


def test_processes_of_one_number_on_two_machines_may_write_the_same_file(tmp_path):
    path = tmp_path / "study.json"
    with replacing(path) as here, replacing(path) as there:
        for name in (here, there):
            assert is_leftover(Path(name).name)
            Path(name).write_text("{}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    ("name", "left"),
    [("a.pth.12.tmp", True), (".7.probe", True), ("a.tmp", False), ("a.x.tmp", False), ("12.probe", False)],
)
def test_what_killed_processes_leave(name, left):
    assert is_leftover(name) == left


def test_what_a_process_that_runs_is_writing_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    numbers = (os.getppid(), os.getpid(), ended.pid, 10**20)
    names = ["a.pth", *(f"a.pth.{number}.tmp" for number in numbers)]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == names[:2]


def test_no_process_is_asked_on_windows_where_that_is_ctrl_c(tmp_path, monkeypatch):
    path = tmp_path / "a.999999999.tmp"
    path.touch()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("os.kill"))
    remove_leftovers(tmp_path)
    assert path.exists()
