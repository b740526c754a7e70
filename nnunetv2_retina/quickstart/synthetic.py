"""Volumes that look like electron microscopy, with exact masks of the mitochondria.

For the quickstart, tests and examples: nothing to download and no licence to mind. Cells are a warped Voronoi diagram
with dark membranes between them; mitochondria are bent tubes with a double membrane and cristae. Granules as dark as
those membranes, vesicles, endoplasmic reticulum, uneven staining and noise keep a threshold from finding them.

All lengths are in pixels of the image plane; every array is (Z, Y, X).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import cKDTree

from nnunetv2_retina.errors import RetinaError

Floats = NDArray[np.float32]
MITOCHONDRIA, VESICLES = 1, 2
LABELS = {"background": 0, "mitochondria": MITOCHONDRIA}

_FAR = np.float32(1e3)
_CYTOPLASM = 160.0
_LEAST_SIDE = 64
_LEAST_KEPT = 0.55
"""Share of a tube that must fit into its cell; less would leave slivers."""


@dataclass(frozen=True)
class _Scene:
    """What is shared by all objects of one volume."""

    rng: np.random.Generator
    shape: tuple[int, int, int]
    z_step: float
    cell: NDArray[np.intp]
    """(Z, Y, X): number of the cell."""
    border: Floats
    """(Z, Y, X): distance to the nearest cell border."""


@dataclass
class _Objects:
    """All objects of one kind in a volume; every array is (Z, Y, X)."""

    distance: Floats
    """Signed distance to the surface of the nearest object, negative inside."""
    along: Floats
    """Position along the object's axis."""
    shade: Floats
    """One standard normal number per object, for its staining."""


