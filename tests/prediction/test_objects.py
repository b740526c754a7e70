"""The table of objects: against shapes of known size, against counting voxel by voxel, and whatever the blocks."""

import csv
import json
import math
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import perimeter_crofton, regionprops

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.objects import columns, table
from nnunetv2_retina.prediction.objects.measures import measure, read_around, total
from nnunetv2_retina.prediction.objects.neighbours import Parts, Surfaces, combine, nearest
from nnunetv2_retina.prediction.objects.vertices import crofton

ROOT = Path(__file__).resolve().parents[2]
STEPS = (5.0, 2.0, 3.0)
"""nm."""


def rows(ids, steps=STEPS, unit="nm", **options) -> list[dict[str, Any]]:
    count = int(ids.max())
    return table.describe(ids, [1] * count, {1: "one"}, table.Frame.of(ids.shape, Spacing.of(steps, unit)), **options)


def places(shape, steps=STEPS) -> tuple[np.ndarray, ...]:
    return np.meshgrid(*(np.arange(n) * step for n, step in zip(shape, steps, strict=True)), indexing="ij")


def ellipsoid(shape, centre, radii, steps=STEPS) -> np.ndarray:
    parts = [((a - c) / r) ** 2 for a, c, r in zip(places(shape, steps), centre, radii, strict=True)]
    return np.asarray(sum(parts) <= 1)


def test_a_ball_in_anisotropic_voxels():
    radius, centre = 60.0, (101.0, 90.0, 97.5)
    (row,) = rows(ellipsoid((40, 90, 64), centre, [radius] * 3).astype(np.uint8))
    assert row["volume"] == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.01)
    assert row["surface"] == pytest.approx(4 * math.pi * radius**2, rel=0.015)
    assert row["diameter"] == pytest.approx(2 * radius, rel=0.004)
    assert 2 * radius - 5 < row["length"] < 2 * radius + math.hypot(*STEPS)
    assert row["sphericity"] == pytest.approx(1, abs=0.015)
    assert row["elongation"] == pytest.approx(1, abs=0.03)
    assert [row[f"centre_{axis}"] for axis in "zyx"] == pytest.approx(centre, abs=0.5)
    assert [row[axis] for axis in "zyx"] == pytest.approx([c / s for c, s in zip(centre, STEPS, strict=True)], abs=0.1)
    assert (row["touches_border"], row["neighbour"], row["neighbour_distance"]) == (0, None, None)
    assert (row["area"], row["perimeter"], row["unit"], row["class"]) == (None, None, "nm", "one")


def test_a_rod():
    """Long ellipsoid: its axes are 200, 40 and 40 nm, along x."""
    (row,) = rows(ellipsoid((14, 40, 90), (32.5, 40, 130), (20, 20, 100)).astype(np.uint8))
    eccentricity = math.sqrt(1 - 0.2**2)
    surface = 2 * math.pi * 20**2 * (1 + 100 / (20 * eccentricity) * math.asin(eccentricity))
    assert row["surface"] == pytest.approx(surface, rel=0.06)
    assert row["length"] == pytest.approx(200, abs=7)
    assert row["elongation"] == pytest.approx(5, rel=0.06)


def test_a_box():
    ids = np.zeros((12, 50, 60), np.uint16)
    ids[2:10, 5:45, 10:30] = 1  # 40 x 80 x 60 nm
    (row,) = rows(ids)
    assert (row["voxels"], row["volume"]) == (8 * 40 * 20, 40 * 80 * 60)
    assert row["length"] == pytest.approx(math.sqrt(40**2 + 80**2 + 60**2), rel=1e-12)
    assert row["elongation"] == pytest.approx(80 / 40, rel=1e-12)
    assert [row[f"{axis}{end}"] for axis in "zyx" for end in (0, 1)] == [2, 10, 5, 45, 10, 30]
    assert [row[axis] for axis in "zyx"] == [5.5, 24.5, 19.5]
    true = 2 * (40 * 80 + 40 * 60 + 80 * 60)
    assert 0.8 * true < row["surface"] < true, "planes along the axes come out too small: docs/objects.md"


def test_distances_are_from_surface_to_surface():
    ids = np.zeros((10, 30, 40), np.uint8)
    ids[1:3, 2:6, 2:6] = 1
    ids[1:3, 6:8, 6:9] = 2  # meets 1 at an edge
    ids[1:3, 2:6, 13:15] = 3  # 4 voxels of 3 nm from 2 along x
    ids[7:9, 20:24, 13:15] = 4  # from 3: 4 slices of 5 nm and 14 rows of 2 nm; from 2: 4, 12 rows, 4 columns
    found = rows(ids)
    assert [(row["neighbour"], row["neighbour_distance"]) for row in found[:3]] == [(2, 0.0), (1, 0.0), (2, 12.0)]
    assert found[3]["neighbour"] == 2
    assert found[3]["neighbour_distance"] == pytest.approx(math.sqrt(20**2 + 24**2 + 12**2), rel=1e-8)


