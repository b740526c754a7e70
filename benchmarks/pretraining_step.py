"""A pre-training step on the processor: as ``retina_pretrain`` does it, plain eager float32 in NCHW order, and others.

    python benchmarks/pretraining_step.py [retina|base|tiny]

All augment 16 images of 224 x 224 (of which the recipes of blanked cells use crops of 112 x 112), compute the loss and
its gradients and take a step; ours under bfloat16 autocast where the processor multiplies it, with channels last. They
take turns, and images a second are printed, with the median ratio to the published recipe's. Needs torch and NumPy
alone; distillation is measured where its teacher is installed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from nnunetv2_retina.errors import RetinaError
from pretraining.job import build_objective
from pretraining.loop.engine import Engine, choose_precision
from pretraining.loop.processes import Processes
from pretraining.recipe import Execution, Recipe

ROUNDS = 5
BATCH = 16


def plain_step(recipe: Recipe) -> Callable[[torch.Tensor], None]:
    """A step as one would write it down."""
    objective = build_objective(recipe).train()
    optimizer = torch.optim.SGD(objective.parameters(), 0.003, momentum=0.9, weight_decay=1e-4)

    def step(images: torch.Tensor) -> None:
        optimizer.zero_grad()
        objective(*objective.prepare(images, 0, 0)).backward()
        optimizer.step()

    return step


def ours(recipe: Recipe) -> Callable[[torch.Tensor], torch.Tensor]:
    """A step as ``retina_pretrain`` takes it."""
    engine = Engine(build_objective(recipe), recipe, Execution(), Processes(torch.device("cpu")))
    return lambda images: engine.step(images, 0, 1000)


def measure(actions: dict[str, Callable[[torch.Tensor], object]], images: torch.Tensor) -> dict[str, list[float]]:
    """Return seconds of each action, which take turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action(images)
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Print the medians."""
    size = sys.argv[1] if len(sys.argv) > 1 else "retina"
    common: dict[str, Any] = {"size": size, "batch_size": BATCH, "iterations": 1000}
    published = Recipe(**common)
    actions = {"plain": plain_step(published), "published": ours(published)}
    for name, options in (("masked", {}), ("distil", {}), ("distil, whole images", {"crop": None})):
        recipe = Recipe.named(name.split(",")[0], **common, **options)
        try:
            actions[name] = ours(recipe)
        except RetinaError as error:
            print(error)
    images = torch.randint(0, 256, (BATCH, 224, 224), dtype=torch.uint8)
    dtype = choose_precision("auto", torch.device("cpu"))
    print(f"size {size}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {dtype}")
    seconds = measure(actions, images)
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["published"], values, strict=True))
        print(f"{name:22} {BATCH / statistics.median(values):6.2f} images/s, {ratio:.2f} times those of published")


if __name__ == "__main__":
    main()
