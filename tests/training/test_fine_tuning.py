"""The fine-tuning's loss against plain arithmetic, and what the protocol's keys change in a training."""

import json

import numpy as np
import pytest
import torch
from helpers.checks import known
from helpers.trainings import CPU, fold_folder, log_of, results, set_protocol, train, write_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.starts import sine_positions
from nnunetv2_retina.training import trainers
from nnunetv2_retina.weights import checkpoint

BINARY = {"background": 0, "cleft": 1}


pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def loss(workspace):
    """A function that builds the loss of a trainer, for labels and settings of the protocol."""

    def build(labels, **settings):
        set_protocol(workspace, **settings)
        folder = workspace / "nnUNet_preprocessed" / "Dataset901_test"
        dataset_json = json.loads((folder / "dataset.json").read_text()) | {"labels": labels}
        plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
        trainer = trainers.nnUNetTrainerTransUNet_tiny(plans, "2d", 0, dataset_json, CPU)
        return trainer._build_loss()

    return build


def sparse(seed=0):
    """Logits (2, 2, 40, 40) and a target (2, 1, 40, 40) of which half a percent is foreground."""
    torch.manual_seed(seed)
    target = torch.zeros(2, 1, 40, 40)
    target.flatten()[torch.randperm(target.numel())[:16]] = 1
    return (torch.randn(2, 2, 40, 40) + torch.tensor([2.0, -1.0])[:, None, None]).requires_grad_(), target


def released(z, y):
    """The loss of one output and its gradient: half binary cross entropy, half Dice of the foreground, no squares."""
    p, s = 1 / (1 + np.exp(-z)), 1e-5
    entropy = (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - y * z).mean()
    above, below = 2 * (p * y).sum() + s, p.sum() + y.sum() + s
    dice = -(2 * y * below - above) / below**2 * p * (1 - p)
    return 0.5 * entropy + 0.5 * (1 - above / below), 0.5 * (p - y) / z.size + 0.5 * dice


def test_two_plain_classes_have_the_released_loss_of_one_output(loss):
    logits, target = sparse()
    value = loss(BINARY)(logits, target)
    value.backward()
    background, foreground = logits.detach().double().numpy().transpose(1, 0, 2, 3)
    wanted, gradient = released(foreground - background, target[:, 0].numpy().astype(np.float64))
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(logits.grad[:, 1].numpy(), gradient, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(logits.grad[:, 0].numpy(), -gradient, rtol=1e-3, atol=1e-9)


def test_ignored_pixels_are_left_out_of_both_halves(loss):
    logits, target = sparse()
    target[:, :, :, 30:] = 2
    value = loss(BINARY | {"ignore": 2})(logits, target)
    value.backward()
    background, foreground = logits.detach()[..., :30].double().numpy().transpose(1, 0, 2, 3)
    wanted, gradient = released(foreground - background, target[:, 0, :, :30].numpy().astype(np.float64))
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(logits.grad[:, 1, :, :30].numpy(), gradient, rtol=1e-3, atol=1e-9)
    assert logits.grad[..., 30:].abs().max() == 0


def test_what_two_outputs_change_is_how_fast_the_last_layer_moves(loss):
    """One step of a last layer of two outputs against one of a single output: the trunk's gradient is the same."""
    _, target = sparse()
    torch.manual_seed(1)
    features = torch.randn(2, 3, 40, 40, requires_grad=True)
    two, one = torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(3, 1, 1)
    one.load_state_dict({name: value[1:] - value[:1] for name, value in two.state_dict().items()})
    loss(BINARY)(two(features), target).backward()
    of_two, features.grad = features.grad, None
    z, y = one(features), target
    p = z.sigmoid()
    dice = 1 - (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
    (0.5 * torch.nn.functional.binary_cross_entropy_with_logits(z, y) + 0.5 * dice).backward()
    torch.testing.assert_close(of_two, features.grad, rtol=1e-3, atol=1e-8)
    gradient = known(two.weight.grad)
    torch.testing.assert_close(gradient[1:] - gradient[:1], 2 * known(one.weight.grad), rtol=1e-3, atol=1e-7)


def test_the_other_losses_stay_available(loss):
    logits, target = sparse()
    gradients = {}
    for name in ("released", "squared", "cross_entropy"):
        (gradients[name],) = torch.autograd.grad(loss(BINARY, loss=name)(logits, target), logits)
    start = (logits.detach() * 0.1).requires_grad_()  # as of a network that has learned nothing yet
    halves = []
    for name in ("released", "squared"):
        dice = loss(BINARY, loss=name)(start, target) - 0.5 * loss(BINARY, loss="cross_entropy")(start, target)
        halves.append(torch.autograd.grad(dice, start)[0].flatten())
    assert torch.cosine_similarity(halves[0], halves[1], 0) < 0.8
    expected = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, target[:, 0].long()), logits)[0]
    torch.testing.assert_close(gradients["cross_entropy"], expected)
    p, y = logits.softmax(1), torch.cat([1 - target, target], 1)
    dice = 1 - (2 * (p * y).sum((0, 2, 3)) + 1e-5) / ((p**2).sum((0, 2, 3)) + y.sum((0, 2, 3)) + 1e-5)
    plain = 0.5 * torch.nn.functional.cross_entropy(logits, target[:, 0].long()) + 0.5 * dice.mean()
    assert loss(BINARY, loss="squared")(logits, target).item() == pytest.approx(plain.item(), rel=1e-5)


