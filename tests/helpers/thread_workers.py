"""A dask worker in a thread of this process, in place of the processes that a command starts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from nnunetv2_retina import engines
from nnunetv2_retina.engines import Dask, Say


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
