"""One optimiser step, with gradient accumulation, autocast and several processes; and the measurement of the loss.

How a batch is divided into parts and among processes changes roundings and what dropout draws, and nothing else: images
that matter to each other stay together (batch norm), or meet after the division (the contrast of SimCLR). The running
statistics of batch norms are gathered over parts and processes in the order of the images.

Every step draws dropout from a generator seeded with (seed, step, process), so the step number is the whole state of
all random generators, and a continued run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_retina.console.machine import multiplies_bfloat16
from nnunetv2_retina.errors import RetinaError
from pretraining.loop.lars import LARS
from pretraining.loop.processes import Processes
from pretraining.loop.running_statistics import RunningStatistics
from pretraining.objectives.reconstruction import Objective
from pretraining.objectives.simclr import SimCLR
from pretraining.recipe import Execution, Recipe
from pretraining.store.layout import SIZE

T = TypeVar("T")

CPU_MICRO_BATCH = 16
_HELD_OUT_STREAM = 2**40
"""Positions from here on, which no training reaches, give the held-out images their fixed views."""
_UNDECAYED = ("pos_embed", "mask_token")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type of the autocast: bfloat16, float16, or float32 for none.

    Raises:
        RetinaError: for fp16 on a CPU.
    """
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    elif name == "auto":
        name = "bf16" if multiplies_bfloat16() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise RetinaError("--precision fp16 needs a GPU; take bf16 or fp32 on a CPU")
    return _DTYPES[name]


