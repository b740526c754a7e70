"""CREMI: every voxel where it was, both protocols, the folds; and what is refused."""

import json
import zipfile
from functools import partial

import h5py
import numpy as np
import pytest
from helpers.benchmark_sources import BACKGROUND, CREMI_RESOLUTION, coordinates, cremi, cremi_sample, patches
from helpers.raw_datasets import convert_one, read_back, report_of

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol

convert_cremi = partial(convert_one, "cremi")
SHAPE = (4, 10, 12)


def sample(source, letter="A"):
    return source / f"sample_{letter}_20160501.hdf"


def refused(source, raw, message, **options):
    with pytest.raises(RetinaError, match=message):
        convert_cremi(source, root=raw, **options)
    assert list(raw.iterdir()) == []


@pytest.mark.parametrize(("protocol", "invalid_as"), [("clean", 2), ("paper", 1)])
def test_every_voxel_is_where_it_was(source, raw, protocol, invalid_as):
    expected = cremi(source, ignore=invalid_as)
    folder = convert_cremi(source, root=raw, protocol=protocol)
    assert folder.name == "Dataset801_CREMI"
    for name, case in expected.items():
        image, label, spacing = read_back(folder, name, case.part)
        np.testing.assert_array_equal(image, case.image)
        np.testing.assert_array_equal(label, case.label)
        assert spacing == pytest.approx((40, 4, 4))
    written = json.loads((folder / "dataset.json").read_text())
    labels = {"background": 0, "synaptic_cleft": 1}
    assert written["labels"] == (labels | {"ignore": 2} if protocol == "clean" else labels)
    treatment = "ignored" if protocol == "clean" else "counted as cleft"
    assert report_of(folder)["cases"][0]["remarks"] == [f"6 invalid voxels, {treatment}"]
    assert report_of(folder)["totals"]["train"]["ignored_voxels"] == (12 if protocol == "clean" else 0)


def test_samples_keep_their_parts_and_folds(source, raw):
    cremi(source)
    folder = convert_cremi(source, root=raw)
    splits = [{"train": ["sample_A"], "val": ["sample_B"]}, {"train": ["sample_B"], "val": ["sample_A"]}]
    assert json.loads((folder / "splits_final.json").read_text()) == report_of(folder)["folds"] == splits
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["sample_C_0000.nii.gz"]
    settings = Protocol.from_dataset_json(json.loads((folder / "dataset.json").read_text()))
    assert (settings.iterations, settings.folds) == (5000, tuple(splits))


def test_layouts_of_the_data_sets_inside(source, raw):
    """Without chunks, and in chunks that do not divide the shape."""
    raws = {}
    for letter, create in zip("ABC", ({}, {"chunks": (3, 7, 5)}, {"chunks": (4, 10, 12)}), strict=True):
        raws[letter] = coordinates(SHAPE, np.uint8, ord(letter))
        clefts = np.where(patches(SHAPE, 2) == 1, np.uint64(7), np.uint64(BACKGROUND))
        cremi_sample(sample(source, letter), raws[letter], clefts, **create)
    folder = convert_cremi(source, root=raw)
    for letter, image in raws.items():
        found, label, _ = read_back(folder, f"sample_{letter}", "Ts" if letter == "C" else "Tr")
        np.testing.assert_array_equal(found, image)
        np.testing.assert_array_equal(label, patches(SHAPE, 2))


def test_archive_as_source(source, raw):
    expected = cremi(source)
    with zipfile.ZipFile(source / "all.zip", "w") as archive:
        for path in sorted(source.glob("*.hdf")):
            archive.write(path, f"cremi/{path.name}")
    folder = convert_cremi(source / "all.zip", root=raw)
    np.testing.assert_array_equal(read_back(folder, "sample_B")[1], expected["sample_B"].label)
    assert report_of(folder)["cases"][0]["source"].endswith("all.zip: cremi/sample_A_20160501.hdf")


# ---------------------------------------------------------------------------------------------------- what is refused


def test_missing_samples_are_named(source, raw):
    cremi(source)
    sample(source, "B").unlink()
    sample(source, "C").rename(source / "sample_C_padded_20160501.hdf")
    refused(source, raw, r"missing sample_B_20160501.hdf, sample_C_20160501.hdf; found .*padded.* --download")


