"""UroCell: three orientations of every training volume, the rows cut off, the real label files; and what is refused."""

import gzip
import json
from functools import partial

import numpy as np
import pytest
import SimpleITK
from helpers.benchmark_sources import (
    BROKEN_PIXDIM,
    FIRST_ROW,
    UROCELL_SHAPE,
    UROCELL_TEST,
    UROCELL_TRAIN,
    coordinates,
    nifti,
    pack,
    urocell,
    urocell_volume,
)
from helpers.checks import known
from helpers.environment import SHARED
from helpers.raw_datasets import convert_one, read_back, report_of

from dataset_conversion.converters.urocell import VOLUMES, cut_off, read_volume
from dataset_conversion.readers.archives import SourceFile
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol

convert_urocell = partial(convert_one, "urocell")

REAL = SHARED / "data" / "urocell_labels"
FOREGROUND = {
    "fib1-0-0-0": (493800, 506073),
    "fib1-1-0-3": (421712, 214186),
    "fib1-3-2-1": (272282, 825844),
    "fib1-3-3-0": (12220, 1067282),
    "fib1-4-3-0": (158785, 923933),
}
"""Lysosome and mitochondrion voxels of the published files."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The repository, made once; tests that spoil it copy it."""
    folder = tmp_path_factory.mktemp("urocell")
    urocell(folder)
    return folder


@pytest.fixture
def source(sources, tmp_path):
    """A copy of links; a test replaces the file it spoils."""
    folder = tmp_path / "source"
    for path in sorted(sources.rglob("*.nii.gz")):
        target = folder / path.relative_to(sources)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def converted(sources, tmp_path_factory):
    """The data set, for tests that only look at it."""
    return convert_urocell(sources, root=tmp_path_factory.mktemp("raw"))


def replace(source, name, array, spacing=(BROKEN_PIXDIM,) * 3):
    (source / name).unlink()
    nifti(source / name, array, spacing)


def refused(source, raw, message):
    with pytest.raises(RetinaError, match=message):
        convert_urocell(source, root=raw)
    assert list(raw.iterdir()) == []


@pytest.mark.parametrize("layout", ["new", "old", "archive"])
def test_every_voxel_is_where_it_was(tmp_path, raw, layout):
    source = tmp_path / "source"
    expected = urocell(source, binary="" if layout == "old" else "binary/")
    if layout == "archive":
        source = pack(source, tmp_path / "UroCell-master.zip", "UroCell-master")
    folder = convert_urocell(source, root=raw)
    assert folder.name == "Dataset808_UroCell"
    assert {case["name"] for case in report_of(folder)["cases"]} == expected.keys()
    for name, case in expected.items():
        image, label, spacing = read_back(folder, name, case.part)
        np.testing.assert_array_equal(image, case.image)
        np.testing.assert_array_equal(label, case.label)
        assert spacing == pytest.approx((16, 16, 16))


def test_orientations(source, raw):
    """One voxel followed through all three, by hand: z=3, y=60, x=7 of the volume that loses its first 54 rows."""
    volume = "fib1-1-0-3"
    image = np.zeros(UROCELL_SHAPE, np.float32)
    image[3, 60, 7] = 200
    replace(source, f"data/{volume}.nii.gz", image)
    folder = convert_urocell(source, root=raw)
    for planes, position in {"xy": (3, 6, 7), "xz": (6, 3, 7), "yz": (7, 3, 6)}.items():
        found = read_back(folder, f"{volume}_{planes}")[0]
        assert np.argwhere(found == 200).tolist() == [list(position)]


def test_one_geometry_for_image_and_label(converted):
    image = SimpleITK.ReadImage(str(converted / "imagesTr/fib1-3-2-1_xz_0000.nii.gz"))
    label = SimpleITK.ReadImage(str(converted / "labelsTr/fib1-3-2-1_xz.nii.gz"))
    assert image.GetSpacing() == label.GetSpacing() == (16, 16, 16)
    assert (image.GetOrigin(), image.GetDirection()) == (label.GetOrigin(), label.GetDirection())


def test_cases_of_a_volume_share_a_fold(converted):
    splits = json.loads((converted / "splits_final.json").read_text())
    assert len(splits) == 4
    held_out = [{name.rsplit("_", 1)[0] for name in split["val"]} for split in splits]
    assert sorted(map(list, held_out)) == [[volume] for volume in UROCELL_TRAIN]
    for split in splits:
        assert (len(split["train"]), len(split["val"])) == (9, 3)
    settings = Protocol.from_dataset_json(json.loads((converted / "dataset.json").read_text()))
    assert (settings.inference, settings.class_weights) == ("orthoplane", (0.1, 1, 1))
    assert set(known(settings.groups).values()) == set(UROCELL_TRAIN)


def test_grey_levels_are_kept(tmp_path, raw):
    """uint8 where that changes nothing, else as stored."""
    source = tmp_path / "source"
    urocell(source, dtype=np.int32)  # coordinates beyond 255
    folder = convert_urocell(source, root=raw)
    image = read_back(folder, UROCELL_TEST, "Ts")[0]
    np.testing.assert_array_equal(image, urocell_volume(UROCELL_TEST, np.int32)[0][:, FIRST_ROW[UROCELL_TEST] :])
    assert report_of(folder)["cases"][0]["stored_dtype"] == "float32"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
