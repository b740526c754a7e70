"""The processes of a run: one, or several that ``torchrun`` started, on one machine or many."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nnunetv2_retina.errors import RetinaError

CPU = torch.device("cpu")
_PATIENCE = timedelta(days=2)
"""How long processes wait for another one, which may be packing half a million images."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    device: torch.device
    rank: int = 0
    count: int = 1
    control: Any = None
    """A gloo group for numbers on the CPU, which does not make a GPU wait."""

    @property
    def is_first(self) -> bool:
        """Tell whether this process writes files and messages."""
        return self.rank == 0

    def share(self, batch_size: int, normed_together: int | None = None) -> int:
        """Return how many images of a global batch each process takes.

        Args:
            batch_size: images of all processes.
            normed_together: how many of them a batch norm sees together, which stay in one process; None: any.

        Raises:
            RetinaError: if they cannot be divided equally.
        """
        if batch_size % self.count:
            nearest = max(1, round(batch_size / self.count)) * self.count
            raise RetinaError(
                f"--batch-size is {batch_size} over all processes together, which {self.count} processes cannot share "
                f"equally; take a multiple of {self.count}, such as {nearest}"
            )
        share = batch_size // self.count
        if normed_together is not None and self.count > 1 and share % normed_together:
            raise RetinaError(
                f"a batch norm sees {normed_together} images together, but each of {self.count} processes takes "
                f"{share} of the {batch_size} images of a step. Take fewer processes, a --batch-size that is a "
                f"multiple of {self.count * normed_together}, or, which changes the result, --norm-batch {share}"
            )
        return share

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all processes, (n, ...) each, one after the other; without gradient."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, on the device, by their means over the processes."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.count

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes of a tensor on the CPU."""
        if self.count > 1:
            dist.all_reduce(values, group=self.control)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether any process says yes; all get the same answer."""
        return bool(self.sum(torch.tensor(float(flag))) > 0) if self.count > 1 else flag

    def smallest(self, value: int) -> int:
        """Return the smallest of the processes' numbers."""
        if self.count == 1:
            return value
        numbers = torch.tensor(value)
        dist.all_reduce(numbers, dist.ReduceOp.MIN, group=self.control)
        return int(numbers)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values, from which theirs may differ by roundings."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def first_before_others(self, action: Callable[[], Any]) -> Any:
        """Let the first process do something that leaves files behind, then the others."""
        if self.is_first:
            try:
                return action()
            finally:
                self.any(False)  # also when it failed: the others then fail in the same way
        self.any(False)
        return action()


def join(device: str) -> Processes:
    """Join the run that the environment describes (``torchrun`` sets RANK, WORLD_SIZE, LOCAL_RANK), or be alone.

    Args:
        device: auto, cuda or cpu.

    Raises:
        RetinaError: for a GPU that does not exist.
    """
    count, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _device(device, local_rank)
    if count == 1:
        return Processes(chosen)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return Processes(chosen, dist.get_rank(), count, dist.new_group(backend="gloo", timeout=_PATIENCE))


def leave() -> None:
    """End the communication between processes, if there is any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not gpus):
        return CPU
    if local_rank >= gpus:
        raise RetinaError(
            f"a GPU with number {local_rank} was asked for, and PyTorch sees {gpus or 'none'}. Start at most one "
            "process a GPU, or add --device cpu"
        )
    return torch.device("cuda", local_rank)


def start_several(count: int, arguments: Sequence[str]) -> None:
    """Replace this process by ``torchrun`` with ``count`` processes of ``retina_pretrain`` on this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    # torchrun passes these on to its processes, which then write a checkpoint and end.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "pretraining.cli", *arguments])


class StopSignals:
    """Notes SIGTERM, SIGUSR1 (SLURM's warning) and Ctrl-C instead of dying of them; a second Ctrl-C interrupts."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
            if number := getattr(signal, name, None):  # Windows has no SIGUSR1
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
