"""Kasthuri++: every voxel where it was, both protocols, the slabs and their folds; and what is refused."""

import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
from helpers.benchmark_sources_2d import SLAB_BORDERS, kasthuri, kasthuri_members, png, rgb, store
from helpers.raw_datasets import convert_one, read_back, report_of

from dataset_conversion import convert
from dataset_conversion.converters.kasthuri import SLABS
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.protocol.folds import make_splits

convert_kasthuri = partial(convert_one, "kasthuri")


def refused(source, raw, message, **options):
    with pytest.raises(RetinaError, match=message):
        convert_kasthuri(source, root=raw, **options)
    assert list(raw.iterdir()) == []


@pytest.mark.parametrize(("packed", "protocol", "outside"), [(True, "clean", 2), (False, "paper", 0)])
@pytest.mark.usefixtures("no_drawing")
def test_every_voxel_is_where_it_was(source, raw, packed, protocol, outside):
    expected = kasthuri(source, packed, outside)
    folder = convert_kasthuri(source, root=raw, protocol=protocol)
    assert folder.name == "Dataset803_KasthuriPP"
    assert {case["name"] for case in report_of(folder)["cases"]} == expected.keys()
    for name, case in expected.items():
        image, label, spacing = read_back(folder, name, case.part)
        np.testing.assert_array_equal(image, case.image)
        np.testing.assert_array_equal(label, case.label)
        assert spacing == pytest.approx(case.spacing)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "mitochondrion": 1} | ({"ignore": 2} if protocol == "clean" else {})


def test_archive_as_source(source, raw, no_drawing):
    kasthuri(source)
    assert convert_kasthuri(source / "kasthuri_pp.zip", root=raw).is_dir()


def test_lucchi_in_the_same_folder(source, raw, no_drawing):
    """Unpacked files go before archived ones, but not when they are another benchmark's."""
    members, _ = kasthuri_members()
    store(source, {name.replace("Kasthuri", "Lucchi"): data for name, data in members.items()}, None)
    kasthuri(source)
    folder = convert_kasthuri(source, root=raw)
    assert all("Kasthuri++/" in case["source"] for case in report_of(folder)["cases"])


def test_folders_without_their_top_folder(source, raw, no_drawing):
    members, _ = kasthuri_members()
    store(source, {name.removeprefix("Kasthuri++/"): data for name, data in members.items()}, None)
    assert convert_kasthuri(source, root=raw).is_dir()


def test_folds_hold_out_a_slab_each(source, raw, no_drawing):
    """A slab touches training slices at its borders alone, so fold i has two neighbours at most."""
    kasthuri(source)
    dataset = json.loads((convert_kasthuri(source, root=raw) / "dataset.json").read_text())
    names = [f"slab_{i}" for i in range(SLABS)]
    splits = make_splits(names, Protocol.from_dataset_json(dataset))
    assert [split["val"] for split in splits] == [[name] for name in names]
    assert all(sorted([*split["train"], *split["val"]]) == names for split in splits)
    assert np.diff(SLAB_BORDERS).min() >= 2


def test_report(source, raw):
    kasthuri(source)
    folder = convert_kasthuri(source, root=raw)
    report = report_of(folder)
    assert report["remarks"][:3] == [
        "the training stack was cut along z into 5 slabs; fold i validates on slab_i",
        "the train stack has shape (12, 40, 44); the released one has (85, 1463, 1613) (z, y, x)",
        "the test stack has shape (4, 36, 38); the released one has (75, 1334, 1553) (z, y, x)",
    ]
    first = report["cases"][0]
    assert first["source"].endswith("kasthuri_pp.zip: Kasthuri++/Train_In/slice0.png to slice1.png")
    assert first["label_counts"]["2"] > 0
    assert (folder / "conversion_sheet.png").is_file()


def test_command(source, raw, capsys, no_drawing):
    kasthuri(source)
    assert convert.main(["kasthuri", str(source), "-d", "77", "--protocol", "paper"]) == 0
    assert (raw / "Dataset077_KasthuriPP").is_dir()
    assert "count as background, as in the published numbers" in capsys.readouterr().out
    assert convert.main(["kasthuri", str(source), "-d", "77"]) == 2
    assert "exists already" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- bad input


def change(source, **changed):
    """Store the source unpacked, with some members replaced (None: left out). Keys: ``Train_In/slice3.png``."""
    members, _ = kasthuri_members()
    for name, content in changed.items():
        if content is None:
            del members[f"Kasthuri++/{name}"]
        else:
            members[f"Kasthuri++/{name}"] = content
    store(source, members, None)


