"""Which image comes when: an endless stream in which every epoch is a new order of all training images.

Step ``t`` of batch size ``B`` takes the positions ``t*B`` to ``(t+1)*B - 1``; a step may end one epoch and begin the
next, so every batch is full and every image is seen once an epoch, whatever the number of processes. The position is
all there is to remember when a run is continued.
"""

from __future__ import annotations

import re
from fnmatch import translate

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from pretraining.recipe import Recipe
from pretraining.store.layout import without_place
from pretraining.store.reader import ImageStore

HELD_OUT_SHARE = 0.01
HELD_OUT_MOST = 2048

Indices = NDArray[np.int64]


def split(store: ImageStore, exclude: tuple[str, ...] = ()) -> tuple[Indices, Indices]:
    """Divide the images of a store into those to train on and a fixed held-out set.

    Held out are the images with the lowest checksums: 1 %, at least one and at most 2,048. It is the same set for every
    run on the store, and equal images are on the same side.

    Args:
        store: the images.
        exclude: patterns of names to leave out of both: of files, or of single images cut out of one.

    Returns:
        Indices into the store, ascending: training and held out.

    Raises:
        RetinaError: if a pattern fits no image, or fewer than two images are left.
    """
    kept = np.flatnonzero(~_excluded(store, exclude)) if exclude else np.arange(len(store))
    checksums = np.asarray(store.checksums)[kept]
    limit = min(max(round(len(kept) * HELD_OUT_SHARE), 1), HELD_OUT_MOST)
    threshold = np.partition(checksums, limit - 1)[limit - 1] if len(kept) else 0
    held_out = checksums <= threshold
    if held_out.all():
        raise RetinaError(
            f"{store.path}: {len(kept)} of {len(store)} images are left, "
            f"{'all of them equal' if len(kept) > 1 else 'too few'} to train on and to measure the loss. Pre-training "
            "needs thousands of different images"
        )
    return kept[~held_out], kept[held_out]


def _excluded(store: ImageStore, patterns: tuple[str, ...]) -> NDArray[np.bool_]:
    hits = np.zeros((len(patterns), len(store)), bool)
    fitting = [re.compile(translate(pattern.replace("[", "[[]"))).match for pattern in patterns]  # a bracket is itself
    for index, name in enumerate(store.names()):
        file = without_place(name)
        hits[:, index] = [bool(fits(name) or fits(file)) for fits in fitting]
    unused = [pattern for pattern, row in zip(patterns, hits, strict=True) if not row.any()]
    if unused:
        raise RetinaError(
            f"exclude: {shorten(unused)} fits no image of {store.path}; its names look like {store.name(0)!r}. "
            "Correct the patterns (* stands for anything, also across folders, ? for one character)"
        )
    return np.asarray(hits.any(axis=0))


class Stream:
    """The order of the training images.

    Args:
        indices: of the training images in the store.
        recipe: seed, batch size and balance.
        groups: (len(indices),) source of each of them; needed for balancing.
    """

    def __init__(self, indices: Indices, recipe: Recipe, groups: NDArray[np.int32] | None = None) -> None:
        self.indices = indices
        self.recipe = recipe
        self._cumulative: NDArray[np.float64] | None = None
        if recipe.balance and groups is not None:
            weights = np.bincount(groups).astype(np.float64)[groups] ** -recipe.balance
            self._cumulative = np.cumsum(weights / weights.sum())
        self._order: tuple[int, Indices] = (-1, indices)

    def __len__(self) -> int:
        return len(self.indices)

    def epoch(self, iteration: int) -> int:
        """Return how many epochs are complete before an iteration."""
        return iteration * self.recipe.batch_size // len(self)

    def take(self, first: int, count: int) -> Indices:
        """Return the indices into the store at ``count`` positions of the stream, from ``first`` on."""
        parts = []
        while count:
            epoch, offset = divmod(first, len(self))
            parts.append(self._of_epoch(epoch)[offset : offset + count])
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _of_epoch(self, epoch: int) -> Indices:
        if self._order[0] != epoch:
            generator = np.random.default_rng([self.recipe.seed, epoch])
            if self._cumulative is None:
                order = generator.permutation(len(self))
            else:
                drawn = np.searchsorted(self._cumulative, generator.random(len(self)), side="right")
                order = np.minimum(drawn, len(self) - 1)
            self._order = epoch, self.indices[order]
        return self._order[1]
