"""A short form of ``tests/chaos.py``: a conversion that is killed, finds the disk full, or runs beside another one."""

import random
from pathlib import Path

import pytest
from chaos import SITUATIONS, Count, Situation, fill, kill, prepare_images, twice, undisturbed

import dataset_conversion.own_data.folder  # noqa: F401  # once, for all that are started

Conversion = tuple[tuple[Path, Situation, dict[str, str], Path], float]
"""Folder, situation, environment and the right result; seconds that it takes."""


@pytest.fixture(scope="module")
def conversion(tmp_path_factory) -> Conversion:
    root = tmp_path_factory.mktemp("chaos")
    environment = prepare_images(root)
    right, seconds = undisturbed(root, SITUATIONS["convert"], environment)
    return (root, SITUATIONS["convert"], environment, right), seconds


def test_killed_conversions_are_done_by_the_same_command(conversion: Conversion):
    count = Count()
    place, seconds = conversion
    kill(*place, seconds, random.Random(1), count)
    assert count.kills and not count.faults


def test_a_full_disk_is_one_sentence_and_nothing_is_left(conversion: Conversion):
    count = Count()
    place, _ = conversion
    fill(*place, 1000, count)
    assert not count.faults


def test_one_of_two_conversions_at_once_ends_well(conversion: Conversion):
    count = Count()
    place, _ = conversion
    twice(*place, 0.05, count)
    assert not count.faults


def test_a_result_that_is_not_whole_is_found(conversion: Conversion, tmp_path):
    (_, situation, _, right), _ = conversion
    assert situation.same(right / "raw", tmp_path)