def test_unexpected_mask_value(source, raw):
    mask = np.zeros((40, 44), np.uint8)
    mask[3, 7] = mask[4, 4] = 254
    change(source, **{"Train_Out/slice3.png": png(rgb(mask))})
    message = (
        r"Train_Out/slice3.png: mask value 254 at y=3, x=7 \(2 such pixels\); expected 0, 255, 2. Take the file as"
    )
    refused(source, raw, message)


def test_coloured_mask(source, raw):
    mask = rgb(np.zeros((40, 44), np.uint8))
    mask[5, 6] = 255, 0, 0
    change(source, **{"Test_Out/slice1.png": png(mask)})
    refused(
        source, raw, r"Test_Out/slice1.png: colour \(255, 0, 0\) at y=5, x=6 \(1 such pixels\); expected grey, or RGB"
    )


def test_exchanged_folders(source, raw):
    members, _ = kasthuri_members()
    swap = {"Train_In": "Train_Out", "Train_Out": "Train_In"}
    exchanged = {"/".join(swap.get(part, part) for part in name.split("/")): data for name, data in members.items()}
    store(source, exchanged, None)
    refused(source, raw, r"Train_Out/slice0.png: mask value \d+ .* Were the folders of images and masks exchanged\?")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Train_In/slice3.png", r"no image for \S+Train_Out/slice3.png; expected one mask per image"),
        ("Test_Out/slice2.png", r"no mask for \S+Test_In/slice2.png; expected one mask per image"),
    ],
)
def test_missing_slice(source, raw, name, message):
    change(source, **{name: None})
    refused(source, raw, message)


def test_missing_folders(source, raw):
    members, _ = kasthuri_members()
    store(source, {name: data for name, data in members.items() if "Test_" not in name}, None)
    refused(source, raw, r"missing Test_In, Test_Out; found .*slice")


def test_too_few_slices(source, raw):
    members, _ = kasthuri_members()
    few = [f"slice{z}.png" for z in range(4)]
    store(source, {name: data for name, data in members.items() if name.split("/")[-1] in few}, None)
    refused(source, raw, r"4 training slices; expected 85, at least 5. The source is incomplete")


def test_shapes_that_differ(source, raw):
    grey = np.zeros((40, 43), np.uint8)
    change(source, **{"Train_Out/slice3.png": png(grey)})
    refused(
        source, raw, r"Train_In/slice3.png has shape \(40, 44\), its mask \S+Train_Out/slice3.png \(40, 43\); expected"
    )


def test_slices_of_different_size(source, raw):
    grey = np.zeros((41, 44), np.uint8)
    change(source, **{"Train_In/slice3.png": png(grey), "Train_Out/slice3.png": png(grey)})
    message = (
        r"Train_In/slice3.png has shape \(41, 44\) and type uint8; expected \(40, 44\) as the first slice slice2.png"
    )
    refused(source, raw, message)


def test_truncated_png(source, raw):
    noise = png(np.random.default_rng(0).integers(0, 256, (40, 44), np.uint8))
    change(source, **{"Train_In/slice3.png": noise[:-400]})
    refused(source, raw, r"Train_In/slice3.png cannot be read as PNG \(.*truncated.*It is damaged or cut off")


def test_not_a_png(source, raw):
    change(source, **{"Train_In/slice3.png": b"<html>"})
    refused(source, raw, r"Train_In/slice3.png cannot be read as PNG \(cannot identify image file")


def test_two_slices_of_one_number(source, raw):
    grey = png(np.zeros((40, 44), np.uint8))
    change(source, **{"Train_In/slice03.png": grey})
    refused(
        source, raw, r"two files of one number: \S+slice0?3.png and \S+slice0?3.png; expected one per slice. Remove one"
    )


def test_name_without_number(source, raw):
    change(source, **{"Train_In/overview.png": png(np.zeros((40, 44), np.uint8))})
    refused(source, raw, r"overview.png: there is no number in its name; expected a slice number. Remove or rename it")


def test_damaged_archive(source, raw):
    kasthuri(source)
    path = source / "kasthuri_pp.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(
        source, raw, r"kasthuri_pp.zip cannot be read as a zip archive .*download it again. Missing without it: Train"
    )
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        place = archive.getinfo("Kasthuri++/Train_Out/slice4.png").header_offset + 80
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    refused(
        source, raw, r"kasthuri_pp.zip: Kasthuri\+\+/Train_Out/slice4.png cannot be read \(Bad CRC-32.*download it a"
    )


def test_id_of_another_data_set(source, raw):
    kasthuri(source)
    (raw / "Dataset803_Other").mkdir()
    with pytest.raises(RetinaError, match=r"ID 803 is already used by Dataset803_Other"):
        convert_kasthuri(source, root=raw)