def generate_volume(
    shape: tuple[int, int, int] = (12, 384, 384),
    seed: int = 0,
    z_step: float = 5.0,
    label_vesicles: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one volume.

    Args:
        shape: (Z, Y, X) in voxels; Y and X at least 64.
        seed: The same seed and shape give the same volume.
        z_step: Distance between slices in pixels: 5 for serial sections, 1 for isotropic voxels.
        label_vesicles: Mark vesicles as class 2; otherwise they are background.

    Returns:
        The image, uint8 grey levels (Z, Y, X), and the mask, uint8 (Z, Y, X): 0 background, 1 mitochondria, 2 vesicles.

    Raises:
        RetinaError: for a shape that is too small, or a slice distance that is not positive.
    """
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < _LEAST_SIDE:
        raise RetinaError(f"shape is {shape}; expected (z, y, x) with z >= 1 and y, x >= {_LEAST_SIDE}.")
    if not z_step > 0:
        raise RetinaError(f"z_step is {z_step}; expected a positive distance in pixels.")
    rng = np.random.default_rng(seed)
    scene = _cells(rng, shape, z_step)
    volume = float(np.prod(shape)) * z_step
    mitochondria = _draw(scene, round(volume / 3e4), radius=(11, 23), length=(0, 80), margin=4.0)
    taken = mitochondria.distance
    granules = _draw(scene, round(volume / 1.5e5), radius=(6, 16), length=(0, 6), margin=3.0, taken=taken)
    taken = np.minimum(taken, granules.distance)
    vesicles = _draw(scene, round(volume / 2.5e4), radius=(4, 8), length=(0, 2), margin=2.0, taken=taken)

    image = _cytoplasm(scene)
    _paint_mitochondria(scene, image, mitochondria)
    _paint_granules(scene, image, granules)
    _paint_vesicles(image, vesicles)
    _darken(image, scene.border - 1.5, width=1.5, amount=85.0)

    mask = (mitochondria.distance < 0).astype(np.uint8) * MITOCHONDRIA
    if label_vesicles:
        mask[vesicles.distance < 0] = VESICLES
    return _expose(scene, image), mask


def _field(rng: np.random.Generator, shape: tuple[int, int, int], scales: tuple[float, float, float]) -> Floats:
    """Smooth random field (Z, Y, X), mean 0 and spread about 1, that changes over ``scales`` voxels along each axis."""
    bases = []
    for size, scale in zip(shape, scales, strict=True):
        knots = np.arange(-2 * scale, size + 2 * scale + 1e-6, scale)
        basis = np.exp(-0.5 * ((np.arange(size)[:, None] - knots) / scale) ** 2)
        bases.append((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))
    coarse = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    field: Floats = np.einsum("abc,za,yb,xc->zyx", coarse, *bases, optimize=True)
    return field


def _cells(rng: np.random.Generator, shape: tuple[int, int, int], z_step: float) -> _Scene:
    """Voronoi cells of random points in a warped space, so that borders bend and drift from slice to slice."""
    extent = np.array([shape[0] * z_step, shape[1], shape[2]])
    margin = 80.0
    count = max(4, round(float(np.prod(extent + 2 * margin)) / 1.5e6))
    points = rng.uniform(-margin, extent + margin, size=(count, 3))
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    position = np.stack([z * z_step, y, x], axis=-1)
    for axis in range(3):
        for amount, scale in ((13, 45), (3, 14)):
            position[..., axis] += amount * _field(rng, shape, (1.4 * scale / z_step, scale, scale))
    distance, nearest = cKDTree(points).query(position.reshape(-1, 3), k=2, workers=-1)
    between = np.linalg.norm(points[nearest[:, 0]] - points[nearest[:, 1]], axis=1)
    border = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * between)
    return _Scene(rng, shape, z_step, nearest[:, 0].reshape(shape), border.reshape(shape).astype(np.float32))


def _draw(
    scene: _Scene,
    tries: int,
    radius: tuple[float, float],
    length: tuple[float, float],
    margin: float,
    taken: Floats | None = None,
) -> _Objects:
    """Place bent tubes at random inside cells, at least ``margin`` away from borders and 4 pixels from ``taken``."""
    rng = scene.rng
    free = np.full(scene.shape, _FAR) if taken is None else taken
    objects = _Objects(np.full(scene.shape, _FAR), np.zeros(scene.shape, np.float32), np.zeros(scene.shape, np.float32))
    scale = np.array([scene.z_step, 1.0, 1.0])
    bend = _field(rng, scene.shape, (15 / scene.z_step, 11, 11))
    for _ in range(tries):
        size = rng.uniform(*radius)
        centre = rng.uniform(0, scene.shape)
        middle = tuple(np.minimum(centre.astype(int), np.array(scene.shape) - 1))
        path = _path(rng, centre * scale, rng.uniform(*length))
        box = _box(path, size + 8, scene)
        if scene.border[middle] < 0.5 * size + margin or not all(s.start < s.stop for s in box):
            continue
        distance, along = _tube(path, size, box, scene.z_step)
        whole = np.count_nonzero(distance < 0)
        distance = np.maximum(distance + 0.12 * size * bend[box], margin - scene.border[box])
        distance[scene.cell[box] != scene.cell[middle]] = _FAR
        near = np.minimum(free[box], objects.distance[box])
        squeezed = np.count_nonzero(distance < 0) < _LEAST_KEPT * whole
        if whole == 0 or squeezed or near[distance < 4].min() < 4:
            continue
        closer = distance < objects.distance[box]
        objects.distance[box] = np.where(closer, distance, objects.distance[box])
        objects.along[box] = np.where(closer, along, objects.along[box])
        objects.shade[box] = np.where(closer, np.float32(rng.standard_normal()), objects.shade[box])
    return objects


def _path(rng: np.random.Generator, centre: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """Points (N, 3) in pixels along a bent line of the given length around ``centre``."""
    steps = max(1, round(length / 4))
    direction = rng.standard_normal(3)
    turn = rng.standard_normal(3) * 0.12
    points = [centre]
    for _ in range(steps):
        direction = direction + turn
        points.append(points[-1] + 4 * direction / np.linalg.norm(direction))
    path: NDArray[np.float64] = np.array(points) - np.mean(points, axis=0) + centre
    return path


def _box(path: NDArray[np.float64], reach: float, scene: _Scene) -> tuple[slice, slice, slice]:
    """Voxels within ``reach`` pixels of the path, clipped to the volume."""
    scale = np.array([scene.z_step, 1.0, 1.0])
    low = np.clip(np.floor((path.min(axis=0) - reach) / scale), 0, scene.shape).astype(int)
    high = np.clip(np.ceil((path.max(axis=0) + reach) / scale) + 1, 0, scene.shape).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _tube(
    path: NDArray[np.float64], radius: float, box: tuple[slice, slice, slice], z_step: float
) -> tuple[Floats, Floats]:
    """Signed distance to a tube around the path, and the position along its axis, both in pixels over the box."""
    z, y, x = (np.arange(s.start, s.stop, dtype=np.float32) for s in box)
    z = z[:, None, None] * np.float32(z_step)
    squared = np.full([s.stop - s.start for s in box], np.float32(_FAR**2))
    for pz, py, px in path.astype(np.float32):
        np.minimum(squared, (z - pz) ** 2 + ((y - py) ** 2)[:, None] + (x - px) ** 2, out=squared)
    axis = path[-1] - path[0]
    axis = (axis / max(float(np.linalg.norm(axis)), 1e-6)).astype(np.float32)
    along = axis[0] * z + (axis[1] * y)[:, None] + axis[2] * x
    return (np.sqrt(squared) - np.float32(radius)).astype(np.float32), along.astype(np.float32)


def _darken(image: Floats, distance: Floats, width: float, amount: float) -> None:
    """Draw a dark line of the given half width where ``distance`` is 0, in place."""
    image -= np.float32(amount) * np.exp(-((distance / np.float32(width)) ** 2))


def _cytoplasm(scene: _Scene) -> Floats:
    """Grey cytoplasm: every cell stained a little differently, with ribosome-like grain and strands of reticulum."""
    rng, shape, z_step = scene.rng, scene.shape, scene.z_step
    stain = rng.normal(0, 11, size=int(scene.cell.max()) + 1).astype(np.float32)
    image = np.float32(_CYTOPLASM) + stain[scene.cell]
    grain = gaussian_filter1d(gaussian_filter1d(rng.standard_normal(shape).astype(np.float32), 1.6, 1), 1.6, 2)
    image += 75 * np.minimum(grain, 0.05) + 5 * _field(rng, shape, (30 / z_step, 9, 9))
    sheets = _field(rng, shape, (40 / z_step, 13, 13))
    present = _field(rng, shape, (60 / z_step, 30, 30)) > 0.5
    image -= 60 * np.exp(-((sheets / 0.09) ** 2)) * present * (scene.border > 5)
    return image


def _paint_mitochondria(scene: _Scene, image: Floats, objects: _Objects) -> None:
    """Matrix much like cytoplasm, two dark membranes with a pale gap, and cristae across the long axis; in place."""
    rng, shape, z_step = scene.rng, scene.shape, scene.z_step
    inside = objects.distance < 0
    wave = objects.along / 1.5 + 1.7 * _field(rng, shape, (25 / z_step, 12, 12))
    cristae = np.clip(np.cos(wave) - 0.35, 0, None) * np.clip(1.1 + _field(rng, shape, (25 / z_step, 9, 9)), 0, 1.4)
    grain = 45 * gaussian_filter(rng.standard_normal(shape).astype(np.float32), (0, 1.2, 1.2))
    matrix = _CYTOPLASM + 6 + 11 * objects.shade + grain - 105 * cristae * (objects.distance < -5)
    image[inside] = matrix[inside]
    _darken(image, objects.distance + 0.7, width=1.4, amount=75.0)
    _darken(image, objects.distance + 2.8, width=1.0, amount=-18.0)
    _darken(image, objects.distance + 5.0, width=1.2, amount=50.0)


def _paint_granules(scene: _Scene, image: Floats, objects: _Objects) -> None:
    """Dark grainy bodies without inner structure, some faint; in place."""
    weight = 1 / (1 + np.exp(np.clip(objects.distance / 0.8, -30, 30)))
    speckle = 30 * gaussian_filter(scene.rng.standard_normal(scene.shape).astype(np.float32), (0, 1.5, 1.5))
    image += weight * (95 + 16 * objects.shade + speckle - image)


def _paint_vesicles(image: Floats, objects: _Objects) -> None:
    """Pale bodies with one dark membrane; in place."""
    inside = objects.distance < 0
    image[inside] = (_CYTOPLASM + 22 + 10 * objects.shade)[inside]
    _darken(image, objects.distance + 0.8, width=1.2, amount=80.0)


def _expose(scene: _Scene, image: Floats) -> NDArray[np.uint8]:
    """What the microscope adds: blur, uneven illumination and section thickness, shot and read-out noise."""
    rng, shape, z_step = scene.rng, scene.shape, scene.z_step
    image = gaussian_filter(image, (0.4 if z_step > 2 else 0.8, 0.8, 0.8))
    image *= 1 + 0.045 * _field(rng, shape, (150 / z_step, 110, 110))
    image += rng.normal(0, 5, size=(shape[0], 1, 1)).astype(np.float32)
    shot = np.sqrt(np.clip(image, 0, None)) * rng.standard_normal(shape).astype(np.float32)
    image += 0.75 * shot + 6 * rng.standard_normal(shape).astype(np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
