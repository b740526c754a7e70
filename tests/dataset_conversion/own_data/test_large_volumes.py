"""Volumes that stay in their files become the data set that the same volumes in memory become, or the same error."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from helpers.large_volumes import GREY, LAYOUTS, VOLUME, hdf5, itk, make_large, mrc, tiff, write_slices
from helpers.ome_volumes import needs_zarr
from helpers.ome_volumes import write as write_zarr
from helpers.raw_datasets import read_back

from dataset_conversion.own_data import layout
from dataset_conversion.own_data.folder import convert_folder
from dataset_conversion.own_data.new_images import convert_images
from dataset_conversion.readers import images, slabs
from dataset_conversion.readers.slabs import Slabs
from dataset_conversion.spec import Case, DatasetSpec
from dataset_conversion.writer.raw_dataset import write_raw_dataset
from nnunetv2_retina.errors import RetinaError

MASK = (VOLUME > 100).astype(np.uint8) + (VOLUME > 200)


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a data set; of the report all but its date."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    report = json.loads(found.pop("conversion_report.json"))
    return {**found, "report": {key: value for key, value in report.items() if key != "date"}}


def convert(source, root, **options):
    root.mkdir()
    try:
        return contents(convert_folder(source, 501, "Mine", root=root, **options))
    except RetinaError as error:
        assert list(root.iterdir()) == []
        return str(error)


def both_ways(source, tmp_path, monkeypatch, **options):
    """What a source becomes in memory, after checking that it becomes the same slab by slab."""
    opened = []

    def watched(original):
        def open_(*arguments, **others):
            image = original(*arguments, **others)
            opened.append(isinstance(image.array, Slabs))
            return image

        return open_

    in_memory = convert(source, tmp_path / "in_memory", **options)
    with monkeypatch.context() as patch:
        make_large(patch)
        for name in ("open_image", "open_slices"):
            patch.setattr(f"dataset_conversion.own_data.layout.{name}", watched(getattr(layout, name)))
        assert convert(source, tmp_path / "in_slabs", **options) == in_memory
    assert opened and all(opened)
    return in_memory


def write_pair(source, image=VOLUME, mask=MASK, write=hdf5, ending=".h5"):
    for part, array in (("images", image), ("masks", mask)):
        (source / part).mkdir(parents=True)
        write(array)(source / part / f"a{ending}")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("chunks.h5", "plain.h5"),
        ("float.h5", "bool.h5"),
        ("turned.h5", "grey.tif"),
        ("imod.rec", "signed.mrc"),
        ("packed.nii.gz", "plain.nrrd"),
        ("negative.tif", "negative.tif"),
        ("truncated.tif", "float.mrc"),
    ],
)
def test_formats(source, tmp_path, monkeypatch, image, mask):
    for part, name in (("images", image), ("masks", mask)):
        (source / part).mkdir()
        LAYOUTS[name](source / part / f"a{''.join(Path(name).suffixes)}")
    written = both_ways(source, tmp_path, monkeypatch, labels={"any": "cells"} if mask != "bool.h5" else None)
    assert isinstance(written, dict)


def test_slices(source, tmp_path, monkeypatch):
    write_slices(source / "images", VOLUME)
    write_slices(source / "masks", MASK * 100)
    written = both_ways(source, tmp_path, monkeypatch, slices=True, labels={100: "one", 200: "two"})
    assert written["report"]["cases"][0]["shape"] == list(VOLUME.shape)


@needs_zarr
def test_zarr_boxes(tmp_path, monkeypatch):
    write_zarr(tmp_path / "in.zarr", VOLUME, spacing=(40, 4, 4))
    write_zarr(tmp_path / "labels.zarr", MASK)
    options = {"mask": str(tmp_path / "labels.zarr"), "boxes": ["0:9,:,:", "2:11,0:10,4:24"]}
    written = both_ways(str(tmp_path / "in.zarr"), tmp_path, monkeypatch, **options)
    assert [case["name"] for case in written["report"]["cases"]] == ["in_0_0_0", "in_2_0_4"]


def test_black_borders_twins_and_annotated_boxes(source, tmp_path, monkeypatch):
    image = VOLUME.copy()
    image[3:, :4] = 0
    for name in "ab":
        write_pair(source / name, image)
    for part in ("images", "masks"):
        (source / part).mkdir()
        for name in "ab":
            (source / name / part / "a.h5").rename(source / part / f"{name}.h5")
    (source / "boxes").mkdir()
    (source / "boxes/b.txt").write_text("0:5,2:9,3:20\n4:11,0:20,8:9\n")
    written = both_ways(source, tmp_path, monkeypatch)
    first, second = written["report"]["cases"]
    assert first["padding"] == second["padding"] == round(8 * 4 * 24 / VOLUME.size, 6)
    assert "hold the same image" in " ".join(written["report"]["remarks"])
    annotated = 5 * 7 * 17 + 7 * 20 - 1 * 7  # the boxes share plane 4, rows 2 to 9, column 8
    assert second["label_counts"]["3"] == VOLUME.size - annotated


def test_stored_voxels(source, raw, monkeypatch):
    write_pair(source, GREY[..., 0].astype(np.int64) * 300 - 9000, MASK.astype(float))
    make_large(monkeypatch)
    image, label, spacing = read_back(convert_folder(source, 501, "Mine", root=raw), "a")
    np.testing.assert_array_equal(image, VOLUME.astype(np.float32) * 300 - 9000)
    np.testing.assert_array_equal(label, MASK)
    assert spacing == (40, 8, 4)


def changed(array, dtype, value, at=(7, 2, 3)):
    array = array.astype(dtype)
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("image", "mask", "options", "message"),
    [
        (changed(VOLUME, float, np.nan), MASK, {}, "1 NaN or infinite values, the first at z=7, y=2, x=3"),
        (changed(VOLUME, np.float32, -np.inf), MASK, {}, "1 NaN or infinite values, the first at z=7, y=2, x=3"),
        (VOLUME, changed(MASK, float, 0.5), {}, "the mask holds 0.5 at z=7, y=2, x=3 (1 values that are"),
        (VOLUME, changed(MASK, np.int32, 70000), {"labels": {1: "one", 2: "two"}},
         "label value 70000 is not declared (1 voxels, the first at z=7, y=2, x=3"),
        (VOLUME, changed(MASK, np.uint8, 255), {"labels": {1: "one"}}, "1 more such: 255); expected 0, 1. Name it"),
        (VOLUME, MASK[:, :-1], {}, "the image has shape (11, 20, 24), the mask (11, 19, 24)"),
        (VOLUME, MASK * 0, {}, "the masks hold no class"),
        (VOLUME, MASK.astype(complex), {}, "the mask has type complex128"),
        (VOLUME.astype(complex), MASK, {}, "the image has type complex128"),
    ],
)  # fmt: skip
def test_the_same_errors(source, tmp_path, monkeypatch, image, mask, options, message):
    write_pair(source, image, mask)
    assert message in both_ways(source, tmp_path, monkeypatch, **options)


def test_colours_are_refused_with_their_number(source, tmp_path, monkeypatch):
    coloured = GREY.copy()
    coloured[8, 5, 6:9, 0] += 1
    write_pair(source, coloured, MASK, write=lambda array: tiff(array, photometric=None), ending=".tif")
    assert "its channels differ in 3 of 5280 pixels" in both_ways(source, tmp_path, monkeypatch)


def test_a_page_that_is_damaged_in_the_middle(source, tmp_path, monkeypatch):
    write_pair(source, write=lambda array: tiff(array, compression="zlib"), ending=".tif")
    path = source / "images/a.tif"
    with tifffile.TiffFile(path) as file:
        start = file.pages[8].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    assert "cannot be read as tif" in both_ways(source, tmp_path, monkeypatch, labels={"any": "cells"})


def test_a_file_that_changes_while_it_is_written_leaves_nothing(source, raw, monkeypatch):
    """The image has been checked when its file is cut: the writer, in the middle of its own file, finds the fault."""
    write_pair(source, write=mrc, ending=".mrc")
    make_large(monkeypatch)
    path = source / "images/a.mrc"
    original = images.open_image(path).array
    assert isinstance(original, Slabs)
    passes = iter(range(9))

    def blocks():
        if next(passes) == 1:
            path.write_bytes(path.read_bytes()[: -VOLUME[0].nbytes])
        return original.blocks()

    case = Case("a", Slabs(original.shape, original.dtype, blocks), (MASK > 0).astype(np.uint8))
    with pytest.raises(RetinaError, match=r"a\.mrc: cannot be read as mrc .*ends before plane 11 of 11: cut off"):
        write_raw_dataset(DatasetSpec(501, "Mine", {"background": 0, "cells": 1}), [case], raw)
    assert next(passes) == 2
    assert list(raw.iterdir()) == []


def test_new_images(source, tmp_path, monkeypatch):
    write_pair(source)
    dataset = convert_folder(source, 501, "Mine", root=tmp_path)
    (tmp_path / "new").mkdir()
    itk(VOLUME, True)(tmp_path / "new/b.nii.gz")
    hdf5(VOLUME, chunks=(4, 10, 12))(tmp_path / "new/a.h5")
    remarks = [convert_images(tmp_path / "new", tmp_path / "whole", dataset)]
    make_large(monkeypatch)
    remarks.append(convert_images(tmp_path / "new", tmp_path / "slabs", dataset))
    assert remarks[0] == remarks[1]
    for name in ("a_0000.nii.gz", "b_0000.nii.gz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "slabs" / name).read_bytes()


def test_numbers_of_objects(source, tmp_path, monkeypatch):
    mask = np.zeros(VOLUME.shape, np.uint64)
    for number in range(4):
        mask[:, 2:8, 6 * number : 6 * number + 4] = number + 1
    write_pair(source, VOLUME, mask)
    written = both_ways(source, tmp_path, monkeypatch)
    assert "each mask value is one connected region" in " ".join(written["report"]["remarks"])


@pytest.mark.parametrize(("write", "ending"), [(hdf5, ".h5"), (tiff, ".tif"), (mrc, ".mrc")])
def test_memory_is_that_of_some_slabs(source, raw, monkeypatch, write, ending):
    """NumPy's arrays, and what Python reads from files; four times as many planes need no more."""
    make_large(monkeypatch)
    plane = (np.arange(256 * 256) // 7 % 250).astype(np.uint8).reshape(256, 256)
    monkeypatch.setattr(slabs, "SLAB", 4 * plane.nbytes)
    peaks = []
    for number, depth in enumerate((16, 64)):
        place = source / str(depth)
        volume = np.stack([plane] * depth).astype(np.uint16)
        write_pair(place, volume, (volume > 200).astype(np.uint16), write, ending)
        tracemalloc.start()
        convert_folder(place, 501 + number, "Mine", root=raw, labels={1: "cells"})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 8 * 4 * plane.nbytes and peaks[1] < peaks[0] + plane.nbytes


def test_hdf5_keeps_no_file_open(source, raw, monkeypatch):
    write_pair(source)
    make_large(monkeypatch)
    convert_folder(source, 501, "Mine", root=raw)
    with h5py.File(source / "images/a.h5", "r+") as file:
        assert file["raw"].shape == VOLUME.shape
