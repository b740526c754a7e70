"""What ``benchmarks/ablation.py`` switches off is off where the predictor computes, and the rest is as it was."""

import runpy
from pathlib import Path

import pytest
import torch
from helpers.model_folders import make_model, transunet

from nnunetv2_retina.prediction.predictor import Predictor

ABLATION = runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "ablation.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("transunet") / "model"
    return make_model(folder, trainer="nnUNetTrainerTransUNet_tiny", architecture=transunet(), patch=64)


def test_each_variant_changes_what_is_predicted(model):
    data = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = Predictor.from_model_folder(model, [0], device="cpu").predict_logits(data)
    found = {}
    for variant in ABLATION["VARIANTS"]:
        predictor = ABLATION["changed"](Predictor.from_model_folder(model, [0], device="cpu"), variant)
        found[variant] = predictor.predict_logits(data)
    torch.testing.assert_close(found.pop("intact"), plain)
    for variant, logits in found.items():
        assert not torch.allclose(logits, plain, atol=1e-3), variant
    assert len(found) == 3
