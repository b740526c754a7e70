"""One pre-training step on the processor: as ``retina_pretrain`` does it, against plain eager float32 in NCHW order.

    python benchmarks/pretraining_step.py [retina|base|tiny]

Both augment 16 images of 224 x 224, compute the loss and its gradients and take an SGD step; ours under bfloat16
autocast where the processor multiplies it, with channels last. The two alternate, and the median ratio of the pairs is
printed. Needs torch and NumPy alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from pretraining.job import build_objective
from pretraining.loop.engine import Engine
from pretraining.loop.processes import Processes
from pretraining.recipe import Execution, Recipe

PAIRS = 5
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


def main() -> None:
    """Print the medians."""
    size = sys.argv[1] if len(sys.argv) > 1 else "retina"
    recipe = Recipe(size=size, batch_size=BATCH, iterations=1000)
    engine = Engine(build_objective(recipe), recipe, Execution(), Processes(torch.device("cpu")))
    plain = plain_step(recipe)
    images = torch.randint(0, 256, (BATCH, 224, 224), dtype=torch.uint8)

    def seconds(action: Callable[[], object]) -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    pairs = []
    for number in range(PAIRS + 1):
        pairs.append((seconds(lambda: plain(images)), seconds(lambda n=number: engine.step(images, n, 1000))))  # type: ignore[misc]
    pairs = pairs[1:]  # the first warms up
    slow, fast = (statistics.median(column) / BATCH for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"size {size}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {engine.dtype}")
    print(f"plain {slow:.3f} s, retina_pretrain {fast:.3f} s an image; plain / retina_pretrain = {ratio:.2f}")


if __name__ == "__main__":
    main()
