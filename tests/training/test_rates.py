"""Optimisers and learning rates of the parts of a network."""

import pytest
import torch
from torch import nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.training.rates import TRANSFERRED, PartRates, make_optimizer


def network() -> nn.Module:
    return nn.ModuleDict({"blocks": nn.Linear(2, 3), "head": nn.Linear(3, 1)})


def is_block(name: str) -> bool:
    return name.startswith("blocks.")


def rates(protocol: Protocol, steps: list[int]) -> list[list[float]]:
    """The rate of each group, what is fresh first, at some steps."""
    optimizer = make_optimizer(network().named_parameters(), protocol, is_block)
    schedule = PartRates(optimizer, protocol, protocol.iterations / protocol.iterations_per_epoch)
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


def test_what_is_frozen_is_in_no_group():
    made = network()
    made["blocks"].requires_grad_(False)
    (group,) = make_optimizer(made.named_parameters(), Protocol(transferred_rate=0.5), is_block).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in made["head"].parameters()]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"optimiser": "adam"}, "optimiser is 'adam'; expected one of sgd, adamw"),
        ({"warmup": 1}, "warmup is 1; expected a share of the iterations"),
        ({"thaw": -0.1}, "thaw is -0.1; expected a share of the iterations"),
        ({"transferred_rate": 0}, "transferred_rate is 0; expected a factor above 0"),
    ],
)
def test_settings_out_of_their_range(setting, message):
    with pytest.raises(RetinaError, match=message):
        Protocol(**setting)
