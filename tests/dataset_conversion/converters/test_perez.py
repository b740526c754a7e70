"""Perez: four data sets matched on NNN, every pixel where it was; the real image; and what is refused."""

import json
from functools import partial

import numpy as np
import pytest
from helpers.benchmark_sources_2d import PEREZ_STRUCTURES, perez, perez_members, png, store
from helpers.environment import SHARED
from helpers.raw_datasets import read_back, report_of
from PIL import Image

from dataset_conversion import convert
from dataset_conversion.converters.converter import convert_benchmark
from nnunetv2_retina.errors import RetinaError

convert_perez = partial(convert_benchmark, "perez")
pytestmark = pytest.mark.usefixtures("no_drawing")
REAL = SHARED / "data" / "perez_lysosome"
NAMES = [
    "Dataset804_PerezLysosomes",
    "Dataset805_PerezMitochondria",
    "Dataset806_PerezNuclei",
    "Dataset807_PerezNucleoli",
]


def refused(source, raw, message, **options):
    with pytest.raises(RetinaError, match=message):
        convert_perez(source, root=raw, **options)
    assert list(raw.iterdir()) == []


@pytest.mark.parametrize(("packed", "structures"), [(True, PEREZ_STRUCTURES), (False, PEREZ_STRUCTURES[2:3])])
def test_every_pixel_is_where_it_was(source, raw, packed, structures):
    expected = perez(source, packed)
    folders = convert_perez(source, structures=structures, root=raw)
    assert [folder.name for folder in folders] == (NAMES if packed else NAMES[2:3])
    for structure, folder in zip(structures, folders, strict=True):
        assert {case["name"] for case in report_of(folder)["cases"]} == expected[structure].keys()
        for name, case in expected[structure].items():
            image, label, spacing = read_back(folder, name, case.part)
            np.testing.assert_array_equal(image[0], case.image)
            np.testing.assert_array_equal(label[0], case.label)
            assert spacing == case.spacing


def test_settings(source, raw):
    """Test images are only partly labelled, which the scores must know."""
    perez(source)
    block = json.loads((convert_perez(source, structures=["nuclei"], root=raw)[0] / "dataset.json").read_text())
    assert block["retina"]["mask_rule"] == "instance_match"
    assert block["labels"] == {"background": 0, "nucleus": 1}


def test_command(source, raw, capsys):
    perez(source)
    assert convert.main(["perez", str(source), "--structure", "nucleoli", "nuclei"]) == 0
    assert sorted(path.name for path in raw.iterdir()) == NAMES[2:]
    assert convert.main(["perez", str(source), "-d", "40", "--structure", "nuclei", "lysosomes"]) == 0
    assert sorted(path.name for path in raw.iterdir())[:2] == ["Dataset040_PerezLysosomes", "Dataset041_PerezNuclei"]
    capsys.readouterr()


def test_masks_of_0_and_255(source, raw):
    members, expected = perez_members()
    name = "supplemental_data/training_labels/nuclei/gt-2.009.png"
    members[name] = png(expected["nuclei"]["train_009"].label * np.uint8(255))
    store(source, members, None)
    folder = convert_perez(source, structures=["nuclei"], root=raw)[0]
    np.testing.assert_array_equal(read_back(folder, "train_009")[1][0], expected["nuclei"]["train_009"].label)
    remarks = {case["name"]: case["remarks"] for case in report_of(folder)["cases"]}
    assert remarks["train_009"] == ["the mask holds 0 and 255: 255 was taken as 1"]
    assert remarks["train_010"] == []


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real image")
def test_real_image(source, raw):
    image, mask = (REAL / part / "000.png" for part in ("images", "masks"))
    files = {"training_images": image, "training_labels": mask, "test_images": image, "ground_truth": mask}
    for i, (part, path) in enumerate(files.items()):
        target = source / part / "lysosomes" / f"prefix{i}.{i // 2 + 3:03d}.png"
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    folder = convert_perez(source, structures=["lysosomes"], root=raw)[0]
    pixels, label, _ = read_back(folder, "train_003")
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(image)))
    np.testing.assert_array_equal(label[0], np.asarray(Image.open(mask)))
    case = report_of(folder)["cases"][0]
    assert (case["shape"], case["intensity_min"], case["intensity_max"]) == ([1000, 1000], 68, 105)
    read_back(folder, "test_004", "Ts")