def test_the_lowest_of_equally_near_ones():
    ids = np.zeros((3, 3, 15), np.uint8)
    ids[1, 1, [1, 5, 9, 13]] = 4, 2, 3, 1
    assert [row["neighbour"] for row in rows(ids, (0.1, 0.1, 0.1))] == [3, 3, 1, 2]


def test_touching_the_border():
    ids = np.zeros((4, 9, 9), np.uint8)
    ids[0, 4, 4], ids[1, 1, 1], ids[3, 7, 7], ids[2, 8, 1], ids[2, 1, 8] = 1, 2, 3, 4, 5
    assert [row["touches_border"] for row in rows(ids)] == [1, 0, 1, 1, 1]
    flat = np.zeros((1, 9, 9), np.uint8)
    flat[0, 4, 4], flat[0, 8, 4] = 1, 2
    assert [row["touches_border"] for row in rows(flat)] == [0, 1], "the one slice is no border"


@pytest.mark.parametrize("leading", [(), (1,)])
def test_images_have_areas_and_perimeters(leading):
    radius = 30.0
    mask = ellipsoid((50, 50), (51.0, 48.0), (radius, radius), (2.0, 2.0)).astype(np.uint8)
    steps = (2.0, 2.0) if not leading else (999.0, 2.0, 2.0)
    (row,) = rows(mask.reshape(*leading, *mask.shape), steps)
    assert row["area"] == 4 * mask.sum() == pytest.approx(math.pi * radius**2, rel=0.015)
    assert row["perimeter"] == pytest.approx(2 * perimeter_crofton(mask, 4), rel=1e-6)
    assert row["perimeter"] == pytest.approx(2 * math.pi * radius, rel=0.03)
    assert (row["volume"], row["surface"], row["centre_z"]) == (None, None, None)
    assert row["sphericity"] == pytest.approx(4 * math.pi * row["area"] / row["perimeter"] ** 2)
    (theirs,) = regionprops(mask, spacing=(2.0, 2.0))
    assert row["diameter"] == pytest.approx(theirs.equivalent_diameter_area)
    assert row["voxels"] == mask.sum() and row["elongation"] == pytest.approx(1, abs=0.03)


def test_an_ellipse_in_anisotropic_pixels():
    (row,) = rows(ellipsoid((40, 90), (80, 90), (60, 30), (4.0, 2.0)).astype(np.uint8), (4.0, 2.0))
    assert row["elongation"] == pytest.approx(2, rel=0.01)
    assert row["length"] == pytest.approx(120, abs=5)
    ramanujan = math.pi * (3 * 90 - math.sqrt((3 * 60 + 30) * (60 + 3 * 30)))
    assert row["perimeter"] == pytest.approx(ramanujan, rel=0.03)


def brute(ids, number, steps) -> dict[str, float]:
    """The same numbers, voxel by voxel."""
    sides = np.array(steps)
    voxels, others = np.argwhere(ids == number), np.argwhere((ids > 0) & (ids != number))
    corners = np.concatenate([voxels + np.array(offset) for offset in product((0, 1), repeat=3)]) * sides
    apart = np.maximum(np.abs(voxels[:, None] - others[None]) - 1, 0) * sides
    mask, border = np.pad(ids == number, 1), 0.0
    values, worth = crofton(tuple(steps))
    for place in product(*(range(n - 1) for n in mask.shape)):
        cell = mask[tuple(slice(p, p + 2) for p in place)].ravel()
        border += values[sum(int(bit) << j for j, bit in enumerate(cell))] * worth
    spread = np.atleast_2d(np.cov((voxels * sides).T, bias=True)) if len(voxels) > 1 else np.zeros((3, 3))
    moments = np.linalg.eigvalsh(spread + np.diag(sides**2) / 12)
    return {
        "voxels": len(voxels),
        "length": max(math.dist(a, b) for a, b in combinations(corners, 2)),
        "surface": border,
        "elongation": math.sqrt(moments[-1] / moments[0]),
        "neighbour_distance": float(np.sqrt((apart**2).sum(-1)).min()),
    }


