"""Blanked cells restored by the whole network: what the loss counts, what is trained, what the skips carry."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint
from pretraining.job import build_objective
from pretraining.objectives.masked import MaskedReconstruction
from pretraining.objectives.tokens import normalise_patches, patchify, unpatchify
from pretraining.recipe import Recipe


@pytest.fixture(scope="module")
def images():
    """(4, 224, 224) uint8."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (4, 28, 28)).repeat(8, 1).repeat(8, 2).astype(np.uint8))


def make(**more) -> MaskedReconstruction:
    torch.manual_seed(0)
    return MaskedReconstruction(TransUNet(1, 1, NetworkConfig.named("tiny")), together=4, crop=64, **more)


def test_a_step_trains_everything(images):
    objective = make().train()
    objective(*objective.prepare(images, 1, 0)).backward()
    without = [name for name, value in objective.named_parameters() if value.grad is None or not value.grad.any()]
    assert not without


def test_only_blanked_cells_count_and_each_is_normalised_by_itself(images, monkeypatch):
    objective = make()
    views = objective.prepare(images, 1, 0)
    _, _, blank, whole = views
    assert blank.sum(1).tolist() == [round(0.4 * 16)] * 4
    right, _, _ = normalise_patches(patchify(whole))

    def loss_of(cells):
        monkeypatch.setattr(MaskedReconstruction, "decode", lambda *_: unpatchify(cells, 4)[:, None])
        return float(objective(*views))

    elsewhere = torch.where(blank[:, :, None], right, torch.full_like(right, 100.0))
    assert loss_of(elsewhere) == 0
    assert loss_of(elsewhere * 0) == pytest.approx(float(right[blank].square().mean()))
    assert loss_of(right + 2) == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("hide_skips", [False, True])
def test_hidden_skips_carry_nothing_where_a_cell_is_blanked(images, monkeypatch, hide_skips):
    objective = make(hide_skips=hide_skips).eval()
    views = objective.prepare(images, 1, 0)
    seen: list[torch.Tensor] = []
    decode = MaskedReconstruction.decode

    def noted(self, tokens, skips):
        seen.extend(skips)
        return decode(self, tokens, skips)

    monkeypatch.setattr(MaskedReconstruction, "decode", noted)
    objective(*views)
    blank = views[2].unflatten(1, (4, 4))
    assert [skip.shape[-1] for skip in seen] == [8, 16, 32]
    for skip in seen:
        times = skip.shape[-1] // 4
        mask = blank.repeat_interleave(times, 1).repeat_interleave(times, 2)[:, None].expand_as(skip)
        assert bool((skip[mask] == 0).all()) == hide_skips and (skip[~mask] != 0).any()


@pytest.mark.parametrize(("side", "block", "blanked"), [(14, 2, 0.5), (7, 2, 0.4), (4, 3, 0.5)])
def test_blocks_of_cells_are_blanked_as_one(images, side, block, blanked):
    objective = make(block=block, blanked=blanked)
    objective.side = side
    _, _, blank, _ = objective.draw_views(images, 3, 0)
    blocks = -(-side // block)
    padded = nn.functional.pad(blank.unflatten(1, (side, side)).float(), (0, blocks * block - side) * 2, value=-1)
    tiles = padded.unfold(1, block, block).unfold(2, block, block).flatten(3)
    values = [{float(value) for value in tile if value >= 0} for tile in tiles.flatten(0, 2)]
    assert all(len(value) == 1 for value in values)
    assert sum(value == {1.0} for value in values) == len(images) * round(blanked * blocks**2)


def test_pictures_are_of_the_size_of_the_crop(images):
    objective = make().eval()
    pictures = objective.pictures(*objective.prepare(images, 1, 0))
    assert {title: tuple(values.shape) for title, values in pictures.items()} == {
        "input": (4, 64, 64), "output": (4, 64, 64), "whole": (4, 64, 64),
    }  # fmt: skip


def test_the_recipe_builds_it_and_batch_norms_see_its_groups():
    recipe = Recipe.named("masked", size="tiny", batch_size=32, block=2, hide_skips=True)
    assert recipe.normed_together == 16
    objective = build_objective(recipe)
    assert isinstance(objective, MaskedReconstruction) and objective.hide_skips and objective.block == 2
    assert objective.network.decoder.bottleneck[1].together == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arm": "masked", "blanked": 0.0}, "blanked is 0, which leaves masked nothing to learn"),
        ({"arm": "masked", "block": 14}, "blanked is 0.4: 0 of the 1 squares of block 14 in a crop of 224"),
        ({"arm": "simmim", "crop": 32, "blanked": 0.1}, "0 of the 4 squares of block 1 in a crop of 32"),
        ({"hide_skips": True}, "hide_skips belongs to masked, not to reconstruction"),
        ({"block": 2}, "block belongs to distil, masked, simmim, not to reconstruction"),
        ({"block": 0, "arm": "masked"}, "block is 0; expected a number above 0"),
        ({"restore": 1.0}, "restore belongs to distil, not to reconstruction"),
        ({"restore": -1.0, "arm": "distil"}, "restore is -1.0; expected 0 or more"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(RetinaError, match=message):
        Recipe(**settings)


def test_a_run_resumes_bit_for_bit_with_batch_norms_in_groups(tmp_path, monkeypatch):
    from PIL import Image

    from pretraining.cli import main
    from pretraining.loop.run import Run

    rng = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for i in range(9):
        grey = rng.integers(40, 200, (28, 28)).repeat(8, 0).repeat(8, 1) + rng.integers(0, 30, (224, 224))
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "images" / f"{i}.png")
    arguments = [str(tmp_path / "images"), "--recipe", "masked", "--size", "tiny", "--crop", "64", "--block", "2"]
    arguments += ["--batch-size", "4", "--norm-batch", "2", "--iterations", "5", "--keep-every", "0"]
    arguments += ["--device", "cpu", "--precision", "fp32", "--hide-skips"]
    assert main([*arguments, "-o", str(tmp_path / "whole")]) == 0
    agree = Run._agree
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_agree", lambda run, u, stop, due: agree(run, u, stop or run.progress.iteration == 2, due))
        assert main([*arguments, "-o", str(tmp_path / "parts")]) == 75
    assert main([*arguments, "-o", str(tmp_path / "parts")]) == 0
    files = [checkpoint.load(tmp_path / run / "checkpoint_final.pth") for run in ("whole", "parts")]
    assert files[0].fingerprint == files[1].fingerprint and files[0].retina["recipe"]["hide_skips"]
    start = build_objective(Recipe.named("masked", size="tiny")).network.state_dict()
    assert not any(torch.equal(value, start[name]) for name, value in files[0].weights.items() if value.ndim == 4)
