"""Damaged files in great number: each is read as what it was or refused in one sentence. Not part of the tests.

    python tests/fuzz.py --number 20000                        # of mutations, over all kinds of files
    python tests/fuzz.py --number 2000 --data FOLDER           # real files beside the made ones
    python tests/fuzz.py --only packed.nii.gz --seed 7

Cuts, changed bytes, inserted and doubled parts, and zeros where data were. Each file is read in a process of its own
kind, whose end by a signal, time and memory are looked at; what is found is printed with its seed.
``tests/test_fuzz.py`` runs a short form of it.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import sys
import tempfile
import time
import traceback
from multiprocessing.pool import ThreadPool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from helpers.mutations import SUBJECTS, Outcome, Subject, judge, mutate, real_subjects

SECONDS, MEGABYTES = 20.0, 1024
"""More than this for one small file is a fault."""
LISTED = 8
"""Outcomes of one file that are listed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000, help="of mutations, over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of file")
    parser.add_argument("--data", type=Path, help="a folder of real files, read beside the made ones")
    parser.add_argument("--show", default="", help="outcomes to list beside faults, such as other")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        return _run(arguments, folder)
    finally:
        shutil.rmtree(folder)


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    subjects = [subject for name, subject in SUBJECTS.items() if arguments.only in (None, name)]
    if arguments.data:
        subjects += real_subjects(arguments.data)
    each = -(-arguments.number // len(subjects))
    start = time.time()
    counts: collections.Counter[str] = collections.Counter()
    faults: list[Outcome] = []
    with ThreadPool(arguments.workers) as pool:
        jobs = [(subject, arguments.seed, each, folder) for subject in subjects]
        for name, found in pool.imap_unordered(_all_of_one, jobs):
            line = collections.Counter(outcome.kind for outcome in found)
            counts += line
            faults += [outcome for outcome in found if outcome.is_fault]
            peak = max((outcome.megabytes for outcome in found), default=0)
            slow = max((outcome.seconds for outcome in found), default=0)
            print(f"{name:40s} {dict(sorted(line.items()))}  longest {slow:.2f} s, most {peak:.0f} MiB", flush=True)
            shown = [outcome for outcome in found if outcome.is_fault or outcome.kind == arguments.show]
            for outcome in shown[:LISTED]:
                print(f"    {outcome.mutation}: {outcome.kind} {outcome.text[:300]}", flush=True)
    total = f"{sum(counts.values())} mutations of {len(subjects)} files: {dict(sorted(counts.items()))}"
    print(f"{total}, {time.time() - start:.0f} s")
    return int(bool(faults))


def _all_of_one(job: tuple[Subject, int, int, Path]) -> tuple[str, list[Outcome]]:
    """Try the mutations of one file in child processes: one goes on until it dies or hangs, the next one follows."""
    subject, seed, number, folder = job
    found: list[Outcome] = []
    while len(found) < number:
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            _child(subject, seed, len(found), number, folder, send)
        os.close(send)
        found += _watch(child, receive, subject, seed, len(found))
    return subject.name, found[:number]


def _child(subject: Subject, seed: int, first: int, number: int, folder: Path, send: int) -> None:
    import pickle

    status, own = 1, folder / str(os.getpid())
    try:  # nothing may leave this function: a child that went on as a thread of the pool would start children
        null, error = os.open(os.devnull, os.O_WRONLY), os.fdopen(os.dup(2), "w")
        os.dup2(null, 1)
        os.dup2(null, 2)
        own.mkdir()
        original = subject.read_original(own)
        for index in range(first, number):
            content, mutation = mutate(subject.content, f"{seed}/{subject.name}/{index}")
            _reset_peak()
            before, start = _peak(), time.time()
            outcome = judge(subject, content, mutation, original, own)
            outcome.seconds, outcome.megabytes = time.time() - start, _peak() - before
            if outcome.megabytes > MEGABYTES and not outcome.is_fault:
                outcome.kind = "memory"
            message = pickle.dumps(outcome)
            os.write(send, len(message).to_bytes(4, "little") + message)
        status = 0
    except BaseException:
        traceback.print_exc(file=error)
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os._exit(status)


def _watch(child: int, receive: int, subject: Subject, seed: int, first: int) -> list[Outcome]:
    """Take outcomes until the child ends; a silent one is killed, and what it was reading is the fault."""
    import pickle
    import select
    import signal

    found: list[Outcome] = []
    fault = None
    with os.fdopen(receive, "rb") as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], SECONDS + (20 if not found else 0))
            if not ready:
                fault = "hangs"
                os.kill(child, signal.SIGKILL)
                break
            head = stream.read(4)
            if len(head) < 4:
                break
            found.append(pickle.loads(stream.read(int.from_bytes(head, "little"))))
    _, status = os.waitpid(child, 0)
    if fault is None and os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{subject.name} could not be tried: see above")
    if fault is None and os.WIFSIGNALED(status):
        fault = f"signal {os.WTERMSIG(status)}"
    if fault:
        _, mutation = mutate(subject.content, f"{seed}/{subject.name}/{first + len(found)}")
        found.append(Outcome("crash", fault, mutation))
    return found


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
