"""Engines: results, faults, and what they say while they work."""

import os
import threading
from typing import Any

import pytest

from nnunetv2_retina.console import engines
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.volumes.settings import VolumeSettings

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


def test_each_worker_sees_its_own_gpu_alone():
    with engines.local(2, lambda line: None, ("3", "5")) as engine:
        assert engine.workers == 2
        seen = engine._client.run(os.getenv, "CUDA_VISIBLE_DEVICES")  # a function that every process can import
        assert sorted(seen.values()) == ["3", "5"]


@pytest.mark.parametrize("text", ["0,0", "a", "0,", "-1"])
def test_gpus_are_named_by_different_numbers(text):
    with pytest.raises(RetinaError, match=f"--gpus {text}; expected different numbers"):
        VolumeSettings(gpus=text)


def test_gpus_are_one_way_to_share_the_work():
    assert VolumeSettings(gpus="2,0").processes == 2
    with pytest.raises(RetinaError, match="--workers and --gpus were given"):
        VolumeSettings(gpus="0", workers=2)
