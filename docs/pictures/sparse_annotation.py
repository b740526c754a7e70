"""Draws docs/pictures/sparse_annotation.png, of a generated image: python docs/pictures/sparse_annotation.py"""

from pathlib import Path

import numpy as np

from dataset_conversion.own_data.boxes import ignore_outside, parts
from nnunetv2_retina.display.figures import legend, new_figure, save
from nnunetv2_retina.display.tints import IGNORE_COLOUR, class_colours, colour_in, stretch
from nnunetv2_retina.quickstart.synthetic import generate_volume

BOXES = ("10:130,200:360", "150:290,230:390", "190:300,40:150")
IGNORE = 2


def main() -> None:
    """Draw the three steps side by side."""
    from matplotlib.patches import Rectangle

    image, mask = (volume[0] for volume in generate_volume((1, 320, 420), seed=4))
    grey, colours = stretch(image), class_colours([1])
    inside = np.zeros_like(mask)
    for part in parts(BOXES, mask.shape):
        inside[part] = mask[part]
    trained, _ = ignore_outside(mask, BOXES, IGNORE)
    figure = new_figure(12, 3.9, 80)
    steps = {
        "1. choose boxes": colour_in(grey, mask, {}),
        "2. annotate all that lies in them": colour_in(grey, inside, colours),
        "3. what is trained on": colour_in(grey, trained, {**colours, IGNORE: IGNORE_COLOUR}),
    }
    for axis, (title, picture) in zip(figure.subplots(1, 3), steps.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=12, loc="left")
        axis.set_axis_off()
        for y, x in parts(BOXES, mask.shape):
            corner = (x.start - 0.5, y.start - 0.5)
            axis.add_patch(Rectangle(corner, x.stop - x.start, y.stop - y.start, fill=False, color="#F0E442", lw=2))
    legend(figure, [("mitochondria", colours[1]), ("ignored: not annotated", IGNORE_COLOUR)], "lower center", 2)
    save(figure, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
