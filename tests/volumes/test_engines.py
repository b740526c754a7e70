"""What an engine says while it works."""

import threading
from typing import Any

import pytest

from nnunetv2_retina.volumes import engines

pytest.importorskip("distributed")


class Client:
    """A scheduler whose workers come and go."""

    def __init__(self):
        self.there: dict[str, Any] = {"a": {}}

    def scheduler_info(self, n_workers):
        return {"workers": self.there}


def test_it_says_when_the_last_worker_has_gone_and_when_there_is_one_again(monkeypatch):
    monkeypatch.setattr(engines, "PATIENCE", 0.01)
    said, client, told = [], Client(), threading.Event()

    def say(line):
        said.append(line)
        told.set()

    with engines.Dask(client, say)._watched():
        client.there = {}
        assert told.wait(10) and "no worker is left; waiting" in said[0]
        told.clear()
        client.there = {"b": {}}
        assert told.wait(10)
    assert said[1:] == ["there are workers again"]
