"""The running means and variances of batch norms over several processes, as one process would have gathered them.

Each update is ``value = (1 - momentum) * value + momentum * seen``. A process that began at ``b`` and made n updates is
at ``(1 - momentum)^n b + own``, so that ``own``, what it saw, can be told; in the order of their images the processes'
parts are put one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nnunetv2_retina.network.transunet import BatchNorm
from pretraining.loop.processes import Processes


class RunningStatistics:
    """Those of a module's batch norms.

    Args:
        module: on its device.
        processes: this one and the others, which take consecutive parts of a batch.
    """

    def __init__(self, module: nn.Module, processes: Processes) -> None:
        self.processes = processes
        norms = [norm for norm in module.modules() if isinstance(norm, BatchNorm)]
        self._values = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        self._counts = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
        sizes = torch.tensor([2 * norm.num_features for norm in norms])
        self._owner = torch.arange(len(norms)).repeat_interleave(sizes) if norms else sizes
        """Which of the norms each value belongs to."""
        self._kept = [1 - (norm.momentum or 0.0) for norm in norms]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Gather what the processes see within the block, a step, on all of them."""
        if self.processes.count == 1 or not self._values:
            yield
            return
        begun, counts = torch.cat(self._values), torch.stack(self._counts)
        yield
        updates = (torch.stack(self._counts) - counts).to(begun.dtype)
        everyone = self.processes.gather(torch.cat([*self._values, updates])[None])
        values, done = everyone[:, : len(begun)], everyone[:, len(begun) :]
        kept = (torch.tensor(self._kept, device=begun.device) ** done)[:, self._owner.to(begun.device)]
        folded = begun
        for theirs, share in zip(values, kept, strict=True):
            folded = share * folded + (theirs - share * begun)
        self._put(folded, counts + done.sum(0).round().to(counts.dtype))

    def _put(self, values: Tensor, counts: Tensor) -> None:
        for value, new in zip(self._values, values.split([len(value) for value in self._values]), strict=True):
            value.copy_(new)
        for count, number in zip(self._counts, counts, strict=True):
            count.copy_(number)
