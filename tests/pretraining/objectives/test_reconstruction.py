"""What is measured of reconstructions beside the published loss."""

import numpy as np
import pytest
import torch

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
