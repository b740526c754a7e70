"""``retina_predict``: formats that people open, names and kinds of the images, overlays, folders of slices."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from helpers.model_folders import make_model
from helpers.ome_volumes import cells, needs_zarr, write
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image
from skimage.io import imread

from dataset_conversion.readers.images import read_image
from nnunetv2_retina.commands import predict as command
from nnunetv2_retina.display.tints import CLASS_COLOURS
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.labels import read_labels
from nnunetv2_retina.prediction.formats import write_labels

NM = Spacing(40.0, 8.0, 9.0, "nm")


def predict(*arguments) -> int:
    return command.main([*map(str, arguments), "-device", "cpu", "--disable_tta"])


def edit(model: Path, **block) -> None:
    contents = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**contents, "retina": block}))


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    model = make_model(tmp_path_factory.mktemp("flat") / "model")
    edit(model, pixel_size=[5.0, 4.0])
    return model


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    model = make_model(
        tmp_path_factory.mktemp("deep") / "model", ending=".nii.gz", reader="SimpleITKIO", spacing=(8.0, 9.0)
    )
    edit(model, spacing_unit="nm")
    return model


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


def test_tiff_has_what_imagej_asks_for(flat, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(40, 50)).save(tmp_path / "in" / "case_0000.png")
    given = ("-i", tmp_path / "in", "-m", flat, "--save_probabilities", "--instances")
    assert predict(*given, "-o", tmp_path / "plain") == 0
    assert predict(*given, "-o", tmp_path / "out", "--output-format", "tif", "--overlay") == 0
    right = imread(tmp_path / "plain/case.png")
    with tifffile.TiffFile(tmp_path / "out/case.tif") as file:
        page, told = file.pages[0], file.imagej_metadata
        assert file.is_imagej and told["unit"] == "nm" and "1 = " in told["Info"]
        assert [tag.value[1] / tag.value[0] for tag in (page.tags["YResolution"], page.tags["XResolution"])] == [5, 4]
        assert page.colormap[:, 1].tolist() == [int(CLASS_COLOURS[0][i : i + 2], 16) * 257 for i in (1, 3, 5)]
        np.testing.assert_array_equal(file.asarray(), right)
    ids = read_image(tmp_path / "out/case_instances.tif", mask=True).array
    np.testing.assert_array_equal(ids, imread(tmp_path / "plain/case_instances.png"))
    with tifffile.TiffFile(tmp_path / "out/case_probabilities.tif") as file:
        assert file.series[0].axes == "CYX" and file.imagej_metadata["Labels"][0] == "background"
        np.testing.assert_allclose(
            file.asarray(), np.load(tmp_path / "plain/case.npz")["probabilities"][:, 0], atol=1e-6
        )
    assert imread(tmp_path / "out/case_overlay.png").shape[1] >= 600
    (tmp_path / "out/case_overlay.png").unlink()
    assert predict(*given, "-o", tmp_path / "out", "--output-format", "tif", "--overlay", "--c") == 0
    assert (tmp_path / "out/case_overlay.png").is_file()


def test_same_keeps_names_and_kinds(flat, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    tifffile.imwrite(
        source / "Zelle 1 (neu).TIF", noise(40, 50), imagej=True, resolution=(1 / 3, 1 / 2), metadata={"unit": "nm"}
    )
    Image.fromarray(noise(40, 50)).save(source / "b.jpg", quality=95)
    assert predict("-i", source, "-o", tmp_path / "out", "-m", flat, "--output-format", "same") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"Zelle 1 (neu).TIF", "b.png"}
    found = read_image(tmp_path / "out/Zelle 1 (neu).TIF", mask=True)
    assert found.array.shape == (40, 50)
    with tifffile.TiffFile(tmp_path / "out/Zelle 1 (neu).TIF") as file:
        assert file.pages[0].tags["XResolution"].value == (1, 3)
    capsys.readouterr()
    before = (source / "b.jpg").read_bytes()
    assert predict("-i", source, "-o", source, "-m", flat, "--output-format", "same") == 2
    assert "an image that is to be predicted; give another with -o" in capsys.readouterr().err
    assert (source / "b.jpg").read_bytes() == before and len(list(source.iterdir())) == 2


def test_a_folder_of_slices_comes_back_as_one(deep, tmp_path, capsys):
    volume, source = noise(10, 32, 32), tmp_path / "my stack"
    source.mkdir()
    for number, plane in enumerate(volume, start=1):
        Image.fromarray(plane).save(source / f"z{number}.png")
    given = ("-i", source, "-m", deep, "--slices-as-volume", "--spacing", 40, 8, 9)
    assert predict(*given, "-o", tmp_path / "one", "--output-format", "tif") == 0
    with tifffile.TiffFile(tmp_path / "one/my stack.tif") as file:
        labels = file.asarray()
        assert file.series[0].axes == "ZYX" and labels.shape == volume.shape
        assert file.imagej_metadata["slices"] == 10 and file.imagej_metadata["spacing"] == 40
    (tmp_path / "named").mkdir()
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((9.0, 8.0, 40.0))
    sitk.WriteImage(image, tmp_path / "named/v_0000.nii.gz")
    assert predict("-i", tmp_path / "named", "-o", tmp_path / "plain", "-m", deep, "--overlay") == 0
    np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "plain/v.nii.gz")))
    assert imread(tmp_path / "plain/v_overlay.png").shape[1] > 1000  # three columns of slices
    for _ in range(2):  # a second run takes the place of the first
        assert predict(*given, "-o", tmp_path / "many", "--output-format", "same", "--instances") == 0
    for number in range(1, 11):
        np.testing.assert_array_equal(imread(tmp_path / f"many/my stack/z{number}.png"), labels[number - 1])
    assert len(list((tmp_path / "many/my stack_instances").iterdir())) == 10
    (tmp_path / "many/my stack/mine.txt").touch()
    capsys.readouterr()
    assert predict(*given, "-o", tmp_path / "many", "--output-format", "same") == 2
    assert "holds mine.txt, which are no slices of this prediction" in capsys.readouterr().err
    assert (tmp_path / "many/my stack/mine.txt").is_file()
    assert predict("-i", tmp_path / "named", "-o", tmp_path / "x", "-m", deep, "--spacing", 1, 1, 1) == 2
    assert "which say themselves what --spacing would" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["nii.gz", "nrrd", "same"])
def test_a_volume_of_one_slice_keeps_its_place(deep, tmp_path, asked):
    (tmp_path / "in").mkdir()
    image = sitk.GetImageFromArray(noise(1, 40, 48))
    image.SetSpacing((9.0, 8.0, 40.0))
    image.SetOrigin((1.0, 2.0, 3.0))
    sitk.WriteImage(image, tmp_path / "in/v_0000.nii.gz")
    given = ("-i", tmp_path / "in", "-o", tmp_path / "out", "-m", deep, "--instances")
    assert predict(*given, "--output-format", asked) == 0
    ending = "nii.gz" if asked == "same" else asked
    for name in ("v", "v_instances"):
        written = sitk.ReadImage(tmp_path / f"out/{name}.{ending}")
        assert written.GetSize() == (48, 40, 1)
        assert written.GetSpacing() == pytest.approx((9, 8, 40)) and written.GetOrigin() == pytest.approx((1, 2, 3))


@pytest.mark.parametrize("asked", [None, "nrrd", "same"])
@pytest.mark.parametrize("shape", [(1, 40, 48), (3, 40, 48)])
def test_labels_lie_on_images_of_any_name(deep, tmp_path, asked, shape):
    """A file that is not named as nnU-Net has it is read as conversion reads it; its place in space is kept."""
    turned = (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)
    image = sitk.GetImageFromArray(noise(*shape))
    for name, place in (("Spacing", (9.0, 8.0, 40.0)), ("Origin", (1.0, 2.0, 3.0)), ("Direction", turned)):
        getattr(image, f"Set{name}")(place)
    sitk.WriteImage(image, tmp_path / "cell.nrrd")
    given = ("-i", tmp_path / "cell.nrrd", "-m", deep, "--instances")
    assert predict(*given, "-o", tmp_path / "out", *([] if asked is None else ["--output-format", asked])) == 0
    for name in ("cell", "cell_instances"):
        written = sitk.ReadImage(tmp_path / f"out/{name}.{'nii.gz' if asked is None else 'nrrd'}")
        assert written.GetSize() == image.GetSize() and written.GetSpacing() == pytest.approx(image.GetSpacing())
        assert written.GetOrigin() == pytest.approx((1, 2, 3)) and written.GetDirection() == pytest.approx(turned)
    assert predict(*given, "-o", tmp_path / "other", "--spacing", 30, 8, 9) == 0
    assert sitk.ReadImage(tmp_path / "other/cell.nii.gz").GetSpacing()[::-1][-2:] == pytest.approx((8, 9))


@pytest.mark.parametrize("most", [200, 300, 70_000])
@pytest.mark.parametrize("ending", [".tif", ".nii.gz", ".nrrd", ".mrc", ".h5"])
def test_numbers_survive_in_every_format(tmp_path, ending, most):
    ids = np.arange(4 * 6 * 8).reshape(4, 6, 8).astype(np.min_scalar_type(most))
    ids[0, 0, 0] = most
    write_labels(tmp_path / f"a{ending}", ids, NM)
    found = read_image(tmp_path / f"a{ending}", mask=True)
    np.testing.assert_array_equal(found.array, ids)
    if ending == ".mrc" or (ending == ".tif" and most > 255):
        assert read_image(tmp_path / f"a{ending}").spacing == NM
    if ending == ".tif":
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_imagej and file.series[0].axes == "ZYX" and file.imagej_metadata["max"] == max(255, most)


@pytest.mark.parametrize(("shape", "reader"), [((6, 8), NaturalImage2DIO), ((4, 6, 8), Tiff3DIO)])
def test_readers_of_nnunet_take_the_numbers_not_the_colours(tmp_path, shape, reader):
    labels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 3
    write_labels(tmp_path / "a.tif", labels, NM if len(shape) == 3 else Spacing(None, 8.0, 9.0, "nm"), {1: "a", 2: "b"})
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif", reader).array, labels.reshape(-1, 6, 8))


def test_more_than_16_bits_do_not_fit_png(tmp_path):
    with pytest.raises(RetinaError, match="write another format: --output-format tif"):
        write_labels(tmp_path / "a.png", np.full((3, 3), 70_000, np.uint32))


@needs_zarr
def test_zarr_volumes_are_read_alone_and_beside_files(deep, tmp_path, capsys, monkeypatch):
    volume = cells((3, 40, 48))
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "stack.zarr", volume, spacing=(40, 8, 9))
    tifffile.imwrite(tmp_path / "in" / "other.tif", volume, photometric="minisblack")
    given = ("-m", deep, "--output-format", "same")
    assert predict("-i", tmp_path / "in" / "stack.zarr", "-o", tmp_path / "alone", *given) == 0
    assert predict("-i", tmp_path / "in", "-o", tmp_path / "both", *given, "--spacing", 40, 8, 9) == 0
    alone, both, other = (
        tifffile.imread(tmp_path / path) for path in ("alone/stack.tif", "both/stack.tif", "both/other.tif")
    )
    assert alone.shape == volume.shape and alone.any()
    np.testing.assert_array_equal(alone, both)
    np.testing.assert_array_equal(alone, other)
    write(tmp_path / "moved.zarr", volume, spacing=(40, 8, 9), origin=(400, 16, 27))
    assert predict("-i", tmp_path / "moved.zarr", "-o", tmp_path / "moved", "-m", deep) == 0
    moved = sitk.ReadImage(tmp_path / "moved/moved.nii.gz")
    assert moved.GetOrigin() == pytest.approx((27, 16, 400)) and moved.GetSpacing() == pytest.approx((9, 8, 40))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(moved), alone)
    (tmp_path / "in" / "other.tif").rename(tmp_path / "in" / "stack.tif")
    assert predict("-i", tmp_path / "in", "-o", tmp_path / "twice", *given) == 2
    monkeypatch.setattr(command, "MOST_VOXELS", 100)
    assert predict("-i", tmp_path / "in" / "stack.zarr", "-o", tmp_path / "twice", *given) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "two images called stack" in first and "retina_volume predict" in second
    assert not (tmp_path / "twice").exists()
