"""Optimisers and learning rates of the parts of a network."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.training.rates import TRANSFERRED, PartRates, clipping, make_optimizer


def network() -> nn.ModuleDict:
    return nn.ModuleDict({"blocks": nn.Linear(2, 3), "head": nn.Linear(3, 1)})


def is_block(name: str) -> bool:
    return name.startswith("blocks.")


def rates(protocol: Protocol, steps: Sequence[int]) -> list[list[float]]:
    """The rate of each group, what is fresh first, at some steps."""
    optimizer = make_optimizer(network().named_parameters(), protocol, is_block)
    schedule = PartRates(optimizer, protocol)
    shown = []
    for step in steps:
        schedule.step(step / protocol.iterations_per_epoch)
        shown.append([group["lr"] for group in optimizer.param_groups])
    return shown


def test_without_settings_there_is_one_group_that_decays_as_published():
    protocol = Protocol(iterations=10, iterations_per_epoch=4)
    optimizer = make_optimizer(network().named_parameters(), protocol, is_block)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["momentum"], group["weight_decay"], len(group["params"])) == (0.9, 1e-4, 4)
    assert rates(protocol, [0, 5]) == [[0.003], [pytest.approx(0.003 * 0.5**0.9)]]


def test_what_was_transferred_is_slower_and_waits():
    protocol = Protocol(iterations=10, iterations_per_epoch=4, transferred_rate=0.25, thaw=0.5)
    assert rates(protocol, [4, 5]) == [
        [pytest.approx(0.003 * 0.6**0.9), 0],
        [pytest.approx(0.003 * 0.5**0.9), pytest.approx(0.25 * 0.003 * 0.5**0.9)],
    ]


def test_the_rate_rises_at_the_start():
    protocol = Protocol(iterations=10, iterations_per_epoch=10, warmup=0.4)
    found = [rate for (rate,) in rates(protocol, range(6))]
    expected = [0.003 * (1 - step / 10) ** 0.9 * min(1, (step + 1) / 4) for step in range(6)]
    assert found == pytest.approx(expected)


def test_adamw_lets_matrices_decay_alone():
    protocol = Protocol(optimiser="adamw", learning_rate=0.001, transferred_rate=0.3)
    optimizer = make_optimizer(network().named_parameters(), protocol, is_block)
    assert isinstance(optimizer, torch.optim.AdamW)
    shown = [(group[TRANSFERRED], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert shown == [(False, 0, 1), (False, 0.05, 1), (True, 0, 1), (True, 0.05, 1)]
    everything = Protocol(optimiser="adamw", weight_decay=0.1, decay_all=True)
    (group,) = make_optimizer(network().named_parameters(), everything, is_block).param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.1, 4)


def test_what_is_frozen_is_in_no_group():
    made = network()
    made["blocks"].requires_grad_(False)
    (group,) = make_optimizer(made.named_parameters(), Protocol(transferred_rate=0.5), is_block).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in made["head"].parameters()]


def test_the_schedule_may_be_longer_than_the_training():
    protocol = Protocol(iterations=10, iterations_per_epoch=4, schedule_iterations=40, thaw=0.5, transferred_rate=0.5)
    assert rates(protocol, [4, 9]) == [
        [pytest.approx(0.003 * 0.9**0.9), 0],
        [pytest.approx(0.003 * (31 / 40) ** 0.9), pytest.approx(0.5 * 0.003 * (31 / 40) ** 0.9)],
    ]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_one_cycle_is_pytorchs(optimiser):
    protocol = Protocol(
        iterations=30, iterations_per_epoch=7, schedule="onecycle", optimiser=optimiser, weight_decay=0.1
    )
    mine = make_optimizer(network().named_parameters(), protocol, is_block)
    theirs = make_optimizer(network().named_parameters(), protocol, is_block)
    schedule = PartRates(mine, protocol)
    reference = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.003, total_steps=30)
    assert {group["weight_decay"] for group in mine.param_groups} == ({0.1} if optimiser == "sgd" else {0, 0.1})
    for step in range(30):
        schedule.step(step / 7)
        for a, b in zip(mine.param_groups, theirs.param_groups, strict=True):
            assert a["lr"] == pytest.approx(b["lr"], rel=1e-9), step
            momenta = [group["betas"][0] if "betas" in group else group["momentum"] for group in (a, b)]
            assert momenta[0] == pytest.approx(momenta[1], rel=1e-9), step
        theirs.step()
        reference.step()


def test_gradients_are_shortened_to_the_protocols_norm_or_not_at_all():
    def norm_after(limit):
        parameter = nn.Parameter(torch.zeros(4))
        parameter.grad = torch.full((4,), 50.0)
        with clipping(limit):
            torch.nn.utils.clip_grad_norm_([parameter], 12)  # as nnU-Net's training step has it
        return parameter.grad.norm().item()

    assert [norm_after(limit) for limit in (12.0, 3.0, None)] == [pytest.approx(12), pytest.approx(3), 100]
    assert torch.nn.utils.clip_grad_norm_.__name__ == "clip_grad_norm_"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"optimiser": "adam"}, "optimiser is 'adam'; expected one of sgd, adamw"),
        ({"warmup": 1}, "warmup is 1; expected a share of the iterations"),
        ({"thaw": -0.1}, "thaw is -0.1; expected a share of the iterations"),
        ({"transferred_rate": 0}, "transferred_rate is 0; expected a factor above 0"),
        ({"weight_decay": -1}, "weight_decay is -1; expected a number of at least 0"),
        ({"schedule": "step"}, "schedule is 'step'; expected one of poly, onecycle"),
        ({"schedule_iterations": 10, "iterations": 20}, r"schedule_iterations is 10; .* at least iterations \(20\)"),
        ({"schedule": "onecycle", "warmup": 0.1}, r"warmup is 0\.1; expected 0 with schedule onecycle"),
        ({"clip": 0}, "clip is 0; expected a number above 0, or null for none"),
        ({"foreground": 1.1}, r"foreground is 1\.1; expected a probability from 0 to 1"),
        ({"loss": "dice"}, "loss is 'dice'; expected one of released, squared, cross_entropy"),
        ({"frozen_dropout": 1}, "frozen_dropout is 1; expected true or false"),
    ],
)
def test_settings_out_of_their_range(setting, message):
    with pytest.raises(RetinaError, match=message):
        Protocol(**setting)
