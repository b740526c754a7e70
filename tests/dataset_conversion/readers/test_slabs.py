"""Volumes that are read slab by slab hold what the same files hold when they are read whole."""

import re

import h5py
import nibabel
import numpy as np
import pytest
from helpers.large_volumes import DEEP, LAYOUTS, VOLUME, hdf5, make_large, tiff, write_layout
from helpers.ome_volumes import needs_zarr
from helpers.ome_volumes import write as write_zarr

from dataset_conversion.readers.images import open_image, read_image
from dataset_conversion.readers.slabs import Slabs, mapped, plane_ranges, planes, slabs, whole
from nnunetv2_retina.errors import RetinaError


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_large_volume_is_what_it_is_when_read_whole(tmp_path, monkeypatch, name, mask):
    path = write_layout(name, tmp_path)
    expected = read_image(path, mask=mask)
    assert isinstance(open_image(path, mask=mask).array, np.ndarray)
    make_large(monkeypatch)
    opened = open_image(path, mask=mask)
    assert isinstance(opened.array, Slabs)
    assert (opened.array.shape, opened.array.dtype) == (expected.array.shape, expected.array.dtype)
    for _ in range(2):
        parts = list(slabs(opened.array))
        assert len(parts) > 2
        assert [z for z, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts[:-1])]).tolist()
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), expected.array)
        assert {part.dtype for _, part in parts} == {expected.array.dtype}
    facts = ("spacing", "remarks", "place")
    assert all(getattr(opened, fact) == getattr(expected, fact) for fact in facts)
    np.testing.assert_array_equal(read_image(path, mask=mask).array, expected.array)


@needs_zarr
def test_a_box_of_a_zarr_volume_is_read_in_the_depth_of_its_chunks(tmp_path, monkeypatch):
    path = write_zarr(tmp_path / "in.zarr", VOLUME, chunks=(4, 16, 16))
    make_large(monkeypatch)
    opened = open_image(path, box="3:10,2:18,:").array
    assert isinstance(opened, Slabs)
    assert [len(block) for block in opened.blocks()] == [1, 4, 2]
    np.testing.assert_array_equal(whole(opened), VOLUME[3:10, 2:18])


def scaled(path):
    image = nibabel.Nifti1Image(DEEP.T.astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2, 5)
    nibabel.save(image, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("one_chunk.h5", hdf5(VOLUME, chunks=VOLUME.shape)),
        ("shreds.h5", hdf5(VOLUME.transpose(2, 1, 0), "xyz")),
        ("one_plane.h5", hdf5(VOLUME[:1])),
        ("image.tif", tiff(VOLUME[0])),
        ("scaled.nii.gz", scaled),
    ],
)
def test_what_cannot_be_parted_is_read_whole(tmp_path, monkeypatch, name, write):
    write(tmp_path / name)
    expected = read_image(tmp_path / name).array
    make_large(monkeypatch)
    array = open_image(tmp_path / name).array
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, expected)


def test_a_volume_larger_than_memory_can_be_opened_but_not_read(tmp_path, monkeypatch):
    paths = [tmp_path / "a.h5", tmp_path / "a.tif"]
    hdf5(DEEP)(paths[0])
    tiff(DEEP)(paths[1])
    make_large(monkeypatch)
    for module in ("images", "hdf5"):
        monkeypatch.setattr(f"dataset_conversion.readers.{module}.memory_bytes", lambda: DEEP.nbytes - 1)
    for path in paths:
        np.testing.assert_array_equal(np.stack(list(planes(open_image(path).array))), DEEP)
        with pytest.raises(RetinaError, match=re.escape(f"{path}: its header says 11 x 20 x 24, 10.6 kB decoded")):
            read_image(path)


def test_a_size_without_data_for_it_is_not_believed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (10**5, 10**5, 10**4), np.uint8, chunks=(1, 100, 100))[0, 0, 0] = 1
    with pytest.raises(RetinaError, match=r"its header says 100000 x 100000 x 10000, .* expected at most"):
        open_image(tmp_path / "a.h5")


def test_a_chunk_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    hdf5(DEEP, chunks=(6, 20, 24))(tmp_path / "a.h5")
    make_large(monkeypatch)
    monkeypatch.setattr("dataset_conversion.readers.hdf5.memory_bytes", lambda: DEEP[:6].nbytes - 1)
    with pytest.raises(RetinaError, match="its header says 6 x 20 x 24"):
        open_image(tmp_path / "a.h5")


@pytest.mark.parametrize(("depth", "first", "ends"), [(1, 0, [3, 6, 7]), (2, 0, [2, 4, 6, 7]), (5, 0, [5, 7]),
                                                      (5, 3, [2, 7]), (2, 1, [1, 3, 5, 7])])  # fmt: skip
def test_slabs_end_between_chunks(monkeypatch, depth, first, ends):
    make_large(monkeypatch)
    parts = list(plane_ranges((7, *VOLUME.shape[1:]), np.uint8, depth, first))
    assert [part.stop for part in parts] == ends
    assert [part.start for part in parts] == [0, *ends[:-1]]


@pytest.mark.parametrize("shape", [(7, 20, 24), (20, 24)])
def test_arrays_are_gone_through_in_slabs_too(monkeypatch, shape):
    array = VOLUME.ravel()[: np.prod(shape)].reshape(shape)
    make_large(monkeypatch)
    assert [(z, len(part)) for z, part in slabs(array)] == ([(0, 3), (3, 3), (6, 1)] if len(shape) > 2 else [(0, 1)])
    plus = mapped(array, lambda z, part: part + np.arange(z, z + len(part))[:, None, None], np.int64)
    np.testing.assert_array_equal(plus, array + (np.arange(7)[:, None, None] if len(shape) > 2 else 0))


def test_a_fault_in_the_middle_is_told_as_one_at_the_beginning(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    hdf5(VOLUME, chunks=(4, 20, 24), fletcher32=True)(path)
    with h5py.File(path) as file:
        place = file["raw"].id.get_chunk_info(1).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(RetinaError) as whole_error:
        read_image(path)
    make_large(monkeypatch)
    opened = iter(slabs(open_image(path).array))
    next(opened)
    with pytest.raises(RetinaError) as error:
        list(opened)
    assert str(error.value) == str(whole_error.value) and f"{path}: cannot be read as h5" in str(error.value)
