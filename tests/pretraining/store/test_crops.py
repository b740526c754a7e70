"""Crops drawn from a stored volume: the volume's own voxels, the same for a seed, empty ones left out, resumed."""

import csv
import io
import re

import numpy as np
import pytest
from helpers.checks import known
from helpers.ome_volumes import cells, needs_zarr, write
from PIL import Image

from nnunetv2_retina.errors import RetinaError
from pretraining import cli
from pretraining.store.archives import open_source
from pretraining.store.decoding import RejectionError
from pretraining.store.drawing import Drawing
from pretraining.store.packing import pack

pytestmark = needs_zarr
CHUNKS = (32, 64, 64)


@pytest.fixture(scope="module")
def image():
    """(240, 260, 280) uint8, its upper half resin."""
    image = cells((240, 260, 280))
    image[120:] = np.random.default_rng(1).integers(128, 131, (120, 260, 280))
    return image


@pytest.fixture(scope="module")
def volume(image, tmp_path_factory):
    return write(tmp_path_factory.mktemp("crops") / "tissue.zarr", image, chunks=CHUNKS, spacing=(8, 8, 8))


def place(name):
    plane, z, y, x = name.removesuffix(".png").split("_")
    return plane, int(z[1:]), int(y[1:]), int(x[1:])


def test_crops_are_the_volume_s_own_voxels_in_all_three_planes(image, volume):
    planes = set()
    for file in open_source(volume, Drawing(crops=12)):
        plane, z, y, x = place(file.name)
        planes.add(plane)
        box = {"xy": (z, slice(y, y + 224), slice(x, x + 224)), "xz": (slice(z, z + 224), y, slice(x, x + 224)),
               "yz": (slice(z, z + 224), slice(y, y + 224), x)}[plane]  # fmt: skip
        try:
            crop = np.asarray(Image.open(io.BytesIO(known(file.read)())))
        except RejectionError as rejection:
            assert str(rejection).startswith("empty: ") and plane == "xy" and z >= 120
        else:
            np.testing.assert_array_equal(crop, image[box])
            assert file.group == "tissue.zarr"
    assert planes == {"xy", "xz", "yz"}


def test_places_follow_from_the_seed_and_stay_in_the_box(volume):
    def names(**drawing):
        return [file.name for file in open_source(volume, Drawing(**drawing))]

    assert names(crops=9) == names(crops=9) != names(crops=9, crop_seed=1)
    inside = [place(name) for name in names(crops=9, box="10:30,:,:")]
    assert {plane for plane, *_ in inside} == {"xy"} and all(10 <= z < 30 for _, z, _, _ in inside)


def test_flat_voxels_give_xy_alone_and_wide_types_are_scaled(image, tmp_path):
    wide = (image.astype(np.float32) - 90) * 1e-3
    path = write(tmp_path / "wide.zarr", wide[:20], chunks=CHUNKS, spacing=(50, 8, 8))
    files = list(open_source(path, Drawing(crops=5)))
    crops = [np.asarray(Image.open(io.BytesIO(known(file.read)()))) for file in files]
    assert {place(file.name)[0] for file in files} == {"xy"}
    assert min(crop.min() for crop in crops) == 0 and max(crop.max() for crop in crops) == 255


def test_packing_leaves_out_empty_crops_and_goes_on_after_a_stop(volume, tmp_path):
    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    drawing = Drawing(crops=24)
    whole = pack(volume, tmp_path / "whole", drawing=drawing)
    with pytest.raises(KeyboardInterrupt):
        pack(volume, tmp_path / "stopped", drawing=drawing, progress=stop)
    again = pack(volume, tmp_path / "stopped", drawing=drawing)
    assert again.fingerprint == whole.fingerprint
    rejected = list(csv.DictReader((whole.path / "rejected.csv").read_text().splitlines()))
    assert rejected and len(rejected) + len(whole) == 24
    assert whole.manifest["source"]["drawn"]["crops"] == 24 and whole.groups == ("tissue.zarr",)
    with pytest.raises(RetinaError, match=r"is not what .* was packed from"):
        pack(volume, tmp_path / "whole", drawing=Drawing(crops=25))


def test_a_volume_of_padding_alone_is_said_to_be_empty(tmp_path):
    path = write(tmp_path / "void.zarr", np.zeros((4, 224, 224), np.uint8), chunks=CHUNKS)
    with pytest.raises(RetinaError, match=r"all 4 crops of .*void.zarr are empty"):
        pack(path, tmp_path / "store", drawing=Drawing(crops=9))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--box", "0:9,0:50,0:280"], "9 x 50 x 280 voxels .* expected at least 112 along y and x"),
        (["--box", "0:9"], "--box 0:9; expected z0:z1,y0:y1,x0:x1"),
        (["--level", "7"], "has no level 7; it has 0"),
        (["--crops", "0"], "--crops is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(volume, tmp_path, capsys, options, message):
    assert cli.main([str(volume), "-o", str(tmp_path / "out"), *options]) == 2
    assert re.search(f"^error: .*{message}", capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_options_of_crops_are_refused_for_a_folder(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    assert cli.main([str(tmp_path / "images"), "-o", str(tmp_path / "out"), "--crops", "5"]) == 2
    assert "are for Zarr volumes, and" in capsys.readouterr().err


def test_a_mask_is_refused(tmp_path):
    import zarr

    zarr.create_array(tmp_path / "mask.zarr", shape=(4, 300, 300), chunks=(1, 256, 256), dtype=bool)
    with pytest.raises(RetinaError, match=r"mask.zarr holds true and false, a mask; expected grey levels"):
        open_source(tmp_path / "mask.zarr")
