"""The page of slices: what it holds, how it stays small, and that a browser draws what it holds."""

import base64
import io
import json
import re
import zlib
from typing import Any

import numpy as np
import pytest
from helpers.browser import attribute, needs_browser, screenshot, text_after_scripts
from PIL import Image

from nnunetv2_retina.display.slider import LabelLayer, Reduction, slider_page
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing

RAMP = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 4, (5, 64, 48)).copy()
LABELS = np.zeros(RAMP.shape, np.uint8)
LABELS[3, 16:48, 12:36] = 2
LABELS[:, :, 40:] = 4
CLASSES = LabelLayer("prediction", LABELS, {1: "mito</script>", 2: "membrane"}, ignore=4)
NUMBERS = LabelLayer("objects", LABELS.astype(np.int64) * 70_000)


def scene_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="scene">(.*?)</script>', page, re.DOTALL)
    scene: dict[str, Any] = json.loads(text)
    return scene


def numbers(layer: dict[str, Any], number: int, shape=(64, 48)) -> np.ndarray:
    packed = zlib.decompress(base64.b64decode(layer["slices"][number]))
    return np.frombuffer(packed, f"<u{layer['size']}").reshape(shape)


def grey(scene: dict[str, Any], number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(scene["slices"][number].partition(",")[2]))))


def test_the_page_holds_slices_labels_names_and_colours():
    page = slider_page("a <b>", RAMP, [CLASSES, NUMBERS], Spacing(40, 10, 5, "nm"))
    assert "<h1>a &lt;b&gt;</h1>" in page and "http" not in page and page.count("</script>") == 2
    scene = scene_of(page)
    assert [scene[name] for name in ("depth", "height", "width", "factor")] == [5, 64, 48, 1]
    assert scene["aspect"] == 64 * 10 / (48 * 5) and scene["bar"] == {"share": 10 / 48, "label": "50 nm"}
    np.testing.assert_allclose(grey(scene, 2)[:, 5], np.arange(64) * 255 / 63, atol=6)
    classes, objects = scene["layers"]
    assert [(entry["value"], entry["name"]) for entry in classes["classes"]] == [
        (1, "mito</script>"), (2, "membrane"), (4, "not annotated"),
    ]  # fmt: skip
    assert len({entry["colour"] for entry in classes["classes"]}) == 3
    for number in range(5):
        np.testing.assert_array_equal(numbers(classes, number), LABELS[number])
        np.testing.assert_array_equal(numbers(objects, number), NUMBERS.values[number])
    assert (classes["size"], objects["size"], objects["classes"], objects["objects"]) == (1, 4, [], True)


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [
        ((1, 100, 100), 10_000, Reduction(1, 1)),
        ((1, 101, 100), 10_000, Reduction(2, 1)),
        ((10, 2000, 1000), 10**7, Reduction(2, 1)),
        ((1000, 1024, 1024), 2**25, Reduction(2, 8)),
        ((1000, 600, 300), 2**25, Reduction(1, 6)),
        ((1, 20_000, 20_000), 2**25, Reduction(4, 1)),
    ],
)
def test_large_images_are_scaled_and_slices_left_out(shape, most, expected):
    found = Reduction.of(shape, most)
    assert found == expected
    slices, rows, columns = shape
    assert -(-slices // found.step) * (rows // found.factor) * (columns // found.factor) <= most


def test_what_is_left_out_is_said_and_labels_stay_on_their_pixels():
    image = np.zeros((20, 1030, 600), np.float32)
    image[:, :515] = 1
    labels = (image > 0).astype(np.uint16)
    page = slider_page("large", image, [LabelLayer("l", labels, {1: "upper"})], most_pixels=2**20)
    scene = scene_of(page)
    assert "2 x 2 pixels are shown as one and every 3. slice is shown" in page
    assert scene["numbers"] == list(range(0, 20, 3)) and (scene["height"], scene["width"]) == (515, 300)
    shown = numbers(scene["layers"][0], 1, (515, 300))
    assert shown[:257].all() and not shown[258:].any()
    assert scene["bar"]["share"] == pytest.approx(100 / 600)


def test_a_flat_image_and_an_image_of_one_pixel_are_shown():
    assert (
        grey(
            scene_of(
                slider_page("flat", np.full((8, 8), 7)),
            ),
            0,
        )
        == 128
    ).all()
    assert scene_of(slider_page("one", np.ones((1, 1))))["bar"]["label"] == "1 px"


def test_pixels_without_a_number_are_dark():
    image = RAMP.astype(np.float32)
    image[:, 40:] = np.nan
    shown = grey(scene_of(slider_page("holes", image)), 0)
    assert shown[44:].max() < 12 and shown[34].min() > 200
    assert (grey(scene_of(slider_page("nothing", image[:, 40:])), 0) == 128).all()


def test_labels_of_another_shape_are_refused_in_one_sentence():
    with pytest.raises(RetinaError, match=r"labels l have the shape \(5, 64, 47\), the image i \(5, 64, 48\)"):
        slider_page("i", RAMP, [LabelLayer("l", LABELS[:, :, 1:])])
    with pytest.raises(RetinaError, match=r"expected \(y, x\) or \(z, y, x\)"):
        slider_page("i", RAMP[None])


@needs_browser
def test_a_browser_draws_the_slice_of_the_address(tmp_path):
    """Slice 3 alone has class 2: in the middle its colour over the grey, and nothing where it is hidden."""
    path = tmp_path / "page.html"
    path.write_text(slider_page("page", np.full(RAMP.shape, 7), [CLASSES], Spacing(40, 5, 5, "nm")), encoding="utf-8")
    text = text_after_scripts(path, "slice=3&opacity=0.5", tmp_path / "profile")
    assert attribute(text, "data-slice") == "3" and "3 (0 to 4)" in text and "mito</script>" in text
    colour = {entry["value"]: entry["colour"] for entry in scene_of(path.read_text())["layers"][0]["classes"]}[2]
    tinted = 64 + np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 2
    shown = {}
    for state in ("slice=3&opacity=0.5", "slice=2&opacity=0.5", "slice=3&opacity=0.5&hide=0.2"):
        pixels = np.asarray(Image.open(screenshot(path, state, tmp_path / "shot.png")).convert("RGB")).astype(int)
        magenta = np.argwhere((abs(pixels - (191, 64, 191)) < 8).all(axis=-1))  # what is ignored, at the right edge
        right, top, bottom = magenta[:, 1].max(), magenta[:, 0].min(), magenta[:, 0].max()
        width = (right - magenta[:, 1].min()) * 48 / 8
        shown[state] = pixels[(top + bottom) // 2, int(right - width / 2)]
    one, other, hidden = shown.values()
    np.testing.assert_allclose(one, tinted, atol=8)
    np.testing.assert_allclose(other, 128, atol=8)
    np.testing.assert_allclose(hidden, 128, atol=8)
