"""Every transform against a plain computation, random parameters against their distributions, what must not vary."""

import itertools
import json
import math
import random
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from nnunetv2_retina.errors import RetinaError
from pretraining.augmentation import ops
from pretraining.augmentation import views as augmentation
from pretraining.augmentation.draws import BLUR_SIZES, crop_boxes
from pretraining.augmentation.views import AugmentationSettings, augment, degrade, draw, geometry, normalise

NOTHING = AugmentationSettings(
    horizontal_flip_p=0, vertical_flip_p=0, rotation_p=0, crop_p=0, contrast_p=0, noise_p=0, blur_p=0, holes_p=0
)
PUBLISHED = AugmentationSettings()
COUNT = 20_000


def rough_images(count=8, height=224, width=224):
    """Every pixel on its own: the hardest case for interpolation."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width), np.uint8)


def smooth_images(count=8, height=224, width=224):
    """Like tissue: neighbouring pixels differ by a few grey levels."""
    images = ndimage.gaussian_filter(rough_images(count, height, width).astype(float), (0, 3, 3), mode="wrap")
    return np.clip((images - 127.5) * 8 + 127.5, 0, 255).astype(np.uint8)


def batch(images):
    return torch.from_numpy(images)


def drawn(settings, count=8, seed=3):
    return draw(settings, seed, 0, count)


@pytest.fixture(scope="module")
def many():
    return draw(PUBLISHED, 1, 0, COUNT)


# The transforms, each alone


def test_without_any_transform_nothing_changes():
    images = rough_images(4)
    views = augment(batch(images), drawn(NOTHING, 4), NOTHING)
    assert torch.equal(views.input, views.target)
    assert not views.holes.any() and not views.changed.any()
    np.testing.assert_array_equal(geometry(batch(images), drawn(NOTHING, 4), NOTHING), images)


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip_p", 2), ("vertical_flip_p", 1)])
def test_flips(name, axis):
    chosen: dict[str, Any] = {name: 1}
    images, settings = rough_images(), replace(NOTHING, **chosen)
    np.testing.assert_array_equal(geometry(batch(images), drawn(settings), settings), np.flip(images, axis))


def test_rotation():
    images, settings = smooth_images(), replace(NOTHING, rotation_p=1)
    draws = drawn(settings)
    rotated = geometry(batch(images), draws, settings).numpy()
    y, x = np.mgrid[:224, :224] - 111.5
    for image, angle, result in zip(images, np.deg2rad(draws.angle), rotated, strict=True):
        places = [111.5 + np.sin(angle) * x + np.cos(angle) * y, 111.5 + np.cos(angle) * x - np.sin(angle) * y]
        expected = ndimage.map_coordinates(image.astype(float), places, order=1, mode="mirror")
        # Places are rounded to 1/32 of a pixel (at most 1/64 off, along each axis) and neighbours differ by up to 60.
        assert np.abs(result - expected).max() < 2
        assert np.abs(result - expected).mean() < 0.35  # 0.25 is what rounding to whole grey levels makes


@pytest.mark.parametrize(("angle", "quarters"), [(90.0, 1), (-90.0, -1)])
def test_a_quarter_turn_is_exact_and_counter_clockwise(angle, quarters):
    images, settings = rough_images(2), replace(NOTHING, rotation_p=1, rotation_degrees=(angle, angle))
    rotated = geometry(batch(images), drawn(settings, 2), settings).numpy()
    np.testing.assert_array_equal(rotated, np.rot90(images, quarters, axes=(1, 2)))


@pytest.mark.parametrize("make", [rough_images, smooth_images])
def test_random_resized_crop(make):
    images, settings = make(), replace(NOTHING, crop_p=1)
    draws = drawn(settings)
    cropped = geometry(batch(images), draws, settings).numpy()
    for image, box, result in zip(images, crop_boxes(draws, settings, 224, 224), cropped, strict=True):
        top, left, height, width = box
        piece = image[top : top + height, left : left + width].astype(float)
        places = np.meshgrid(*((np.arange(224) + 0.5) * side / 224 - 0.5 for side in (height, width)), indexing="ij")
        expected = ndimage.map_coordinates(piece, places, order=1, mode="nearest")
        # Fixed point with 11 bits loses up to 3/4 of a grey level before it rounds; on average 1/8 is lost.
        assert np.abs(result - expected).max() < 1.3
        assert -0.3 < (result - expected).mean() < 0.01


def test_contrast_and_brightness():
    images, settings = rough_images(), replace(NOTHING, contrast_p=1)
    draws = drawn(settings)
    result, _ = degrade(batch(images), draws, settings)
    factors, summands = (v.astype(np.float32)[:, None, None] for v in (draws.contrast, 255 * draws.brightness))
    expected = np.clip(images.astype(np.float32) * factors + summands, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(result, expected)


def test_noise_is_normal_with_the_drawn_variance():
    settings = replace(NOTHING, noise_p=1)
    draws = drawn(settings, 16)
    grey = torch.full((16, 224, 224), 128, dtype=torch.uint8)
    difference = degrade(grey, draws, settings)[0].numpy().astype(float) - 128
    # Truncation after the addition takes half a grey level on average.
    np.testing.assert_allclose(difference.mean((1, 2)), -0.5, atol=0.7)
    np.testing.assert_allclose(difference.std((1, 2)), np.sqrt(draws.noise**2 + 1 / 12), rtol=0.015)


def test_noise_is_clipped_at_black_and_white():
    settings = replace(NOTHING, noise_p=1)
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None].expand(2, 224, 224)
    result = degrade(ends.contiguous(), drawn(settings, 2), settings)[0].float()
    assert (result[0] == 0).float().mean() == pytest.approx(0.51, abs=0.02)
    assert (result[1] == 255).float().mean() == pytest.approx(0.5, abs=0.02)


def test_noise_has_no_pattern_and_images_share_none():
    keys = torch.from_numpy(draw(PUBLISHED, 2, 0, 64).noise_key.view(np.int32))
    noise = ops.normal_noise(keys, 224 * 224).numpy() / 4096
    for one in noise[:8]:
        assert stats.kstest(one, "norm").pvalue > 1e-4
    limit = 5 / math.sqrt(noise.shape[1])
    between = np.corrcoef(noise) - np.eye(64)
    assert np.abs(between).max() < limit
    spectrum = np.abs(np.fft.fft2(noise.reshape(64, 224, 224))) ** 2 / noise.shape[1]
    assert spectrum.mean() == pytest.approx(1, abs=0.01)
    correlation = np.fft.ifft2(spectrum).real.reshape(64, -1)[:, 1:]  # with itself, moved by any number of pixels
    assert np.abs(correlation).max() < 6.5 / math.sqrt(noise.shape[1])


@pytest.mark.parametrize("size", BLUR_SIZES)
def test_blur(size):
    first, second, third = (float(size == each) for each in BLUR_SIZES)
    settings = replace(NOTHING, blur_p=1, blur_sizes=(first, second, third))
    images = rough_images(3)
    result, _ = degrade(batch(images), drawn(settings, 3), settings)
    weights = {3: [64, 128, 64], 5: [16, 64, 96, 64, 16], 7: [8, 28, 56, 72, 56, 28, 8]}[size]
    kernel = np.outer(weights, weights)
    for image, blurred in zip(images, result, strict=True):
        expected = ndimage.convolve(image.astype(np.int64), kernel, mode="mirror")
        np.testing.assert_array_equal(blurred, (expected + 2**15) >> 16)


@pytest.mark.parametrize("value", [0, 77])
def test_holes(value):
    images = np.maximum(rough_images(12), 1)
    settings = replace(NOTHING, holes_p=1, hole_value=value)
    draws = drawn(settings, 12)
    result, holes = degrade(batch(images), draws, settings)
    expected = np.zeros(images.shape, bool)
    for mask, count, places in zip(expected, draws.holes, draws.hole_place, strict=True):
        for row, column in (places[:count] * (224 - 16 + 1)).astype(int):
            mask[row : row + 16, column : column + 16] = True
    np.testing.assert_array_equal(holes, expected)
    np.testing.assert_array_equal(result, np.where(expected, value, images))


def test_more_holes_than_bits_in_a_word():
    settings = replace(NOTHING, holes_p=1, holes=(40, 70), hole_size=5)
    draws = drawn(settings, 6)
    _, holes = degrade(batch(rough_images(6, 64, 64)), draws, settings)
    expected = np.zeros((6, 64, 64), bool)
    for mask, count, places in zip(expected, draws.holes, draws.hole_place, strict=True):
        for row, column in (places[:count] * 60).astype(int):
            mask[row : row + 5, column : column + 5] = True
    np.testing.assert_array_equal(holes, expected)


def test_published_normalisation():
    images = rough_images(2)
    result = normalise(batch(images), PUBLISHED)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, (images / 255 - 0.57287007) / 0.12740536, atol=2e-6)


def test_normalisation_of_each_image():
    images = rough_images(3)
    images[1] = 200
    images[2] = images[2] % 2 + 100  # standard deviation 1/2
    result = normalise(batch(images), replace(PUBLISHED, normalisation="image")).numpy()
    assert result[0].mean() == pytest.approx(0, abs=1e-5) and result[0].std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(result[1], 0)
    assert result[2].std() == pytest.approx(0.5, abs=1e-3)


# What holds for the whole


@pytest.mark.parametrize("switches", list(itertools.product((0, 1), repeat=4)))
def test_the_target_is_never_corrupted(switches):
    names = ("contrast_p", "noise_p", "blur_p", "holes_p")
    settings = AugmentationSettings(**dict(zip(names, switches, strict=True)))
    images, draws = batch(smooth_images(4, 96, 96)), drawn(settings, 4)
    clean = geometry(images, draws, settings)
    before, read = clean.clone(), images.clone()
    degraded, _ = degrade(clean, draws, settings)
    assert torch.equal(clean, before) and torch.equal(images, read)
    views = augment(images, draws, settings)
    assert torch.equal(views.target[:, 0], normalise(clean, settings))
    assert torch.equal(views.changed[:, 0], degraded != clean)
    assert views.changed.any() == any(switches)
    assert degraded.data_ptr() != clean.data_ptr()


def test_views_have_the_promised_shapes_and_types():
    views = augment(batch(smooth_images(3, 64, 48)), drawn(PUBLISHED, 3), PUBLISHED)
    for field in fields(views):
        assert getattr(views, field.name).shape == (3, 1, 64, 48)
    assert views.input.dtype == views.target.dtype == torch.float32
    assert views.holes.dtype == views.changed.dtype == torch.bool
    assert (views.input[views.holes] == views.input.min()).all()


@pytest.mark.parametrize("shape", [(224, 224), (32, 32), (33, 150), (100, 64)])
@pytest.mark.parametrize("normalisation", ["published", "image"])
def test_batches_threads_and_cuts_do_not_matter(shape, normalisation, monkeypatch):
    settings = AugmentationSettings(normalisation=normalisation)
    images = batch(smooth_images(24, *shape))
    whole = augment(images, draw(settings, 7, 100, 24), settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 if threads != 3 else 2)
    try:
        pieces = [augment(images[a:b], draw(settings, 7, 100 + a, b - a), settings) for a, b in ((0, 5), (5, 24))]
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(augmentation, "_parts", lambda images: [slice(0, len(images))])  # as on a GPU
    at_once = augment(images, draw(settings, 7, 100, 24), settings)
    for field in fields(whole):
        expected = getattr(whole, field.name)
        assert torch.equal(torch.cat([getattr(piece, field.name) for piece in pieces]), expected), field.name
        assert torch.equal(getattr(at_once, field.name), expected), field.name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_agree():
    images, draws = batch(smooth_images(32)), drawn(PUBLISHED, 32)
    here, there = augment(images, draws, PUBLISHED), augment(images.cuda(), draws, PUBLISHED)
    for field in fields(here):
        torch.testing.assert_close(getattr(there, field.name).cpu(), getattr(here, field.name), rtol=0, atol=2e-6)


def test_the_order_in_memory_does_not_matter():
    images, draws = batch(smooth_images(4, 64, 64)), drawn(PUBLISHED, 4)
    turned = images.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(augment(turned, draws, PUBLISHED).input, augment(images, draws, PUBLISHED).input)


def test_no_images():
    views = augment(torch.zeros(0, 64, 64, dtype=torch.uint8), draw(PUBLISHED, 0, 5, 0), PUBLISHED)
    assert views.input.shape == (0, 1, 64, 64)


# The random parameters


def test_a_position_gets_the_same_however_the_stream_is_cut():
    whole = draw(PUBLISHED, 5, 1000, 60)
    assert len(whole) == 60 and len(whole[10:25]) == 15
    pieces = [draw(PUBLISHED, 5, 1000 + first, count) for first, count in ((0, 1), (1, 31), (32, 28))]
    for field in fields(whole):
        joined = np.concatenate([getattr(piece, field.name) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(whole, field.name))
    assert not np.array_equal(draw(PUBLISHED, 6, 1000, 60).angle, whole.angle)


def test_probabilities(many):
    happened = {
        "horizontal_flip": many.horizontal_flip,
        "vertical_flip": many.vertical_flip,
        "rotation": many.angle != 0,
        "contrast": many.contrast != 1,
        "noise": many.noise > 0,
        "blur": many.blur > 0,
        "holes": many.holes > 0,
    }
    for name, flags in happened.items():
        assert abs(flags.mean() - 0.5) < 4 * math.sqrt(0.25 / COUNT), name
    assert many.cropped.all()
    flags = np.stack(list(happened.values())).astype(float)
    assert np.abs(np.corrcoef(flags) - np.eye(len(flags))).max() < 5 / math.sqrt(COUNT)


def test_ranges(many):
    contrasted, noisy = many.contrast != 1, many.noise > 0
    samples = {
        "angle": (many.angle[many.angle != 0], -90, 90),
        "contrast": (many.contrast[contrasted], 0.7, 1.3),
        "brightness": (many.brightness[contrasted], -0.3, 0.3),
        "variance": (many.noise[noisy] ** 2, 400, 1200),
        "area": (many.crop_area.ravel(), 0.08, 1),
        "aspect": (np.log(many.crop_aspect).ravel(), math.log(0.5), math.log(1.5)),
        "crop place": (many.crop_place.ravel(), 0, 1),
        "hole place": (many.hole_place.ravel(), 0, 1),
    }
    for name, (values, low, high) in samples.items():
        assert low <= values.min() and values.max() <= high, name
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3, name


def test_whole_numbers(many):
    _, sizes = np.unique(many.blur[many.blur > 0], return_counts=True)
    assert stats.chisquare(sizes, sizes.sum() * np.array([0.2, 0.4, 0.4])).pvalue > 1e-3
    numbers, counts = np.unique(many.holes[many.holes > 0], return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(1, 33))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_parameters_and_positions_are_independent(many):
    columns = np.stack(
        [
            *(many.horizontal_flip, many.angle, many.contrast, many.brightness, many.noise, many.blur, many.holes),
            *(many.crop_area[:, 0], many.crop_aspect[:, 0], *many.crop_place.T, *many.hole_place[:, 0].T),
            *many.noise_key.T.astype(float),
        ]
    )
    limit = 5 / math.sqrt(COUNT)
    for lag in (1, 2, 7):
        both = np.corrcoef(columns[:, :-lag], columns[:, lag:])
        assert np.abs(both[: len(columns), len(columns) :]).max() < limit
    apart = np.corrcoef(columns[[1, 4, 7, 8, 9, 10, 11, 12, 13, 14]]) - np.eye(10)
    assert np.abs(apart).max() < limit


def plain_crop(settings, size, generator):
    """The box of one random resized crop, as a loop."""
    for _ in range(10):
        area = generator.uniform(*settings.crop_area) * size * size
        aspect = math.exp(generator.uniform(*map(math.log, settings.crop_aspect)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= size and 0 < height <= size:
            return generator.randint(0, size - height), generator.randint(0, size - width), height, width
    return 0, 0, size, size


def test_crop_boxes_are_distributed_as_those_of_the_plain_loop(many):
    boxes = crop_boxes(many, PUBLISHED, 224, 224)
    generator = random.Random(0)
    plain = np.array([plain_crop(PUBLISHED, 224, generator) for _ in range(COUNT)])
    for values in (boxes, plain):
        assert values.min() >= 0 and (values[:, :2] + values[:, 2:]).max() <= 224
    for mine, theirs in zip(boxes.T, plain.T, strict=True):
        assert stats.ks_2samp(mine, theirs).pvalue > 1e-3
    assert stats.ks_2samp(boxes[:, 2] * boxes[:, 3], plain[:, 2] * plain[:, 3]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("aspect", "box"),
    [((1.25, 1.5), [10, 0, 80, 100]), ((0.5, 0.8), [0, 10, 100, 80]), ((0.9, 1.1), [0, 0, 100, 100])],
)
def test_crop_that_never_fits_is_the_largest_centred_one(aspect, box):
    settings = replace(NOTHING, crop_p=1, crop_area=(1, 1), crop_aspect=aspect)
    never = replace(drawn(settings, 1), crop_aspect=np.full((1, 10), 1.5))
    np.testing.assert_array_equal(crop_boxes(never, settings, 100, 100), [box])


def test_places_reach_both_ends():
    draws = replace(drawn(PUBLISHED, 2), crop_place=np.array([[0, 0], [1 - 1e-12] * 2]))
    boxes = crop_boxes(draws, PUBLISHED, 224, 224)
    assert boxes[0, :2].tolist() == [0, 0]
    assert (boxes[1, :2] + boxes[1, 2:]).tolist() == [224, 224]


# Against the libraries that the released code uses, where they are installed


def test_opencv_gives_the_same():
    cv2 = pytest.importorskip("cv2")
    images = rough_images(6)
    resized = replace(NOTHING, crop_p=1)
    draws = drawn(resized, 6)
    for image, box, result in zip(
        images, crop_boxes(draws, resized, 224, 224), geometry(batch(images), draws, resized), strict=True
    ):
        top, left, height, width = box
        piece = image[top : top + height, left : left + width]
        np.testing.assert_array_equal(result, cv2.resize(piece, (224, 224), interpolation=cv2.INTER_LINEAR))
    for size in BLUR_SIZES:
        blurred = ops.blur(batch(images), size)
        for image, result in zip(images, blurred, strict=True):
            np.testing.assert_array_equal(result, cv2.GaussianBlur(image, (size, size), 0))
    rotated = replace(NOTHING, rotation_p=1)
    draws = drawn(rotated, 6)
    for image, angle, result in zip(images, draws.angle, geometry(batch(images), draws, rotated), strict=True):
        matrix = cv2.getRotationMatrix2D((111.5, 111.5), angle, 1)
        expected = cv2.warpAffine(image, matrix, (224, 224), borderMode=cv2.BORDER_REFLECT_101)
        # OpenCV 5 no longer rounds places to 1/32 of a pixel: up to 2 x 255/64 grey levels between unrelated pixels.
        most = 0 if cv2.__version__.startswith("4.") else 8
        assert np.abs(result.numpy().astype(int) - expected).max() <= most


def test_albumentations_draws_and_does_the_same():
    peer = pytest.importorskip("albumentations", "1.3.1")
    random.seed(0)
    images, count = smooth_images(8), 400
    released = peer.Compose(
        [
            peer.RandomBrightnessContrast(0.3, 0.3),
            peer.GaussNoise((400, 1200)),
            peer.GaussianBlur(),
            peer.CoarseDropout(32, 16, 16, 1, fill_value=0),
        ]
    )
    theirs = np.stack([released(image=images[index % 8])["image"] for index in range(count)])
    repeated = batch(np.concatenate([images] * (count // 8)))
    ours = degrade(repeated, draw(PUBLISHED, 0, 0, count), PUBLISHED)[0].numpy()
    for measure in (np.mean, np.std):
        assert stats.ks_2samp(*(measure(some.astype(float), (1, 2)) for some in (ours, theirs))).pvalue > 1e-3
    rough = [np.abs(np.diff(some.astype(float))).mean((1, 2)) for some in (ours, theirs)]
    assert stats.ks_2samp(*rough).pvalue > 1e-3


# Settings and errors


def test_settings_survive_a_json_file():
    settings = AugmentationSettings(crop_area=(0.5, 1), normalisation="image")
    assert AugmentationSettings(**json.loads(json.dumps(settings.to_dict()))) == settings
    assert AugmentationSettings() != settings


def test_every_setting_changes_something():
    images = batch(smooth_images(16, 64, 64))
    base = AugmentationSettings(blur_sizes=(1, 0, 0))
    reference = augment(images, drawn(base, 16), base)
    changes = {field.name: 0 for field in fields(base) if field.name.endswith("_p")} | {
        "rotation_degrees": (-10, 10),
        "crop_area": (0.5, 1),
        "crop_aspect": (1, 1.5),
        "contrast": (0, 0.1),
        "brightness": (0, 0.1),
        "noise_variance": (1, 2),
        "blur_sizes": (0, 0, 1),
        "holes": (1, 31),
        "hole_size": 8,
        "hole_value": 9,
        "normalisation": "image",
        "mean": 0.5,
        "std": 0.5,
    }
    assert set(changes) == {field.name for field in fields(base)}
    for name, value in changes.items():
        chosen: dict[str, Any] = {name: value}
        settings = replace(base, **chosen)
        assert not torch.equal(augment(images, drawn(settings, 16), settings).input, reference.input), name


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"blur_p": 1.5}, "blur_p is 1.5; expected 0 to 1"),
        ({"noise_p": math.nan}, "noise_p is nan"),
        ({"blur_sizes": (0.5, 0.5, 0.5)}, "three probabilities that add up to 1"),
        ({"crop_area": (0.0, 1.0)}, r"crop_area is \(0.0, 1.0\); expected two ascending numbers from 0.01 to 1"),
        ({"noise_variance": (1200, 400)}, "noise_variance is .* ascending"),
        ({"holes": (0, 4)}, "holes is .* from 1 to 1024"),
        ({"holes": (1.5, 4)}, "must be whole numbers"),
        ({"hole_size": 0}, "hole_size is 0"),
        ({"hole_value": 256}, "hole_value is 256; expected 0 to 255"),
        ({"normalisation": "none"}, "normalisation is 'none'; expected one of published, image"),
        ({"std": 0}, "mean and std are"),
        ({"blur_p": 2, "hole_size": 0}, "blur_p is 2.*hole_size is 0"),
    ],
)
def test_wrong_settings(values, text):
    with pytest.raises(RetinaError, match=f"settings of the augmentation: .*{text}.*Correct them"):
        AugmentationSettings(**values)


@pytest.mark.parametrize(("seed", "first", "count"), [(-1, 0, 1), (2**64, 0, 1), (0, -1, 1), (0, 0, -1)])
def test_wrong_positions(seed, first, count):
    with pytest.raises(RetinaError, match="expected a seed from 0 to 2\\^64 - 1"):
        draw(PUBLISHED, seed, first, count)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(2, 64, 64), "torch.float32; expected .* uint8"),
        (torch.zeros(2, 1, 64, 64, dtype=torch.uint8), r"shape \(2, 1, 64, 64\)"),
        (torch.zeros(2, 31, 64, dtype=torch.uint8), "H and W at least 32"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), "got 3 images and random parameters of 2"),
    ],
)
def test_wrong_images(images, text):
    with pytest.raises(RetinaError, match=text):
        augment(images, drawn(PUBLISHED, 2), PUBLISHED)


def test_holes_larger_than_the_image():
    settings = AugmentationSettings(hole_size=65)
    with pytest.raises(RetinaError, match=r"at least 65.*choose smaller holes"):
        augment(torch.zeros(2, 64, 64, dtype=torch.uint8), drawn(settings, 2), settings)