@pytest.mark.parametrize("volume", FOREGROUND)
def test_real_labels(tmp_path, volume):
    """The published files with their broken headers: counts as published, no overlap; then without the missing rows."""
    nifti(tmp_path / "image.nii.gz", np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256,) * 3))
    names = {f"data/{volume}.nii.gz": tmp_path / "image.nii.gz"}
    names |= {f"{o}/binary/{volume}.nii.gz": REAL / f"{o}/binary/{volume}.nii.gz" for o in ("lyso", "mito")}
    image, label = read_volume(volume, {name: SourceFile(path) for name, path in names.items()})
    assert image.shape == label.shape == (256, 256, 256)
    assert tuple(np.bincount(label.ravel())[1:]) == FOREGROUND[volume]
    image, label, remarks = cut_off(volume, image, label)
    row = FIRST_ROW.get(volume, 0)
    assert image.shape == label.shape == (256, 256 - row, 256)
    # SimpleITK's own slicing, x first, as CEM500K's scripts use it
    whole = SimpleITK.ReadImage(str(REAL / f"mito/binary/{volume}.nii.gz"))[:, row:]
    np.testing.assert_array_equal(label == 2, SimpleITK.GetArrayFromImage(whole) == 1)
    if volume == "fib1-1-0-3":
        assert "(grey levels 0 to 255; 234591 lysosome and 48621 mitochondrion voxels)" in remarks[0]


# ---------------------------------------------------------------------------------------------------- what is refused


def test_missing_members_are_named(source, raw):
    (source / "data/fib1-3-3-0.nii.gz").unlink()
    (source / "lyso/binary/fib1-0-0-0.nii.gz").unlink()
    refused(source, raw, r"missing data/fib1-3-3-0.nii.gz, lyso/binary/fib1-0-0-0.nii.gz; found")


def test_overlap_says_how_many_and_where(source, raw):
    mask = np.zeros(UROCELL_SHAPE, np.float32)
    mask[2, 60:62, 7] = 1
    for organelle in ("mito", "lyso"):
        replace(source, f"{organelle}/binary/fib1-1-0-3.nii.gz", mask)
    message = r"fib1-1-0-3: 2 voxels are lysosome and mitochondrion at once, the first at z=2, y=60, x=7; expected none"
    refused(source, raw, message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2, r"lyso/binary/fib1-1-0-3.nii.gz: label value 2 is not declared \(1 voxels, the first at z=1, y=2, x=3\)"),
        (0.5, r"lyso/binary/fib1-1-0-3.nii.gz: the mask holds 0.5 at z=1, y=2, x=3"),
    ],
)
def test_unexpected_value_says_which_and_where(source, raw, value, message):
    mask = np.zeros(UROCELL_SHAPE, np.float32)
    mask[1, 2, 3] = value
    replace(source, "lyso/binary/fib1-1-0-3.nii.gz", mask)
    refused(source, raw, message)


def test_exchanged(source, raw):
    image, mask = source / "data/fib1-1-0-3.nii.gz", source / "lyso/binary/fib1-1-0-3.nii.gz"
    real_image, real_mask = image.resolve(), mask.resolve()
    for link, target in ((image, real_mask), (mask, real_image)):
        link.unlink()
        link.symlink_to(target)
    message = r"data/fib1-1-0-3.nii.gz holds nothing but 0 to 1, .*lyso/binary/fib1-1-0-3.nii.gz .* look exchanged"
    refused(source, raw, message)


def test_shapes_differ(source, raw):
    replace(source, "mito/binary/fib1-3-2-1.nii.gz", np.zeros((3, 4, 5), np.float32))
    message = r"data/fib1-3-2-1.nii.gz has shape \(33, 90, 36\), its mask .*mito/binary/fib1-3-2-1.nii.gz \(3, 4, 5\)"
    refused(source, raw, message)


def test_fewer_rows_than_are_cut_off(source, raw):
    for name in ("data", "lyso/binary", "mito/binary"):
        array = coordinates((4, 20, 5), np.uint8) if name == "data" else np.zeros((4, 20, 5), np.uint8)
        replace(source, f"{name}/fib1-1-0-3.nii.gz", array)
    refused(source, raw, r"data/fib1-1-0-3.nii.gz has 20 rows along y; expected more than 54")


def test_a_slice_for_a_volume(source, raw):
    replace(source, "data/fib1-1-0-3.nii.gz", coordinates((1, 20, 5), np.uint8)[0], (16, 16))
    refused(source, raw, r"data/fib1-1-0-3.nii.gz has shape \(20, 5\); expected a volume \(z, y, x\)")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not gzip"])
def test_corrupted_gzip(source, raw, damage):
    path = source / "mito/binary/fib1-4-3-0.nii.gz"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) * 2 // 3]
    elif damage == "flipped":
        content[-6] ^= 0xFF  # of the checksum
    else:
        content = bytearray(gzip.decompress(bytes(content)))
    path.unlink()
    path.write_bytes(bytes(content))
    message = r"mito/binary/fib1-4-3-0.nii.gz: cannot be read as nii.gz \(its .*gzip.*\)"
    refused(source, raw, message)


def test_volumes_are_those_with_both_labels():
    assert list(VOLUMES) == [*UROCELL_TRAIN, UROCELL_TEST]
