"""The random parameters of the augmentation: their ranges, and their values for any stretch of an endless stream."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from pretraining.augmentation.random_stream import uniforms

NORMALISATIONS = ("published", "image")
BLUR_SIZES = (3, 5, 7)
CROP_TRIES = 10
"""Of the random resized crop, before it falls back to a centred crop."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_STREAM = 0x6175676D656E7400
"""Keeps these random numbers apart from others that are drawn with the same seed."""
_FIXED_COLUMNS = 20 + 2 * CROP_TRIES


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Probabilities (``..._p``, of an image) and ranges (uniform, both ends included). The defaults are the published
    ones: ``pretrainer.py`` and ``pretrain.py`` of BaderLab/RETINA, carried out as albumentations 1.3.1 does.

    Raises:
        RetinaError: with every problem of the values.
    """

    horizontal_flip_p: float = 0.5
    """Left and right exchanged, in input and target."""
    vertical_flip_p: float = 0.5
    """Top and bottom exchanged, in input and target."""
    rotation_p: float = 0.5
    """Rotation about the centre, of input and target; what comes in over the border is mirrored."""
    rotation_degrees: tuple[float, float] = (-90.0, 90.0)
    """Counter-clockwise."""
    crop_p: float = 1.0
    """Random part of the image, enlarged to its size, in input and target."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Of the crop, as a share of the image's area."""
    crop_aspect: tuple[float, float] = (0.5, 1.5)
    """Width / height of the crop; its logarithm is uniform."""
    contrast_p: float = 0.5
    """Contrast and brightness together, of the input."""
    contrast: tuple[float, float] = (-0.3, 0.3)
    """a: grey levels times 1 + a."""
    brightness: tuple[float, float] = (-0.3, 0.3)
    """b: grey levels plus 255 b."""
    noise_p: float = 0.5
    """Gaussian noise, independent in each pixel, of the input."""
    noise_variance: tuple[float, float] = (400.0, 1200.0)
    """Grey levels squared."""
    blur_p: float = 0.5
    """Gaussian blur of the input."""
    blur_sizes: tuple[float, float, float] = (0.2, 0.4, 0.4)
    """Probabilities of the kernel sizes 3, 5 and 7 among blurred images."""
    holes_p: float = 0.5
    """Square holes in the input; they may overlap."""
    holes: tuple[int, int] = (1, 32)
    """Number of holes of an image."""
    hole_size: int = 16
    """Pixels along each side."""
    hole_value: int = 0
    """Grey level of the holes."""
    normalisation: str = "published"
    """published: with ``mean`` and ``std``; image: input and target each by their own mean and standard deviation."""
    mean: float = 0.57287007
    """Of the data set, as a share of 255."""
    std: float = 0.12740536
    """Of the data set, as a share of 255."""

    def __post_init__(self) -> None:
        for field in fields(self):  # what a JSON file gives back
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))
        problems = [*self._probability_problems(), *self._range_problems(), *self._other_problems()]
        if problems:
            raise RetinaError(f"settings of the augmentation: {'; '.join(problems)}. Correct them")

    def _probability_problems(self) -> list[str]:
        names = [field.name for field in fields(self) if field.name.endswith("_p")]
        wrong = [f"{name} is {getattr(self, name)}" for name in names if not 0 <= getattr(self, name) <= 1]
        problems = [f"{', '.join(wrong)}; expected 0 to 1"] if wrong else []
        sizes = self.blur_sizes
        if len(sizes) != len(BLUR_SIZES) or min(sizes) < 0 or not math.isclose(sum(sizes), 1):
            problems.append(f"blur_sizes is {sizes}; expected three probabilities that add up to 1")
        return problems

    def _range_problems(self) -> list[str]:
        limits: dict[str, tuple[float, float]] = {
            "rotation_degrees": (-180, 180),
            "crop_area": (0.01, 1),
            "crop_aspect": (0.1, 10),
            "contrast": (-1, 10),
            "brightness": (-1, 1),
            "noise_variance": (0, 255**2),
            "holes": (1, 1024),
        }
        problems = []
        for name, (least, most) in limits.items():
            values = getattr(self, name)
            if len(values) != 2 or not least <= values[0] <= values[1] <= most:
                problems.append(f"{name} is {values}; expected two ascending numbers from {least} to {most}")
        return problems

    def _other_problems(self) -> list[str]:
        problems = []
        if any(int(value) != value for value in (*self.holes, self.hole_size, self.hole_value)):
            problems.append("holes, hole_size and hole_value must be whole numbers")
        if self.hole_size < 1:
            problems.append(f"hole_size is {self.hole_size}; expected 1 or more")
        if not 0 <= self.hole_value <= 255:
            problems.append(f"hole_value is {self.hole_value}; expected 0 to 255")
        if self.normalisation not in NORMALISATIONS:
            problems.append(f"normalisation is {self.normalisation!r}; expected one of {', '.join(NORMALISATIONS)}")
        if not 0 <= self.mean <= 1 or not 0 < self.std <= 1:
            problems.append(f"mean and std are {self.mean} and {self.std}; expected shares of 255")
        return problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists; the class takes them back as keyword arguments."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Draws:
    """Random parameters of B images. They hold for images of every size."""

    horizontal_flip: Flags
    """(B,)"""
    vertical_flip: Flags
    """(B,)"""
    angle: Floats
    """(B,) degrees, counter-clockwise; 0: not rotated."""
    cropped: Flags
    """(B,)"""
    crop_area: Floats
    """(B, 10) share of the image's area, of each try."""
    crop_aspect: Floats
    """(B, 10) width / height, of each try."""
    crop_place: Floats
    """(B, 2) row and column, from 0 (first possible) to below 1 (last possible)."""
    contrast: Floats
    """(B,) factor; 1: as it was."""
    brightness: Floats
    """(B,) what is added, as a share of 255."""
    noise: Floats
    """(B,) standard deviation in grey levels; 0: no noise."""
    noise_key: NDArray[np.uint32]
    """(B, 2) which noise."""
    blur: Integers
    """(B,) kernel size: 3, 5 or 7; 0: not blurred."""
    holes: Integers
    """(B,) number of holes."""
    hole_place: Floats
    """(B, most holes, 2) row and column, as for the crop; the first ``holes`` count."""

    def __len__(self) -> int:
        return len(self.angle)

    def __getitem__(self, images: slice) -> Draws:
        return replace(self, **{field.name: getattr(self, field.name)[images] for field in fields(self)})


