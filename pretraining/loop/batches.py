"""Images read ahead of the computation, by threads, into memory that a GPU copies from without waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from pretraining.loop.processes import Processes
from pretraining.loop.stream import Indices, Stream
from pretraining.store.layout import SIZE
from pretraining.store.reader import ImageStore

Batch = tuple[Indices, Tensor]
"""Indices into the store (B,) and the images (B, 224, 224) uint8."""


def read(store: ImageStore, indices: Indices, device: torch.device) -> Tensor:
    """Read images (B, 224, 224) uint8 to the CPU; in page-locked memory if they go to a GPU."""
    images = torch.empty((len(indices), SIZE, SIZE), dtype=torch.uint8, pin_memory=device.type == "cuda")
    store.read(indices, out=images.numpy())
    return images


def training_batches(
    store: ImageStore, stream: Stream, processes: Processes, start: int, stop: int, workers: int
) -> Iterator[Batch]:
    """Yield this process's part of the batch of each step, in order, on the device; ``workers`` batches are read ahead.

    Args:
        store: where the images are.
        stream: their order.
        processes: this process and the others.
        start: first step.
        stop: step after the last.
        workers: threads.

    Raises:
        RetinaError: if an image cannot be read.
    """
    share = processes.share(stream.recipe.batch_size)
    pending: deque[tuple[Indices, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read images") as pool:
        try:
            for step in range(start, stop + workers):
                if step < stop:
                    first = step * stream.recipe.batch_size + processes.rank * share
                    indices = stream.take(first, share)
                    pending.append((indices, pool.submit(read, store, indices, processes.device)))
                if step >= start + workers:
                    indices, future = pending.popleft()
                    yield indices, future.result().to(processes.device, non_blocking=True)
        finally:
            for _, future in pending:
                future.cancel()