# ----------------------------------------------------------------------------------------------------------- bad input


def change(source, **changed):
    """Store the source unpacked, with members of nuclei replaced (None: left out)."""
    members, _ = perez_members()
    for name, content in changed.items():
        part, file = name.split("/")
        path = f"supplemental_data/{part}/nuclei/{file}"
        if content is None:
            del members[path]
        else:
            members[path] = content
    store(source, members, None)


@pytest.mark.parametrize("values", [(1, 255), (1, 2), (3,)])
def test_unexpected_mask_value(source, raw, values):
    mask = np.zeros((46, 50), np.uint8)
    mask[3, 7 : 7 + len(values)] = values
    change(source, **{"training_labels/gt-2.009.png": png(mask)})
    position = 7 + len(values) - 1
    message = (
        rf"nuclei/gt-2.009.png: mask value {values[-1]} at y=3, x={position} \(1 such pixels\); expected 0, 1. Take"
    )
    refused(source, raw, message, structures=["nuclei"])


def test_exchanged_folders(source, raw):
    members, _ = perez_members()
    swap = {"training_images": "training_labels", "training_labels": "training_images"}
    store(source, {"/".join(swap.get(part, part) for part in name.split("/")): d for name, d in members.items()}, None)
    refused(source, raw, r"mask value \d+ .* expected 0, 1. Were the folders of images and masks exchanged\?")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("training_images/nuclei_orig.009.png", r"no image for \S+training_labels/nuclei/gt-2.009.png"),
        ("ground_truth/gt-2.011.png", r"no mask for \S+test_images/nuclei/nuclei_orig.011.png"),
    ],
)
def test_missing_member(source, raw, name, message):
    """Nothing is written, although the other structures are complete."""
    change(source, **{name: None})
    refused(source, raw, message)


def test_missing_structure(source, raw):
    members, _ = perez_members()
    store(source, {name: data for name, data in members.items() if "/nucleoli/" not in name}, None)
    refused(
        source, raw, r"missing training_images/nucleoli/\*.png, training_labels/nucleoli/\*.png, test_images/nucleo"
    )
    assert len(convert_perez(source, structures=["lysosomes", "nuclei"], root=raw)) == 2


def test_shapes_that_differ(source, raw):
    change(source, **{"ground_truth/gt-2.011.png": png(np.zeros((46, 49), np.uint8))})
    message = (
        r"nuclei_orig.011.png has shape \(46, 50\), its mask \S+gt-2.011.png \(46, 49\); expected the same \(y, x\)"
    )
    refused(source, raw, message, structures=["nuclei"])


def test_truncated_png(source, raw):
    noise = png(np.random.default_rng(0).integers(0, 256, (46, 50), np.uint8))
    change(source, **{"test_images/nuclei_orig.011.png": noise[:-400]})
    refused(source, raw, r"nuclei_orig.011.png cannot be read as PNG", structures=["nuclei"])


def test_damaged_archive(source, raw):
    perez(source)
    path = source / "chm-supplemental_data.zip"
    path.write_bytes(path.read_bytes()[:5000])
    refused(source, raw, r"chm-supplemental_data.zip cannot be read as a zip archive")


def test_data_set_in_the_way(source, raw):
    """Found before the first of four is written."""
    perez(source)
    (raw / "Dataset806_Other").mkdir()
    with pytest.raises(RetinaError, match=r"ID 806 is already used by Dataset806_Other"):
        convert_perez(source, root=raw)
    assert [path.name for path in raw.iterdir()] == ["Dataset806_Other"]


def test_unknown_structure(source, raw):
    refused(
        source,
        raw,
        r"structure 'golgi'; expected one of lysosomes, mitochondria, nuclei, nucleoli",
        structures=["golgi"],
    )
