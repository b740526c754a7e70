"""NIfTI as SimpleITK writes it, without the whole volume in memory."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.raw_datasets import coordinates
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from dataset_conversion.writer.case_files import write_array
from dataset_conversion.writer.nifti import nifti_header, write_nifti
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing

SPACING = Spacing(39.7, 4.1, 3.95)


@pytest.fixture(params=["uint8", "uint16", "int16", "float32"])
def volume(request):
    return (coordinates((3, 5, 7)) % 251 - (100 if request.param in ("int16", "float32") else 0)).astype(request.param)


def by_simpleitk(path, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in reversed(tuple(SPACING))])
    sitk.WriteImage(image, str(path), useCompression=True)


def test_the_content_is_that_of_simpleitk_byte_for_byte(tmp_path, volume):
    by_simpleitk(tmp_path / "a.nii.gz", volume)
    write_array(tmp_path / "b.nii.gz", volume, SPACING)
    one, other = (gzip.decompress((tmp_path / f"{name}.nii.gz").read_bytes()) for name in "ab")
    assert np.frombuffer(one, np.uint8).tolist() == np.frombuffer(other, np.uint8).tolist()


def test_nnunet_reads_it_alike(tmp_path, volume):
    by_simpleitk(tmp_path / "a.nii.gz", volume)
    write_array(tmp_path / "b.nii.gz", volume, SPACING)
    (one, about), (other, about_other) = (SimpleITKIO().read_images([str(tmp_path / f"{n}.nii.gz")]) for n in "ab")
    np.testing.assert_array_equal(one, other)
    assert one.dtype == other.dtype and about == about_other
    assert about["sitk_stuff"]["origin"] == (0, 0, 0)
    assert about["sitk_stuff"]["direction"] == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_the_slabs_do_not_change_the_file(tmp_path):
    array = coordinates((9, 30, 40))
    for name, parts in (("a", [array]), ("b", [array[:1], array[1:6], array[6:]])):
        write_nifti(tmp_path / f"{name}.nii.gz", parts, array.shape, array.dtype, SPACING)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_big_endian_and_turned_arrays(tmp_path):
    array = coordinates((3, 5, 7)).astype(">u2").transpose(2, 0, 1)
    write_array(tmp_path / "a.nii.gz", array, SPACING)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))), array)


def test_a_side_that_nifti_cannot_hold():
    with pytest.raises(RetinaError, match=r"1 x 1 x 40000 voxels; NIfTI, .* at most 32,767 along an axis\. Cut it"):
        nifti_header((1, 1, 40000), np.uint8, SPACING)