def make_optimizer(objective: nn.Module, recipe: Recipe, fused: bool = False) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for the parameters that are trained.

    SGD lets all of them decay, as published; AdamW and LARS matrices and kernels alone: no norm, bias, position or mask
    token, and LARS adapts the rates of these alone.
    """
    named = {name: value for name, value in objective.named_parameters() if value.requires_grad}
    rate, decay = recipe.highest_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD([*named.values()], rate, momentum=recipe.momentum, weight_decay=decay, fused=fused)
    fixed = [name for name, value in named.items() if value.ndim < 2 or name.endswith(_UNDECAYED)]
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in named.items() if name not in fixed], "weight_decay": decay},
        {"params": [named[name] for name in fixed], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "lars":
        return LARS([groups[0], groups[1] | {"adapted": False}], rate, recipe.momentum)
    return torch.optim.AdamW(groups, rate, betas=(recipe.momentum, recipe.second_beta), fused=fused)


class Engine:
    """Trains an objective.

    Args:
        objective: on the CPU or on the device; it is moved.
        recipe: what is done.
        execution: how it is done.
        processes: this process and the others.
    """

    def __init__(self, objective: Objective, recipe: Recipe, execution: Execution, processes: Processes) -> None:
        self.device = processes.device
        self.objective = objective.to(self.device).to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.processes = processes
        self.share = processes.share(recipe.batch_size, recipe.normed_together)
        self.unit = recipe.normed_together or 1
        self.dtype = choose_precision(execution.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.optimizer = make_optimizer(self.objective, recipe, fused=self.device.type == "cuda")
        self.compiled = execution.compile == "on" or (execution.compile == "auto" and self.device.type == "cuda")
        if self.compiled:
            # Where nobody asked for it, a machine that cannot compile computes as it is, with PyTorch's warning.
            torch._dynamo.config.suppress_errors = execution.compile == "auto"
            self.objective.compile()
        self.micro_batch = part_size(self.share, self._largest(execution.micro_batch), self.unit)
        self.model: nn.Module = self.objective
        if processes.count > 1 and not isinstance(objective, SimCLR):
            ids = [self.device] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(
                self.objective, device_ids=ids, gradient_as_bucket_view=True, broadcast_buffers=False
            )
        self.statistics = RunningStatistics(self.objective, processes)

    def step(self, images: Tensor, iteration: int, total: int) -> Tensor:
        """Do one optimiser step.

        Args:
            images: (share, H, W) uint8, this process's part of the batch, on the device.
            iteration: number of the step, from 0.
            total: steps of the whole run.

        Returns:
            This process's mean loss, a float32 scalar on the device.
        """
        self.model.train()
        self.seed(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(iteration, total)
        self.optimizer.zero_grad(set_to_none=True)
        first = iteration * self.recipe.batch_size + self.processes.rank * self.share
        with self.statistics.gathered():
            contrasted = isinstance(self.objective, SimCLR)
            loss = self._contrast(images, first) if contrasted else self._accumulate(images, first)
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def seed(self, iteration: int) -> None:
        """Seed the generators of dropout for a step."""
        words = np.random.SeedSequence([self.recipe.seed, iteration, self.processes.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0] >> np.uint64(1)))

    def _accumulate(self, images: Tensor, first: int) -> Tensor:
        """Add up the gradients of the loss over this process's images; the mean over processes is that of the batch."""
        total = torch.zeros((), device=self.device)
        for weight, views, last in self._weighted(images, first):
            with self._communication(last), self.autocast():
                loss = self.model(*views) * weight
            with self._communication(last):
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _weighted(self, images: Tensor, first: int) -> Iterator[tuple[Any, Sequence[Tensor], bool]]:
        """Yield the parts' weights in the mean loss, their views, and whether it is the last part."""
        parts = self._prepared(images, first)
        if not self.objective.uneven:
            done = 0
            for views in parts:
                done += len(views[0])
                yield len(views[0]) / len(images), views, done == len(images)
            return
        prepared = list(parts)
        weights = [self.objective.weight(*views) for views in prepared]
        counted = self.processes.sum(torch.stack(weights).sum().double().cpu()).clamp(min=1) / self.processes.count
        for number, (views, weight) in enumerate(zip(prepared, weights, strict=True), start=1):
            yield (weight / counted.to(self.device)).float(), views, number == len(prepared)

    def _contrast(self, images: Tensor, first: int) -> Tensor:
        """Do what ``_accumulate`` does for a loss that all images of all processes have in common.

        Of a batch in several parts the features are computed first without gradient, then, with the gradient that the
        loss has at them, once more (Gao et al. 2021, "Scaling deep contrastive learning batch size").
        """
        assert isinstance(self.objective, SimCLR)
        prepared = list(self._prepared(images, first))
        at_once = len(prepared) == 1
        with torch.set_grad_enabled(at_once), self.autocast():
            features = torch.cat([self.objective.embed(*views) for views in prepared])
        everyone = self.processes.gather(features.detach()).requires_grad_()
        with self.autocast():
            loss = self.objective.contrast(everyone)
        self.scaler.scale(loss).backward()
        assert everyone.grad is not None
        mine = everyone.grad[self.processes.rank * self.share :][: self.share] * self.processes.count
        if at_once:
            features.backward(mine)
        else:
            for views, wanted in zip(prepared, mine.split([len(views[0]) for views in prepared]), strict=True):
                with self.autocast():
                    features = self.objective.embed(*views)
                features.backward(wanted)
        self.processes.average(p.grad for p in self.objective.parameters() if p.grad is not None)
        return loss.detach()

    def _prepared(self, images: Tensor, first: int) -> Iterator[Sequence[Tensor]]:
        """Yield the views of the parts of some images, of which the first has the position ``first``."""
        for start, part in self._parts(images):
            yield self.objective.prepare(part, self.recipe.seed, first + start)

    def _parts(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(images), self.micro_batch):
            yield start, images[start : start + self.micro_batch]

    def _communication(self, last: bool) -> AbstractContextManager[None]:
        """Let gradients travel between processes with the last part of a batch alone."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which the network is computed in the run's precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @torch.no_grad()
    def measure(self, images: Tensor, offset: int) -> dict[str, Tensor]:
        """Return sums and counts of what the objective reports of held-out images.

        Args:
            images: (B, H, W) uint8 on the device.
            offset: place of the first among the held-out images, which fixes their views.

        Returns:
            Name -> (2,) float64 on the CPU: sum and count.
        """
        self.objective.eval()
        sums: dict[str, Tensor] = {}
        for measured in self._measured(self._prepared(images, _HELD_OUT_STREAM + offset)):
            for name, (total, count) in measured.items():
                pair = torch.stack([total.double().cpu(), count.double().cpu()])
                sums[name] = sums.get(name, torch.zeros(2, dtype=torch.float64)) + pair
        return sums

    def _measured(self, parts: Iterator[Sequence[Tensor]]) -> list[dict[str, tuple[Tensor, Tensor]]]:
        """Return what the objective reports: of each part, or where images are contrasted of as many as a batch has."""
        objective = self.objective
        if not isinstance(objective, SimCLR):
            return [self._in_precision(objective.measure, *views) for views in parts]
        features = torch.cat([self._in_precision(objective.embed, *views) for views in parts])
        groups = features.split(self.recipe.batch_size)
        return [self._in_precision(objective.measure_embedded, group) for group in groups]

    def _in_precision(self, compute: Callable[..., T], *values: Tensor) -> T:
        with self.autocast():
            return compute(*values)

    @torch.no_grad()
    def pictures(self, images: Tensor) -> dict[str, Tensor] | None:
        """Return what the objective shows of the first held-out images: title -> (B, H, W) float32 on the CPU."""
        self.objective.eval()
        views = self.objective.prepare(images, self.recipe.seed, _HELD_OUT_STREAM)
        with self.autocast():
            shown = self.objective.pictures(*views)
        return None if shown is None else {title: tensor.float().cpu() for title, tensor in shown.items()}

    def _largest(self, given: int | None) -> int:
        """Return how many images are computed at once: as given, or what fits, on which all processes agree.

        Raises:
            RetinaError: if that is less than a batch norm sees together.
        """
        if given is not None and given < self.unit:
            raise RetinaError(
                f"--micro-batch {given} would part the {self.unit} images that a batch norm sees together. Give at "
                f"least {self.unit}, or, which changes the result, --norm-batch {given}"
            )
        if given is not None:
            return given
        if self.device.type == "cpu":
            return max(CPU_MICRO_BATCH, self.unit)
        before = {name: value.clone() for name, value in self.objective.state_dict().items()}
        size = largest_fitting(self._try, self.share, torch.cuda.get_device_name(self.device), self.unit)
        self.objective.load_state_dict(before)
        return self.processes.smallest(size)

    def _try(self, size: int) -> None:
        """Compute forward and backward of random images; the running statistics change."""
        images = torch.randint(0, 256, (size, SIZE, SIZE), dtype=torch.uint8, device=self.device)
        self.objective.train()
        try:
            views = self.objective.prepare(images, self.recipe.seed, 0)
            with self.autocast():
                loss = self.objective(*views)
            loss.backward()
        finally:
            self.optimizer.zero_grad(set_to_none=True)


def part_size(images: int, largest: int, unit: int) -> int:
    """Return the size of almost equal parts of some images: at most ``largest``, whole units but for the last part."""
    units = math.ceil(images / unit)
    return unit * math.ceil(units / math.ceil(units / (largest // unit)))


def _too_small(device: str, unit: int) -> RetinaError:
    what = "one image fits" if unit == 1 else f"the {unit} images of a batch norm fit"
    other = "" if unit == 1 else " or --norm-batch"
    return RetinaError(
        f"not even {what} into the memory of {device}. Free it (nvidia-smi shows who holds it), or take a smaller "
        f"--size{other}"
    )


def largest_fitting(attempt: Callable[[int], None], most: int, device: str, unit: int = 1) -> int:
    """Return the largest of ``most``, its half, its quarter, ... images that a GPU's memory holds, in whole units.

    Args:
        attempt: computes with so many images, or raises ``torch.OutOfMemoryError``.
        most: images of a step.
        device: its name, for the message.
        unit: images that are computed together, at least.

    Raises:
        RetinaError: if not even one unit fits.
    """
    size = most
    while True:
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        else:
            return size
        if size <= unit:
            raise _too_small(device, unit)
        size = unit * math.ceil(math.ceil(size / 2) / unit)
