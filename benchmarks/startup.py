"""What a start costs: the registration at every start of Python, and `--help` of every command.

    python benchmarks/startup.py registration   # wall time of `python -c pass` with the start-up file and without it
    python benchmarks/startup.py commands       # processor time of `COMMAND --help`

The first needs the package installed (`pip install .`). It starts both in turn, in pairs, because a machine's speed
drifts, and prints the median of the pairs' differences and ratios. Both run without site-packages (`-S`), so that no
other start-up file blurs the difference. The second prints the median of a few starts.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAIRS = 40
STARTS = 5
HOOK = "from nnunetv2_retina.registration import register; register()"
ROOT = Path(__file__).resolve().parents[1]


def seconds(code: str) -> float:
    """Return the wall time of one interpreter that runs ``code``, without site-packages' own start-up files."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env=os.environ)
    return time.perf_counter() - start


def registration() -> None:
    """Print what the registration costs."""
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


def processor_seconds(code: str) -> float:
    """Return the processor time of one interpreter that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def commands() -> None:
    """Print what the help of every command costs."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for script, module, function in re.findall(r'^(retina_\w+) = "([\w.]+):(\w+)"$', text, re.MULTILINE):
        code = f"from {module} import {function} as command; command(['--help'])"
        processor_seconds(code)  # bytecode and file caches
        times = [processor_seconds(code) for _ in range(STARTS)]
        print(f"{script:24}{statistics.median(times):.2f} s of processor time", flush=True)


def main() -> None:
    """Measure what the argument names."""
    parser = argparse.ArgumentParser(description="What a start costs.")
    parser.add_argument("what", choices=("registration", "commands"), help="see the top of this file")
    {"registration": registration, "commands": commands}[parser.parse_args().what]()


if __name__ == "__main__":
    main()
