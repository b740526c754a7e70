"""What converting a large volume takes: memory and time of `retina_convert folder`, by the volume's size and format.

    python benchmarks/convert_memory.py [FOLDER] [--size 256 1024] [--formats h5 mrc tif zarr] [--against CHECKOUT]

Writes an image and a mask, planes of 1024 x 1024, of each size in 2^20 voxels to FOLDER (default: a temporary one) in
each format (8 bits a voxel, in MRC 16), converts them in a process of their own and prints its peak memory (VmHWM, so
on Linux), the memory that it had taken before it opened a file, and its seconds by the clock and of the processor.
HDF5 and Zarr are packed in chunks, MRC is plain, TIFF has a packed page for each plane. --against converts the same
files with another checkout of this project, too, in turn. The image is smoothed noise, which compresses as tissue
does; the mask is a threshold of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

SIDE, SLAB = 1024, 16
"""Of a plane in pixels; planes that are written at once."""
ROOT = Path(__file__).resolve().parents[1]
_CHILD = """
import json, pathlib, sys, time
import dataset_conversion.writer.raw_dataset, dataset_conversion.own_data.folder
from dataset_conversion.convert import main
def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
before, clock, busy = status("VmRSS"), time.perf_counter(), time.process_time()
code = main(sys.argv[1:])
spent = time.perf_counter() - clock, time.process_time() - busy
pathlib.Path(sys.argv[-1]).write_text(json.dumps([code, before, status("VmHWM"), *spent]))
"""


def slabs(planes: int, mask: bool) -> Iterator[np.ndarray]:
    """Yield SLAB planes at a time; the same, moved on along the rows, each time."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(SLAB, SIDE, SIDE)).astype(np.float32), (2, 6, 6))
    smooth *= 40 / smooth.std()
    image = (128 + smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
    content = (smooth > 40).astype(np.uint8) if mask else image
    for start in range(0, planes, SLAB):
        yield np.roll(content, start, 1)[: planes - start]


def write_h5(path: Path, planes: int, mask: bool) -> None:
    """Packed chunks of 16 planes."""
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip", "compression_opts": 1}
        item = file.create_dataset("data", (planes, SIDE, SIDE), np.uint8, chunks=(16, 128, 128), **options)
        for number, slab in enumerate(slabs(planes, mask)):
            item[SLAB * number : SLAB * number + len(slab)] = slab


def write_mrc(path: Path, planes: int, mask: bool) -> None:
    """Plain; mode 6, since bytes of MRC are signed."""
    with mrcfile.new_mmap(path, (planes, SIDE, SIDE), mrc_mode=6, overwrite=True) as file:
        for number, slab in enumerate(slabs(planes, mask)):
            file.data[SLAB * number : SLAB * number + len(slab)] = slab


def write_tif(path: Path, planes: int, mask: bool) -> None:
    """One packed page a plane."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for slab in slabs(planes, mask):
            for plane in slab:
                file.write(
                    plane, compression="zlib", compressionargs={"level": 1}, photometric="minisblack", metadata=None
                )


def write_zarr(path: Path, planes: int, mask: bool) -> None:
    """Packed chunks of 64 x 128 x 128."""
    import zarr

    item = zarr.create_array(str(path), shape=(planes, SIDE, SIDE), chunks=(64, 128, 128), dtype="uint8")
    for number, slab in enumerate(slabs(planes, mask)):
        item[SLAB * number : SLAB * number + len(slab)] = slab


WRITERS: dict[str, Callable[[Path, int, bool], None]] = {
    "h5": write_h5, "mrc": write_mrc, "tif": write_tif, "zarr": write_zarr,
}  # fmt: skip


def convert(image: Path, mask: Path, folder: Path, checkout: Path) -> tuple[float, float, float, float]:
    """GiB before and at most, seconds by the clock and of the processor, of one conversion."""
    root, result = folder / "raw", folder / "result.json"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    environment |= {"nnUNet_raw": str(root), "PYTHONPATH": str(checkout)}
    words = ["folder", str(image), str(mask), "-d", "700", "--labels", "1=cells", "--name", "Mine", "--spacing"]
    command = [sys.executable, "-c", _CHILD.replace("sys.argv[1:]", "sys.argv[1:-1]"), *words, "8", "8", "8"]
    subprocess.run([*command, str(result)], check=True, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    code, before, peak, clock, busy = json.loads(result.read_text())
    if code:
        raise SystemExit(code)
    return before / 2**20, peak / 2**20, clock, busy


def main() -> None:
    """Print a line for each format, size and checkout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--formats", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="convert_memory-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    checkouts = {"this": ROOT} | ({"other": arguments.against.resolve()} if arguments.against else {})
    for name in arguments.formats:
        for size in arguments.size:
            image, mask = (folder / f"{part}_{size}.{name}" for part in ("image", "mask"))
            for path in (image, mask):
                if not path.exists():
                    WRITERS[name](path, size * 2**20 // SIDE**2, path == mask)
            for label, checkout in checkouts.items():
                before, peak, clock, busy = convert(image, mask, folder, checkout)
                spent = f"{clock:.1f} s, of the processor {busy:.1f}"
                print(f"{name:5} {size:5} {label:6} {before:.2f} GiB before, {peak:.2f} at most; {spent}", flush=True)
            for path in (image, mask):
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
    shutil.rmtree(folder / "raw", ignore_errors=True)


if __name__ == "__main__":
    main()