def test_missing_data_set(source, raw):
    cremi(source)
    with h5py.File(sample(source), "a") as file:
        del file["volumes/labels/clefts"]
    message = (
        r"sample_A_20160501.hdf: no data set volumes/labels/clefts. The file holds: volumes/labels/neuron_ids "
        r"\(6, 36, 44\), volumes/raw .* Download it again"
    )
    refused(source, raw, message)


@pytest.mark.parametrize("name", ["volumes/raw", "volumes/labels/clefts"])
def test_missing_attribute(source, raw, name):
    cremi(source)
    with h5py.File(sample(source), "a") as file:
        del file[name].attrs["resolution"]
    refused(source, raw, rf"sample_A_20160501.hdf: {name} has no attribute resolution \(it has none\)")


def test_other_resolution(source, raw):
    cremi(source)
    with h5py.File(sample(source, "C"), "a") as file:
        file["volumes/raw"].attrs["resolution"] = (4.0, 4.0, 40.0)
    refused(source, raw, r"sample_C.*volumes/raw has resolution \(4.0, 4.0, 40.0\); expected \(40.0, 4.0, 4.0\) nm")


def test_exchanged(source, raw):
    cremi(source)
    labels = np.full(SHAPE, BACKGROUND, np.uint64)
    cremi_sample(sample(source), labels, coordinates(SHAPE, np.uint8))
    message = r"volumes/raw is uint64 and volumes/labels/clefts is uint8; expected uint8 and uint64. The two look exch"
    refused(source, raw, message)


@pytest.mark.parametrize("padded", [False, True])
def test_shapes_differ(source, raw, padded):
    cremi(source)
    image = coordinates((6, 20, 22), np.uint8)
    cremi_sample(sample(source), image, np.full(image.shape, BACKGROUND, np.uint64))
    with h5py.File(sample(source), "a") as file:
        del file["volumes/labels/clefts"]
        labels = file.create_dataset("volumes/labels/clefts", data=np.full(SHAPE, BACKGROUND, np.uint64))
        labels.attrs["resolution"] = CREMI_RESOLUTION
        if padded:
            labels.attrs["offset"] = (40.0, 20.0, 20.0)
    hint = r" This is the padded version: take sample_\?_20160501.hdf" if padded else " Is it a sample"
    message = (
        rf"volumes/raw has shape \(6, 20, 22\), volumes/labels/clefts \(4, 10, 12\); expected one \(z, y, x\).{hint}"
    )
    refused(source, raw, message)


def test_labels_without_their_background_value(source, raw):
    cremi(source)
    cremi_sample(sample(source, "B"), coordinates(SHAPE, np.uint8), np.zeros(SHAPE, np.uint64))
    message = r"sample_B.*clefts holds no background \(0xffffffffffffffff\); its first value is 0. Expected that value"
    refused(source, raw, message)


def test_truncated_files(source, raw):
    cremi(source)
    content = sample(source).read_bytes()
    sample(source).write_bytes(content[:100])
    refused(source, raw, r"sample_A_20160501.hdf: cannot be read as HDF5 .* Is the file complete\?")


def test_damaged_chunk(source, raw):
    cremi(source)
    with h5py.File(sample(source), "r") as file:
        chunk = file["volumes/labels/clefts"].id.get_chunk_info(3)
    with sample(source).open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\0" * chunk.size)
    refused(source, raw, r"sample_A_20160501.hdf: cannot be read to its end .* Download it again")


def test_id_of_another_data_set(source, raw):
    cremi(source)
    (raw / "Dataset801_Mine").mkdir()
    with pytest.raises(RetinaError, match=r"ID 801 is already used by Dataset801_Mine .* for Dataset801_CREMI"):
        convert_cremi(source, root=raw)
    assert convert_cremi(source, 12, root=raw).name == "Dataset012_CREMI"


def test_unknown_protocol(source, raw):
    cremi(source)
    refused(source, raw, "protocol is 'cem'; expected one of clean, paper", protocol="cem")
