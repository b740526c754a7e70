"""``retina_volume rescale``: the values of nnU-Net's resampling of the whole slices, block by block."""

import json

import numpy as np
import pytest
from helpers.ome_volumes import cells, labels, needs_zarr, write
from skimage.transform import resize

from nnunetv2_retina.commands import volume as command
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.volumes.blocks import cut
from nnunetv2_retina.volumes.rescale import Rescaling
from nnunetv2_retina.volumes.tasks import Input

pytestmark = needs_zarr


@pytest.mark.parametrize("shape", [(1, 100, 130), (1, 210, 171), (1, 40, 300)])
def test_blocks_are_those_of_the_whole_slice(tmp_path, shape):
    image = cells((1, 150, 170)).astype(np.float64)
    volume = open_volume(write(tmp_path / "in.zarr", image))
    (level,) = volume.levels
    task = Rescaling("", Input.of(volume, level), shape, "")
    expected = resize(image[0], shape[1:], order=3, mode="edge", anti_aliasing=False, clip=False)
    for block in cut(shape, (1, 32, 64)):
        np.testing.assert_allclose(task.resampled(block.box)[0], expected[block.box[1:]], atol=1e-4)


def test_a_mask_stays_one(tmp_path):
    mask = cells((1, 40, 40)) > 120
    write(tmp_path / "in.zarr", mask, spacing=(4, 4, 4))
    assert command.main(["rescale", str(tmp_path / "in.zarr"), str(tmp_path / "out.zarr"), "--spacing", "5,5"]) == 0
    assert labels(tmp_path / "out.zarr").mean() == pytest.approx(mask.mean(), abs=0.03)


@pytest.mark.parametrize("spacing", ["8", "8,0", "4,8,8", "a,b"])
def test_the_spacing_of_a_pixel(tmp_path, capsys, spacing):
    assert command.main(["rescale", "in.zarr", str(tmp_path / "out.zarr"), "--spacing", spacing]) == 2
    assert f"--spacing {spacing}; expected two numbers above 0, Y,X in nm" in capsys.readouterr().err


def test_nothing_moves(tmp_path):
    rows, columns = np.mgrid[:160, :160]
    blob = (255 * np.exp(-((rows - 80) ** 2 + (columns - 80) ** 2) / 200)).astype(np.uint8)[None]
    write(tmp_path / "in.zarr", blob, spacing=(40, 4, 4))
    assert command.main(["rescale", str(tmp_path / "in.zarr"), str(tmp_path / "out.zarr"), "--spacing", "16,16"]) == 0
    centres = []
    for folder in (tmp_path / "in.zarr", tmp_path / "out.zarr"):
        (level,) = open_volume(folder).levels
        values = labels(folder)[0].astype(float)
        middle = (np.arange(level.shape[1]) * values.sum(1)).sum() / values.sum()
        centres.append(level.origin[1] + middle * level.spacing.y)
    assert centres == pytest.approx([320, 320], abs=0.05)


def test_the_command_writes_a_volume_at_the_spacing(tmp_path):
    image = cells((3, 60, 40))
    write(tmp_path / "in.zarr", image, spacing=(40, 4, 4), origin=(100, 200, 300))
    arguments = ["rescale", str(tmp_path / "in.zarr"), str(tmp_path / "out.zarr"), "--spacing", "5,8"]
    assert command.main(arguments) == 0 == command.main(arguments)
    (level,) = open_volume(tmp_path / "out.zarr").levels
    assert level.shape == (3, 48, 20) and tuple(level.spacing) == (40, 5, 8) and level.dtype == "uint8"
    expected = resize(image[0].astype(float), (48, 20), order=3, mode="edge", anti_aliasing=False, clip=False)
    np.testing.assert_allclose(labels(tmp_path / "out.zarr")[0], expected, atol=0.51)
    assert level.origin == (100.0, 200.5, 302.0), "the image's border stays where it is"
    assert "image-label" not in json.loads((tmp_path / "out.zarr/zarr.json").read_text())["attributes"]["ome"]
