"""Who does the work: this process, dask's workers on this machine, or those of a scheduler.

An engine knows of functions and named items alone: blocks of a volume, images of a folder, runs of a study. Files on
the disk tell what is done, not the engine, so that any may go on where another was stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from nnunetv2_retina import __version__
from nnunetv2_retina.console import setting
from nnunetv2_retina.console.machine import available_cores, keep_freed_memory
from nnunetv2_retina.errors import RetinaError, shorten

IN_FLIGHT = 2
"""Items that a worker has at hand: the one it does and the next."""
PATIENCE = 30
"""Seconds to wait for a scheduler, and for its first worker."""
_ALONE = (
    "no worker is left; waiting for new ones (dask worker ADDRESS --nthreads 1). Ctrl-C ends: what is done is kept, "
    "and the same command goes on"
)
Say = Callable[[str], None]


class Named(Protocol):
    """What is worked on."""

    @property
    def name(self) -> str:
        """Return what messages call it."""


Item = TypeVar("Item", bound=Named)
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a function over items."""

    @property
    def workers(self) -> int:
        """Return how many there are now."""

    def run(self, task: Callable[[Item], Result], todo: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield each item when it is done, with its result; raise what a task raised once those in hand are done."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who shares the work: options of every command that can share it.

    Raises:
        RetinaError: for a number that cannot be, or two ways that exclude each other.
    """

    workers: int = setting(1, "processes on this machine, by dask")
    gpus: str | None = setting(None, "one process a GPU of this machine, such as 0,1", metavar="I,J")
    scheduler: str | None = setting(
        None, "use the workers of this dask scheduler, which see the same paths", metavar="tcp://HOST:PORT"
    )

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise RetinaError(f"--workers {self.workers}; expected at least 1")
        chosen = [name for name, on in self._ways().items() if on]
        if len(chosen) > 1:
            raise RetinaError(f"{' and '.join(chosen)} were given; expected one way to share the work")
        if len(set(self.gpu_numbers)) < len(self.gpu_numbers) or not all(gpu.isdecimal() for gpu in self.gpu_numbers):
            raise RetinaError(f"--gpus {self.gpus}; expected different numbers as nvidia-smi has them, such as 0,1")

    def _ways(self) -> dict[str, bool]:
        return {
            "--workers": self.workers > 1,
            "--gpus": self.gpus is not None,
            "--scheduler": self.scheduler is not None,
        }

    @property
    def gpu_numbers(self) -> tuple[str, ...]:
        """Return the GPUs that get a process each."""
        return () if self.gpus is None else tuple(part.strip() for part in self.gpus.split(","))

    @property
    def processes(self) -> int:
        """Return how many processes of this machine work."""
        return len(self.gpu_numbers) or self.workers

    @property
    def alone(self) -> bool:
        """Whether this process does everything."""
        return self.scheduler is None and self.gpus is None and self.workers == 1

    @property
    def threads(self) -> int | None:
        """Return the threads of a process: several share this machine; elsewhere, or alone, each has what it has."""
        return max(1, available_cores() // self.processes) if self.processes > 1 else None

    def engine(self, say: Say) -> AbstractContextManager[Engine]:
        """Start the workers, or reach them, for the duration.

        Args:
            say: takes lines for the user.

        Raises:
            RetinaError: if dask is not installed, or the scheduler does not answer.
        """
        if self.alone:
            return nullcontext(Serial())
        if self.scheduler is not None:
            return connected(self.scheduler, say)
        return local(self.processes, say, self.gpu_numbers)


ALONE = Workers()
"""This process does everything."""


class Serial:
    """One item after the other, in this process."""

    workers: int = 1

    def run(self, task: Callable[[Item], Result], todo: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See ``Engine``."""
        for item in todo:
            yield item, task(item)


class Dask:
    """dask.distributed: processes of this machine, or whatever a scheduler has."""

    def __init__(self, client: Any, say: Say) -> None:
        self._client = client
        self._say = say

    @property
    def workers(self) -> int:
        """Return how many there are now."""
        return len(self._client.scheduler_info(n_workers=-1).get("workers", ()))

    def run(self, task: Callable[[Item], Result], todo: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See ``Engine``."""
        from distributed import as_completed

        waiting = iter(todo)
        pending = as_completed()
        held: dict[str, Item] = {}
        failed: BaseException | None = None

        def hand_out() -> None:
            while failed is None and len(held) < max(1, self.workers) * IN_FLIGHT:
                item = next(waiting, None)
                if item is None:
                    return
                key = f"{item.name}-{uuid4().hex}"
                future = self._client.submit(_in_worker, task, item, pure=False, key=key, retries=0)
                held[future.key] = item
                pending.add(future)

        hand_out()
        with self._watched():
            while held:
                future = next(pending)
                item = held.pop(future.key)
                if future.cancelled() or self._client.status != "running":
                    raise RetinaError(
                        "dask's scheduler has gone. What is done is kept: start it, then give the same command"
                    )
                error = future.exception()
                if error is None:
                    yield item, future.result()
                elif failed is None:
                    failed = error
                hand_out()
        if failed is not None:
            raise _told(failed)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Say when the last worker has gone, which dask waits through in silence, and when there is one again."""
        over = Event()

        def watch() -> None:
            alone = False
            while not over.wait(PATIENCE):
                with suppress(Exception):  # a scheduler that has gone is told of elsewhere
                    if (not self.workers) != alone:
                        alone = not alone
                        self._say(_ALONE if alone else "there are workers again")

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()


def _in_worker(task: Callable[[Item], Result], item: Item) -> Result:
    keep_freed_memory()
    return task(item)


def _told(error: BaseException) -> BaseException:
    """Return an error of a worker as the user can read it."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return RetinaError(
            f"workers died at {str(error.task).rpartition('-')[0]}, several in a row: out of memory, most likely. Use "
            "fewer workers, or smaller blocks (--memory, in a new output), then give the same command again"
        )
    return error


def import_distributed() -> Any:
    """Return the module distributed.

    Raises:
        RetinaError: if it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise RetinaError(
            f'several workers need dask ({error}). Run: pip install "nnunetv2-retina[volumes]", or start each with '
            "--part"
        ) from error
    return distributed


@contextmanager
def local(workers: int, say: Say, gpus: Sequence[str] = ()) -> Iterator[Dask]:
    """Start workers of this machine, each a process of its own, and end them.

    Args:
        workers: how many.
        say: takes lines for the user.
        gpus: what each sees alone, by nvidia-smi's numbers; none: what this process sees.
    """
    distributed = import_distributed()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is said in one sentence
    with (
        _cluster_of(distributed.LocalCluster, gpus)(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=":0",  # any port that is free, though nothing be shown
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.scale(workers)
        client.wait_for_workers(workers)
        if _has_dashboard():
            say(f"dask's dashboard: {client.dashboard_link}")
        yield Dask(client, say)


def _cluster_of(kind: type[Any], gpus: Sequence[str]) -> type[Any]:
    """Return a LocalCluster whose worker I sees GPU I alone."""

    class Cluster(kind):
        def new_worker_spec(self) -> dict[Any, Any]:
            spec: dict[Any, Any] = super().new_worker_spec()
            for number, worker in spec.items():
                if gpus:
                    options = {**worker["options"], "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}}
                    spec[number] = {**worker, "options": options}
            return spec

    return Cluster if gpus else kind


@contextmanager
def connected(address: str, say: Say) -> Iterator[Dask]:
    """Use the workers of a scheduler that is running.

    Raises:
        RetinaError: if it does not answer, has no worker, or one with another version of this package.
    """
    distributed = import_distributed()
    for name in ("distributed", "distributed.client"):  # what it logs is said in one sentence below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise RetinaError(
            f"no dask scheduler answers at {address} ({str(error) or type(error).__name__}). Start one: dask scheduler"
        ) from error
    with client:
        with suppress(Exception):  # dask's own TimeoutError differs between versions
            client.wait_for_workers(1, timeout=PATIENCE)
        try:
            versions = client.run(_version)
        except ImportError as error:
            raise RetinaError(
                f"workers of {address} lack this package ({error}). Install version {__version__} in their environment"
            ) from error
        if not versions:
            raise RetinaError(
                f"the scheduler at {address} has no worker. Start some: dask worker {address} --nthreads 1"
            )
        others = sorted({str(version) for version in versions.values() if version != __version__})
        if others:
            raise RetinaError(
                f"workers of {address} have version {shorten(others)} of nnunetv2-retina; here it is {__version__}. "
                "Install the same everywhere"
            )
        say(f"{len(versions)} workers at {address}; dask's dashboard: {client.dashboard_link}")
        yield Dask(client, say)


def _version() -> str:
    from nnunetv2_retina import __version__ as version

    return version


def _has_dashboard() -> bool:
    from importlib.util import find_spec

    return find_spec("bokeh") is not None
