"""Label files: what is read of them, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.label_files import dataset_json, save_nifti, save_png

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.labels import Labels, choose_reader, list_labels, read_labels


def read(path: Path) -> Labels:
    ending = "".join(path.suffixes)
    return read_labels(path, choose_reader(dataset_json(ending=ending), path))


def test_a_volume_has_spacing_and_geometry(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    save_nifti(tmp_path / "v.nii.gz", array, spacing=(4.0, 5.0, 40.0), origin=(1.0, 2.0, 3.0))
    labels = read(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(labels.array, array)
    assert labels.array.dtype == np.uint8 and labels.spacing == Spacing(40, 5, 4)
    assert [labels.geometry[name] for name in ("spacing", "origin")] == [(40, 5, 4), (1, 2, 3)]


def test_an_image_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", [[0, 1], [2, 3]])
    assert read(tmp_path / "a.png").array.tolist() == [[[0, 1], [2, 3]]]


def test_values_over_255_stay(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", np.full((5, 6, 7), 300, np.uint16))
    labels = read(tmp_path / "v.tif")
    assert labels.array.dtype == np.uint16 and (labels.array == 300).all()


def test_files_are_listed_by_case(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "._a.png", "a.tif"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert list_labels(tmp_path, ".png", "prediction") == {"a": tmp_path / "a.png", "b": tmp_path / "b.png"}


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, r"holds 0\.5; expected whole numbers"), (-1, "from -1 to 0; expected label values"), (np.nan, "nan to nan")],
)
def test_fractions_and_negative_values(tmp_path: Path, value: float, message: str) -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[1, 0, 0] = value
    tifffile.imwrite(tmp_path / "v.tiff", array, photometric="minisblack")
    with pytest.raises(RetinaError, match=message):
        read(tmp_path / "v.tiff")


def test_a_colour_image(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", np.zeros((2, 4, 3)))
    with pytest.raises(RetinaError, match=r"a\.png: shape \(3, 1, 2, 4\).*expected a label image of one channel"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".tif", ".tiff"])
def test_an_unreadable_file(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"a{ending}").write_bytes(b"not an image")
    with pytest.raises(RetinaError, match=rf"a{ending}: .*Is the file complete"):
        read(tmp_path / f"a{ending}")
    assert "Traceback" not in capfd.readouterr().err


def test_a_format_nnunet_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").touch()
    message = r"nnU-Net has no reader that can open it \(file_ending of dataset\.json: \.xyz"
    with pytest.raises(RetinaError, match=message):
        read(tmp_path / "a.xyz")


def test_an_ending_in_other_capitals_and_a_link_to_nothing_are_refused(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", np.zeros((2, 2)))
    save_png(tmp_path / "b.PNG", np.zeros((2, 2)))
    with pytest.raises(RetinaError, match=r"b\.PNG ends in \.PNG; expected \.png, as dataset\.json says"):
        list_labels(tmp_path, ".png", "ground truth")
    (tmp_path / "b.PNG").unlink()
    (tmp_path / "b.png").symlink_to("/gone/b.png")
    with pytest.raises(RetinaError, match=r"b\.png is a link to /gone/b\.png, which is not there"):
        list_labels(tmp_path, ".png", "ground truth")
