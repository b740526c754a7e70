"""A dask worker in a thread of this process, in place of the processes that a command starts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from nnunetv2_retina.console import engines
from nnunetv2_retina.console.engines import Dask, Engine, Say


def giving(engine: Engine) -> Callable[..., AbstractContextManager[Engine]]:
    """Return what can stand for ``Workers.engine``, and gives this engine."""
    return lambda *_: nullcontext(engine)


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``Workers.engine`` start it."""
    distributed = pytest.importorskip("distributed")

    @contextmanager
    def local(workers: int, say: Say, gpus: Sequence[str] = ()) -> Iterator[Dask]:
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield Dask(client, say)

    monkeypatch.setattr(engines, "local", local)
