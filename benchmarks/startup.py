"""What the registration costs at every start of Python: `python -c pass` with the start-up file and without it.

    python benchmarks/startup.py

Needs the package installed (`pip install .`). Both are started in turn, in pairs, because a machine's speed drifts; the
median of the pairs' differences and ratios is printed. Both run without site-packages (`-S`), so that no other start-up
file blurs the difference.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

PAIRS = 40
HOOK = "from nnunetv2_retina.registration import register; register()"


def seconds(code: str) -> float:
    """Wall time of one interpreter that runs ``code``, without site-packages' own start-up files."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env=os.environ)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians."""
    import nnunetv2_retina

    root = os.path.dirname(os.path.dirname(nnunetv2_retina.__file__))
    path = f"import os, sys; sys.path.append({root!r}); "  # site imports os at every start
    for code in ("", HOOK):
        seconds(path + code)  # bytecode and file caches
    pairs = [(seconds(path), seconds(path + HOOK)) for _ in range(PAIRS)]
    plain, hooked = (statistics.median(column) for column in zip(*pairs, strict=True))
    difference = statistics.median(b - a for a, b in pairs)
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{PAIRS} pairs: plain {1e3 * plain:.1f} ms, with registration {1e3 * hooked:.1f} ms (medians)")
    print(f"registration costs {1e3 * difference:.2f} ms at each start; ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
