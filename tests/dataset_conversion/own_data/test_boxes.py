"""What is annotated in part: boxes from the command line, text files and napari's rectangles; the rest is ignored."""

import json

import numpy as np
import pytest
import tifffile
from helpers.ome_volumes import needs_zarr, write
from helpers.raw_datasets import read_back, report_of
from PIL import Image

from dataset_conversion.convert import main
from dataset_conversion.own_data.boxes import Rectangle, parts, read_box_file
from dataset_conversion.own_data.folder import convert_folder
from nnunetv2_retina.errors import RetinaError

STACK = np.random.default_rng(0).integers(0, 255, (4, 20, 24), np.uint8)
MASK = (STACK > 128).astype(np.uint8)
RECTANGLES = """index,shape-type,vertex-index,axis-0,axis-1,axis-2
0,rectangle,0,1.0,-3.2,1.6
0,rectangle,1,1.0,-3.2,9.4
0,rectangle,2,1.0,7.9,9.4
0,rectangle,3,1.0,7.9,1.6
1,rectangle,0,3.0,10.0,12.0
1,rectangle,1,3.0,10.0,40.0
1,rectangle,2,3.0,15.0,40.0
1,rectangle,3,3.0,15.0,12.0
"""
DRAWN = [(slice(1, 2), slice(0, 8), slice(2, 10)), (slice(3, 4), slice(10, 16), slice(12, 24))]


def expected(boxes, mask=MASK, ignore=2):
    label = np.full(mask.shape, ignore, np.uint8)
    for box in boxes:
        label[box] = mask[box]
    return label


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    tifffile.imwrite("image.tif", STACK, photometric="minisblack")
    tifffile.imwrite("mask.tif", MASK, photometric="minisblack")
    (tmp_path / "boxes.txt").write_text("# the first two slices\n0:2,:,0:12\n\n3:4,5:10,6:20  # and a corner\n")
    (tmp_path / "shapes.csv").write_text(RECTANGLES)
    return tmp_path


FIRST = (slice(0, 2), slice(None), slice(0, 12))
CORNER = (slice(3, 4), slice(5, 10), slice(6, 20))


@pytest.mark.parametrize(
    ("given", "boxes"),
    [
        (["0:2,:,0:12"], [FIRST]),
        (["boxes.txt"], [FIRST, CORNER]),
        (["boxes.txt", "shapes.csv"], [FIRST, CORNER, *DRAWN]),
        (["shapes.csv"], DRAWN),
    ],
)
def test_of_an_image_the_rest_is_ignored(files, given, boxes, capsys):
    command = ["folder", "image.tif", "mask.tif", "-d", "501", "--name", "Mine", "--labels", "1=mito", "--box", *given]
    assert main(command) == 0, capsys.readouterr()
    folder = files / "raw" / "Dataset501_Mine"
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "mito": 1, "ignore": 2}
    image, label, _ = read_back(folder, "image")
    np.testing.assert_array_equal(image, STACK)
    np.testing.assert_array_equal(label, expected(boxes))
    share = (label != 2).mean()
    assert f"annotated, {share:.1%} of the voxels; the rest is ignored" in str(report_of(folder))


def test_of_a_folder_each_image_may_have_its_list(files):
    """Without a list all of a mask is annotated; ignored mask values and ignored rest are one."""
    for name in "abc":
        for folder, array in (("images", STACK[0]), ("masks", MASK[0])):
            (files / "mine" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(STACK[0] < 5, 255, array) if folder == "masks" else array).save(
                files / "mine" / folder / f"{name}.png"
            )
    (files / "mine" / "boxes").mkdir()
    (files / "mine" / "boxes" / "a.txt").write_text("0:10,0:10\n")
    rows = [line.split(",") for line in RECTANGLES.splitlines()[:5]]
    flat = ["index,shape-type,vertex-index,axis-0,axis-1", *(",".join([*r[:3], *r[4:]]) for r in rows[1:])]
    (files / "mine" / "boxes" / "b.csv").write_text("\n".join(flat))
    made = convert_folder(files / "mine", 502, "Mine", labels={1: "mito"}, ignore=255)
    truth = np.where(STACK[0] < 5, 2, MASK[0])
    for name, boxes in (("a", [np.s_[0:10, 0:10]]), ("b", [np.s_[0:8, 2:10]]), ("c", [np.s_[:, :]])):
        np.testing.assert_array_equal(read_back(made, name)[1][0], expected(boxes, truth))


