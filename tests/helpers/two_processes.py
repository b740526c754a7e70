"""What each of two processes does; spawned processes find these functions by the name of this module."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from helpers.checks import known

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.dice import SquaredDiceLoss
from nnunetv2_retina.weights import transfer


def softmax(x):
    return torch.softmax(x, 1)


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    train_two_steps(rank, folder)
    dice_gradient(rank, folder)
    dist.destroy_process_group()


def train_two_steps(rank, folder):
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss

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
    state: dict[str, Any] = {name: (p.detach() - before[name]).numpy() for name, p in network.named_parameters()}
    np.savez(f"{folder}/rank{rank}.npz", values=values, **state)


def dice_gradient(rank, folder):
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3, 8, 8), torch.randint(0, 3, (4, 1, 8, 8))
    weight = torch.nn.Linear(1, 1, bias=False)
    parallel = torch.nn.parallel.DistributedDataParallel(weight)
    scale = parallel(torch.ones(1, 1))
    SquaredDiceLoss(softmax, ddp=True)(
        scale * logits[2 * rank : 2 * rank + 2], target[2 * rank : 2 * rank + 2]
    ).backward()
    np.save(f"{folder}/gradient{rank}.npy", [weight.weight.item(), known(weight.weight.grad).item()])
