"""The page about the objects of a prediction."""

import re
from typing import Any

import numpy as np
import pytest

from nnunetv2_retina.display import histograms as drawn
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.objects import table
from nnunetv2_retina.report import objects
from nnunetv2_retina.report.objects import PAGE, folder_tables, write_objects_page


@pytest.fixture
def lines(monkeypatch) -> dict[str, Any]:
    """The panels that are drawn."""
    kept: dict[str, Any] = {}

    def histograms(path, groups, names):
        kept.update(groups)
        drawn.histograms(path, groups, names)

    monkeypatch.setattr(objects, "histograms", histograms)
    return kept


def write(path, ids, labels, steps=(30.0, 20.0, 20.0), unit: str | None = "nm") -> None:
    frame = table.Frame.of(ids.shape, Spacing.of(steps, unit))
    table.write(path, table.describe(ids, labels, {1: "mitochondrion", 2: "vesicle"}, frame))


def text(page) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]+"', "", page.read_text(encoding="utf-8")))


def test_numbers_of_a_folder(tmp_path, lines):
    ids = np.zeros((8, 40, 200), np.uint8)
    ids[1:3, 2:6, 10:110], ids[4:6, 10:14, 10:20], ids[0:2, 20:24, 10:20] = 1, 2, 3
    write(tmp_path / "a_instances.csv", ids, [1, 2, 2])
    write(tmp_path / "b_instances.csv", np.zeros_like(ids), [])
    (tmp_path / "c_instances.csv").write_text("id,label\n")
    shown = text(write_objects_page(folder_tables(tmp_path, "abcd"), tmp_path / PAGE))
    assert "3 objects in 2 images; 33 % touch the border." in shown
    assert re.search(r"mitochondrion\s+1\s+0 %\s+0 %\s+0\.0096 µm³ \(0\.0096 to 0\.0096\)\s+2 µm", shown)
    assert re.search(r"vesicle\s+2\s+50 %\s+0 %\s+9\.6e\+05 nm³", shown)
    assert re.search(r"a\s+3\s+33 %", shown) and re.search(r"b\s+0\s+-", shown)
    assert "c_instances.csv has not the columns of a table of objects" in shown
    assert "size of a voxel in nm is not known" not in shown and "maximum Feret diameter" in shown
    assert list(lines) == ["mitochondrion", "vesicle"]
    volume, length, shape, apart = lines["vesicle"]
    assert (volume.label, length.label, shape.label, apart.label) == (
        "volume, nm³", "length, nm", "sphericity", "to the nearest, nm",
    )  # fmt: skip
    assert (len(volume.whole), len(volume.cut)) == (1, 1)


def test_images_and_volumes_of_one_class_are_apart(tmp_path, lines):
    ids = np.zeros((1, 20, 20), np.uint8)
    ids[0, 5:9, 5:9] = 1
    write(tmp_path / "flat_instances.csv", ids, [1], (1.0, 1.0, 1.0), None)
    deep = np.zeros((4, 9, 9), np.uint8)
    deep[1:3, 2:5, 2:5] = 1
    write(tmp_path / "deep_instances.csv", deep, [1])
    shown = text(write_objects_page(folder_tables(tmp_path, ["flat", "deep"]), tmp_path / PAGE))
    assert list(lines) == ["mitochondrion (2D, unknown)", "mitochondrion (3D, nm)"]
    assert lines["mitochondrion (2D, unknown)"][2].label == "circularity"
    assert "size of a voxel in nm is not known" in shown
    assert lines["mitochondrion (3D, nm)"][3].whole == [], "a lone object has no neighbour"


def test_without_objects(tmp_path):
    assert "0 objects in 0 images." in text(write_objects_page({}, tmp_path / PAGE))
    with pytest.raises(RetinaError, match="cannot write"):
        write_objects_page({}, tmp_path / "missing" / PAGE)


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [1.0, 5.0, 900.0]])
def test_bins_hold_every_value(values, logarithmic):
    ends = drawn.edges(np.array(values), logarithmic and len(set(values)) > 1)
    assert np.histogram(values, ends)[0].sum() == len(values) and (np.diff(ends) > 0).all()
