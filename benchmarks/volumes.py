"""Volumes block by block: memory of a process, time against the volume in memory, moments, kills over the engines.

    python benchmarks/volumes.py gate --mib 2048        # memory, time, slices that equal those in memory
    python benchmarks/volumes.py ratio --mib 16         # against the same volume in memory
    python benchmarks/volumes.py workers --mib 256      # two workers against one, a core each
    python benchmarks/volumes.py moments --mib 512      # voxels a second
    python benchmarks/volumes.py kills --times 20       # SIGKILL at random moments: serial, dask, a scheduler, parts

The network is nnU-Net's own with few features and random weights: what is measured is everything around it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SPAWNED = """
import sys
from nnunetv2_retina.commands.volume import main
if __name__ == "__main__":
    status = main()
    with open("/proc/self/status") as file:  # ru_maxrss would begin with what the parent had
        peak = next(line for line in file if line.startswith("VmHWM")).split()[1]
    with open(__file__ + ".peak", "w") as file:
        file.write(peak)
    sys.exit(status)
"""


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {len(os.sched_getaffinity(0))} cores"
    return platform.processor()


def make_volume(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Write smooth structures, mirrored over the volume, slab by slab."""
    import zarr
    from helpers.ome_volumes import cells, multiscales

    group = zarr.create_group(str(folder), zarr_format=3)
    array = group.create_array("0", shape=shape, chunks=(64, 128, 128), shards=(64, 1024, 1024), dtype="uint8")
    tile = cells((64, 512, 512))
    mirrored = np.block([[tile, tile[:, :, ::-1]], [tile[:, ::-1], tile[:, ::-1, ::-1]]])
    plane = np.tile(mirrored, (1, -(-shape[1] // 1024), -(-shape[2] // 1024)))
    for z in range(0, shape[0], 64):
        array[z : z + 64] = np.roll(plane, z, 1)[: shape[0] - z, : shape[1], : shape[2]]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscales([("0", (1.0, 1.0, 1.0))])]}
    return folder


def make_model(folder: Path, patch: int = 256) -> Path:
    from helpers.model_folders import make_model as make

    with contextlib.redirect_stdout(io.StringIO()):
        return make(folder, ending=".tif", reader="Tiff3DIO", patch=patch)


def sides(mib: int) -> tuple[int, int, int]:
    """Shape of a volume of so many MiB: deeper first, then wider."""
    for shape in ((64, 1024, 1024), (128, 1024, 1024), (128, 2048, 1024), (128, 2048, 2048), (256, 2048, 2048),
                  (256, 4096, 2048), (256, 4096, 4096)):  # fmt: skip
        if np.prod(shape) >= mib << 20:
            return shape
    raise SystemExit(f"--mib {mib}: at most 4096")


def run(script: Path, *arguments: object) -> tuple[float, float]:
    """Run the command in a process of its own; seconds, and its peak memory in GB."""
    start = time.perf_counter()
    subprocess.run([sys.executable, str(script), *map(str, arguments)], stdout=subprocess.DEVNULL, check=True)
    seconds, peak = time.perf_counter() - start, Path(f"{script}.peak")
    return seconds, int(peak.read_text()) * 1024 / 1e9 if peak.exists() else float("nan")


def gate(folder: Path, mib: int, budget: str) -> None:
    """Predict a volume within a budget; compare some slices with the same slices in memory, bit for bit."""
    import torch
    import zarr

    from nnunetv2_retina.prediction.predictor import Predictor
    from nnunetv2_retina.prediction.settings import PredictionSettings
    from nnunetv2_retina.volumes.moments import Moments
    from nnunetv2_retina.volumes.source import z_score

    shape = sides(mib)
    source, model, script = make_volume(folder / "in.zarr", shape), make_model(folder / "model"), folder / "command.py"
    script.write_text(SPAWNED)
    seconds, peak = run(
        script,
        "predict",
        source,
        folder / "out.zarr",
        "-m",
        model,
        "--disable_tta",
        "-step_size",
        1,
        "--memory",
        budget,
    )
    plan = json.loads((folder / "out.zarr/.retina/run.json").read_text())["plan"]
    moments = Moments.from_json(json.loads((folder / "out.zarr/.retina/moments.json").read_text()))
    settings = PredictionSettings(mirroring=False, step_size=1.0)
    predictor = Predictor.from_model_folder(model, device="cpu", settings=settings)
    image, labels = zarr.open_array(str(source / "0")), zarr.open_array(str(folder / "out.zarr/0"))
    wrong, seen = 0, set()
    for z in random.Random(0).sample(range(shape[0]), 4):
        data = torch.from_numpy(z_score(moments)(image[z : z + 1]))[None]
        expected = predictor.predict_logits(data).argmax(0).numpy()
        wrong += int((expected[0] != labels[z]).sum())
        seen |= set(np.unique(expected).tolist())
    print(
        f"{shape[0]} x {shape[1]} x {shape[2]} ({np.prod(shape) >> 20} MiB), blocks {plan['block']}: {seconds:.0f} s, "
        f"{np.prod(shape) / seconds / 1e6:.2f} Mvoxel/s, peak {peak:.2f} GB of {budget}; 4 whole slices in memory: "
        f"{wrong} pixels differ, classes {sorted(seen)}"
    )


def ratio(folder: Path, mib: int) -> None:
    """Time of blocks against the volume in memory; start of Python included."""
    import zarr

    shape = sides(mib)
    shape = (shape[0], shape[1] // 2, shape[2] // 2) if mib < 64 else shape
    source, model, script = make_volume(folder / "in.zarr", shape), make_model(folder / "model"), folder / "command.py"
    script.write_text(SPAWNED)
    whole = folder / "whole.py"
    whole.write_text(
        "import sys, numpy as np, zarr, torch\n"
        "from nnunetv2_retina.console.machine import available_cores\n"
        "from nnunetv2_retina.prediction.predictor import Predictor\n"
        "from nnunetv2_retina.prediction.settings import PredictionSettings\n"
        "torch.set_num_threads(available_cores())\n"
        "image = zarr.open_array(sys.argv[1] + '/0')[:]\n"
        "settings = PredictionSettings(mirroring=False, mode=sys.argv[3])\n"
        "predictor = Predictor.from_model_folder(sys.argv[2], device='cpu', settings=settings)\n"
        "np.save(sys.argv[4], predictor.predict(image[None].astype(np.float32), (1, 1, 1)))\n"
    )
    for mode in ("stack", "orthoplane"):
        inside, _ = run(whole, source, model, mode, folder / f"{mode}.npy")
        common = ("predict", source, "OUT", "-m", model, "--disable_tta", f"--{mode}", "--moments", "nnunet")
        outside, _ = run(script, *(folder / f"{mode}.zarr" if part == "OUT" else part for part in common))
        equal = np.array_equal(np.load(folder / f"{mode}.npy"), zarr.open_array(str(folder / f"{mode}.zarr/0"))[:])
        print(
            f"{mode}: in memory {inside:.1f} s, blocks {outside:.1f} s: {outside / inside:.2f}; labels equal: {equal}"
        )


def workers(folder: Path, mib: int, pairs: int) -> None:
    """Time of one worker on one core and of two on two, in turn: whole processes, and the blocks alone."""
    shape = sides(mib)
    source, model, script = make_volume(folder / "in.zarr", shape), make_model(folder / "model"), folder / "command.py"
    script.write_text(SPAWNED)
    cores = sorted(os.sched_getaffinity(0))
    common = ("-m", model, "--disable_tta", "--block", "64,1024,1024", "--shard", "64,1024,1024")
    for pair in range(pairs):
        whole, blocks = {}, {}
        for number in (1, 2):
            output = folder / f"{number}_{pair}.zarr"
            os.sched_setaffinity(0, set(cores[:number]))
            whole[number], _ = run(script, "predict", source, output, *common, "--workers", number)
            os.sched_setaffinity(0, set(cores))
            blocks[number] = stage_seconds(output, "predict")
        print(
            f"{shape[0]} x {shape[1]} x {shape[2]}: one worker {whole[1]:.0f} s, two {whole[2]:.0f} s: "
            f"{whole[1] / whole[2]:.2f}; the blocks alone {blocks[1]:.0f} and {blocks[2]:.0f} s: "
            f"{blocks[1] / blocks[2]:.2f}",
            flush=True,
        )


def stage_seconds(output: Path, stage: str) -> float:
    """Return the seconds from the start of a stage's first block to the end of its last, by its markers."""
    ends, starts = [], []
    for path in (output / ".retina/done" / stage).rglob("*.json"):
        ends.append(path.stat().st_mtime)
        starts.append(path.stat().st_mtime - json.loads(path.read_text())["seconds"])
    return max(ends) - min(starts)


def moments(folder: Path, mib: int) -> None:
    """Voxels a second of counting, of arrays in memory and from the store, on one core."""
    from nnunetv2_retina.images.ome_zarr import open_volume
    from nnunetv2_retina.volumes import moments as moments_of
    from nnunetv2_retina.volumes.blocks import cut, whole
    from nnunetv2_retina.volumes.grey_values import counting_blocks
    from nnunetv2_retina.volumes.tasks import Input

    shape = sides(mib)
    volume = open_volume(make_volume(folder / "in.zarr", shape))
    source = Input(volume.address, volume.levels[0], whole(shape))
    reading = counting = 0.0
    for block in cut(shape, counting_blocks(source)):
        start = time.process_time()
        values = source.read(block.box)
        middle = time.process_time()
        moments_of.count(values, (0, 0, 0))
        reading, counting = reading + middle - start, counting + time.process_time() - middle
    n = np.prod(shape) / 1e6
    print(f"counting {n / counting:.0f}, reading {n / reading:.0f} Mvoxel/s a core (processor time)")


def kills(folder: Path, times: int) -> None:
    """Kill runs over each engine at random moments until so many kills were survived; compare the stores."""
    from helpers.ome_volumes import SMALL, cells, files, write

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # tiny networks are faster without threads
    write(folder / "in.zarr", cells((40, 100, 90), border=2))
    model, script = make_model(folder / "model", 32), folder / "command.py"
    script.write_text(SPAWNED)
    fixed = [str(folder / "in.zarr"), "OUT", "-m", str(model), *SMALL, "--block", "8,32,32", "--disable_tta"]

    def command(output: Path, *more: str) -> list[str]:
        return [sys.executable, str(script), "predict", *(str(output) if a == "OUT" else a for a in fixed), *more]

    subprocess.run(command(folder / "one.zarr"), check=True, stdout=subprocess.DEVNULL)
    expected = files(folder / "one.zarr")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    address = "tcp://127.0.0.1:8786"
    module = [sys.executable, "-m"]
    servers_of = {
        "scheduler": [
            [*module, "distributed.cli.dask_scheduler", "--port", "8786", "--no-dashboard"],
            [*module, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"],
        ]
    }
    options_of = {
        "serial": [[]],
        "workers": [["--workers", "2"]],
        "scheduler": [["--scheduler", address]],
        "parts": [["--part", "1/2"], ["--part", "2/2"]],
    }
    draw = random.Random(0)
    for name, options in options_of.items():
        output, killed, finished = folder / f"{name}.zarr", 0, False
        while not finished:
            with (folder / "log.txt").open("ab") as log:
                keys = {"stdout": log, "stderr": log, "env": environment, "start_new_session": True}
                servers = [subprocess.Popen(server, **keys) for server in servers_of.get(name, [])]
                started = [subprocess.Popen(command(output, *more), **keys) for more in options]
                alive = killed < times // 4 and wait_for_blocks(output, started, draw)
                if alive:  # one of them, or all
                    everyone = [*started, *servers]
                    kill(everyone if draw.random() < 0.5 else [draw.choice(everyone)])
                for process in started:
                    process.wait()
                kill(servers)
            killed += alive
            finished = not alive and all(process.returncode == 0 for process in started)
            if finished and killed < times // 4:  # too late to be killed: from the start
                assert files(output) == expected, name
                shutil.rmtree(output)
                finished = False
        print(f"{name}: killed {killed} times; stores equal: {files(output) == expected}", flush=True)


def wait_for_blocks(output: Path, started: list[subprocess.Popen[bytes]], draw: random.Random) -> bool:
    """Wait until some more blocks are done, and a moment; whether any process is still at it."""
    done = output / ".retina/done"
    enough = len(list(done.rglob("*.json"))) + draw.randint(1, 12)
    while any(process.poll() is None for process in started) and len(list(done.rglob("*.json"))) < enough:
        time.sleep(0.02)
    time.sleep(draw.uniform(0, 0.1))
    return any(process.poll() is None for process in started)


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill each with what it has started."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gate", "ratio", "workers", "moments", "kills"))
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--memory", default="3GB")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    print(processor())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.what == "gate":
            gate(folder, arguments.mib, arguments.memory)
        elif arguments.what == "ratio":
            ratio(folder, arguments.mib)
        elif arguments.what == "workers":
            workers(folder, arguments.mib, arguments.pairs)
        elif arguments.what == "moments":
            moments(folder, arguments.mib)
        else:
            kills(folder, arguments.times)


if __name__ == "__main__":
    main()
