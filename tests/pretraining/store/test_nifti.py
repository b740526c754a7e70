"""NIfTI volumes as pages for pre-training."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_retina.images.picture import ImageError, TooLargeError
from pretraining.store.nifti import is_nifti, read_pages
from pretraining.store.packing import pack
from pretraining.store.tiles import read_tiles

VOLUME = np.random.default_rng(0).integers(0, 4000, (3, 130, 150)).astype(np.int16)


def content(path: Path, volume: np.ndarray = VOLUME) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))
    return path.read_bytes()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slices_are_those_that_nnunet_reads(tmp_path: Path, ending: str) -> None:
    data = content(tmp_path / f"a{ending}")
    assert is_nifti(data)
    pages = read_pages(data, 1 << 20)
    assert np.array_equal(np.stack(pages), VOLUME) and pages[0].dtype == np.int16
    tiles = read_tiles(data)
    assert tiles.images.shape == (3, 224, 224) and [place[0] for place in tiles.places] == [0, 1, 2]


def test_scaled_values_and_the_second_version(tmp_path: Path) -> None:
    image = nibabel.Nifti2Image(VOLUME.transpose(), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "b.nii")
    data = (tmp_path / "b.nii").read_bytes()
    stored = np.asanyarray(nibabel.load(tmp_path / "b.nii").dataobj)
    assert is_nifti(data) and np.array_equal(np.stack(read_pages(data, 1 << 20)), stored.transpose())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    plain, packed = content(tmp_path / "a.nii"), content(tmp_path / "a.nii.gz")
    for data in (plain[:-100], packed[:-100], packed[:-1], packed[:200] + bytes(40) + packed[240:]):
        with pytest.raises(ImageError):
            read_pages(data, 1 << 20)
    smaller = bytearray(plain)
    smaller[42:44] = (140).to_bytes(2, "little")  # the header's first axis, of 150
    with pytest.raises(ImageError, match="another size or type than the data's"):
        read_pages(bytes(smaller), 1 << 20)
    for data in (plain, packed):
        with pytest.raises(TooLargeError):
            read_pages(data, 10_000)
    colour = np.zeros((2, 120, 120, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "rgb.nii"))
    with pytest.raises(ImageError, match="expected"):
        read_pages((tmp_path / "rgb.nii").read_bytes(), 1 << 20)
    assert not is_nifti(gzip.compress(b"text")) and not is_nifti(b"") and not is_nifti(b"\x1f\x8bnot gzip")


def test_a_folder_of_volumes_is_packed(tmp_path: Path) -> None:
    folder = tmp_path / "imagesTr"
    folder.mkdir()
    content(folder / "case_0000.nii.gz")
    (folder / "cut_0000.nii.gz").write_bytes((folder / "case_0000.nii.gz").read_bytes()[:-50])
    store = pack(folder, tmp_path / "store", max_rejected=0.5)
    assert len(store) == 3 and "case_0000.nii.gz" in store.name(0)
    assert "cut off" in (tmp_path / "store" / "rejected.csv").read_text()
