"""Masked image modelling without a decoder: what is trained, what counts, and its loss against a plain computation."""

import numpy as np
import pytest
import torch

from nnunetv2_retina.network import NetworkConfig, TransUNet
from pretraining.objectives.simmim import SimMIM
from pretraining.recipes import RECIPES

SETTINGS = RECIPES["distil"]["augmentation"]


def make():
    torch.manual_seed(0)
    return SimMIM(TransUNet(1, 1, NetworkConfig.named("tiny")), SETTINGS, crop=64, blanked=0.5)


@pytest.fixture(scope="module")
def images():
    """(4, 224, 224) uint8: smooth structures that differ from image to image."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(20, 235, (4, 1, 15, 15)))
    fine = torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")
    return fine[:, 0].to(torch.uint8)


def test_gradients_reach_cnn_embedding_and_transformer_and_nothing_else(images):
    objective = make().train()
    loss = objective(*objective.prepare(images, 1, 0))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.shape == ()
    for name, parameter in objective.named_parameters():
        gets_gradient = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert gets_gradient == (not name.startswith("network.decoder.")), name


def test_the_loss_is_that_of_the_blanked_cells(images):
    objective = make().eval()
    image, places, blank, whole = views = objective.prepare(images, 1, 0)
    assert blank.sum(1).tolist() == [8] * 4
    with torch.no_grad():
        predicted = objective.predict(image, places, blank).numpy()
        loss = objective(*views).item()
    errors = []
    for i, cell in blank.nonzero().tolist():
        row, column = 16 * (cell // 4), 16 * (cell % 4)
        assert not image[i, 0, row : row + 16, column : column + 16].any()
        patch = whole[i, 0, row : row + 16, column : column + 16].numpy().ravel().astype(np.float64)
        target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        errors.append(((predicted[i, cell] - target) ** 2).mean())
    assert loss == pytest.approx(np.mean(errors), rel=1e-4)


def test_pictures_fill_the_blanked_cells(images):
    objective = make().eval()
    image, _, blank, whole = views = objective.prepare(images, 1, 0)
    shown = objective.pictures(*views)
    hidden = objective.pixels(blank)
    assert torch.equal(shown["output"][~hidden], image[:, 0][~hidden]) and shown["output"][hidden].any()
    assert torch.equal(shown["whole"], whole[:, 0])
