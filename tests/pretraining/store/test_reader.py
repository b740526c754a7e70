"""Reading a store: what comes out is what went in, and nothing damaged is read in silence."""

import json
import pickle
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile

from nnunetv2_retina.errors import RetinaError
from pretraining.store.layout import INDEX, fastest_crc32, manifest_checksum
from pretraining.store.packing import pack
from pretraining.store.reader import ImageStore

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 224, 224), dtype=np.uint8)
NAMES = ["a/0.tif", "a/1.tif", "a/2.tif", "b/3.tif", "b/4.tif", "b/big.tif [y=0, x=0]", "b/big.tif [y=0, x=224]"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    for name, image in zip(NAMES[:5], IMAGES, strict=False):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / "images" / name, image)
    tifffile.imwrite(root / "images" / "b" / "big.tif", np.concatenate([IMAGES[5], IMAGES[6]], axis=1))
    return pack(root / "images", root / "store").path


@pytest.fixture
def path(packed, tmp_path):
    """A copy to damage."""
    for file in packed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def edit(path, **changes):
    """Change the manifest as another version of the program would."""
    manifest = json.loads((path / "store.json").read_text()) | changes
    (path / "store.json").write_text(json.dumps(manifest | {"checksum": manifest_checksum(manifest)}))


def test_what_it_says_of_itself(packed):
    store = ImageStore(packed)
    assert len(store) == 7
    assert store.groups == ("a", "b")
    assert store.group_index.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert store.checksums.tolist() == [zlib.crc32(image.tobytes()) for image in IMAGES]
    assert store.group_index.dtype == np.int32 and store.checksums.dtype == np.uint32
    assert list(store.names()) == NAMES
    assert [store.name(index) for index in range(7)] == NAMES
    assert store.mean == pytest.approx((IMAGES / 255).mean(), rel=1e-12)
    assert store.std == pytest.approx((IMAGES / 255).std(), rel=1e-12)
    assert store.fingerprint == ImageStore(packed).fingerprint
    assert len(store.fingerprint) == 64


def test_random_access(packed):
    store = ImageStore(packed)
    indices = np.array([6, 0, 3, 3, 5])
    np.testing.assert_array_equal(store.read(indices), IMAGES[indices])
    out = np.empty((5, 224, 224), np.uint8)
    assert store.read(indices.astype(np.uint8), out) is out
    np.testing.assert_array_equal(out, IMAGES[indices])
    assert store.read(np.array([], np.int64)).shape == (0, 224, 224)


def test_slices_of_a_larger_array_can_be_filled(packed):
    out = np.zeros((4, 224, 224), np.uint8)
    ImageStore(packed).read(np.array([1, 2]), out[1:3])
    np.testing.assert_array_equal(out[1:3], IMAGES[1:3])
    assert not out[[0, 3]].any()


def test_wrong_arguments(packed):
    store = ImageStore(packed)
    for wrong in ([7], [-1]):
        with pytest.raises(IndexError, match="expected 0 to 6"):
            store.read(np.array(wrong))
    wrong_arrays: list[Any] = [
        np.empty((1, 224, 224), np.uint8),
        np.empty((2, 224, 224)),
        np.empty((2, 224, 448), np.uint8)[..., ::2],
    ]
    for out in wrong_arrays:
        with pytest.raises(ValueError, match="expected C-contiguous uint8"):
            store.read(np.array([0, 1]), out)


def test_survives_pickling(packed):
    store = pickle.loads(pickle.dumps(ImageStore(packed)))
    np.testing.assert_array_equal(store.read(np.arange(7)), IMAGES)


def test_reading_without_positioned_reads(packed, monkeypatch):
    monkeypatch.delattr("os.preadv")  # Windows
    np.testing.assert_array_equal(ImageStore(packed).read(np.array([4, 1])), IMAGES[[4, 1]])


def test_both_checksums_agree(monkeypatch):
    data = IMAGES[0].reshape(-1).data
    assert fastest_crc32()(data) == zlib.crc32(data)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert fastest_crc32() is zlib.crc32


def test_verify(packed):
    calls = []
    ImageStore(packed).verify(lambda *numbers: calls.append(numbers))
    assert calls == [(7, 7)]


