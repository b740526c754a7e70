"""LARS against plain arithmetic."""

import numpy as np
import pytest
import torch
from torch import nn

from pretraining.loop.engine import make_optimizer
from pretraining.loop.lars import LARS
from pretraining.recipe import Recipe


def test_steps_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(3, 3, 4)) * 100
    adapted, plain = (nn.Parameter(torch.from_numpy(start.copy())) for _ in range(2))
    optimizer = LARS(
        [{"params": [adapted], "weight_decay": 0.01}, {"params": [plain], "adapted": False}], lr=0.5, momentum=0.9
    )
    w, v, u, s = start.copy(), np.zeros((3, 4)), start.copy(), np.zeros((3, 4))
    for gradient in gradients:
        adapted.grad, plain.grad = (torch.from_numpy(gradient.copy()) for _ in range(2))
        optimizer.step()
        g = gradient + 0.01 * w
        v = 0.9 * v + 0.5 * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
        s = 0.9 * s + 0.5 * gradient
        w, u = w - v, u - s
    np.testing.assert_allclose(adapted.detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(plain.detach().numpy(), u, rtol=1e-12)


def test_a_tensor_of_zeros_can_leave_zero():
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones(2, 2)
    LARS([{"params": [parameter]}], lr=0.1).step()
    assert parameter.tolist() == [[pytest.approx(-0.1)] * 2] * 2


def test_norms_and_biases_are_neither_adapted_nor_decayed():
    recipe = Recipe.named("simclr", batch_size=512)
    optimizer = make_optimizer(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), recipe)
    assert isinstance(optimizer, LARS)
    matrices, rest = optimizer.param_groups
    assert (matrices["adapted"], matrices["weight_decay"], len(matrices["params"])) == (True, 1e-6, 1)
    assert (rest["adapted"], rest["weight_decay"], len(rest["params"])) == (False, 0.0, 3)
    assert matrices["lr"] == rest["lr"] == pytest.approx(0.6) and matrices["momentum"] == 0.9
