"""A page to look through a stack of slices under their labels: one file, which stands alone, of bounded size."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.figures import scale_bar
from nnunetv2_retina.display.pages import html_page, notice
from nnunetv2_retina.display.tints import IGNORE_COLOUR, OPACITY, class_colours, stretch
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing

MOST_PIXELS = 1 << 25
"""Of all slices of a page together: some 20 MB of noisy grey levels."""
_LEAST_SIDE = 512
"""Slices are left out before their longer side is scaled below this."""
_QUALITY = 85
_SCRIPT, _STYLE = (Path(__file__).with_name(f"slider.{kind}") for kind in ("js", "css"))


@dataclass(frozen=True)
class LabelLayer:
    """Labels that lie on an image."""

    name: str
    values: NDArray[Any]
    """(Y, X) or (Z, Y, X), whole numbers; 0 is background."""
    classes: Mapping[int, str] = field(default_factory=dict)
    """Label value -> name of its class; empty for objects."""
    ignore: int | None = None
    """Value of what nobody annotated."""

    @property
    def objects(self) -> bool:
        """Tell whether the values number objects, instead of classes."""
        return not self.classes

    def colours(self) -> dict[int, str]:
        """Return the colour of each class and of what is ignored, ``#RRGGBB``."""
        ignored = {} if self.ignore is None else {self.ignore: IGNORE_COLOUR}
        return {**class_colours(value for value in self.classes if value != self.ignore), **ignored}

    def names(self) -> dict[int, str]:
        """Return the name of each value that has one."""
        ignored = {} if self.ignore is None else {self.ignore: "not annotated"}
        return {**self.classes, **ignored}


@dataclass(frozen=True)
class Reduction:
    """What of a stack is shown."""

    factor: int = 1
    """Pixels of a side that become one."""
    step: int = 1
    """Every so many slices."""

    @classmethod
    def of(cls, shape: Sequence[int], most_pixels: int = MOST_PIXELS) -> Reduction:
        """Return the least that brings (slices, rows, columns) below so many pixels; 2D images are only scaled."""
        slices, rows, columns = shape
        factor, side = 1, max(rows, columns)
        smallest = 1 if slices == 1 else _LEAST_SIDE

        def pixels() -> int:
            return slices * math.ceil(rows / factor) * math.ceil(columns / factor)

        while pixels() > most_pixels and side // (factor + 1) >= smallest:
            factor += 1
        return cls(factor, math.ceil(pixels() / most_pixels))

    def describe(self) -> str | None:
        """Return a note on what is left out; None if nothing is."""
        parts = [f"{self.factor} x {self.factor} pixels are shown as one"] if self.factor > 1 else []
        parts += [f"every {self.step}. slice is shown"] if self.step > 1 else []
        return f"The image is large: {' and '.join(parts)}." if parts else None


def slider_page(
    title: str,
    image: NDArray[Any],
    layers: Sequence[LabelLayer] = (),
    spacing: Spacing | None = None,
    most_pixels: int = MOST_PIXELS,
) -> str:
    """Return the page.

    Args:
        title: heading.
        image: (Y, X) or (Z, Y, X), grey levels of any real type; the contrast is stretched over the whole stack.
        layers: of the same shape.
        spacing: of a voxel; where its unit is unknown, the scale bar counts pixels.
        most_pixels: what is larger is scaled down, and slices are left out; the page says so.

    Raises:
        RetinaError: if the image has other axes, or labels another shape.
    """
    check_shapes(title, image, layers)
    stack = image if image.ndim == 3 else image[None]
    reduction = Reduction.of(stack.shape, most_pixels)
    shown = _means(stack, reduction)
    sides = spacing or Spacing(None, 1, 1)
    length, label = scale_bar(image.shape[-1], sides.x if sides.unit else None)
    scene = {
        "slices": [f"data:image/jpeg;base64,{part}" for part in _pictures(shown)],
        "numbers": list(range(0, len(stack), reduction.step)),
        "depth": len(stack),
        "height": shown.shape[1],
        "width": shown.shape[2],
        "factor": reduction.factor,
        "aspect": sides.y / sides.x * shown.shape[1] / shown.shape[2],
        "opacity": OPACITY,
        "bar": {"share": length / (shown.shape[2] * reduction.factor), "label": label},
        "layers": [_layer(layer, reduction) for layer in layers],
    }
    remark = reduction.describe()
    data = json.dumps(scene, separators=(",", ":")).replace("<", "\\u003c")
    blocks = [
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style>",
        *([notice(remark)] if remark else []),
        '<div id="controls"></div><div id="legend"></div><div id="frame"><div id="stage"></div></div>'
        '<p id="status" role="status"></p>',
        f'<script type="application/json" id="scene">{data}</script>',
        f"<script>{_SCRIPT.read_text(encoding='utf-8')}</script>",
        f"<noscript>{html.escape('This page needs JavaScript to draw the slices.')}</noscript>",
    ]
    return html_page(title, blocks)