def draw(settings: AugmentationSettings, seed: int, first: int, count: int) -> Draws:
    """Draw the random parameters of the images at positions ``first`` to ``first + count - 1`` of an endless stream.

    What a position gets depends on the settings, the seed and the position alone: it is the same however the stream is
    cut into batches and divided among processes.

    Args:
        settings: probabilities and ranges.
        seed: 0 to 2^64 - 1.
        first: position in the stream, from 0.
        count: number of images.

    Raises:
        RetinaError: if the seed or a position is out of range.
    """
    if not 0 <= seed < 2**64 or first < 0 or count < 0:
        raise RetinaError(
            f"augmentation: got seed {seed}, position {first}, count {count}; expected a seed from 0 to 2^64 - 1 and "
            "a position and a count of 0 or more. Correct them"
        )
    most = settings.holes[1]
    uniform = uniforms(seed, _STREAM, first, count, _FIXED_COLUMNS + 2 * most)
    one, tries, places = uniform[:, :20].T, uniform[:, 20:_FIXED_COLUMNS], uniform[:, _FIXED_COLUMNS:]
    contrasted = one[7] < settings.contrast_p
    sizes = np.searchsorted(np.cumsum(settings.blur_sizes)[:-1], one[15], side="right")
    fewest = settings.holes[0]
    return Draws(
        horizontal_flip=one[0] < settings.horizontal_flip_p,
        vertical_flip=one[1] < settings.vertical_flip_p,
        angle=np.where(one[2] < settings.rotation_p, _between(settings.rotation_degrees, one[3]), 0.0),
        cropped=one[4] < settings.crop_p,
        crop_area=_between(settings.crop_area, tries[:, :CROP_TRIES]),
        crop_aspect=np.exp(_between(np.log(settings.crop_aspect), tries[:, CROP_TRIES:])),
        crop_place=np.stack([one[5], one[6]], axis=1),
        contrast=np.where(contrasted, 1 + _between(settings.contrast, one[8]), 1.0),
        brightness=np.where(contrasted, _between(settings.brightness, one[9]), 0.0),
        noise=np.where(one[10] < settings.noise_p, np.sqrt(_between(settings.noise_variance, one[11])), 0.0),
        noise_key=(np.stack([one[12], one[13]], axis=1) * 2**32).astype(np.uint32),
        blur=np.where(one[14] < settings.blur_p, np.array(BLUR_SIZES)[sizes], 0),
        holes=np.where(one[16] < settings.holes_p, (fewest + one[17] * (most - fewest + 1)).astype(np.int64), 0),
        hole_place=places[:, : 2 * most].reshape(count, most, 2),
    )


def _between(limits: Any, uniform: Floats) -> Floats:
    low, high = limits
    values: Floats = low + (high - low) * uniform
    return values


def crop_boxes(draws: Draws, settings: AugmentationSettings, height: int, width: int) -> Integers:
    """Find where the crops lie in images of a size: the first try that fits, else the largest centred crop of an
    allowed aspect ratio (as ``RandomResizedCrop`` of albumentations 1.3.1).

    Returns:
        (B, 4): first row, first column, height, width.
    """
    area = draws.crop_area * (height * width)
    widths = np.rint(np.sqrt(area * draws.crop_aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(area / draws.crop_aspect)).astype(np.int64)
    fits: Flags = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    fitting, chosen = np.any(fits, axis=1), np.argmax(fits, axis=1)
    images = np.arange(len(draws))
    sizes = np.stack([heights[images, chosen], widths[images, chosen]], axis=1)
    starts = (draws.crop_place * (np.array([height, width]) - sizes + 1)).astype(np.int64)
    low, high = settings.crop_aspect
    tall, wide = min(height, round(width / low)), min(width, round(height * high))
    centred = np.array([(height - tall) // 2, (width - wide) // 2, tall, wide])
    boxes = np.where(fitting[:, np.newaxis], np.concatenate([starts, sizes], axis=1), centred)
    return np.where(draws.cropped[:, None], boxes, np.array([0, 0, height, width]))
