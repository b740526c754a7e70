"""What the machine offers to this process, and the process that started it. Imports nothing heavy."""

from __future__ import annotations

import _thread
import os
import threading
import time


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


def end_with(parent: int, patience: float = 30.0) -> None:
    """End this process, as Ctrl-C does, once its parent has ended, which may have been killed.

    Else it would go on unseen, beside the next start of the same work. Windows does not tell of a parent that has gone.

    Args:
        parent: its process ID, given by itself: it may be gone by now.
        patience: seconds to the hard end, if this process does not end by itself.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        _thread.interrupt_main()
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
