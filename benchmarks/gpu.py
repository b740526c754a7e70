"""Pre-training on a GPU: images/s of the full loop and of its parts, at sizes retina and base. One call, one JSON file.

    python benchmarks/gpu.py -o gpu.json

Needs torch, NumPy and Pillow; no network access, no nnU-Net. The images are random: their content changes no speed.
For each size it measures, one after the other and each after a warm-up,

- reading: images from the store into page-locked memory, with their checksums;
- augmentation: of whole batches on the device;
- step: forward, backward and optimiser on fixed views, eager and compiled;
- loop: all of it together, as ``retina_pretrain`` does it.

The bottleneck is the part with the lowest rate. The share of the peak is of the device's nominal dense bfloat16 rate,
with 74 GFLOP a training image at size retina and 175 at base.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pretraining.job import build_objective
from pretraining.loop.batches import training_batches
from pretraining.loop.engine import Engine
from pretraining.loop.processes import Processes, join
from pretraining.loop.stream import Stream
from pretraining.recipe import Execution, Recipe
from pretraining.store.packing import pack
from pretraining.store.reader import SIZE, ImageStore

GFLOP_AN_IMAGE = {"retina": 74, "base": 175}
PEAK_TFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}
"""Nominal dense bfloat16 rates, by a part of the device's name."""


def rate(device: torch.device, action: Callable[[], int], seconds: float) -> float:
    """Images a second of an action that returns how many it has handled; the first three calls warm up."""
    for _ in range(3):
        action()
    _wait(device)
    start, images = time.perf_counter(), 0
    while images == 0 or time.perf_counter() - start < seconds:
        images += action()
    _wait(device)
    return images / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_store(folder: Path, count: int) -> ImageStore:
    """A store of random images."""
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:06d}.tif")
    return pack(folder / "images", folder / "store")


def measure(size: str, compiled: bool, store: ImageStore, processes: Processes, args: argparse.Namespace) -> dict:
    """All rates of one size, eager or compiled."""
    recipe = Recipe(size=size, batch_size=args.batch_size, iterations=10**6)
    execution = Execution(compile="on" if compiled else "off", micro_batch=args.micro_batch, workers=args.workers)
    engine = Engine(build_objective(recipe), recipe, execution, processes)
    stream = Stream(np.arange(len(store)), recipe)
    device, total = processes.device, 10**6

    def batches() -> Iterator[torch.Tensor]:
        for _, images in training_batches(store, stream, processes, 0, total, execution.workers):
            yield images

    reading, looping = batches(), batches()
    images = next(reading)
    part = images[: engine.micro_batch]
    views = engine.objective.prepare(part, 0, 0)
    rates = {
        "reading": rate(device, lambda: len(next(reading)), args.seconds),
        "augmentation": rate(device, lambda: len(engine.objective.prepare(part, 0, 0)[0]), args.seconds),
    }

    def step_only() -> int:
        engine.optimizer.zero_grad(set_to_none=True)
        with engine.autocast():
            loss = engine.model(*views)
        engine.scaler.scale(loss).backward()
        engine.scaler.step(engine.optimizer)
        engine.scaler.update()
        return len(part)

    def loop() -> int:
        batch = next(looping)
        engine.step(batch, 0, total)
        return len(batch)

    engine.model.train()
    rates["step"] = rate(device, step_only, args.seconds)
    rates["loop"] = rate(device, loop, args.seconds)
    reading.close()
    looping.close()
    return _report(size, compiled, engine, rates)


def _report(size: str, compiled: bool, engine: Engine, rates: dict[str, float]) -> dict:
    device = engine.device
    peak, gflop = None, GFLOP_AN_IMAGE.get(size)
    memory = None
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = next((value for part, value in PEAK_TFLOPS.items() if part in name), None)
        memory = torch.cuda.max_memory_allocated(device) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
    parts = {name: value for name, value in rates.items() if name != "loop"}
    return {
        "size": size,
        "compiled": compiled,
        "precision": str(engine.dtype).removeprefix("torch."),
        "micro_batch": engine.micro_batch,
        "images_per_second": {name: round(value, 1) for name, value in rates.items()},
        "bottleneck": min(parts, key=parts.__getitem__),
        "share_of_bf16_peak": None if not (peak and gflop) else round(rates["loop"] * gflop / 1000 / peak, 4),
        "peak_memory_gib": None if memory is None else round(memory, 2),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--sizes", nargs="+", default=["retina", "base"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--images", type=int, default=8192, help="in the store")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--eager-only", action="store_true")
    args = parser.parse_args()
    processes = join(args.device)
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    result: dict = {"device": name, "torch": torch.__version__, "batch_size": args.batch_size, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder), args.images)
        for size in args.sizes:
            for compiled in (False,) if args.eager_only else (False, True):
                torch._dynamo.reset()
                try:
                    run = measure(size, compiled, store, processes, args)
                except Exception as error:  # the other measurements still count
                    run = {"size": size, "compiled": compiled, "error": f"{type(error).__name__}: {error}"[:500]}
                print(json.dumps(run), flush=True)
                result["runs"].append(run)
                args.output.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