def scattered(shape, seed, share=0.25) -> np.ndarray:
    """Ids of small irregular objects."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.8)
    ids, _ = ndimage.label(noise > np.quantile(noise, 1 - share))
    return np.asarray(ids, np.uint32)


def test_as_counted_voxel_by_voxel():
    ids = scattered((6, 9, 10), 3, 0.15)
    found = rows(ids)
    assert len(found) > 5
    for row in found:
        for name, value in brute(ids, row["id"], STEPS).items():
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-9), (name, row)


def test_surface_from_crossings_and_random_directions():
    """Crofton's formula written out: crossings counted pair by pair, weights from directions drawn at random."""
    mask = np.pad(scattered((9, 12, 12), 1, 0.3) == 1, 1)
    steps = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    vectors = np.array(steps) * STEPS
    lengths = np.linalg.norm(vectors, axis=1)
    drawn = np.random.default_rng(0).normal(size=(100_000, 3))
    nearest_one = np.abs(drawn @ (vectors / lengths[:, None]).T).argmax(1)
    weights = np.bincount(nearest_one, minlength=13) / len(drawn)
    crossings = [np.count_nonzero(mask != np.roll(mask, step, (0, 1, 2))) for step in steps]
    expected = (
        2 * math.prod(STEPS) * sum(w * n / length for w, n, length in zip(weights, crossings, lengths, strict=True))
    )
    (row,) = rows(mask[1:-1, 1:-1, 1:-1].astype(np.uint8))
    assert row["surface"] == pytest.approx(expected, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.integers(1, 8)] * 3), st.integers(0, 99), st.sampled_from([(1, 1, 1), (0.1, 0.2, 0.2), (30, 4.6, 5)])
)
def test_neighbours_of_every_pair(shape, seed, steps):
    """Distance and id, the lowest of equals, against all pairs of voxels; many objects touch."""
    random = np.random.default_rng(seed)
    ids, most = ndimage.label(random.random(shape) < random.uniform(0.1, 0.5))
    ids = np.append(0, random.permutation(most) + 1)[ids]
    voxels = {number: np.argwhere(ids == number) for number in range(1, most + 1)}
    for row in rows(ids, steps):
        pairs = []
        for other in voxels.keys() - {row["id"]}:
            apart = np.abs(voxels[row["id"]][:, None] - voxels[other][None]) - 1
            distance = np.linalg.norm(np.maximum(apart, 0) * np.array(steps), axis=-1).min()
            pairs.append((float(f"{distance:.9g}"), other))
        assert (row["neighbour_distance"], row["neighbour"]) == min(pairs, default=(None, None))


@settings(max_examples=12, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 50), st.tuples(*[st.integers(1, 9)] * 3))
def test_blocks_change_nothing(shape, seed, block):
    ids, _ = ndimage.label(np.random.default_rng(seed).random(shape) < 0.3)
    steps, most = (0.7, 0.3, 0.1), int(ids.max())
    frame = table.Frame.of(shape, Spacing.of(steps, "nm"))
    expected = table.describe(ids, [1] * most, {}, frame)
    boxes: list[Box] = []
    for corner in product(*(range(0, n, side) for n, side in zip(shape, block, strict=True))):
        z, y, x = (slice(at, min(at + side, n)) for at, side, n in zip(corner, block, shape, strict=True))
        boxes.append((z, y, x))
    parts = [measure(read_around(lambda box: ids[box], box, shape), box, shape, steps) for box in boxes]
    pieces, surfaces = Parts(parts, steps), Surfaces(lambda box: ids[box], boxes, shape)
    found = combine([nearest(pieces, surfaces, [number]) for number in range(len(boxes))], most)
    assert table.rows(total(parts, most), found, [1] * most, {}, frame) == expected


def test_large_objects_keep_the_corners_of_their_hull():
    ball = ellipsoid((16, 44, 30), (38, 43, 44), (30, 36, 40)).astype(np.uint8)
    corners = np.concatenate([np.argwhere(ball) + np.array(offset) for offset in product((0, 1), repeat=3)])
    ends = np.unique(corners, axis=0) * np.array(STEPS)
    assert rows(ball)[0]["length"] == pytest.approx(pdist(ends[ConvexHull(ends).vertices]).max(), rel=1e-12)


def test_files(tmp_path):
    ids = np.zeros((4, 9, 9), np.uint8)
    ids[1, 2:4, 2:5] = 1
    table.write(tmp_path / "objects.csv", rows(ids))
    with (tmp_path / "objects.csv").open(newline="") as file:
        header, line = csv.reader(file)
    assert tuple(header) == columns.NAMES
    assert line[:7] == ["1", "1", "one", "6", "nm", "180", f"{rows(ids)[0]['surface']:.6g}"]
    assert table.read(tmp_path / "objects.csv", ["volume", "class"]) == {"volume": ["180"], "class": ["one"]}
    table.write_dictionary(tmp_path)
    about = json.loads((tmp_path / table.DICTIONARY).read_text())
    assert tuple(about["columns"]) == columns.NAMES
    table.write(tmp_path / "none.csv", rows(np.zeros((4, 9, 9), np.uint8)))
    assert (tmp_path / "none.csv").read_text().splitlines() == [",".join(columns.NAMES)]
    assert table.read(tmp_path / "none.csv", ["id"]) == {"id": []}
    (tmp_path / "old.csv").write_text("id,label,class,voxels,z,y,x\n")
    with pytest.raises(RetinaError, match=r"old\.csv has not the columns of a table of objects"):
        table.read(tmp_path / "old.csv")


def test_the_documentation_has_the_columns():
    assert columns.markdown() in (ROOT / "docs/objects.md").read_text()
