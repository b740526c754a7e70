"""Near duplicates: the hash against a plain computation, the search against all pairs."""

from typing import Any

import numpy as np
import pytest

from pretraining.store.duplicates import NearDuplicates, _count_bits, count_bits, difference_hash

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 224, 224), dtype=np.uint8)


def test_hash_is_the_comparison_of_box_averages():
    fine = np.repeat(IMAGES, 9, axis=2).reshape(5, 8, 28, 9, 224)  # columns in ninths of a pixel
    averages = fine.mean(axis=(2, 4))
    bits = (averages[:, :, 1:] > averages[:, :, :-1]).reshape(5, 64)
    expected = [int("".join("01"[bit] for bit in row.astype(int)), 2) for row in bits]
    assert difference_hash(IMAGES).tolist() == expected


def test_hash_hardly_sees_noise_and_brightness():
    smooth = np.add.outer(np.sin(np.arange(224) / 20) * 40, np.cos(np.arange(224) / 30) * 40) + 100
    twin = smooth + 20 + RNG.normal(0, 5, smooth.shape)
    values = difference_hash(np.stack([smooth, twin, smooth[:, ::-1]]).astype(np.uint8))
    assert count_bits(values[:1] ^ values[1:]).tolist() < [4, 40]


@pytest.mark.parametrize("count", [count_bits, _count_bits])
def test_bits_are_counted(count):
    values = np.array([0, 1, 2**64 - 1, 0b1011 << 60, 2**63], np.uint64)
    assert count(values).tolist() == [0, 1, 64, 3, 1]


@pytest.mark.parametrize("threshold", [0, 3, 8])
def test_the_first_near_one_is_found(threshold):
    values = RNG.integers(0, 2**10, 400).tolist()
    groups = RNG.integers(0, 3, 400).tolist()
    search = NearDuplicates(threshold)
    kept: list[Any] = []
    for image, (group, value) in enumerate(zip(groups, values, strict=True)):
        expected = next((k for k, g, v in kept if g == group and (v ^ value).bit_count() <= threshold), None)
        assert search.find(group, value) == expected
        if expected is None:
            kept.append((image, group, value))
            search.add(group, value, image)
    assert 3 <= len(kept) < 400
