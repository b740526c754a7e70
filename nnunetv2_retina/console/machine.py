"""What the processors offer to this process. Imports nothing heavy."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the CPU cores this process may use, which in a container or a batch job is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's memory; 16 GiB where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 16 << 30


def multiplies_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 natively; elsewhere autocast to it is slower than float32."""
    import torch

    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
