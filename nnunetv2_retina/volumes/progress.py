"""How a stage of a run is watched: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from math import prod

from nnunetv2_retina.volumes.blocks import Block, size, voxels
from nnunetv2_retina.wording import duration

EVERY = 30
"""Seconds between two lines in a log."""


def watch(done: Iterable[Block], todo: list[Block], what: str, say: Callable[[str], None]) -> None:
    """Take finished blocks, and show how many of those to do there are, the rate and the time left."""
    if not todo:
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=voxels(todo), desc=what, unit="voxel", unit_scale=True, dynamic_ncols=True) as bar:
            for block in done:
                bar.update(prod(size(block.box)))
        return
    start = last = time.monotonic()
    total, finished = voxels(todo), 0
    for count, block in enumerate(done, start=1):
        finished += prod(size(block.box))
        now = time.monotonic()
        if now - last >= EVERY or count == len(todo):
            last, passed = now, now - start
            rate = finished / passed if passed > 0 else 0.0
            left = f", {duration((total - finished) / rate)} left" if count < len(todo) and rate else ""
            say(f"{what}: {count} of {len(todo)} blocks, {rate / 1e6:.2f} Mvoxel/s{left}")
