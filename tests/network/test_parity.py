"""The network computes what the published one does (fixtures of ../shared/parity)."""

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from helpers.environment import SHARED

from nnunetv2_retina.network import TransUNet
from nnunetv2_retina.weights.published import from_published

PARITY = SHARED / "parity"
NAMES = ("pre_h192_s224_c1_seed7", "seg_h192_s224_c3_seed7")
TOLERANCE = 1e-4
"""Of the largest magnitude in each array (CNN features reach 14, logits 0.2). For the CNN features an absolute bound of
1e-4 would be below single precision: the published network's own float32 values are 6e-4 away from a float64 run."""

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason="../shared/parity is not on this machine")


def fill(name: str, shape: list[int], seed: int) -> np.ndarray:
    """The fixtures' weights, as their README defines them."""
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    x = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return abs(x) * 0.1 + 1.0
    if name.endswith("running_mean"):
        return x * 0.05
    if len(shape) <= 1:
        return 1.0 + 0.1 * x if name.endswith("weight") else 0.05 * x
    return 0.02 * x if "position" in name else x / np.sqrt(np.prod(shape[1:]))


def published(fixture: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros(shape, dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else torch.as_tensor(np.asarray(fill(name, shape, fixture["seed"]), np.float32))
        for name, shape in fixture["state_dict"].items()
    }


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    fixture = json.loads((PARITY / f"{request.param}.json").read_text())
    config, weights = from_published(published(fixture))
    network = TransUNet(1, fixture["num_classes"], config).eval()
    network.load_state_dict(weights)
    rng = np.random.Generator(np.random.PCG64([fixture["seed"], 12345]))
    size = fixture["image_size"]
    image = torch.from_numpy(rng.standard_normal((2, 1, size, size)).astype(np.float32))
    seen: dict[Any, Any] = {}
    network.cnn.register_forward_hook(lambda module, inputs, output: seen.update(cnn=output[0]))
    network.transformer.register_forward_hook(lambda module, inputs, output: seen.update(tokens=output))
    with torch.no_grad():
        seen["output"] = network(image)
    return seen, np.load(PARITY / f"{request.param}.npz")


@pytest.mark.parametrize(
    ("ours", "theirs", "pick"),
    [
        ("cnn", "cnn_features", np.s_[:, ::64]),
        ("tokens", "tokens", np.s_[:, ::7]),
        ("output", "output", np.s_[:, :, ::4, ::4]),
    ],
)
def test_equals_the_published_network(case, ours, theirs, pick):
    seen, expected = case
    got, want = seen[ours].numpy()[pick], expected[theirs]
    assert want.std() > 0.01  # a constant map would be no evidence
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def test_mean_and_std_of_the_whole_output(case):
    seen, expected = case
    assert seen["output"].mean().item() == pytest.approx(float(expected["output_mean"]), abs=TOLERANCE)
    assert seen["output"].std(correction=0).item() == pytest.approx(float(expected["output_std"]), abs=TOLERANCE)
