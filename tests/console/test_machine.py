"""What a process knows of the one that started it."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, sys, time
from nnunetv2_retina.console.machine import end_with
end_with(int(sys.argv[1]))
try:
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    open(sys.argv[2], "w").write("tidied up")
"""
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell of a parent that has gone")
def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    note = tmp_path / "note"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(note)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1)
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while not note.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert note.read_text() == "tidied up"


FAULTS = """
import resource, numpy
from nnunetv2_retina.console.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        numpy.ones(1 << 20)  # 8 MiB, as the output of a layer
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_what_a_worker_of_dask_frees_is_used_again() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_TRIM_THRESHOLD_": "65536"}
    shown = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    given_back, kept = map(int, shown.stdout.split())
    assert given_back > 10 * (kept + 100)
