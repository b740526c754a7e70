"""What the machine offers to this process, and the process that started it. Imports nothing heavy."""

from __future__ import annotations

import _thread
import ctypes
import os
import platform
import signal
import threading
import time
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_REUSED = 32 << 20
"""Bytes of the largest piece that glibc keeps, which is its own limit, too."""


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


def use_threads(number: int | None) -> None:
    """Let torch use so many threads in this process; None: as many as it does."""
    import torch

    if number is not None and torch.get_num_threads() != number:
        torch.set_num_threads(number)


@cache
def keep_freed_memory() -> None:
    """Let this process reuse the memory that it frees, where its C library is glibc.

    A network asks for the memory of each layer's output and frees it soon after. From the system it comes page by page,
    which takes a fifth of a prediction on a processor. Workers of dask are even told to give everything back at once
    (``MALLOC_TRIM_THRESHOLD_``), which doubles the time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, _REUSED)
    library.mallopt(_M_TRIM_THRESHOLD, 2 * _REUSED)
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)  # nor are processes told so that are started from here


def end_with(parent: int, patience: float = 30.0) -> None:
    """End this process and its children, as Ctrl-C does, once another has ended, which may have been killed.

    Else it would go on unseen, beside the next start of the same work; also where Ctrl-C itself is ignored, as in
    what a shell script starts with ``&``. Not on Windows, which has no way to ask. Call it in the main thread.

    Args:
        parent: process ID of the one that started this, given by itself: it may be gone by now.
        patience: seconds to the hard end, if this process does not end by itself.
    """
    if os.name == "nt":
        return
    beginning = os.getppid()
    signal.signal(signal.SIGUSR2, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == beginning and _is_there(parent):
            time.sleep(1)
        _thread.interrupt_main(signal.SIGUSR2)
        time.sleep(patience)
        import multiprocessing

        for child in multiprocessing.active_children():  # which do not notice by themselves
            child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_there(process: int) -> bool:
    """Tell whether there is a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
