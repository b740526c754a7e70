"""The order of the images: every one once an epoch, the same for every division into steps and processes."""

from typing import cast

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from pretraining.loop.stream import HELD_OUT_MOST, Stream, split
from pretraining.recipe import Recipe
from pretraining.store.reader import ImageStore


class FakeStore:
    """As much of an ImageStore as ``split`` looks at."""

    path = "store"

    def __init__(self, checksums, names=None):
        self.checksums = np.asarray(checksums, np.uint32)
        self._names = names or [f"source_{i % 3}/{i}.tif" for i in range(len(checksums))]

    def __len__(self):
        return len(self.checksums)

    def name(self, index):
        return self._names[index]

    def names(self):
        return iter(self._names)


def fake_store(checksums) -> ImageStore:
    return cast("ImageStore", FakeStore(checksums))


def random_store(count, seed=0) -> ImageStore:
    return fake_store(np.random.default_rng(seed).integers(0, 2**32, count))


@pytest.mark.parametrize("count, batch", [(10, 4), (7, 7), (5, 12), (100, 1)])
def test_every_image_comes_once_an_epoch_and_batches_are_full(count, batch):
    stream = Stream(np.arange(100, 100 + count), Recipe(batch_size=batch))
    steps = [stream.take(step * batch, batch) for step in range(3 * count)]
    assert {len(step) for step in steps} == {batch}
    epochs = np.concatenate(steps)[: 3 * count].reshape(3, count)
    for epoch in epochs:
        assert sorted(epoch) == list(range(100, 100 + count))
    if count > 6:
        assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_the_position_alone_decides():
    stream, again = Stream(np.arange(50), Recipe(seed=3)), Stream(np.arange(50), Recipe(seed=3))
    whole = stream.take(0, 200)
    for first, count in ((190, 10), (30, 40), (0, 5), (99, 2)):  # backwards too, across epochs
        assert (again.take(first, count) == whole[first : first + count]).all()
    assert (Stream(np.arange(50), Recipe(seed=4)).take(0, 50) != whole[:50]).any()


def test_epochs_are_counted_by_images():
    stream = Stream(np.arange(10), Recipe(batch_size=4))
    assert [stream.epoch(step) for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]
    assert Recipe(batch_size=4, epochs=3).total_iterations(10) == 8
    assert Recipe(batch_size=4, epochs=2).total_iterations(10) == 5
    assert Recipe(batch_size=4, iterations=3).total_iterations(10) == 3


def test_balance_draws_small_sources_more_often():
    groups = np.repeat([0, 1], [900, 100]).astype(np.int32)

    def share_of_small(gamma):
        stream = Stream(np.arange(1000), Recipe(balance=gamma), groups)
        return (stream.take(0, 20000) >= 900).mean()

    assert share_of_small(0) == pytest.approx(0.1)
    assert share_of_small(1) == pytest.approx(0.5, abs=0.02)
    assert share_of_small(0.5) == pytest.approx(0.25, abs=0.02)  # 100^.5 / (100^.5 + 900^.5)


def test_held_out_is_one_per_cent_fixed_and_disjoint():
    store = random_store(5000)
    training, held_out = split(store)
    assert len(held_out) == 50 and len(training) == 4950
    assert not set(training) & set(held_out)
    order = np.random.default_rng(1).permutation(5000)
    shuffled = fake_store(store.checksums[order])
    assert set(store.checksums[held_out]) == set(shuffled.checksums[split(shuffled)[1]])
    assert len(split(random_store(20))[1]) == 1
    assert len(split(random_store(300_000))[1]) == HELD_OUT_MOST


def test_excluded_images_are_in_neither_part():
    store = random_store(300)
    training, held_out = split(store, ("source_1/*", "*/0.tif"))
    names = [store.name(i) for i in (*training, *held_out)]
    assert len(names) == 199
    assert not any(name.startswith("source_1/") or name == "source_0/0.tif" for name in names)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/big.tif [page=3, y=224, x=0]", ["a/big.tif [page=3, y=224, x=0]"]),
        ("a/big.tif", ["a/big.tif [page=3, y=0, x=0]", "a/big.tif [page=3, y=224, x=0]"]),
        ("*.tif", ["a/big.tif [page=3, y=0, x=0]", "a/big.tif [page=3, y=224, x=0]", "a/big.tif.tif [page=1]"]),
        ("*[1].png", ["b[1].png"]),
        ("b[x].png", ["b[x].png"]),
        ("b?1?.png", ["b[1].png"]),
        ("*y=224, x=0]", ["a/big.tif [page=3, y=224, x=0]"]),
    ],
)
def test_a_name_is_its_own_pattern_and_a_file_stands_for_its_tiles(pattern, expected):
    cut = ["a/big.tif [page=3, y=0, x=0]", "a/big.tif [page=3, y=224, x=0]", "a/big.tif.tif [page=1]"]
    names = [*cut, "b[1].png", "b1.png", "b[x].png", "bx.png", "c.png", "d.png [y=3"]
    store = cast("ImageStore", FakeStore(range(len(names)), names))
    kept = {store.name(int(index)) for part in split(store, (pattern,)) for index in part}
    assert sorted(set(names) - kept) == sorted(expected)


def test_bad_selections_are_refused():
    with pytest.raises(RetinaError, match=r"exclude: cremi\* fits no image of store; its names look like 'source_0/0"):
        split(random_store(30), ("cremi*", "source_1/*"))
    with pytest.raises(RetinaError, match="0 of 30 images are left"):
        split(random_store(30), ("*",))
    with pytest.raises(RetinaError, match="3 of 3 images are left, all of them equal"):
        split(fake_store([7, 7, 7]))