def test_reading_needs_numpy_alone(packed):
    code = f"""
import sys
for name in ("torch", "tifffile", "imagecodecs", "PIL", "nnunetv2"):
    sys.modules[name] = None
import numpy
from pretraining.store.reader import ImageStore
print(ImageStore({str(packed)!r}).read(numpy.arange(7)).sum())
"""
    result = subprocess.run([sys.executable, "-c", code], stdout=-1, text=True, check=True)
    assert int(result.stdout) == int(IMAGES.sum())


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("position", [0, 3 * 50176 + 77, 7 * 50176 - 1])
def test_flipped_bit_in_the_images(path, position):
    flip(path / "images.bin", position)
    store = ImageStore(path)
    damaged = position // 50176
    good = np.delete(np.arange(7), damaged)
    np.testing.assert_array_equal(store.read(good), IMAGES[good])
    text = rf"image {damaged} \({NAMES[damaged].split(' ')[0]}.*\) differs from what was packed .*Copy the store again"
    for read in (lambda: store.read(np.arange(7)), store.verify):
        with pytest.raises(RetinaError, match=text):
            read()


@pytest.mark.parametrize("name", ["index.bin", "names.txt"])
@pytest.mark.parametrize("position", [0, 20, -1])
def test_flipped_bit_in_index_or_names(path, name, position):
    flip(path / name, position)
    with pytest.raises(RetinaError, match=r"index.bin or names.txt is damaged .* pack it again: retina_pretrain pack"):
        ImageStore(path)


@pytest.mark.parametrize("position", [0, 30, 100, 250, -1])
def test_flipped_bit_in_the_manifest(path, position):
    flip(path / "store.json", position)
    with pytest.raises(RetinaError, match=r"is damaged|cannot be read as JSON|store of format version"):
        ImageStore(path)


def test_edited_manifest(path):
    manifest = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(manifest | {"mean": 0.5}))
    with pytest.raises(RetinaError, match="was edited: its checksum does not fit"):
        ImageStore(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\0"])
def test_manifest_of_something_else(path, content):
    (path / "store.json").write_text(content)
    with pytest.raises(
        RetinaError, match=r"store.json (is damaged|cannot be read as JSON|holds a list).*Copy the store again"
    ):
        ImageStore(path)


def test_other_version(path):
    edit(path, format_version=2)
    with pytest.raises(RetinaError, match=r"store of format version 2; this installation reads version 1. Install"):
        ImageStore(path)


@pytest.mark.parametrize("name", ["images.bin", "index.bin", "names.txt"])
def test_short_or_missing_file(path, name):
    length = (path / name).stat().st_size
    (path / name).write_bytes((path / name).read_bytes()[:-1])
    with pytest.raises(RetinaError, match=rf"{name} has {length - 1:,} bytes; expected {length:,}"):
        ImageStore(path)
    (path / name).unlink()
    with pytest.raises(RetinaError, match=f"{name} is missing. Copy the store again"):
        ImageStore(path)


def test_file_cut_short_while_open(path):
    store = ImageStore(path)
    with open(path / "images.bin", "r+b") as file:
        file.truncate(5 * 50176 + 1)
    with pytest.raises(RetinaError, match=r"image 5 .* is cut short"):
        store.read(np.arange(7))


def test_disk_that_fails(packed, monkeypatch):
    store = ImageStore(packed)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", fail)
    with pytest.raises(RetinaError, match=r"images.bin cannot be read \(Input/output error\)"):
        store.read(np.arange(2))


def test_no_store(path, tmp_path):
    with pytest.raises(RetinaError, match=r"no image store at .*gone: no such folder. Pack one"):
        ImageStore(tmp_path / "gone")
    with pytest.raises(RetinaError, match="that is a file"):
        ImageStore(path / "images.bin")
    (path / "store.json").unlink()
    with pytest.raises(RetinaError, match=r"is not an image store \(no store.json\)"):
        ImageStore(path)
    (path / "packing.json").touch()
    with pytest.raises(RetinaError, match=r"packing of this store is unfinished. Finish it with the command"):
        ImageStore(path)


def test_index_record_has_no_gaps():
    assert INDEX.itemsize == 36
