"""N5 volumes, by the conventions that are in use for the size of their voxels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.ome_volumes import cells

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.n5 import Stated, is_n5, stated_place
from nnunetv2_retina.images.ome_zarr import StoredArray, is_zarr, open_volume

tensorstore = pytest.importorskip("tensorstore")
IMAGE = cells((9, 20, 30)).astype(np.uint16) * 200


def write(folder: Path, image: np.ndarray, attributes: dict[str, Any] | None = None) -> Path:
    """Write an array, whose axes N5 lists x first."""
    metadata = {
        "dimensions": image.shape[::-1], "blockSize": [16, 8, 4][: image.ndim], "dataType": image.dtype.name,
        "compression": {"type": "gzip"},
    }  # fmt: skip
    kvstore = {"driver": "file", "path": f"{folder}/"}
    spec = {"driver": "n5", "kvstore": kvstore, "metadata": metadata, "create": True}
    tensorstore.open(spec).result().write(image.T).result()
    note(folder, attributes or {})
    return folder


def note(folder: Path, attributes: dict[str, Any]) -> None:
    """Add attributes to what a folder has."""
    path = folder / "attributes.json"
    contents = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**contents, **attributes}))


def pyramid(folder: Path, own: list[dict[str, Any]], group: dict[str, Any]) -> Path:
    note_folder = folder / "em"
    for number, attributes in enumerate(own):
        write(note_folder / f"s{number}", IMAGE[:, :: 2**number, :: 2**number], attributes)
    note(note_folder, group)
    return note_folder


def cosem(y: float) -> dict[str, Any]:
    start = [0, (y - 4) / 2, (y - 4) / 2]
    return {"transform": {"axes": ["z", "y", "x"], "scale": [40, y, y], "translate": start, "units": ["nm"] * 3}}


CONVENTIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "COSEM": ([cosem(4), cosem(8)], {}),
    "n5-viewer, levels": (
        [{"pixelResolution": {"unit": "um", "dimensions": [0.004, 0.004, 0.04]}},
         {"pixelResolution": {"unit": "um", "dimensions": [0.004, 0.004, 0.04]}, "downsamplingFactors": [2, 2, 1]}],
        {},
    ),
    "n5-viewer, group": (
        [{}, {}],
        {"pixelResolution": {"unit": "nm", "dimensions": [4, 4, 40]}, "scales": [[1, 1, 1], [2, 2, 1]]},
    ),
    "the finest alone": ([cosem(4), {}], {}),
}  # fmt: skip


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_levels_and_their_spacing(tmp_path: Path, convention: str) -> None:
    own, group = CONVENTIONS[convention]
    address = pyramid(tmp_path / "cell.n5", own, group)
    volume = open_volume(address)
    assert volume.version == "N5"
    assert is_zarr(address) and [level.path for level in volume.levels] == ["s0", "s1"] and volume.name == "em"
    first, second = volume.levels
    assert (first.shape, first.dtype, first.chunks) == ((9, 20, 30), "uint16", (4, 8, 16))
    assert tuple(first.spacing) == pytest.approx((40, 4, 4)) and first.spacing.unit == "nm"
    assert second.shape == (9, 10, 15) and tuple(second.spacing) == pytest.approx((40, 8, 8))
    assert first.origin == (0.0, 0.0, 0.0) and second.origin == pytest.approx((0, 2, 2))
    part = StoredArray(volume.address, first).read((slice(1, 9), slice(3, 20), slice(0, 30)))
    np.testing.assert_array_equal(part, IMAGE[1:9, 3:20])
    assert part.dtype.isnative
    assert tuple(open_volume(address, (30, 5, 6)).levels[1].spacing) == pytest.approx((30, 10, 12))


def test_paintera_states_no_unit() -> None:
    stated = Stated((40.0, 5.0, 4.0), (0.0, 0.0, 0.0), ("", "", ""))
    assert stated_place({}, {"resolution": [4, 5, 40]}, 0) == stated
    assert stated_place({}, {"resolution": [4, 5, 40]}, 1) is None
    moved = stated_place({"resolution": [4, 5, 40], "offset": [100, 200, 300], "downsamplingFactors": [2, 2, 1]}, {}, 1)
    assert moved == Stated((40.0, 10.0, 8.0), (300.0, 202.5, 102.0), ("", "", ""))


def test_where_a_volume_begins(tmp_path: Path) -> None:
    start = {"axes": ["x", "y", "z"], "scale": [4, 4, 40], "translate": [3, 2, 1], "units": ["um"] * 3}
    (level,) = open_volume(write(tmp_path / "a.n5", IMAGE, {"transform": start})).levels
    assert level.origin == (1000.0, 2000.0, 3000.0)


def test_an_array_without_the_size_of_its_voxels(tmp_path: Path) -> None:
    address = write(tmp_path / "raw.n5", IMAGE)
    with pytest.raises(RetinaError, match=r"N5 volume without the size of its voxels. Add --spacing Z,Y,X in nm"):
        open_volume(address)
    volume = open_volume(address, (40, 4, 4))
    assert volume.levels[0].path == "" and volume.levels[0].spacing.unit == "nm"
    assert open_volume(address, unstated=(1, 1, 1)).version is None


def test_blocks_that_are_missing_are_0_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    address = write(tmp_path / "raw.n5", IMAGE, cosem(4))
    blocks = sorted(path for path in address.rglob("*") if path.is_file() and path.name != "attributes.json")
    blocks[0].unlink()
    blocks[-1].write_bytes(blocks[-1].read_bytes()[:-9])
    volume = open_volume(address)
    array = StoredArray(volume.address, volume.levels[0])
    assert not array.read((slice(0, 4), slice(0, 8), slice(0, 16))).any()
    with pytest.raises(RetinaError, match=r"z 0:9, y 0:20, x 0:30 cannot be read"):
        array.read((slice(0, 9), slice(0, 20), slice(0, 30)))


def test_what_is_no_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid(tmp_path / "cell.n5", [cosem(4)], {})
    with pytest.raises(RetinaError, match=r"holds no levels s0, s1, ... but em/s0. Give .*cell.n5/em"):
        open_volume(tmp_path / "cell.n5")
    with pytest.raises(RetinaError, match=r"no N5 volume .*none.n5: no such folder"):
        open_volume(tmp_path / "none.n5")
    (tmp_path / "empty.n5").mkdir()
    with pytest.raises(RetinaError, match=r"neither attributes.json nor arrays"):
        open_volume(tmp_path / "empty.n5")
    write(tmp_path / "unit.n5", IMAGE, {"pixelResolution": {"unit": "parsec", "dimensions": [1, 1, 1]}})
    with pytest.raises(RetinaError, match="its axes are in 'parsec'"):
        open_volume(tmp_path / "unit.n5")
    write(tmp_path / "odd.n5", IMAGE, {"transform": {"axes": ["a", "b", "c"], "scale": [1, 1, 1]}})
    with pytest.raises(RetinaError, match=r"odd.n5: its attributes cannot be read \(ValueError"):
        open_volume(tmp_path / "odd.n5")
    note(tmp_path / "unit.n5", {"pixelResolution": [4, 4, 40], "compression": {"type": "lz4"}})
    with pytest.raises(RetinaError, match=r'"lz4" is not registered\). Write them anew, or the volume as OME-Zarr'):
        open_volume(tmp_path / "unit.n5")
    (tmp_path / "odd.n5" / "attributes.json").write_text("{")
    with pytest.raises(RetinaError, match=r"attributes.json cannot be read"):
        open_volume(tmp_path / "odd.n5")
    monkeypatch.setitem(__import__("sys").modules, "tensorstore", None)
    with pytest.raises(RetinaError, match=r'need tensorstore.*pip install "nnunetv2-retina\[n5\]"'):
        open_volume(tmp_path / "unit.n5")


def test_what_lies_beside_arrays_in_an_n5_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "cell.n5" / "labels.zarr").mkdir(parents=True)
    (tmp_path / "cell.n5" / "slice.png").touch()
    assert is_n5(tmp_path / "cell.n5" / "em" / "s0") and is_n5("s3://bucket/cell.n5/em")
    assert not is_n5(tmp_path / "cell.n5" / "labels.zarr") and not is_n5(tmp_path / "cell.n5" / "slice.png")
