"""Cut and damaged files: refused, where the libraries that read them would fill up with zeros."""

import mrcfile
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from dataset_conversion.readers.images import read_image
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.images.whole import check_whole, mrc_surplus, nrrd_header
from nnunetv2_retina.nnunet.inputs import read_channel

VOLUME = np.random.default_rng(0).integers(0, 255, (6, 20, 30)).astype(np.uint8)
KINDS = ("a.nii", "a.nii.gz", "raw.nrrd", "packed.nrrd", "raw.mha", "packed.mha", "a.mrc", "a.mrc.gz", "a.tif", "a.png")


@pytest.fixture(params=KINDS)
def whole(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".tif":
        tifffile.imwrite(path, VOLUME, photometric="minisblack")
    elif ".mrc" in path.name:
        with mrcfile.new(path, compression="gzip" if path.suffix == ".gz" else None) as file:
            file.set_data(VOLUME.astype(np.uint16))
    elif path.suffix == ".png":
        Image.fromarray(VOLUME[0]).save(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), useCompression=path.name.startswith("packed"))
    return path


def test_a_whole_file_passes(whole):
    check_whole(whole)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_cut_file_is_refused(whole, share):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError):
        (mrc_surplus if whole.suffix == ".mrc" else check_whole)(whole)  # the name of the format is at its byte 208


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(ImageError, match="the file is empty"):
        check_whole(tmp_path / "a.nii.gz")


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), useCompression=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ImageError, match="its gzip data are cut off or damaged"):
        check_whole(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_forms_and_byte_orders_of_nifti(tmp_path, order):
    nibabel = pytest.importorskip("nibabel")
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        path = tmp_path / "a.nii"
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.uint8)
        nibabel.save(kind(VOLUME, np.eye(4), header), path)
        check_whole(path)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ImageError, match=r"its header announces [\d,]+ bytes; [\d,]+ are there: cut off"):
            check_whole(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd"])
def test_conversion_and_the_readers_of_nnunet_refuse_alike(tmp_path, ending):
    path = tmp_path / f"a_0000{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(RetinaError, match=r"cannot be read as .*cut off"):
        read_image(path)
    with pytest.raises(RetinaError, match=r"cannot be read .*cut off"):
        read_channel(path, {"file_ending": ending})


@pytest.mark.parametrize(("kind", "place", "value"), [
    ("a.nii", 46, 5), ("a.nii", 72, 16), ("raw.nrrd", b"30 20 6", b"30 20 5"), ("raw.mha", b"30 20 6", b"30 20 5"),
])  # fmt: skip
def test_a_header_that_announces_less_than_is_there_is_refused(tmp_path, kind, place, value):
    """A size or type that was changed: part of the image would be taken for the whole."""
    path = tmp_path / kind
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), useCompression=False)
    content = bytearray(path.read_bytes())
    if isinstance(place, int):
        content[place] = value
    else:
        assert place in content
        content = content.replace(place, value)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"another size or type than the data's|bits a voxel; expected 8"):
        check_whole(path)


def test_mrc_without_the_name_of_the_format(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(VOLUME.astype(np.uint16))
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    content[208:212] = bytes(4)
    (tmp_path / "a.mrc").write_bytes(content + b"more")
    assert mrc_surplus(tmp_path / "a.mrc") == 4
    assert "4 bytes after those that the header announces were left out" in read_image(tmp_path / "a.mrc").remarks
    (tmp_path / "a.mrc").write_bytes(content[:-1])
    with pytest.raises(RetinaError, match=r"cannot be read as mrc \(its header announces .* cut off\)"):
        read_image(tmp_path / "a.mrc")
    content[:4] = b"\xff" * 4
    (tmp_path / "a.mrc").write_bytes(content)
    with pytest.raises(RetinaError, match=r"its header says -1 x 20 x 6 voxels of type 6, none of MRC's"):
        read_image(tmp_path / "a.mrc")


def test_an_mrc_file_as_wide_as_the_header_of_nifti(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.ones((2, 3, 348), np.uint16))
    assert read_image(tmp_path / "a.mrc").array.shape == (2, 3, 348)


def test_the_newer_nifti_is_named(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for ending in (".nii", ".nii.gz"):
        nibabel.save(nibabel.Nifti2Image(VOLUME, np.eye(4)), tmp_path / f"a{ending}")
        with pytest.raises(RetinaError, match="it is NIfTI-2, which SimpleITK does not read; save it as NIfTI-1"):
            read_image(tmp_path / f"a{ending}")


def test_the_header_of_nrrd(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(tmp_path / "a.nrrd"))
    fields, _ = nrrd_header(tmp_path / "a.nrrd")
    assert (fields["sizes"], fields["type"]) == ("30 20 6", "unsigned char")
