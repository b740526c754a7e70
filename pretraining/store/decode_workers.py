"""Decoding many files at once, in processes of their own, with results in order and few files under way.

Processes, since most of the time of reading a small TIFF is spent in Python (measured with tifffile and imagecodecs on
two cores, 1,400 crops: 2,370 images/s in one thread, 2,950 in two threads, 3,900 in two processes). They are started
as fresh interpreters which import the decoders only: no fork of a process that holds threads or a GPU, nothing of the
caller's main module run again. A decoder that crashes takes its process with it, not the packing.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.errors import RetinaError, shorten
from pretraining.store.decoding import TOO_LARGE, UNREADABLE, RejectionError
from pretraining.store.sources import IMAGE_ENDINGS, SourceFile
from pretraining.store.tiles import WHOLE, Tiles, read_tiles

NOT_AN_IMAGE = "not an image"
MOST_WORKERS = 8
"""By default; one process writes what they decode, and more would wait for it."""
FILES_PER_JOB = 32
BYTES_PER_JOB = 16 << 20
BYTES_UNDER_WAY = 256 << 20
"""Of encoded files handed out and not yet written; one larger file is taken alone."""

_START = "import sys; sys.path[:0] = {path!r}; from pretraining.store.decode_workers import serve; serve()"


@dataclass(frozen=True)
class Work:
    """One file to decode."""

    name: str
    """For messages."""
    content: str | bytes | Tiles
    """Its path, its content, or the result if it is known already."""
    size: int
    """Bytes of the file."""


def content_of(file: SourceFile) -> str | bytes | Tiles:
    """Return what is to be decoded of a file: its path or its content, or why there is nothing to decode."""
    if file.ending not in IMAGE_ENDINGS:
        return Tiles(rejected=((WHOLE, f"{NOT_AN_IMAGE}: {file.ending or 'no ending'}"),))
    if file.read is None:
        return file.path or ""
    try:
        return file.read()
    except RejectionError as rejection:
        return Tiles(rejected=((WHOLE, str(rejection)),))


def default_workers() -> int:
    """Return the number of processor cores for this process, at most ``MOST_WORKERS``."""
    return min(available_cores(), MOST_WORKERS)


def decode_all(work: Iterable[Work], hashes: bool, workers: int) -> Iterator[Tiles]:
    """Yield the tiles of each file, in order.

    Args:
        work: taken from little by little.
        hashes: whether to compute difference hashes.
        workers: processes; 1 decodes in this one.

    Raises:
        RetinaError: if a file cannot be reached any more, or a process has died.
    """
    if workers <= 1:
        for item in work:
            yield decode(item.content, hashes)
        return
    pool = _Processes(workers, hashes)
    try:
        under_way: deque[tuple[Future[list[Tiles]], int]] = deque()
        for job in _jobs(work):
            size = sum(item.size for item in job)
            while under_way and (
                len(under_way) >= 2 * workers or size + sum(other for _, other in under_way) > BYTES_UNDER_WAY
            ):
                yield from under_way.popleft()[0].result()
            under_way.append((pool.submit(job), size))
            del job
        while under_way:
            yield from under_way.popleft()[0].result()
    finally:
        pool.close()


def _jobs(work: Iterable[Work]) -> Iterator[list[Work]]:
    job: list[Work] = []
    size = 0
    for item in work:
        if job and size + item.size > BYTES_PER_JOB:
            yield job
            job, size = [], 0
        job.append(item)
        size += item.size
        if len(job) == FILES_PER_JOB:
            yield job
            job, size = [], 0
    if job:
        yield job


def decode(content: str | bytes | Tiles, hashes: bool = False) -> Tiles:
    """Return the tiles of what ``content_of`` gave; what is wrong with a file is in ``rejected``.

    Raises:
        RetinaError: if a file cannot be reached any more.
    """
    if isinstance(content, Tiles):
        return content
    if isinstance(content, bytes):
        return read_tiles(content, hashes)
    try:
        with open(content, "rb") as file:
            data = file.read()
    except MemoryError:
        return Tiles(rejected=((WHOLE, f"{TOO_LARGE}: it does not fit into memory"),))
    except OSError as error:
        gone = isinstance(error, FileNotFoundError) and not os.path.islink(content)
        if isinstance(error, PermissionError | FileNotFoundError) and not gone:
            return Tiles(rejected=((WHOLE, f"{UNREADABLE}: {error.strerror}"),))
        what = "was listed and is gone" if gone else f"cannot be read ({error.strerror})"
        raise RetinaError(
            f"{content} {what}: the source has changed, or its disk or network has failed. Put that right, then start "
            "the same command again to continue"
        ) from error
    return read_tiles(data, hashes)


class _Processes:
    """Decoding processes, each fed and emptied by a thread of its own."""

    def __init__(self, number: int, hashes: bool) -> None:
        self._hashes = hashes
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(number, "decoding")

    def submit(self, job: list[Work]) -> Future[list[Tiles]]:
        return self._threads.submit(self._run, job)

    def close(self) -> None:
        """End the processes, also amid their work."""
        for process in list(self._all):
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._all:  # also those started meanwhile
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def _run(self, job: list[Work]) -> list[Tiles]:
        process = self._process()
        try:
            pickle.dump((self._hashes, [item.content for item in job]), _pipe(process.stdin), 5)
            _pipe(process.stdin).flush()
            result = pickle.load(_pipe(process.stdout))
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise RetinaError(
                f"a decoding process ended with status {process.wait()} while it read one of "
                f"{shorten((item.name for item in job), 3)}: killed for want of memory, or by a damaged file. Start "
                "the same command again to continue; if it ends at the same files again, move them away"
            ) from error
        if isinstance(result, Exception):
            raise result
        tiles: list[Tiles] = result
        return tiles

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            command = [sys.executable, "-c", _START.format(path=[path for path in sys.path if path])]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._own.process = process
            self._all.append(process)
        return process


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("no pipe")
    return pipe


def serve() -> None:
    """Run a decoding process: jobs from standard input, results to standard output, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the packing process's to handle
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints does not get among the results
    while True:
        try:
            hashes, contents = pickle.load(jobs)
        except EOFError:
            return
        result: list[Tiles] | Exception
        try:
            result = [decode(content, hashes) for content in contents]
        except (RetinaError, MemoryError) as error:
            result = error
        try:
            pickle.dump(result, results, 5)
            results.flush()
        except BrokenPipeError:
            return
