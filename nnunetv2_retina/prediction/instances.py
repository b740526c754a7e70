"""From classes to instances: distance transform and watershed, the next step that the RETINA paper names.

Within a class every connected region is cut where it is narrow: its distance to the region's border has a peak in the
middle of each instance, and the watershed of the inverted distance starts from those. scikit-image's watershed is used
because SciPy's takes 16-bit integers alone; nnU-Net needs scikit-image anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.settings import InstanceSettings


@dataclass(frozen=True)
class Instance:
    """One object. Its position is the mean of its voxels."""

    id: int
    label: int
    voxels: int
    position: tuple[float, float, float]
    """(z, y, x) in voxels."""


@dataclass(frozen=True)
class Rule:
    """Settings, brought to the spacing of a volume."""

    sides: np.ndarray
    """Of a voxel along z, y and x."""
    distance: float
    """Centres of two pieces are at least so far apart, in the unit of the sides."""
    voxel: float
    """What a voxel counts towards the smallest size."""
    min_size: float

    @classmethod
    def of(cls, settings: InstanceSettings, spacing: Spacing, slices: int) -> Rule:
        """Return the rule for a volume of so many slices."""
        sides = np.array([spacing.z or 1.0, spacing.y, spacing.x])
        used = sides[1:] if slices == 1 else sides  # the distance between slices means nothing to a single one
        unit, voxel = (used.min(), 1.0) if settings.units == "voxels" else (1.0, float(np.prod(used)))
        return cls(sides, settings.min_distance * unit, voxel, settings.min_size)

    def keeps(self, voxels: int) -> bool:
        """Tell whether an object of so many voxels is large enough."""
        return not voxels * self.voxel < self.min_size

    def leaves_whole(self, shape: Sequence[int]) -> bool:
        """Tell whether no two points of a box are far enough apart to be centres."""
        return bool(np.linalg.norm((np.array(shape) - 1) * self.sides) < self.distance)


def find_instances(
    labels: np.ndarray, spacing: Sequence[float] | Spacing, settings: InstanceSettings | None = None
) -> tuple[np.ndarray, list[Instance]]:
    """Number the objects of every class.

    Args:
        labels: (z, y, x) or (y, x), whole numbers; 0 is background.
        spacing: along the same axes.
        settings: None: the defaults.

    Returns:
        Ids, 0 for background, of the labels' shape and the smallest of uint8, uint16 and uint32 that holds them; and
        the instances in the order of their ids, which go up class by class.

    Raises:
        RetinaError: if the spacing does not fit the labels.
    """
    settings = settings or InstanceSettings()
    steps = Spacing.of(spacing)
    if labels.ndim not in (2, 3) or len(steps) != labels.ndim:
        raise RetinaError(
            f"the labels have shape {labels.shape} and spacing {tuple(spacing)}; expected (z, y, x) or (y, x) and a "
            "number for each axis"
        )
    volume = labels[None] if labels.ndim == 2 else labels
    rule = Rule.of(settings, steps, len(volume))
    ids = np.zeros(volume.shape, np.uint32)
    instances: list[Instance] = []
    for label in np.unique(volume):
        if label == 0:
            continue
        for box, mask in _pieces(volume == label, rule):
            count = int(np.count_nonzero(mask))
            if not rule.keeps(count):
                continue
            z, y, x = (float(axis.mean() + part.start) for axis, part in zip(np.nonzero(mask), box, strict=True))
            instances.append(Instance(len(instances) + 1, int(label), count, (z, y, x)))
            ids[box][mask] = len(instances)
    ids = ids.astype(np.min_scalar_type(len(instances)), copy=False)
    return ids.reshape(labels.shape), instances


def _pieces(mask: np.ndarray, rule: Rule) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Yield each piece of each region connected by faces: the box it lies in, and its mask there."""
    regions, _ = ndimage.label(mask)
    for number, tight in enumerate(ndimage.find_objects(regions), start=1):
        box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in tight)  # its border is the region's
        pieces = cut(regions[box] == number, rule)
        for piece, inner in enumerate(ndimage.find_objects(pieces), start=1):
            if inner is not None:
                starts = [part.start for part in box]
                place = tuple(slice(i.start + s, i.stop + s) for i, s in zip(inner, starts, strict=True))
                yield place, pieces[inner] == piece


def cut(region: np.ndarray, rule: Rule) -> np.ndarray:
    """Cut one connected region into pieces around the peaks of its distance transform.

    Args:
        region: mask (z, y, x) in the region's bounding box, one voxel larger on each side inside the volume.
        rule: how.

    Returns:
        Numbers of the pieces from 1 on, int32; 0 outside of the region.
    """
    sides, min_distance = rule.sides, rule.distance
    if rule.leaves_whole(region.shape):
        return region.astype(np.int32)
    distance = ndimage.distance_transform_edt(region, sides)
    size = [min(3, n) for n in region.shape]
    plateaus, count = ndimage.label(region & (distance == ndimage.maximum_filter(distance, size)), np.ones((3, 3, 3)))
    if count < 2 or min_distance <= 0:
        return np.asarray(watershed(-distance, plateaus, mask=region) if count > 1 else region, np.int32)
    centres = np.array(ndimage.center_of_mass(plateaus > 0, plateaus, range(1, count + 1)))
    heights = np.asarray(ndimage.maximum(distance, plateaus, range(1, count + 1)))
    kept = _apart(centres * sides, heights, min_distance)
    if len(kept) == 1:
        return region.astype(np.int32)
    new_number = np.zeros(count + 1, np.int32)
    new_number[kept + 1] = np.arange(1, len(kept) + 1)
    return np.asarray(watershed(-distance, new_number[plateaus], mask=region))


def _apart(points: np.ndarray, heights: np.ndarray, min_distance: float) -> np.ndarray:
    """Return the indices of points at least so far from every higher one that is kept."""
    tree = cKDTree(points)
    free = np.ones(len(points), bool)
    kept = []
    for index in np.argsort(-heights, kind="stable"):
        if free[index]:
            kept.append(index)
            free[tree.query_ball_point(points[index], np.nextafter(min_distance, 0))] = False
    return np.array(kept)
