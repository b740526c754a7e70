"""What converting CREMI costs: three synthetic samples of full size (125 x 1250 x 1250), in a process of its own.

    python benchmarks/convert_cremi.py [FOLDER] [RUNS]

Writes the samples to FOLDER/cremi (default: a temporary folder; 0.5 GB, about a minute, kept for the next run if FOLDER
is given), runs `retina_convert cremi` on them RUNS times (default 3) and prints, for the whole process with its start,
the seconds by the clock, those of the processor (which other processes do not lengthen much) and the peak memory. The
images are noise of the paper's mean and deviation, which compresses worse than tissue does; images and labels are
chunked and compressed as h5py does by itself.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from dataset_conversion.converters.cremi import BACKGROUND_ID, CLEFTS, INVALID_ID, RAW, RESOLUTION, SAMPLES

SHAPE = (125, 1250, 1250)
SECONDS, GIGABYTES = 60, 2


def write_sample(path: Path, seed: int) -> None:
    """One sample: grey noise, clefts of a few planes, a frame of invalid voxels."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        raw = file.create_dataset(RAW, SHAPE, "uint8", chunks=True, compression="gzip")
        clefts = file.create_dataset(CLEFTS, SHAPE, "uint64", chunks=True, compression="gzip")
        for item in (raw, clefts):
            item.attrs["resolution"] = tuple(RESOLUTION)
        depth = raw.chunks[0]
        for z in range(0, SHAPE[0], depth):
            shape = (min(depth, SHAPE[0] - z), *SHAPE[1:])
            raw[z : z + depth] = rng.normal(128, 28, shape).clip(0, 255)
            label = np.full(shape, BACKGROUND_ID)
            for number in range(40):
                y, x = rng.integers(0, SHAPE[1] - 60, 2)
                label[:, y : y + 8, x : x + 60] = number + 1
            label[:, :2] = INVALID_ID
            clefts[z : z + depth] = label


def convert(source: Path, root: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor that one whole `retina_convert cremi` takes."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    command = [sys.executable, "-m", "dataset_conversion.convert", "cremi", str(source), "--overwrite"]
    start, busy = time.perf_counter(), processor_seconds()
    subprocess.run(command, check=True, env=environment | {"nnUNet_raw": str(root)}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, processor_seconds() - busy


def processor_seconds() -> float:
    """Of all processes this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the times and the peak memory."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="convert_cremi-"))
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    source, root = folder / "cremi", folder / "raw"
    for part in (source, root):
        part.mkdir(parents=True, exist_ok=True)
    for seed, sample in enumerate(SAMPLES):
        path = source / f"sample_{sample}_20160501.hdf"
        if not path.is_file():
            write_sample(path, seed)
    seconds = []
    for _ in range(runs):
        clock, busy = convert(source, root)
        seconds.append(clock)
        load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
        print(f"{clock:.1f} s, of the processor {busy:.1f} s, load of the machine {load}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux: of the largest process
    print(f"3 samples of {' x '.join(map(str, SHAPE))}: median {statistics.median(seconds):.1f} s, peak {peak:.2f} GiB")
    print(f"bar: under {SECONDS} s and {GIGABYTES} GB")
    if len(sys.argv) < 2:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
