"""What a pre-training would do, without writing anything. Behind ``retina_pretrain --dry-run``."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from nnunetv2_retina.console.wording import duration
from pretraining.job import Job, make_engine, make_probe
from pretraining.loop import state as training_state
from pretraining.loop.engine import Engine
from pretraining.loop.processes import join
from pretraining.loop.stream import split
from pretraining.store.cache import count_images, open_packed
from pretraining.store.layout import SIZE
from pretraining.store.packing import check_options

_STEPS = 3
"""Of which the last one's time counts."""


def dry_run(job: Job, say: Callable[[str], None], num_gpus: int = 1) -> None:
    """Check what can be checked without writing anything, and estimate the time from a few steps on random images.

    Args:
        job: what to do.
        say: where messages go.
        num_gpus: processes that would share each batch; the steps are timed with the share of one.

    Raises:
        RetinaError: for anything a user can put right.
    """
    processes = join(job.execution.device)
    make_probe(job.execution, processes)
    engine = make_engine(job, processes)
    count = _count_training(job, engine, say)
    total = job.recipe.total_iterations(count)
    share = engine.share // num_gpus
    if job.recipe.arm == "simclr":
        share = max(share, 2)  # a single image has nothing to differ from; in a run those of other processes are there
    images = torch.randint(0, 256, (share, SIZE, SIZE), dtype=torch.uint8, device=engine.device)
    seconds = [_seconds(engine, images, step, total) for step in range(_STEPS)][-1]
    for key, value in training_state.software(engine).items():
        say(f"{key}: {value}")
    shared = f", {share} in each of {num_gpus} processes" if num_gpus > 1 else ""
    say(
        f"{total:,} steps of {job.recipe.batch_size} images{shared}, {seconds:.2f} s each: "
        f"{duration(total * seconds)} in all"
    )


def _count_training(job: Job, engine: Engine, say: Callable[[str], None]) -> int:
    """Return how many images there are to train on, as far as is known, and check what the output folder holds."""
    check_options(**{key: job.packing[key] for key in ("deduplicate", "max_rejected") if key in job.packing})
    store = open_packed(job.source, job.store, job.output / "store", **job.packing)
    if store is None:
        training_state.check_output(job.output, engine.recipe)
        count = count_images(job.source, job.packing.get("drawing"))
        say(f"{count:,} image files in {job.source}, not packed yet")
        return count
    training, held_out = split(store, engine.recipe.exclude)
    images = training_state.Images(store.fingerprint, len(training), len(held_out))
    training_state.check_output(job.output, engine.recipe, images)
    say(f"{len(store):,} images in the store {store.path}: {len(training):,} to train on, {len(held_out):,} held out")
    return len(training)


def _seconds(engine: Engine, images: torch.Tensor, step: int, total: int) -> float:
    start = time.perf_counter()
    float(engine.step(images, min(step, total - 1), total))
    return time.perf_counter() - start
