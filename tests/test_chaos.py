"""A short form of ``tests/chaos.py``: a conversion that is killed, finds the disk full, or runs beside another one."""

import random

import pytest
from chaos import SITUATIONS, Count, fill, kill, prepare_images, twice, undisturbed

import dataset_conversion.own_data.folder  # noqa: F401  # once, for all that are started


@pytest.fixture(scope="module")
def conversion(tmp_path_factory):
    root = tmp_path_factory.mktemp("chaos")
    environment = prepare_images(root)
    right, seconds = undisturbed(root, SITUATIONS["convert"], environment)
    return root, SITUATIONS["convert"], environment, right, seconds


def test_killed_conversions_are_done_by_the_same_command(conversion):
    count = Count()
    kill(*conversion, random.Random(1), count)
    assert count.kills and not count.faults


def test_a_full_disk_is_one_sentence_and_nothing_is_left(conversion):
    count = Count()
    fill(*conversion[:4], 1000, count)
    assert not count.faults


def test_one_of_two_conversions_at_once_ends_well(conversion):
    count = Count()
    twice(*conversion[:4], 0.05, count)
    assert not count.faults


def test_a_result_that_is_not_whole_is_found(conversion, tmp_path):
    _, situation, _, right, _ = conversion
    assert situation.same(right / "raw", tmp_path)