@needs_zarr
def test_of_a_volume_each_box_is_a_case_also_where_it_was_drawn(files):
    for name, array in (("in.zarr", STACK), ("labels.zarr", MASK)):
        write(files / name, array)
    folder = convert_folder("in.zarr", 503, "Mine", mask="labels.zarr", labels={1: "mito"}, boxes=["shapes.csv"])
    for name, box in zip(("in_1_0_2", "in_3_10_12"), DRAWN, strict=True):
        image, label, _ = read_back(folder, name)
        np.testing.assert_array_equal(image, STACK[box])
        np.testing.assert_array_equal(label, MASK[box])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["0:9,:,:"], r"--box 0:9,:,:; expected z0:z1,y0:y1,x0:x1 inside 4 x 20 x 24 voxels \(z, y, x\)"),
        (["0:2,0:2"], "expected z0:z1,y0:y1,x0:x1 inside"),
        (["absent.txt"], "no file of boxes absent.txt"),
        (["empty.txt"], "empty.txt holds no box"),
        (["ellipse.csv"], "shape 0 is of the kind ellipse; expected rectangles alone"),
        (["flat.csv"], "has 2 axes; expected the image's: z, y, x"),
        (["beyond.csv"], "rectangle 1 holds no pixel of the image of 4 x 20 x 24"),
        (["turned.csv"], "rectangle 0 is turned; expected sides along the axes"),
        (["image.csv"], "image.csv is no text"),
    ],
)
def test_a_box_that_does_not_fit_is_refused_and_nothing_is_left(files, given, message):
    (files / "empty.txt").write_text("# nothing\n")
    (files / "ellipse.csv").write_text(RECTANGLES.replace("rectangle", "ellipse"))
    (files / "flat.csv").write_text("\n".join(line.rpartition(",")[0] for line in RECTANGLES.splitlines()))
    (files / "beyond.csv").write_text(RECTANGLES.replace("3.0,", "9.0,"))
    turned = ["0.0,2.0,8.0", "0.0,8.0,2.0", "0.0,14.0,8.0", "0.0,8.0,14.0"]
    header = RECTANGLES.splitlines()[0]
    rows = [header, *(f"0,rectangle,{number},{corner}" for number, corner in enumerate(turned))]
    (files / "turned.csv").write_text("\n".join(rows))
    (files / "image.csv").write_bytes(b"\xff\xfe\x00\xd8II*")
    with pytest.raises(RetinaError, match=message):
        convert_folder("image.tif", 501, "Mine", mask="mask.tif", labels={1: "mito"}, boxes=given)
    assert list((files / "raw").iterdir()) == []


def test_lists_of_a_folder_are_named_after_its_images(files):
    for folder in ("images", "masks", "boxes"):
        (files / "mine" / folder).mkdir(parents=True)
    Image.fromarray(STACK[0]).save(files / "mine/images/a.png")
    Image.fromarray(MASK[0]).save(files / "mine/masks/a.png")
    with pytest.raises(RetinaError, match="--box is for one image"):
        convert_folder("mine", 501, "Mine", boxes=["0:1,0:1"])
    (files / "mine/boxes/b.txt").write_text("0:1,0:1")
    with pytest.raises(RetinaError, match=r"b\.txt: there is no image with a mask b, but a"):
        convert_folder("mine", 501, "Mine")


def test_a_pixel_belongs_to_a_rectangle_if_its_middle_does(files):
    first = read_box_file(files / "shapes.csv")[0]
    assert isinstance(first, Rectangle) and first.ends == ((1, 2), (-3, 8), (2, 10))
    (part,) = parts([Rectangle("r", ((0, 1), (-5, 3), (2, 99)))], (1, 4, 6))
    assert part == (slice(0, 1), slice(0, 3), slice(2, 6))
