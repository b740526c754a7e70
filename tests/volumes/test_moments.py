"""Moments of volumes: exact whatever the blocks, of the non-zero box alone."""

import json

import numpy as np
import pytest
from helpers.ome_volumes import cells, needs_zarr, write
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.volumes import grey_values, moments
from nnunetv2_retina.volumes.blocks import cut, starts, whole
from nnunetv2_retina.volumes.tasks import Input


def merged(volume, block):
    parts = [moments.count(volume[item.box], starts(item.box)) for item in cut(volume.shape, block)]
    return moments.merge(json.loads(json.dumps(parts)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_equal_for_any_blocks(data):
    dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.float32]))
    shape = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    volume = np.zeros(shape, dtype)
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    inner = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(low, shape, strict=True))
    volume[inner] = rng.integers(-100 if np.dtype(dtype).kind in "if" else 0, 100, volume[inner].shape).astype(dtype)
    volume[tuple(low)] = 7  # there is something
    places = np.nonzero(volume)
    box = tuple(slice(int(p.min()), int(p.max()) + 1) for p in places)
    values = volume[box].astype(np.float64)
    results = [merged(volume, block) for block in (shape, (1, 2, 3), (2, 7, 1))]
    for found in results:
        assert found.box == box
        assert found.mean == pytest.approx(values.mean(), abs=1e-12)
        assert found.sd == pytest.approx(values.std(), abs=1e-6)
        assert (found.least, found.most) == (values.min(), values.max())
        text = json.dumps(found.to_json())
        assert json.dumps(moments.Moments.from_json(json.loads(text)).to_json()) == text, "of which keys are digests"
    if np.dtype(dtype).itemsize <= 2:
        assert results[0] == results[1] == results[2], "bit for bit"


def test_nan_and_nothing_are_refused():
    with pytest.raises(RetinaError, match="NaN or infinite values in the block at 3 x 0 x 0"):
        moments.count(np.full((2, 2, 2), np.nan, np.float32), (3, 0, 0))
    with pytest.raises(RetinaError, match="the volume is 0 everywhere"):
        merged(np.zeros((2, 3, 4), np.uint8), (1, 1, 1))


@needs_zarr
def test_methods_without_a_pass(tmp_path):
    image = cells((20, 40, 50), border=3)
    volume = open_volume(write(tmp_path / "in.zarr", image))
    source = Input(volume.address, volume.levels[0], whole(image.shape))
    inner = image[3:-3, 3:-3, 3:-3]
    assert grey_values.nonzero_box(source) == merged(image, (4, 4, 4)).box
    about = {"retina": {"normalisation": [0.5, 0.1]}}
    found, _ = grey_values.without_pass(source, "training", None, about)
    assert (found.mean, found.sd) == (127.5, 25.5)
    assert grey_values.remarks(merged(image, (9, 9, 9)), source, about, {}) == []
    bright = {"retina": {"normalisation": [0.9, 0.1]}}
    assert "the training images' 229.5 +- 25.5" in grey_values.remarks(found, source, bright, {})[0]
    dark = {"foreground_intensity_properties_per_channel": {"0": {"mean": 20.0, "std": 30.0}}}
    assert "the labelled training voxels' 20.0 +- 30.0" in grey_values.remarks(found, source, {}, dark)[0]
    found, line = grey_values.without_pass(source, "sampled", None, {})
    assert found.mean == pytest.approx(inner.mean(), abs=5) and "standard error of the mean" in line
    found, _ = grey_values.without_pass(source, "nnunet", None, {})
    assert np.float32(found.mean) == inner.astype(np.float32).mean()
    part = (slice(5, 9), slice(5, 20), slice(5, 30))
    found, _ = grey_values.without_pass(source, "exact", part, {})
    assert found.mean == pytest.approx(image[part].mean()) and found.box == grey_values.nonzero_box(source)
    (tmp_path / "m.json").write_text('{"mean": 3, "sd": 2}')
    assert grey_values.without_pass(source, str(tmp_path / "m.json"), None, {})[0].mean == 3
    with pytest.raises(RetinaError, match='needs "normalisation"'):
        grey_values.without_pass(source, "training", None, {})
