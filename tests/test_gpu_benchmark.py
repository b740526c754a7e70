"""The GPU measurements run where there is neither nnU-Net nor a network; here at the smallest size, on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ABSENT = ("nnunetv2", "batchgenerators", "SimpleITK", "imagecodecs", "h5py", "mrcfile", "acvl_utils")
SCRIPT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # importing them fails
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_it_measures_every_part_without_nnunet(tmp_path):
    out = tmp_path / "gpu.json"
    small = "--device cpu --sizes tiny --batch-size 2 --images 12 --seconds 0.1 --eager-only --workers 1"
    command = [sys.executable, "-c", SCRIPT, "-o", str(out), *small.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(out.read_text())["runs"]
    assert run.keys() >= {"bottleneck", "share_of_bf16_peak", "precision"} and "error" not in run
    rates = run["images_per_second"]
    assert rates.keys() == {"reading", "augmentation", "step", "loop"} and min(rates.values()) > 0
    assert run["bottleneck"] == "step"
    assert rates["loop"] < rates["reading"]
