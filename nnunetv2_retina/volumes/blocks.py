"""Geometry of blocks: which boxes a volume is cut into, what each reads, and the memory that takes. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import Box

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """A box of a volume that one task writes: whole shards of the output."""

    box: Box

    @property
    def name(self) -> str:
        """Return a name by which the journal knows it: where it begins, along z, y and x."""
        return "-".join(str(part.start) for part in self.box)


def cut(shape: Shape, block: Shape) -> list[Block]:
    """Return the blocks of a volume in raster order; those at its end are smaller."""
    ranges = [range(0, n, step) for n, step in zip(shape, block, strict=True)]
    return [
        Block((slice(z, min(z + block[0], shape[0])), slice(y, min(y + block[1], shape[1])),
               slice(x, min(x + block[2], shape[2]))))
        for z, y, x in product(*ranges)
    ]  # fmt: skip


def size(box: Box) -> Shape:
    """Return the lengths of a box."""
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def common(first: Box, second: Box) -> Box | None:
    """Return what two boxes share; None: nothing."""
    parts = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True)]
    return (parts[0], parts[1], parts[2]) if all(part.start < part.stop for part in parts) else None


def moved(box: Box, by: Sequence[int], sign: int = 1) -> Box:
    """Return a box shifted by ``sign * by``."""
    z, y, x = (slice(p.start + sign * n, p.stop + sign * n) for p, n in zip(box, by, strict=True))
    return z, y, x


def starts(box: Box) -> Shape:
    """Return where a box begins."""
    return box[0].start, box[1].start, box[2].start


def whole(shape: Shape) -> Box:
    """Return the box of a whole volume."""
    return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])


def to_lists(box: Box) -> list[list[int]]:
    """Return a box as it is written to JSON."""
    return [[part.start, part.stop] for part in box]


def from_lists(parts: Sequence[Sequence[int]]) -> Box:
    """Return the box that ``to_lists`` wrote."""
    z, y, x = (slice(int(first), int(last)) for first, last in parts)
    return z, y, x


def candidates(shape: Shape, shard: Shape, orthoplane: bool) -> Iterator[Shape]:
    """Yield the sizes of blocks to choose from, those with the least work done twice first.

    Stack mode computes no tile twice where a block holds whole planes. Orthoplane blocks read around themselves along
    all axes, so the nearer to a cube, the better.
    """
    most = [ceil(n / side) for n, side in zip(shape, shard, strict=True)]

    def block(z: int, y: int, x: int) -> Shape:
        """Return the size of so many shards; of the whole axis, where they cover it."""
        counts = [min(n, limit) for n, limit in zip((z, y, x), most, strict=True)]
        sides = [n * side for n, side in zip(counts, shard, strict=True)]
        return sides[0], sides[1], sides[2]

    if orthoplane:
        depth = ceil(256 / shard[0])
        for side in (4, 3, 2, 1):
            yield block(side * depth, side, side)
        yield block(1, 1, 1)
        return
    yield block(1, most[1], most[2])
    for side in range(max(most[1:]), 0, -1):
        yield block(1, side, side)


def check_block(block: Sequence[int], shard: Shape) -> Shape:
    """Return a size of blocks that the user chose.

    Raises:
        RetinaError: unless it is a multiple of the shards of the output, which blocks do not share.
    """
    if len(block) != 3 or any(n < 1 or n % side for n, side in zip(block, shard, strict=False)):
        sides = ",".join(map(str, shard))
        raise RetinaError(
            f"--block {','.join(map(str, block))}; expected three multiples of the output's shards, {sides}"
        )
    return block[0], block[1], block[2]


def shard_shape(shape: Shape, shard: Shape, chunk: int) -> Shape:
    """Return the shards of an output: ``shard``, but no larger than the volume needs, in whole chunks."""
    z, y, x = (min(ceil(side / chunk), ceil(n / chunk)) * chunk for n, side in zip(shape, shard, strict=True))
    return z, y, x


def describe(shape: Sequence[int]) -> str:
    """Put lengths along z, y and x into words."""
    return " x ".join(map(str, shape))


def voxels(boxes: Sequence[Block]) -> int:
    """Return how many voxels blocks hold."""
    return sum(prod(size(block.box)) for block in boxes)
