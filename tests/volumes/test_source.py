"""What a block reads, slab by slab."""

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.volumes.source import BlockSource


def test_what_was_read_is_given_back_before_more_is_read() -> None:
    held: list[weakref.ref[NDArray[Any]]] = []

    def read(box: tuple[slice, slice, slice]) -> NDArray[Any]:
        assert all(array() is None for array in held)
        values = np.ones([part.stop - part.start for part in box], np.uint8)
        held.append(weakref.ref(values))
        return values

    def plain(values: NDArray[Any]) -> NDArray[np.float32]:
        return values.astype(np.float32)

    region = (slice(0, 8), slice(0, 16), slice(0, 16))
    source = BlockSource(read, plain, (8, 16, 16), region, (16, 16), 0.5, (4, 16, 16), (0, 0, 0))
    for first in range(0, 8, 4):
        assert source.read(slice(first, first + 4), slice(0, 16), slice(0, 16)).shape == (1, 4, 16, 16)
    assert len(held) == 2
