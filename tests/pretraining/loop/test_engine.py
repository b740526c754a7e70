"""The optimiser step: which parameters decay, how far a step goes, and the same again after a stop."""

import copy
from typing import cast

import pytest
import torch
from torch import nn

from nnunetv2_retina.errors import RetinaError
from pretraining.job import build_objective
from pretraining.loop.engine import Engine, make_optimizer
from pretraining.loop.processes import Processes
from pretraining.loop.state import Images, Progress, load_optimizer, restore, save
from pretraining.objectives.reconstruction import Objective
from pretraining.recipe import Execution, Recipe


class Line(nn.Module):
    """A loss with steep gradients: (a x + b)^2 of mean grey levels, beside parameters of every kind."""

    uneven = False

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.norm = nn.LayerNorm(1)
        self.pos_embed = nn.Parameter(torch.ones(1, 4, 1))
        self.mask_token = nn.Parameter(torch.ones(1, 1, 1))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def prepare(self, images, seed, first):
        return (images.float().mean((1, 2)),)

    def forward(self, levels):
        rest = self.norm(levels[:, None]).sum() + self.pos_embed.sum() + self.mask_token.sum()
        return self.linear(levels[:, None]).square().mean() + rest


def engine(**settings):
    torch.manual_seed(0)
    recipe = Recipe(size="tiny", batch_size=4, iterations=10, **settings)
    return Engine(cast("Objective", Line()), recipe, Execution(precision="fp32"), Processes(torch.device("cpu")))


IMAGES = torch.arange(4 * 32 * 32).reshape(4, 32, 32).remainder(251).to(torch.uint8)


def test_adamw_lets_matrices_alone_decay():
    line = Line()
    optimizer = make_optimizer(line, Recipe(optimiser="adamw", weight_decay=0.05, learning_rate=0.01))
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decays.get(id(value)) for name, value in line.named_parameters()} == {
        "linear.weight": 0.05, "linear.bias": 0.0, "norm.weight": 0.0, "norm.bias": 0.0, "pos_embed": 0.0,
        "mask_token": 0.0, "frozen": None,
    }  # fmt: skip
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


def test_sgd_lets_all_decay_as_published():
    optimizer = make_optimizer(Line(), Recipe())
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["weight_decay"], group["momentum"], len(group["params"])) == (1e-4, 0.9, 6)


def moved(**settings):
    """How far the first step goes."""
    trained = engine(optimiser="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0, **settings)
    before = nn.utils.parameters_to_vector(trained.objective.parameters()).clone()
    trained.step(IMAGES, 0, 10)
    return (nn.utils.parameters_to_vector(trained.objective.parameters()) - before).norm().item()


def test_gradients_are_clipped_to_the_norm():
    assert moved() > 50
    assert moved(clip=2.0) == pytest.approx(2, rel=1e-4)
    assert moved(clip=1e9) == pytest.approx(moved(), rel=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_restored_optimiser_goes_on_bit_for_bit(optimiser):
    settings = {"optimiser": optimiser, "warmup": 2, "schedule": "cosine", "clip": 1.0, "learning_rate": 0.01}
    whole = engine(**settings)
    for step in range(6):
        if step == 3:
            state = copy.deepcopy((whole.objective.state_dict(), whole.optimizer.state_dict()))
        whole.step(IMAGES, step, 10)
    again = engine(**settings)
    again.objective.load_state_dict(state[0])
    again.optimizer.load_state_dict(state[1])
    for step in range(3, 6):
        again.step(IMAGES, step, 10)
    for name, value in whole.objective.state_dict().items():
        assert torch.equal(value, again.objective.state_dict()[name]), name
    assert whole.optimizer.param_groups[0]["lr"] == again.optimizer.param_groups[0]["lr"] < 0.01


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_state_of_another_device_leaves_the_optimiser_fused_or_not_as_it_was(optimiser, fused):
    """Saved on a GPU and continued on a CPU, or the other way round."""
    recipe = Recipe(optimiser=optimiser)
    lines = Line(), Line()
    saved, going_on = (make_optimizer(line, recipe, flag) for line, flag in zip(lines, (not fused, fused), strict=True))
    lines[0](torch.ones(4)).backward()
    saved.step()
    load_optimizer(going_on, saved.state_dict())
    assert {group["fused"] for group in going_on.param_groups} == {fused}
    lines[1](torch.ones(4)).backward()
    going_on.step()
    assert len(going_on.state) == len(saved.state) > 0


def test_a_run_that_scaled_no_loss_goes_on_in_fp16(tmp_path):
    recipe = Recipe(size="tiny", batch_size=4, iterations=10)

    def made():
        return Engine(build_objective(recipe), recipe, Execution(precision="fp32"), Processes(torch.device("cpu")))

    images = Images("f", training=9, held_out=1)
    description = {
        "recipe": recipe.to_dict(), "store": {"fingerprint": "f"}, "images": {"training": 9, "held_out": 1},
    }  # fmt: skip
    save(tmp_path / "latest.pth", made(), Progress(3), description, to_continue=True)
    engine = made()
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert restore(tmp_path / "latest.pth", engine, recipe, images).iteration == 3
    assert engine.scaler.get_scale() == 1024
    with pytest.raises(RetinaError, match="9 images to train on there, 8 now"):  # tiles of a file that is excluded now
        restore(tmp_path / "latest.pth", engine, recipe, Images("f", training=8, held_out=1))
