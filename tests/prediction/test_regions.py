"""Regions of a volume have the values of the whole volume, bit for bit, whatever their size and place."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_folders import REGIONS, make_model, transunet
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_retina.prediction.label_grid import probabilities
from nnunetv2_retina.prediction.orthoplane import mean_probabilities
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings
from nnunetv2_retina.prediction.sliding_window import SlidingWindow, TensorSource
from nnunetv2_retina.prediction.tile_grid import TileGrid

PATCH = 16
SHAPES = [(9, 20, 24), (7, 33, 10), (24, 5, 9)]
BLOCKS = [(8, 16, 16), (64, 8, 16), (3, 64, 64), (16, 16, 8), (5, 11, 13), (64, 64, 64)]


pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(shape, block):
    for z in range(0, shape[0], block[0]):
        for y in range(0, shape[1], block[1]):
            for x in range(0, shape[2], block[2]):
                corner = (z, y, x)
                yield tuple(slice(c, min(c + b, n)) for c, b, n in zip(corner, block, shape, strict=True))


def window(batch_size=4, slab_bytes=2**28) -> SlidingWindow:
    torch.manual_seed(1)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 3, padding=1)
    )
    return SlidingWindow(
        [lambda tiles: layers(tiles).detach()] * 2, 3, (PATCH, PATCH), 0.5, torch.device("cpu"), batch_size, slab_bytes
    )


def volume(shape) -> torch.Tensor:
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))


def softmax(logits) -> torch.Tensor:
    return probabilities(LabelManager({"background": 0, "one": 1, "two": 2}, None), logits)


def stack(window, data, region=None) -> np.ndarray:
    parts = list(window.parts(data, region=region))
    starts = [0, 0] if region is None else [region[0].start, region[1].start]
    lengths = data.shape[1:] if region is None else [part.stop - part.start for part in region]
    logits = torch.full((3, *lengths), float("nan"), dtype=torch.half)
    for part in parts:
        slices, rows = (slice(p.start - s, p.stop - s) for p, s in zip((part.slices, part.rows), starts, strict=True))
        assert logits[:, slices, rows].isnan().all(), "everything once"
        logits[:, slices, rows] = part.logits
    return logits.numpy()


def orthoplane(window, data, region=None, nonlinearity=softmax) -> np.ndarray:
    parts = mean_probabilities(window, data, nonlinearity, region=region)
    starts = [0, 0] if region is None else [region[0].start, region[1].start]
    lengths = data.shape[1:] if region is None else [part.stop - part.start for part in region]
    mean = np.full((window.heads, *lengths), np.nan, np.float32)
    for slices, rows, values in parts:
        mean[(slice(None), *(slice(p.start - s, p.stop - s) for p, s in zip((slices, rows), starts, strict=True)))] = (
            values
        )
    return mean


@pytest.mark.parametrize("predict", [stack, orthoplane])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_together_are_the_volume(shape, predict):
    data = volume(shape)
    whole = predict(window(), data)
    assert np.isfinite(whole).all()
    for number, block in enumerate(BLOCKS):
        small = window((2, 3, 4)[number % 3], (1, 40_000, 2**28)[number % 3])
        for region in blocks(shape, block):
            np.testing.assert_array_equal(predict(small, data, region), whole[(slice(None), *region)])


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_region(data):
    shape = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 30), st.integers(1, 30)))
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    region = tuple(slice(*pair) for pair in ends)
    small = window(data.draw(st.integers(2, 5)), data.draw(st.sampled_from([1, 30_000, 2**28])))
    values = volume(shape)
    for predict in (stack, orthoplane):
        np.testing.assert_array_equal(predict(small, values, region), predict(window(), values)[(slice(None), *region)])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 20), st.sampled_from([0.3, 0.5, 1.0]), st.data())
def test_touching_tiles_are_those_that_share_a_pixel(rows, columns, side, step, data):
    grid = TileGrid((rows, columns), (side, side), step)
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first + 1, rows))
    part = slice(first, last)
    tiles = grid.touching(part, slice(0, columns))
    offset = grid.offset[0]
    shared = [s for s in grid.starts[0] if set(range(s - offset, s - offset + side)) & set(range(first, last))]
    assert list(tiles.starts[0]) == shared and list(tiles.starts[1]) == grid.starts[1]
    read = grid.reach(part, slice(0, columns))[0]
    assert 0 <= read.start <= first and last <= read.stop <= rows


@pytest.mark.parametrize("mode", ["stack", "orthoplane"])
def test_labels_of_a_transunet(tmp_path, mode):
    """Mirrored or not, several folds, regions: what a tile gives does not depend on the others of its batch."""
    options: dict[str, Any] = {"trainer": "nnUNetTrainerRETINA_tiny", "architecture": transunet(), "patch": 32}
    folder = make_model(
        tmp_path / "model",
        folds=(0, 1) if mode == "stack" else (0,),
        labels=REGIONS,
        ending=".tif",
        reader="Tiff3DIO",
        **options,
    )
    predictor = Predictor.from_model_folder(
        folder, device="cpu", settings=PredictionSettings(mode=mode, mirroring=False, batch_size=3)
    )
    axes = np.meshgrid(*(np.linspace(0, 3 * n, n) for n in (4, 36, 40)), indexing="ij")
    waves = np.sum([np.sin(axis / (3 + 2 * i)) for i, axis in enumerate(axes)], axis=0)
    image = (100 + 20 * waves + np.random.default_rng(0).normal(0, 10, waves.shape))[None].clip(1).astype(np.float32)
    data, _ = predictor.preprocess_array(image, {"spacing": (1, 1, 1)})
    source = TensorSource(data)
    if mode == "stack":
        whole = predictor.predict(image, (1, 1, 1))
        assert len(np.unique(whole)) > 1
        for region in blocks(image.shape[1:], (4, 24, 32)):
            np.testing.assert_array_equal(predictor.predict_region(source, region), whole[region])
        return
    whole = orthoplane(predictor.window, source, None, predictor._probabilities)
    for region in blocks(image.shape[1:], (4, 36, 24)):
        mean = orthoplane(predictor.window, source, region, predictor._probabilities)
        np.testing.assert_array_equal(mean, whole[(slice(None), *region)])
