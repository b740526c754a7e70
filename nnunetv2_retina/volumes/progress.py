"""How a stage of a run is watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import prod

from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.console.wording import duration
from nnunetv2_retina.volumes.blocks import Block, size, voxels


def watch(done: Iterable[tuple[Block, object]], todo: list[Block], what: str, say: Callable[[str], None]) -> None:
    """Take finished blocks, and show how many voxels of those to do there are, the rate and the time left."""
    if not todo:
        return
    start, finished = time.monotonic(), 0
    with ProgressBar(what, voxels(todo), "voxels", say=say) as progress:
        progress.update(0)
        for block, _ in done:
            finished += prod(size(block.box))
            progress.update(finished)
    say(f"{what}: {len(todo)} {'block' if len(todo) == 1 else 'blocks'} in {duration(time.monotonic() - start)}")
