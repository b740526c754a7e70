"""The published Dice against arithmetic done by hand; several processes against one."""

import numpy as np
import pytest
import torch
from helpers.checks import known
from helpers.two_processes import softmax, work
from torch.multiprocessing.spawn import spawn

from nnunetv2_retina.network.dice import ForegroundDiceLoss, SquaredDiceLoss


def test_four_pixels_by_hand():
    logits = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])  # p = 1/2 everywhere
    target = torch.tensor([[[[1, 0], [0, 0]]]])
    # background: 2 * 1.5 / (4/4 + 3); class 1: 2 * 0.5 / (4/4 + 1)
    expected = 1 - (3 / 4 + 1 / 2) / 2
    assert SquaredDiceLoss(softmax, smooth=0)(logits, target).item() == pytest.approx(expected)


def test_volumes_are_as_images_of_the_same_voxels():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 1, 4, 5, 6))
    loss = SquaredDiceLoss(softmax)
    assert loss(logits, target).item() == pytest.approx(loss(logits.flatten(2, 3), target.flatten(2, 3)).item())


def test_is_zero_for_a_perfect_prediction():
    target = torch.randint(0, 3, (2, 1, 8, 8))
    logits = 100 * torch.nn.functional.one_hot(target[:, 0], 3).permute(0, 3, 1, 2).float()
    assert SquaredDiceLoss(softmax)(logits, target).item() == pytest.approx(0, abs=1e-5)


def test_masked_pixels_do_not_count():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 2, 4, 6), torch.randint(0, 2, (1, 1, 4, 6))
    mask = torch.ones(1, 1, 4, 6)
    mask[..., 3:] = 0
    loss = SquaredDiceLoss(softmax)
    assert loss(logits, target, mask).item() == pytest.approx(loss(logits[..., :3], target[..., :3]).item())


def test_regions_are_independent_channels():
    target = torch.tensor([[[[True, False]], [[True, True]]]])
    logits = torch.where(target, 50.0, -50.0)
    assert SquaredDiceLoss(torch.sigmoid)(logits, target).item() == pytest.approx(0, abs=1e-5)


def test_the_foreground_alone_without_squares_by_hand():
    logits = torch.zeros(1, 2, 2, 2)  # p = 1/2 everywhere
    target = torch.tensor([[[[1, 0], [0, 0]]]])
    assert ForegroundDiceLoss(softmax, smooth=0)(logits, target).item() == pytest.approx(1 - 2 * 0.5 / (2 + 1))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder of what two processes wrote: two steps of a training, and the gradient of one loss."""
    folder = tmp_path_factory.mktemp("two_processes")
    spawn(work, args=(str(folder),), nprocs=2)
    return folder


def test_two_processes_agree_and_leave_frozen_blocks_alone(two_processes):
    first, second = (np.load(two_processes / f"rank{rank}.npz") for rank in (0, 1))
    assert np.isfinite(first["values"]).all()
    for name in first.files:
        if name == "values":
            continue
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        moved = np.abs(first[name]).max() > 0
        assert moved != name.startswith("transformer."), name


def test_dice_of_two_processes_is_that_of_the_whole_batch(two_processes):
    start, gradient = np.load(two_processes / "gradient0.npy")
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3, 8, 8), torch.randint(0, 3, (4, 1, 8, 8))
    scale = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    SquaredDiceLoss(softmax)(scale * logits, target).backward()
    assert gradient == pytest.approx(known(scale.grad).item(), rel=1e-4)
