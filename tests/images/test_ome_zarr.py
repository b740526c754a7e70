"""Volumes that are opened, and those that are refused in one sentence."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.ome_volumes import cells, multiscales, needs_zarr, write

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.ome_zarr import StoredArray, is_zarr, open_volume

pytestmark = needs_zarr


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_and_their_units(tmp_path, version):
    image = cells((9, 20, 30)).astype(">u2")
    folder = write(tmp_path / "in.zarr", image, version, (0.04, 0.004, 0.004), levels=2, unit="micrometer")
    volume = open_volume(folder)
    assert volume.version == version and volume.name == "in.zarr" and is_zarr(folder)
    first, second = volume.levels
    assert (first.shape, first.dtype, first.chunks) == ((9, 20, 30), "uint16", (8, 16, 16))
    assert tuple(first.spacing) == pytest.approx((40, 4, 4)) and first.spacing.unit == "nm"
    assert second.shape == (9, 10, 15) and second.spacing.y == pytest.approx(8)
    part = StoredArray(volume.address, first).read((slice(1, 9), slice(3, 20), slice(0, 30)))
    np.testing.assert_array_equal(part, image[1:9, 3:20])
    assert part.dtype == np.uint16 and part.dtype.isnative
    assert tuple(open_volume(folder, (30, 5, 6)).levels[1].spacing) == pytest.approx((30, 10, 12))


def test_where_levels_begin(tmp_path):
    folder = write(tmp_path / "in.zarr", cells((9, 20, 30)), spacing=(0.04, 0.004, 0.004), unit="micrometer", levels=2)
    plain = open_volume(folder)
    assert [level.origin for level in plain.levels] == [(0.0, 0.0, 0.0)] * 2

    def moved(ome):
        (image,) = ome["multiscales"]
        for level, at in zip(image["datasets"], ([1, 2, 3], [1, 2.002, 3.002]), strict=True):
            level["coordinateTransformations"].append({"type": "translation", "translation": at})
        image["coordinateTransformations"] = [
            {"type": "scale", "scale": [2, 1, 1]},
            {"type": "identity"},
            {"type": "translation", "translation": [0, 0, -1]},
        ]

    changed(folder, moved)
    first, second = open_volume(folder).levels
    assert first.origin == pytest.approx((2000, 2000, 2000)) and second.origin == pytest.approx((2000, 2002, 2002))
    assert tuple(first.spacing) == pytest.approx((80, 4, 4))
    assert open_volume(folder, (40, 8, 4)).levels[1].origin == pytest.approx((1000, 4004, 2002))
    assert repr(replace(first, origin=(0.0, 0.0, 0.0))) == repr(first), "outputs that are begun go on"


def test_an_array_without_metadata(tmp_path):
    import zarr

    zarr.save_array(str(tmp_path / "raw.zarr"), np.ones((4, 5, 6), np.uint8))
    with pytest.raises(RetinaError, match=r"Zarr array without OME metadata. Add --spacing Z,Y,X in nm"):
        open_volume(tmp_path / "raw.zarr")
    (level,) = open_volume(tmp_path / "raw.zarr", (40, 4, 4)).levels
    assert level.shape == (4, 5, 6) and level.spacing.unit == "nm"
    volume = open_volume(tmp_path / "raw.zarr", (40, 4, 4))
    assert volume.level("0") == volume.level(".") == volume.level("") == level
    with pytest.raises(RetinaError, match="has no level 1; it has 0"):
        volume.level("1")
    with pytest.raises(RetinaError, match="Add --from-spacing Z,Y,X in nm"):
        open_volume(tmp_path / "raw.zarr", option="--from-spacing")


def changed(folder, change):
    """Change the metadata of a volume of version 0.5."""
    path = folder / "zarr.json"
    contents = json.loads(path.read_text())
    change(contents["attributes"]["ome"])
    path.write_text(json.dumps(contents))


def scale_of(ome):
    return ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda ome: ome.pop("multiscales"),
            r"without OME-Zarr's multiscales. It holds the arrays 0: give",
        ),
        (lambda ome: ome["multiscales"].append({}), "holds 2 multiscales; expected one image"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="7"), "name a level '7' that is not there"),
        (lambda ome: ome["multiscales"][0].pop("axes"), "lack or misspell 'axes'"),
        (lambda ome: ome["multiscales"][0]["axes"][0].update(unit="second"), "its axes are in 'second'; expected"),
        (lambda ome: ome["multiscales"][0]["axes"][0].update(name="t"), "has the axes t, y, x; expected z, y, x"),
        (lambda ome: ome["multiscales"][0]["datasets"].clear(), "holds no level"),
        (lambda ome: ome.update(multiscales=[["x"]]), r"multiscales hold \['x'\]; expected an object with axes"),
        (lambda ome: scale_of(ome).update(scale=[4, 4]), r"have the scale \[4, 4\]; expected 3 numbers, one for each"),
        (lambda ome: scale_of(ome).update(scale=["a", 4, 4]), r"the scale \['a', 4, 4\]; expected 3 numbers"),
        (lambda ome: scale_of(ome).update(scale=[4, 4, float("nan")]), r"the scale \[4, 4, nan\]; expected 3 numbers"),
        (lambda ome: scale_of(ome).update(scale=None), "the scale None; expected 3 numbers"),
        (lambda ome: scale_of(ome).update(type="translation", translation=[1]), r"the translation \[1\]; expected 3"),
        (lambda ome: scale_of(ome).update(type="affine"), "a transformation of type 'affine'; expected scale or"),
        (lambda ome: ome["multiscales"][0].update(coordinateTransformations=None), "lack or misspell 'NoneType'"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../0"), "a level '../0' that is not there"),
    ],
)
def test_wrong_metadata(tmp_path, change, message):
    folder = write(tmp_path / "in.zarr", cells((4, 5, 6)))
    changed(folder, change)
    with pytest.raises(RetinaError, match=message) as error:
        open_volume(folder)
    assert "\n" not in str(error.value)


def test_other_things_than_volumes(tmp_path):
    with pytest.raises(RetinaError, match=r"no Zarr volume .*: no such folder"):
        open_volume(tmp_path / "absent.zarr")
    folder = write(tmp_path / "odd.zarr", cells((4, 5, 6)))
    contents = json.loads((folder / "zarr.json").read_text())
    (folder / "zarr.json").write_text(json.dumps({**contents, "attributes": {"ome": 5}}))
    with pytest.raises(RetinaError, match="without OME-Zarr's multiscales"):
        open_volume(folder)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(RetinaError, match="is no Zarr volume that can be read"):
        open_volume(tmp_path / "empty.zarr")
    import zarr

    group = zarr.create_group(str(tmp_path / "two.zarr"), zarr_format=3)
    group.create_array("0", shape=(2, 4, 5, 6), chunks=(1, 4, 5, 6), dtype="uint8")
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscales([("0", (1, 1, 1, 1))], "czyx")]}
    with pytest.raises(RetinaError, match="so 2 times or channels; expected one"):
        open_volume(tmp_path / "two.zarr")


def test_a_damaged_chunk_is_named(tmp_path):
    folder = write(tmp_path / "in.zarr", cells((4, 20, 20)))
    volume = open_volume(folder)
    chunk = folder / "0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:9])
    with pytest.raises(RetinaError, match=r"in.zarr/0: z 0:4, y 0:20, x 0:20 cannot be read .*--box"):
        StoredArray(volume.address, volume.levels[0]).read((slice(0, 4), slice(0, 20), slice(0, 20)))


def test_without_zarr(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(RetinaError, match=r'need zarr 3.1.*pip install "nnunetv2-retina\[volumes\]"'):
        open_volume(tmp_path)
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(RetinaError, match=r"needs Python 3.11; this is 3.10"):
        open_volume(tmp_path)
