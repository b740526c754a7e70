"""The published Dice against arithmetic done by hand; several processes against one."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.dice import SquaredDiceLoss
from nnunetv2_retina.weights import transfer


def softmax(x):
    return torch.softmax(x, 1)


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


def _train_one_step(rank, folder):
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = TransUNet(1, 2, NetworkConfig.named("tiny"))
    transfer.freeze(network, transfer.SCOPES["transformer"].frozen)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    # No find_unused_parameters: that every trained parameter takes part in every step is the claim.
    parallel = torch.nn.parallel.DistributedDataParallel(network)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1, momentum=0.9)
    loss = DC_and_CE_loss({"ddp": True}, {}, 0.5, 0.5, dice_class=SquaredDiceLoss)
    generator = torch.Generator().manual_seed(rank)
    values = []
    for _ in range(2):
        transfer.set_train_mode(parallel)
        image = torch.randn(2, 1, 32, 32, generator=generator)
        target = torch.randint(0, 2, (2, 1, 32, 32), generator=generator)
        optimizer.zero_grad()
        value = loss(parallel(image), target)
        value.backward()
        optimizer.step()
        values.append(value.item())
    state = {name: (p.detach() - before[name]).numpy() for name, p in network.named_parameters()}
    np.savez(f"{folder}/rank{rank}.npz", values=values, **state)
    dist.destroy_process_group()


def test_two_processes_agree_and_leave_frozen_blocks_alone(tmp_path):
    mp.spawn(_train_one_step, args=(str(tmp_path),), nprocs=2)
    first, second = (np.load(tmp_path / f"rank{rank}.npz") for rank in (0, 1))
    assert np.isfinite(first["values"]).all()
    for name in first.files:
        if name == "values":
            continue
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        moved = np.abs(first[name]).max() > 0
        assert moved != name.startswith("transformer."), name


def _dice_gradient(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3, 8, 8), torch.randint(0, 3, (4, 1, 8, 8))
    weight = torch.nn.Linear(1, 1, bias=False)
    parallel = torch.nn.parallel.DistributedDataParallel(weight)
    scale = parallel(torch.ones(1, 1))
    SquaredDiceLoss(softmax, ddp=True)(
        scale * logits[2 * rank : 2 * rank + 2], target[2 * rank : 2 * rank + 2]
    ).backward()
    np.save(f"{folder}/gradient{rank}.npy", [weight.weight.item(), weight.weight.grad.item()])
    dist.destroy_process_group()


def test_dice_of_two_processes_is_that_of_the_whole_batch(tmp_path):
    mp.spawn(_dice_gradient, args=(str(tmp_path),), nprocs=2)
    start, gradient = np.load(tmp_path / "gradient0.npy")
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3, 8, 8), torch.randint(0, 3, (4, 1, 8, 8))
    scale = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    SquaredDiceLoss(softmax)(scale * logits, target).backward()
    assert gradient == pytest.approx(scale.grad.item(), rel=1e-4)
