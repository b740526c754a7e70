"""The two arms that the paper dropped: what they train, what they hide, and their losses against plain computations."""

import numpy as np
import pytest
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from pretraining.augmentation.views import AugmentationSettings, draw, geometry, normalise
from pretraining.objectives import mae, simclr
from pretraining.objectives.mae import MaskedAutoencoder
from pretraining.objectives.simclr import SimCLR
from pretraining.objectives.tokens import patchify, unpatchify

TINY = NetworkConfig.named("tiny")
ARMS = {"mae": MaskedAutoencoder, "simclr": SimCLR}


def make(arm, settings=None):
    torch.manual_seed(0)
    return ARMS[arm](TransUNet(1, 1, TINY), settings)


@pytest.fixture(scope="module")
def images():
    """(4, 224, 224) uint8: smooth structures that differ from image to image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224] / 224
    waves = [np.sin(2 * np.pi * (rng.uniform(2, 9) * x + rng.uniform(2, 9) * y)) for _ in range(4)]
    return torch.from_numpy(
        (128 + 90 * np.stack(waves) + rng.normal(0, 4, (4, 224, 224))).clip(0, 255).astype(np.uint8)
    )


def is_trained(objective, name):
    return not name.startswith("network.") or name.removeprefix("network.").startswith(objective.trained)


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_changes_what_is_trained_and_nothing_else(arm, images):
    objective = make(arm).train()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.1, weight_decay=0.1)
    loss = objective(*objective.prepare(images, 1, 0))
    assert loss.dtype == torch.float32 and loss.shape == ()
    loss.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.requires_grad == is_trained(objective, name), name
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == is_trained(objective, name), name
    optimizer.step()
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]) != is_trained(objective, name), name


@pytest.mark.parametrize("arm", ARMS)
def test_views_depend_on_seed_and_position_alone(arm, images):
    objective = make(arm)
    whole = objective.prepare(images, 5, 10)
    parts = [objective.prepare(images[i : i + 2], 5, 10 + i) for i in (0, 2)]
    for got, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(got, torch.cat([first, second]))
        assert not got.requires_grad
    for other in (objective.prepare(images, 6, 10), objective.prepare(images, 5, 11)):
        assert not any(torch.equal(a, b) for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize(("arm", "rate", "steps"), [("mae", 0.05, 12), ("simclr", 0.003, 6)])
def test_the_loss_falls(arm, rate, steps, images):
    objective = make(arm).train()
    views = objective.prepare(images, 1, 0)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], rate, momentum=0.9)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        loss = objective(*views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("arm", ARMS)
def test_under_autocast_the_loss_is_float32_and_the_same(arm, images):
    objective = make(arm).eval()
    views = objective.prepare(images, 1, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = objective(*views)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(objective(*views).item(), rel=0.05)
    total, count = objective.measure(*views)["loss"]
    assert (total / count).item() == pytest.approx(objective(*views).item(), rel=1e-4)


# ---- masked autoencoder


def test_a_quarter_is_visible_of_each_image_another(images):
    image, order = make("mae").prepare(images, 3, 7)
    settings = AugmentationSettings()
    assert torch.equal(image[:, 0], normalise(geometry(images, draw(settings, 3, 7, 4), settings), settings))
    assert torch.equal(order.sort(dim=1).values, torch.arange(196).expand(4, -1))
    visible = order[:, : make("mae").visible]
    assert visible.shape == (4, 49)
    assert len({tuple(row.sort().values.tolist()) for row in visible}) == 4
    # Each patch is visible in a quarter of many images: 4 standard deviations of the binomial.
    share = np.bincount(mae.draw_orders(3, 0, 4000, 196)[:, :49].ravel(), minlength=196) / 4000
    assert np.abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_patches_are_squares_in_rows():
    y, x = np.mgrid[:32, :48]
    patches = patchify(torch.from_numpy(y * 100 + x)[None, None])
    assert patches.shape == (1, 6, 256)
    for number in range(6):
        rows, columns = np.mgrid[:16, :16] + np.array([16 * (number // 3), 16 * (number % 3)])[:, None, None]
        assert (patches[0, number].numpy() == (rows * 100 + columns).ravel()).all()
    square = torch.randn(2, 1, 64, 64)
    assert torch.equal(unpatchify(patchify(square), 4), square[:, 0])


def test_the_loss_is_that_of_the_hidden_patches(images):
    objective = make("mae").eval()
    image, order = objective.prepare(images, 1, 0)
    with torch.no_grad():
        predicted = objective._predict(patchify(image), order).numpy()
        loss = objective(image, order).item()
    errors = []
    for i in range(len(image)):
        for number in order[i, 49:].tolist():
            row, column = 16 * (number // 14), 16 * (number % 14)
            patch = image[i, 0, row : row + 16, column : column + 16].numpy().ravel().astype(np.float64)
            target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append(((predicted[i, number] - target) ** 2).mean())
    assert loss == pytest.approx(np.mean(errors), rel=1e-5)


def test_the_prediction_is_from_the_visible_patches_alone_and_only_hidden_ones_count(images, monkeypatch):
    objective = make("mae").eval()
    image, order = objective.prepare(images, 1, 0)
    patches = patchify(image)
    changed = patches.scatter(1, order[:, 49:, None].expand(-1, -1, 256), 3.0)
    with torch.no_grad():
        predicted = objective._predict(patches, order)
        assert torch.equal(objective._predict(changed, order), predicted)
        moved = patches.scatter(1, order[:, :49, None].expand(-1, -1, 256), 3.0)
        assert not torch.allclose(objective._predict(moved, order), predicted)
        # With the same prediction, other pixels in the visible patches leave the loss as it is.
        loss = objective(image, order)
        monkeypatch.setattr(objective, "_predict", lambda *_: predicted)
        assert torch.equal(objective(unpatchify(moved, 14)[:, None], order), loss)
        assert not torch.equal(objective(unpatchify(changed, 14)[:, None], order), loss)


def test_the_order_of_the_tokens_does_not_matter(images):
    objective = make("mae").eval()
    image, order = objective.prepare(images, 1, 0)
    shuffled = torch.cat([order[:, :49].flip(1), order[:, 49:].flip(1)], dim=1)
    with torch.no_grad():
        assert objective(image, shuffled).item() == pytest.approx(objective(image, order).item(), rel=1e-5)


def test_pictures_show_what_was_hidden(images):
    objective = make("mae").eval()
    image, order = objective.prepare(images, 1, 0)
    shown = objective.pictures(image, order)
    assert list(shown) == ["visible", "output", "target"]
    assert torch.equal(shown["target"], image[:, 0])
    kept = unpatchify(torch.zeros(4, 196, 256).scatter(1, order[:, :49, None].expand(-1, -1, 256), 1.0), 14) > 0
    assert kept.float().mean() == 0.25
    assert torch.equal(shown["output"][kept], image[:, 0][kept])
    assert torch.equal(shown["visible"], image[:, 0] * kept)


def test_mae_refuses_images_of_another_size(images):
    with pytest.raises(RetinaError, match=r"mae: got images of \(96, 224\) pixels; expected 224 x 224"):
        make("mae").prepare(images[:, :96], 0, 0)


# ---- SimCLR


def test_nt_xent_is_equation_1():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 7))
    views = np.concatenate([first, second])
    total = 0.0
    for i in range(10):
        similar = [views[i] @ views[k] / np.linalg.norm(views[i]) / np.linalg.norm(views[k]) / 0.1 for k in range(10)]
        others = sum(np.exp(similar[k]) for k in range(10) if k != i)
        total -= np.log(np.exp(similar[(i + 5) % 10]) / others)
    got = simclr.contrast(torch.from_numpy(first), torch.from_numpy(second))
    assert got.item() == pytest.approx(total / 10, rel=1e-9)


def test_the_two_views_are_drawn_independently(images):
    same = images[:1].expand(4, -1, -1)
    first, second = make("simclr").prepare(same, 5, 0)
    assert first.shape == second.shape == (4, 1, 224, 224)
    views = [view.numpy().tobytes() for view in (*first, *second)]
    assert len(set(views)) == 8


def test_simclr_needs_two_images(images):
    objective = make("simclr").eval()
    views = objective.prepare(images[:1], 0, 0)
    with pytest.raises(RetinaError, match=r"got one image; expected at least two.* Raise the batch size"):
        objective(*views)
    assert [value.item() for value in objective.measure(*views)["loss"]] == [0, 0]
