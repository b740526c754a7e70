"""``$RETINA_SEED``: the same initialisation, samples and augmentation in every run with the same seed.

nnU-Net draws batches in worker processes with random seeds, in the order in which they finish. With a seed, each batch
has a random state of its own, derived from (seed, process, stream, number of the batch in the training), and batches
arrive in a fixed order; so has each training step, for dropout. A training that is continued after an epoch therefore
draws what the uninterrupted one draws, whatever ``nnUNet_n_proc_DA``; on GPUs up to the non-deterministic kernels.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from nnunetv2_retina.errors import RetinaError

VARIABLE = "RETINA_SEED"
TRAINING, VALIDATION, STEP = range(3)
"""Streams of random states: of the batches of both kinds, and of the training steps."""


def seed_from_environment() -> int | None:
    """Return the value of ``$RETINA_SEED``; None if it is not set.

    Raises:
        RetinaError: if it is no whole number >= 0.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise RetinaError(f"${VARIABLE} is {text!r}; expected a whole number from 0, or unset it")
    return int(text)


def set_seed(*entropy: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global random states."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


@contextmanager
def no_workers() -> Iterator[None]:
    """Let nnU-Net make data loaders that start no processes."""
    name = "nnUNet_n_proc_DA"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


class SeededBatches:
    """Data loader whose n-th batch is the same in every run.

    Args:
        loader: nnU-Net's data loader.
        workers: processes that take every ``workers``-th batch each.
        number: of the first batch in the whole training.
        entropy: what the random states are derived from, beside the number of the batch.
    """

    def __init__(self, loader: Any, workers: int, number: int, *entropy: int) -> None:
        self.loader = loader
        self.workers = workers
        self.number = number
        self.entropy = entropy

    def set_thread_id(self, thread_id: int) -> None:
        """Take the number of the worker; batchgenerators calls this in each one."""
        torch.set_num_threads(1)
        self.number += thread_id
        self.loader.set_thread_id(thread_id)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        # In the main process (nnUNet_n_proc_DA=0) the states that the network's dropout uses are put back.
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        set_seed(*self.entropy, self.number)
        self.number += self.workers
        try:
            return next(self.loader)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


def seeded_loader(loader: Any, num_processes: int, pin_memory: bool, number: int, *entropy: int) -> Any:
    """Return batches in a fixed order, from that many worker processes; from this process if the number is 0.

    Args:
        loader: nnU-Net's data loader.
        num_processes: see above.
        pin_memory: for GPUs.
        number: of the first batch in the whole training.
        entropy: what the random states are derived from, beside the number of the batch.
    """
    batches = SeededBatches(loader, max(1, num_processes), number, *entropy)
    if num_processes == 0:
        return SingleThreadedAugmenter(batches, None)
    return MultiThreadedAugmenter(
        batches, None, num_processes, seeds=[0] * num_processes, pin_memory=pin_memory, wait_time=0.002
    )
