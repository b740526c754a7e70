"""Instances on discs and balls that touch."""

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.datasets import class_names
from nnunetv2_retina.prediction.instances import find_instances
from nnunetv2_retina.prediction.settings import InstanceSettings


def balls(shape, centres, radius, sides=None) -> np.ndarray:
    """Labels 1 within ``radius`` of any centre; distances in units of ``sides``."""
    sides = sides or (1,) * len(shape)
    axes = np.meshgrid(*(np.arange(n) * side for n, side in zip(shape, sides, strict=True)), indexing="ij")
    found = np.zeros(shape, np.uint8)
    for centre in centres:
        squares = sum((axis - c * side) ** 2 for axis, c, side in zip(axes, centre, sides, strict=True))
        found[squares <= radius**2] = 1
    return found


def test_touching_discs_are_cut_in_the_middle():
    labels = balls((40, 80), [(20, 20), (20, 48)], 15)
    ids, found = find_instances(labels, (1, 1))
    assert ids.dtype == np.uint8 and ids.shape == labels.shape
    assert [item.id for item in found] == [1, 2]
    np.testing.assert_array_equal(ids > 0, labels > 0)
    assert len({ids[20, 20], ids[20, 48]}) == 2
    assert np.unique(ids[:, :33]).tolist() == [0, ids[20, 20]]
    assert np.unique(ids[:, 36:]).tolist() == [0, ids[20, 48]]
    assert [item.voxels for item in found] == [(ids == 1).sum(), (ids == 2).sum()]
    assert found[0].position == pytest.approx((0, 20, 20), abs=1.5)


def test_touching_balls_of_an_anisotropic_volume():
    sides = (4, 1, 1)
    labels = balls((12, 40, 80), [(6, 20, 20), (6, 20, 48)], 15, sides)
    ids, found = find_instances(labels, sides)
    assert len(found) == 2
    assert ids[6, 20, 20] != ids[6, 20, 48]
    stacked = balls((16, 40, 40), [(4, 20, 20), (11, 20, 20)], 15, sides)
    assert len(find_instances(stacked, sides)[1]) == 2


def test_a_single_image_of_a_volume_ignores_the_distance_between_slices():
    labels = balls((40, 80), [(20, 20), (20, 48)], 15)
    flat, _ = find_instances(labels, (5, 5))
    volume, found = find_instances(labels[None], (999 * 5, 5, 5))
    np.testing.assert_array_equal(volume[0], flat)
    assert len(found) == 2


def test_min_distance():
    labels = balls((40, 80), [(20, 20), (20, 48)], 15)
    assert len(find_instances(labels, (1, 1), InstanceSettings(min_distance=27))[1]) == 2
    assert len(find_instances(labels, (1, 1), InstanceSettings(min_distance=40))[1]) == 1
    assert len(find_instances(labels, (8, 8), InstanceSettings(min_distance=200, units="physical"))[1]) == 2
    assert len(find_instances(labels, (8, 8), InstanceSettings(min_distance=300, units="physical"))[1]) == 1
    assert len(find_instances(labels, (8, 8), InstanceSettings(min_distance=0))[1]) >= 2


def test_separate_objects_are_never_merged_however_near():
    labels = np.zeros((9, 30), np.uint8)
    labels[:, 0:30:3] = 1
    ids, found = find_instances(labels, (1, 1), InstanceSettings(min_distance=100))
    assert len(found) == 10
    assert len(np.unique(ids)) == 11


def test_min_size():
    labels = np.zeros((20, 20), np.uint8)
    labels[2:4, 2:4] = 1
    labels[8:14, 8:14] = 1
    settings = InstanceSettings(min_distance=50, min_size=5)
    ids, found = find_instances(labels, (1, 1), settings)
    assert [item.voxels for item in found] == [36]
    assert ids[2, 2] == 0 and ids[10, 10] == 1
    physical = InstanceSettings(min_distance=50, min_size=17, units="physical")
    assert len(find_instances(labels, (2, 2), physical)[1]) == 1
    assert len(find_instances(labels, (3, 3), physical)[1]) == 2


def test_classes_that_touch_stay_apart_and_go_up():
    labels = np.zeros((20, 20), np.uint8)
    labels[5:10, 5:15], labels[10:15, 5:15] = 4, 2
    ids, found = find_instances(labels, (1, 1), InstanceSettings(min_distance=50))
    assert [(item.id, item.label) for item in found] == [(1, 2), (2, 4)]
    assert ids[6, 6] == 2 and ids[12, 6] == 1


@pytest.mark.parametrize(("count", "kind"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65536, np.uint32)])
def test_smallest_type(count, kind):
    labels = np.zeros(2 * count + 1, np.uint8)
    labels[1::2] = 1
    ids, found = find_instances(labels[None], (1, 1))
    assert ids.dtype == kind and ids.max() == count == len(found)


def test_labels_and_spacing_that_do_not_fit():
    with pytest.raises(RetinaError, match=r"shape \(4, 4\) and spacing \(1, 1, 1\); expected"):
        find_instances(np.zeros((4, 4), np.uint8), (1, 1, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": "nm"}, "units of instances are 'nm'; expected one of voxels, physical"),
        ({"min_distance": -1}, "smallest distance of instances is -1"),
        ({"min_size": float("nan")}, "smallest size of instances is nan"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(RetinaError, match=message):
        InstanceSettings(**settings)


def test_names_of_classes_and_regions():
    assert class_names({"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}) == {1: "a", 2: "b"}
    regions = {"labels": {"background": 0, "any": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    assert class_names(regions) == {1: "any", 2: "core"}
