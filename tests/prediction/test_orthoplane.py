"""Orthoplane inference on volumes whose voxels encode where they are, so that any mistake in axes or offsets shows."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_folders import LABELS, make_model

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.orthoplane import check_volume, mean_probabilities
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings
from nnunetv2_retina.prediction.sliding_window import SlidingWindow

PATCH = 16
SHAPES = [(20, 24, 40), (7, 33, 18), (40, 5, 9)]


def window(model, heads: int, slab_bytes: int = 2**28) -> SlidingWindow:
    return SlidingWindow([model], heads, (PATCH, PATCH), 0.5, torch.device("cpu"), 8, slab_bytes, use_gaussian=False)


def coordinates(shape) -> torch.Tensor:
    """(1, z, y, x): a number that no other voxel has, small enough to be exact in float16."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return torch.tensor(z + 47 * y + 89 * x, dtype=torch.float32)[None] % 401 / 400


def averaged(window, data, **options) -> torch.Tensor:
    mean = torch.full((window.heads, *data.shape[1:]), float("nan"))
    for slices, rows, values in mean_probabilities(window, data, lambda logits: logits.float(), **options):
        assert values.dtype == torch.float32
        assert mean[:, slices, rows].isnan().all(), "everything once"
        mean[:, slices, rows] = values
    return mean


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spare_bytes", [2**29, -(2**40)], ids=["memory", "file"])
@pytest.mark.parametrize("slab_bytes", [1, 2**28])
def test_every_axis_is_restored(shape, spare_bytes, slab_bytes, tmp_path):
    data = coordinates(shape)

    def model(tiles):
        return torch.cat([tiles, 1 - tiles], 1)

    mean = averaged(window(model, 2, slab_bytes), data, spare_bytes=spare_bytes, scratch=tmp_path)
    torch.testing.assert_close(mean, torch.cat([data, 1 - data]), atol=1e-3, rtol=0)
    assert not list(tmp_path.iterdir()), "the temporary file is gone"


def test_planes_are_shown_in_the_order_of_the_axes():
    shape = (17, 21, 23)
    z, y, x = (torch.tensor(a, dtype=torch.float32)[None] for a in np.meshgrid(*map(np.arange, shape), indexing="ij"))
    seen: list[Any] = []

    def model(tiles):
        rows = tiles[:, :, 1, 0] - tiles[:, :, 0, 0]
        columns = tiles[:, :, 0, 1] - tiles[:, :, 0, 0]
        seen.extend(zip(rows.argmax(1).tolist(), columns.argmax(1).tolist(), strict=True))
        return torch.zeros(len(tiles), 1, PATCH, PATCH)

    averaged(window(model, 1), torch.cat([z, y, x]))
    assert set(seen) == {(0, 2), (0, 1), (1, 2)}, "(rows, columns) of xz, yz and xy"


def test_a_model_that_is_perfect_in_one_plane_only():
    """Each plane votes with its probabilities, not with its labels: a sure plane outvotes two unsure ones."""
    shape = (20, 18, 22)
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    truth = torch.tensor((z // 3 + y // 4 + x // 5) % 2)

    def model(tiles):
        answer, along_rows = tiles[:, 0], tiles[:, 1, 1, 0] - tiles[:, 1, 0, 0]
        in_xy = (along_rows > 0).float()[:, None, None]  # the second channel grows with y
        sure = answer * 0.98 + 0.01
        unsure = 0.5 + 0.2 * (0.5 - answer)
        value = in_xy * sure + (1 - in_xy) * unsure
        return torch.stack([1 - value, value], 1)

    data = torch.stack([truth.float(), torch.tensor(y, dtype=torch.float32)])
    mean = averaged(window(model, 2), data)
    assert torch.equal(mean.argmax(0), truth)


def smooth(shape, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray((100 + rng.normal(0, 20, shape)).clip(1), np.float32)


def predictor(folder, **settings) -> Predictor:
    return Predictor.from_model_folder(folder, device="cpu", settings=PredictionSettings(**settings))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.2, 1.4, 1.4)])
def test_equals_three_stack_predictions(tmp_path, spacing):
    """Through nnU-Net's preprocessing and back: the mean of the probabilities of the turned volume."""
    folder = make_model(tmp_path / "model", ending=".tif", reader="Tiff3DIO", spacing=(1.2, 1.2))
    image = smooth((1, 20, 36, 40))
    whole, stack = predictor(folder, mode="orthoplane"), predictor(folder)
    data, properties = stack.preprocess_array(image, {"spacing": spacing})
    planes = []
    for axis in range(3):
        logits = stack.predict_logits(data.movedim(1 + axis, 1))
        planes.append(logits.float().softmax(0).movedim(1, 1 + axis))
    mean = stack.grid(data, properties).resample((planes[0] + planes[1] + planes[2]) / 3)
    labels, probabilities = whole.predict(image, spacing, probabilities=True)
    np.testing.assert_allclose(probabilities, mean, atol=2e-3)
    assert (labels == mean.argmax(0).numpy()).mean() > 0.999
    assert (whole.predict(image, spacing) == labels).mean() > 0.999
    assert (stack.predict(image, spacing) != labels).any(), "else the test would show nothing"
    assert labels.shape == image.shape[1:]


def test_regions(tmp_path):
    labels = {"background": 0, "any": [1, 2], "two": [2]}
    folder = make_model(tmp_path / "model", labels=labels, ending=".tif", reader="Tiff3DIO")
    found = predictor(folder, mode="orthoplane").predict(smooth((1, 20, 20, 20)), (1, 1, 1))
    assert set(np.unique(found)) <= {0, 1, 2}


def test_the_mode_of_the_data_set_and_of_the_user(tmp_path):
    folder = make_model(tmp_path / "model", retina={"inference": "orthoplane"}, labels=LABELS)
    assert predictor(folder).mode == "orthoplane"
    assert predictor(folder, mode="stack").mode == "stack"
    assert predictor(make_model(tmp_path / "other")).mode == "stack"


def test_2d_image(tmp_path):
    folder = make_model(tmp_path / "model")
    with pytest.raises(RetinaError, match=r"2D image of 40 x 50 pixels has no xz and yz planes.*--stack"):
        predictor(folder, mode="orthoplane").predict(smooth((1, 40, 50)), (1, 1))


def test_anisotropic_volume(tmp_path):
    with pytest.raises(RetinaError, match=r"voxels \(z, y, x\) are 40 x 4 x 4, 10.0 to 1.*--stack.*--force"):
        check_volume((20, 20, 20), Spacing(40, 4, 4))
    check_volume((20, 20, 20), Spacing(40, 4, 4), force=True)
    check_volume((20, 20, 20), Spacing(6, 4, 4))
    folder = make_model(tmp_path / "model", ending=".tif", reader="Tiff3DIO")
    with pytest.raises(RetinaError, match=r"are 4 x 1 x 1, 4.0 to 1"):
        predictor(folder, mode="orthoplane").predict(smooth((1, 20, 20, 20)), (4, 1, 1))
    forced = predictor(folder, mode="orthoplane", force=True).predict(smooth((1, 20, 20, 20)), (4, 1, 1))
    assert forced.shape == (20, 20, 20)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a full disk shows later here")
def test_no_room_for_the_temporary_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RetinaError, match=r"no room for a temporary file of .* GiB .*No space left on device"):
        averaged(window(lambda tiles: tiles, 1), coordinates((20, 20, 20)), spare_bytes=-(2**40), scratch=tmp_path)
