"""What a process knows of the one that started it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, signal, sys, time
from nnunetv2_retina.console.machine import end_with
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a script starts with &
end_with(int(sys.argv[1]))
try:
    open(sys.argv[2] + ".begun", "w").close()
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    with open(sys.argv[2] + ".part", "w") as file:
        file.write("tidied up")
    os.rename(file.name, sys.argv[2])
"""
STUBBORN = """
import multiprocessing, sys, time
from pathlib import Path
from nnunetv2_retina.console.machine import end_with
def work(note):
    for _ in range(600):
        Path(note).touch()
        time.sleep(0.1)
end_with(int(sys.argv[1]), patience=0.5)
multiprocessing.get_context("fork").Process(target=work, args=(sys.argv[2],), daemon=True).start()
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]])
print(child.pid, flush=True)
time.sleep(60)
"""


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell of a parent that has gone")
def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    note = tmp_path / "note"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(note)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(tmp_path / "note.begun")
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(note)
    assert note.read_text() == "tidied up"


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell of a parent that has gone")
def test_nor_do_the_processes_go_on_that_it_started_though_it_does_not_listen(tmp_path: Path) -> None:
    note = tmp_path / "note"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, STUBBORN, str(note)], stdout=subprocess.DEVNULL, env=environment
    )
    wait_for(note)
    parent.kill()
    parent.wait()
    quiet, end = 0.0, time.monotonic() + 60
    while quiet < 2 and time.monotonic() < end:
        time.sleep(0.2)
        quiet = time.time() - note.stat().st_mtime
    assert quiet >= 2, "it still writes"


KEPT = """
import ctypes
import numpy
from nnunetv2_retina.console.machine import keep_freed_memory

class Info(ctypes.Structure):  # of glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c mapped d e f g h".split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info

def is_asked_of_the_system():
    before = library.mallinfo2().mapped
    output = numpy.empty(1 << 21)  # 16 MiB, as that of a layer
    return library.mallinfo2().mapped - before >= output.nbytes

first = is_asked_of_the_system()
keep_freed_memory()
print(first, is_asked_of_the_system())
"""


@pytest.mark.skipif(os.name == "nt" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="a setting of glibc")
def test_what_a_worker_of_dask_frees_is_used_again() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_TRIM_THRESHOLD_": "65536"}
    shown = subprocess.run([sys.executable, "-c", KEPT], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["True", "False"]
