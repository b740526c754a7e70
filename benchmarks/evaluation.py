"""What evaluating CREMI costs: synthetic samples of full size (125 x 1250 x 1250), in processes of their own.

    python benchmarks/evaluation.py [--cases 1] [--runs 1] [--processes 1] [--dense]

Writes ground truths with 300 clefts each (curved sheets some 30 nm thick and 400 nm wide, 1 % of the voxels, and a
band of invalid voxels), and predictions that shift and thicken most, miss a quarter and invent as many. Runs
`retina_evaluate` on them and prints, for the whole process with its start, reading and writing, the seconds by the
clock, those of the processor (which other processes do not lengthen much) and the peak memory of the largest process.
``--dense``: the prediction is a fifth of all voxels, in patches of 32 x 32 nm, as of a network that learned nothing.

Measured on a two-core machine busy with trainings (load 7 to 8): 42 s of the processor, 2.5 GiB; ``--dense``: 34 s of
the processor (58 s by the clock), 2.5 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

SHAPE, SPACING = (125, 1250, 1250), (40.0, 4.0, 4.0)
CLEFTS = 300
SECONDS, GIGABYTES = 60, 4
DATASET = {
    "name": "CREMI",
    "labels": {"background": 0, "synaptic_cleft": 1, "ignore": 2},
    "file_ending": ".nii.gz",
    "retina": {"evaluated_classes": [1], "distance_tolerance": 200},
}


def draw(volume: NDArray[np.uint8], seeds: list[int], shift: float, thickness: float) -> None:
    """Draw one cleft a seed: a bent disc of some 400 nm, shifted and of a thickness in nm."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        centre = rng.uniform((0, 0, 0), np.array(SHAPE) * SPACING) + shift * rng.normal(size=3)
        normal = rng.normal(size=3) * (0.5, 1, 1)
        normal /= np.linalg.norm(normal)
        radius, bend = rng.uniform(120, 300), rng.normal(0, 0.0008)
        first = np.maximum(((centre - 350) / SPACING).astype(int), 0)
        last = np.clip(((centre + 350) / SPACING).astype(int), 0, SHAPE)
        box = tuple(slice(a, max(a, b)) for a, b in zip(first, last, strict=True))
        grid = np.mgrid[box].reshape(3, -1).T * SPACING - centre
        height = grid @ normal
        aside = (grid**2).sum(axis=1) - height**2
        inside = (aside < radius**2) & (np.abs(height - bend * aside) < thickness / 2)
        volume[box][inside.reshape(volume[box].shape)] = 1


def write(path: Path, volume: NDArray[np.uint8]) -> None:
    """As nnU-Net writes it."""
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing(SPACING[::-1])
    SimpleITK.WriteImage(image, str(path), True)


def write_case(folder: Path, number: int, dense: bool) -> None:
    """Ground truth and prediction of one sample."""
    seeds = [number * 1000 + cleft for cleft in range(CLEFTS)]
    truth, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    draw(truth, seeds, 0, 30)
    share = truth.mean()
    truth[:, :8] = 2
    if dense:
        coarse = np.random.default_rng(number).random([-(-side // 8) for side in SHAPE[1:]]) < 0.2
        for plane in prediction:
            plane[:] = coarse.repeat(8, axis=0).repeat(8, axis=1)[: SHAPE[1], : SHAPE[2]]
            coarse = np.roll(coarse, (1, 2), axis=(0, 1))
    else:
        draw(prediction, [*seeds[CLEFTS // 4 :], *(seed + 500 for seed in seeds[: CLEFTS // 4])], 12, 44)
    print(f"case {number}: {share:.2%} of the voxels are cleft, {prediction.mean():.2%} predicted", flush=True)
    write(folder / "labels" / f"sample_{number}.nii.gz", truth)
    write(folder / "predictions" / f"sample_{number}.nii.gz", prediction)


def evaluate(folder: Path, processes: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor that one whole `retina_evaluate` takes."""
    code = (
        "import sys\nfrom nnunetv2_retina.commands.evaluate import main\nif __name__ == '__main__': sys.exit(main())\n"
    )
    script = folder / "retina_evaluate.py"
    script.write_text(code, encoding="utf-8")
    options = {"-p": "predictions", "-g": "labels", "-d": "dataset.json", "-o": "out", "-np": str(processes)}
    command = [sys.executable, str(script), *(word for pair in options.items() for word in pair)]
    start, busy = time.perf_counter(), processor_seconds()
    subprocess.run(command, check=True, cwd=folder)
    return time.perf_counter() - start, processor_seconds() - busy


def processor_seconds() -> float:
    """Of all processes this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the times and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--dense", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evaluation-") as name:
        folder = Path(name)
        for part in ("labels", "predictions"):
            (folder / part).mkdir()
        (folder / "dataset.json").write_text(json.dumps(DATASET), encoding="utf-8")
        for number in range(arguments.cases):
            write_case(folder, number, arguments.dense)
        for _ in range(arguments.runs):
            clock, busy = evaluate(folder, arguments.processes)
            load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
            print(f"{clock:.1f} s, of the processor {busy:.1f} s, load of the machine {load}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux: of the largest process
    print(f"{arguments.cases} of {' x '.join(map(str, SHAPE))} in {arguments.processes} processes: peak {peak:.2f} GiB")
    print(f"bar for one: under {SECONDS} s and {GIGABYTES} GB")


if __name__ == "__main__":
    main()