def test_three_classes_have_the_squared_dice_of_all(loss):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8)).float()
    labels = {"background": 0, "one": 1, "two": 2}
    assert loss(labels)(logits, target).item() == loss(labels, loss="squared")(logits, target).item()


def test_the_papers_settings_reach_the_training(workspace, tmp_path, monkeypatch):
    """Foreground patches, no clipping, dropout in frozen blocks."""
    seen, step = {}, nnUNetTrainer.train_step

    def look(self, batch):
        seen["frozen"] = self.network.transformer.blocks[0].mlp.dropout.training
        seen["loader"] = self.dataloader_train.data_loader.loader
        seen["clip"] = torch.nn.utils.clip_grad_norm_
        return step(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", look)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("RETINA_SEED", "1")
    clip = torch.nn.utils.clip_grad_norm_
    weights = write_weights(tmp_path / "weights.pth", "tiny")
    set_protocol(workspace, iterations=1, foreground=0.8, clip=None, frozen_dropout=True, schedule_iterations=10)
    train("nnUNetTrainerRETINA_tiny", pretrained_weights=str(weights))
    assert seen["frozen"] and seen["clip"] is not clip and torch.nn.utils.clip_grad_norm_ is clip
    loader = seen["loader"]
    assert loader.oversample_foreground_percent == 0.8
    drawn = [loader.get_do_oversample(0) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.8, abs=0.04)
    set_protocol(workspace, iterations=1)
    train("nnUNetTrainerRETINA_tiny", fold=1, pretrained_weights=str(weights))
    assert not seen["frozen"] and seen["clip"] is clip
    assert seen["loader"].oversample_foreground_percent == 0.33
    assert (fold_folder(workspace, "nnUNetTrainerRETINA_tiny", fold=1) / "checkpoint_final.pth").is_file()


@pytest.mark.parametrize(
    ("trainer", "sine"),
    [
        ("nnUNetTrainerTransUNet_tiny", True),
        ("nnUNetTrainerRETINA_tiny", True),
        ("nnUNetTrainerRETINA_full_tiny", False),
    ],
)
def test_sine_positions_are_a_start_that_weights_replace(workspace, tmp_path, monkeypatch, trainer, sine):
    """RETINA takes the transformer alone, so its positions are as those of random initialisation."""
    set_protocol(workspace, positions="sine", iterations=1, learning_rate=1e-9)
    if trainer != "nnUNetTrainerTransUNet_tiny":
        monkeypatch.setenv("RETINA_WEIGHTS", str(write_weights(tmp_path / "weights.pth", "tiny")))
    train(trainer)
    weights = checkpoint.load(fold_folder(workspace, trainer) / "checkpoint_final.pth").weights
    positions = weights["embedding.pos_embed"]
    assert torch.allclose(positions, sine_positions(14, 96), atol=1e-6) == sine


@pytest.mark.parametrize("start", [{"positions": "sine"}, {"attention": "mimetic"}])
def test_a_start_is_refused_for_networks_that_cannot_have_it(workspace, start):
    set_protocol(workspace, **start)
    (key, value), *_ = start.items()
    with pytest.raises(
        RetinaError, match=rf"{key} is '{value}', which only a 2D TransUNet .* this is nnU-Net's network"
    ):
        train("nnUNetTrainerProtocol")
    assert results(workspace) == []


def test_mimetic_attention_is_a_start_of_trainings(workspace):
    set_protocol(workspace, attention="mimetic", iterations=1, learning_rate=1e-9)
    train("nnUNetTrainerTransUNet_tiny")
    weights = checkpoint.load(fold_folder(workspace, "nnUNetTrainerTransUNet_tiny") / "checkpoint_final.pth").weights
    attention = "transformer.blocks.0.attn"
    product = weights[f"{attention}.proj.weight"] @ weights[f"{attention}.value.weight"]
    assert product.diagonal().mean().item() == pytest.approx(-0.4, abs=0.05)


@pytest.mark.parametrize(("trainer", "said"), [("RETINA_tiny", True), ("RETINA_full_tiny", False)])
def test_a_rate_that_nothing_has_is_said(workspace, tmp_path, trainer, said):
    """Where all that is taken is frozen."""
    set_protocol(workspace, iterations=1, transferred_rate=0.3)
    weights = write_weights(tmp_path / "pretrained.pth", "tiny")
    train(f"nnUNetTrainer{trainer}", pretrained_weights=str(weights))
    text = log_of(fold_folder(workspace, f"nnUNetTrainer{trainer}"))
    assert ("so transferred_rate changes nothing" in text) is said


@pytest.mark.parametrize("settings", [{"class_weights": [0, 1]}, {"loss": "cross_entropy"}])
def test_a_batch_in_which_nothing_counts_is_no_end(loss, settings):
    """Background alone, which has no weight; or nothing that is annotated."""
    labels = BINARY | ({"ignore": 2} if "loss" in settings else {})
    build = loss(labels, **settings)
    logits, target = sparse()
    value = build(logits, torch.full_like(target, 2 if "loss" in settings else 0))
    value.backward()
    assert value.isfinite() and known(logits.grad).isfinite().all()
    if "loss" in settings:
        assert value == 0 and not known(logits.grad).any()


def test_weights_of_classes_weight_as_pytorch_does(loss):
    logits, target = sparse()
    expected = torch.nn.functional.cross_entropy(logits, target[:, 0].long(), torch.tensor([0.1, 3.0]))
    torch.testing.assert_close(loss(BINARY, loss="cross_entropy", class_weights=[0.1, 3])(logits, target), expected)
