"""A user's own images and masks."""

from pathlib import Path

import imageio.v3 as iio

from nnunetv2_retina.quickstart.synthetic import generate_volume


def write_own(folder: Path, names: list[str]) -> None:
    """Write images/ and masks/ with a PNG of each name."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        image, mask = generate_volume((1, 96, 96), seed)
        iio.imwrite(folder / "images" / f"{name}.png", image[0])
        iio.imwrite(folder / "masks" / f"{name}.png", mask[0])
