"""How far a prediction of one image is, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from nnunetv2_retina.prediction.sliding_window import Model, SlidingWindow
from nnunetv2_retina.prediction.tile_grid import TileGrid

Progress = Callable[[int, int], None]
"""Gets the tiles that are done, and all of them; what it raises ends the prediction."""


def count_tiles(window: SlidingWindow, shape: Sequence[int], orthoplane: bool) -> int:
    """Return how many tiles the models of a window predict for (z, y, x), slice by slice or along three axes."""
    count = 0
    for axis in range(3 if orthoplane else 1):
        rows, columns = (n for other, n in enumerate(shape) if other != axis)
        y, x = TileGrid((rows, columns), window.patch_size, window.step_size).starts
        count += shape[axis] * len(y) * len(x)
    return count * len(window.models)


@contextmanager
def counted(window: SlidingWindow, total: int, progress: Progress | None) -> Iterator[None]:
    """Report every batch of tiles that a window predicts in the meantime."""
    if progress is None:
        yield
        return
    models, done = window.models, 0

    def counting(model: Model) -> Model:
        def predict(tiles: Tensor) -> Tensor:
            nonlocal done
            logits = model(tiles)
            done = min(done + len(tiles), total)  # a single tile is predicted twice, see the window
            progress(done, total)
            return logits

        return predict

    window.models = [counting(model) for model in models]
    try:
        progress(0, total)
        yield
        progress(total, total)
    finally:
        window.models = models
