"""One training step on the processor: bfloat16 autocast, which the trainers use where it is native, against float32.

    python benchmarks/training_step.py [retina|base|tiny]

Forward, loss, backward, clipping and SGD on 4 patches of 224 x 224. The two alternate, and the median ratio of the
pairs is printed. Needs torch alone.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import nn

from nnunetv2_retina.network import NetworkConfig, TransUNet

PAIRS = 5
BATCH = 4


def step(network: nn.Module, optimizer: torch.optim.Optimizer, image: torch.Tensor, bfloat16: bool) -> float:
    """Seconds of one training step."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = network(image).square().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 12)
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Print the medians."""
    size = sys.argv[1] if len(sys.argv) > 1 else "retina"
    torch.manual_seed(0)
    network = TransUNet(1, 2, NetworkConfig.named(size)).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    image = torch.randn(BATCH, 1, 224, 224)
    for bfloat16 in (False, True):
        step(network, optimizer, image, bfloat16)
    pairs = [(step(network, optimizer, image, False), step(network, optimizer, image, True)) for _ in range(PAIRS)]
    plain, fast = (statistics.median(column) / BATCH for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"size {size}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"float32 {plain:.3f} s, bfloat16 {fast:.3f} s an image; float32 / bfloat16 = {ratio:.2f}")


if __name__ == "__main__":
    main()