def check_shapes(title: str, image: NDArray[Any], layers: Sequence[LabelLayer]) -> None:
    """Check that an image can be shown, and that labels lie on it.

    Raises:
        RetinaError: naming what does not.
    """
    if image.ndim not in (2, 3) or not image.size:
        raise RetinaError(f"{title} has the shape {image.shape}; expected (y, x) or (z, y, x) with at least one pixel")
    for layer in layers:
        if layer.values.shape != image.shape:
            raise RetinaError(
                f"labels {layer.name} have the shape {layer.values.shape}, the image {title} {image.shape}; expected "
                "the same. Check that they belong together, and that neither was cropped or scaled"
            )


def _means(stack: NDArray[Any], reduction: Reduction) -> NDArray[np.float32]:
    """Return (slices, rows, columns) float32, of means over blocks of pixels; a rest at the edges is left out."""
    stack, factor = stack[:: reduction.step], reduction.factor
    rows, columns = (max(1, n // factor) for n in stack.shape[1:])
    if factor == 1:
        return _finite(stack.astype(np.float32))
    small = np.empty((len(stack), rows, columns), np.float32)
    for number, part in enumerate(stack):
        part = part[: rows * factor, : columns * factor].astype(np.float32)
        small[number] = part.reshape(rows, part.shape[0] // rows, columns, part.shape[1] // columns).mean(axis=(1, 3))
    return _finite(small)


def _finite(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give pixels without a number the lowest grey level, in place."""
    known = np.isfinite(grey)
    if not known.all():
        grey[~known] = grey[known].min() if known.any() else 0
    return grey


def _pictures(stack: NDArray[np.float32]) -> Iterator[str]:
    """Yield each slice as a JPEG, base64."""
    from PIL import Image

    for part in np.rint(stretch(stack) * 255).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(part).save(file, "JPEG", quality=_QUALITY)
        yield base64.b64encode(file.getvalue()).decode("ascii")


def _layer(layer: LabelLayer, reduction: Reduction) -> dict[str, Any]:
    """Return a layer as the page's script reads it: packed numbers, and what they mean."""
    stack = layer.values if layer.values.ndim == 3 else layer.values[None]
    factor, (rows, columns) = reduction.factor, (max(1, n // reduction.factor) for n in stack.shape[1:])
    middle = min(factor // 2, *(n - 1 for n in stack.shape[1:]))
    small = stack[:: reduction.step, middle::factor, middle::factor][:, :rows, :columns]
    highest = int(small.max())
    size = 1 if highest < 1 << 8 else 2 if highest < 1 << 16 else 4
    packed = [zlib.compress(part.astype(f"<u{size}").tobytes(), 6) for part in small]
    names = layer.names()
    return {
        "name": layer.name,
        "size": size,
        "objects": layer.objects,
        "classes": [
            {"value": value, "name": names[value], "colour": colour} for value, colour in layer.colours().items()
        ],
        "slices": [base64.b64encode(part).decode("ascii") for part in packed],
    }
