"""What is measured of reconstructions beside the published loss."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_retina.network import NetworkConfig, TransUNet
from pretraining.objectives.reconstruction import Reconstruction, affine_free_error


def test_the_affine_free_error_is_that_of_the_best_line():
    rng = np.random.default_rng(0)
    image, target = rng.normal(3, 2, (2, 4, 1, 16, 16))
    expected = []
    for x, y in zip(image.reshape(4, -1), target.reshape(4, -1), strict=True):
        design = np.stack([x, np.ones_like(x)], 1)
        expected.append(np.mean((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2))
    got = affine_free_error(torch.from_numpy(image), torch.from_numpy(target))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)
    assert affine_free_error(torch.from_numpy(image), torch.from_numpy(5 - 2 * image)).abs().max() < 1e-9
    flat = torch.ones(1, 1, 16, 16)
    assert affine_free_error(flat, torch.from_numpy(target[:1])).item() == pytest.approx(target[0].var())


def test_every_measure_is_reported_and_the_affine_free_ones_are_the_lower():
    torch.manual_seed(0)
    objective = Reconstruction(TransUNet(1, 1, NetworkConfig.named("tiny"))).eval()
    images = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        measured = objective.measure(*objective.prepare(images, 0, 0))
    assert tuple(measured) == objective.measured
    losses = {name: (total / count).item() for name, (total, count) in measured.items()}
    assert losses["affine_free_loss"] < losses["loss"]
    assert losses["unrestored_affine_free_loss"] < losses["unrestored_loss"]


def make(**options):
    torch.manual_seed(0)
    return Reconstruction(TransUNet(1, 1, NetworkConfig.named("tiny")), **options).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_two_terms_are_the_losses_with_and_without_skips(images):
    both, with_skips, without = make(two_terms=True), make(), make(skip_drop=1.0)
    views = with_skips.prepare(images, 0, 0)
    with torch.no_grad():
        parts = with_skips(*views), without(*without.prepare(images, 0, 0))
        assert both(*views).item() == pytest.approx(sum(parts).item(), rel=1e-5)
    assert parts[0] != parts[1]


def test_without_skips_the_decoder_gets_the_tokens_alone(images):
    objective = make(skip_drop=1.0)
    *views, factors = objective.prepare(images, 0, 0)
    assert not factors.any() and factors.shape == (3, 3)
    with torch.no_grad():
        before = objective(*views, factors)
        nn.init.zeros_(objective.network.transformer.norm.weight)  # every token of every image becomes the same
        outputs = objective.network(views[0], factors)
        assert not torch.equal(objective(*views, factors), before)
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    first, second, *_ = make().network(views[0])
    assert not torch.allclose(first, second, atol=1e-3)


def test_what_was_trained_without_skips_is_measured_and_drawn_without_them(images):
    plain, half, none = make(), make(skip_drop=0.5), make(skip_drop=1.0)
    views = plain.prepare(images, 0, 0)
    with torch.no_grad():
        measured = [made.measure(*views)["loss"][0].item() for made in (plain, half, none)]
        alone = none.network(views[0], torch.zeros(3, 3))
        outputs = [made.pictures(*views)["output"] for made in (plain, half, none)]
    assert measured[0] == measured[1] != measured[2]
    assert measured[2] == pytest.approx((alone - views[1]).square().sum().item(), rel=1e-5)
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[2], alone[:, 0])
