"""The settings of a pre-training."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_retina.errors import RetinaError
from pretraining.augmentation.draws import AugmentationSettings
from pretraining.objectives.mae import MaskedAutoencoder
from pretraining.options import parse, read_recipe
from pretraining.recipe import SIZE_NAMES, Execution, Recipe


def test_the_defaults_are_the_published_recipe():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (200, 256, 0.003)
    assert (recipe.momentum, recipe.weight_decay, recipe.size) == (0.9, 1e-4, "retina")
    assert recipe.total_iterations(500_000) == 390_625
    assert recipe.learning_rate_at(0, 100) == 0.003
    assert recipe.learning_rate_at(50, 100) == pytest.approx(0.003 * 0.5**0.9)


def test_settings_become_plain_values_and_are_compared():
    recorded = Recipe(exclude=("a*",)).to_dict()
    assert recorded["exclude"] == ["a*"] and recorded["augmentation"]["normalisation"] == "published"
    assert Recipe(exclude=("a*",)).differences(recorded) == []
    assert Recipe(learning_rate=0.01).differences(recorded) == [
        "learning_rate 0.003 there, 0.01 now",
        "exclude ['a*'] there, [] now",
    ]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": "huge"}, "size is 'huge'; expected one of retina, base, tiny"),
        ({"epochs": 0}, "epochs is 0; expected a number above 0"),
        ({"iterations": 0}, "iterations is 0; expected"),
        ({"batch_size": -1, "learning_rate": 0}, "batch_size is -1; .*; learning_rate is 0; "),
        ({"skip_drop": 1.1}, "skip_drop is 1.1; expected 0 to 1"),
        ({"skip_drop": 1, "two_terms": True}, "two_terms needs the skip connections that skip_drop 1 drops"),
        ({"arm": "mae", "masked_loss": True}, "masked_loss belongs to reconstruction, not to mae"),
        (
            {"optimiser": "adam", "schedule": "step"},
            "optimiser is 'adam'; expected one of sgd, adamw, lars; schedule is",
        ),
        ({"arm": "distil", "crop": 100}, "crop is 100; expected a multiple of 16 from 32 to 224"),
        ({"arm": "simmim", "blanked": 0}, "blanked is 0, which leaves simmim nothing to learn"),
        ({"crop": 112}, "crop belongs to distil, masked, simmim, not to reconstruction"),
        ({"arm": "mae", "blanked": 0.75}, "blanked belongs to distil, masked, simmim, not to mae"),
        (
            {"decoder_blocks": 8, "blanked": 0.9},
            "blanked belongs .*; decoder_blocks belongs to mae, not to reconstruct",
        ),
        ({"arm": "mae", "norm_batch": 8}, "norm_batch belongs to what trains the decoder, not to mae"),
        ({"arm": "masked", "crop": 112, "block": 4, "blanked": 0.9}, "blanked is 0.9: 4 of the 4 squares of block 4"),
        (
            {"arm": "distil", "crop": 112, "block": 7},
            "blanked is 0.4: 0 of the 1 squares .* at least one that is blanked",
        ),
        ({"warmup": 1.5}, "warmup is 1.5; expected a whole number of steps, or below 1 their share"),
        ({"decoder_blocks": 0, "dropout": 1}, "decoder_blocks is 0; expected a number above 0; dropout is 1; expected"),
        ({"clip": 0, "warmup": -1, "blanked": 1}, "clip is 0; .*; warmup is -1; .*; blanked is 1; expected 0 to below"),
    ],
)
def test_bad_recipes_are_refused_with_every_problem(settings, message):
    with pytest.raises(RetinaError, match=message):
        Recipe(**settings)


def test_bad_executions_are_refused():
    with pytest.raises(RetinaError, match=r"precision is 'half'; .*; workers is 0; expected a number above 0"):
        Execution(precision="half", workers=0)


def test_the_learning_rate_rises_then_falls():
    recipe = Recipe.named("distil")
    rates = [recipe.learning_rate_at(step, 1100) for step in range(1100)]
    assert rates[0] == pytest.approx(1e-5) and rates[99] == pytest.approx(1e-3) == rates[100]
    assert rates[600] == pytest.approx(5e-4) and rates[-1] < 1e-8
    assert all(a < b for a, b in pairwise(rates[:100])) and all(a > b for a, b in pairwise(rates[100:]))
    share = Recipe(warmup=0.1, learning_rate=1)
    assert [share.learning_rate_at(step, 20) for step in (0, 1, 2)] == [0.5, 1, 1]
    assert share.learning_rate_at(11, 20) == pytest.approx(0.5**0.9)


def test_named_recipes():
    assert Recipe.named("published") == Recipe()
    recipe = Recipe.named("distil", size="tiny", learning_rate=2e-3)
    assert (recipe.arm, recipe.optimiser, recipe.crop, recipe.learning_rate) == ("distil", "adamw", 112, 2e-3)
    assert Recipe(**recipe.to_dict() | {"augmentation": recipe.augmentation, "exclude": ()}) == recipe
    with pytest.raises(
        RetinaError, match="recipe is 'best'; expected one of published, distil, masked, denoising, mae, simclr"
    ):
        Recipe.named("best")


def made(*options: str) -> Recipe:
    """The recipe of a command line."""
    return read_recipe(parse(["source", "-o", "out", *options]))


def test_the_dropped_arms_have_the_recipes_of_their_papers_by_default():
    mae, simclr = made("--arm", "mae"), made("--arm", "simclr", "--batch-size", "1024")
    assert mae == Recipe.named("mae") and simclr == Recipe.named("simclr", batch_size=1024)
    assert (mae.optimiser, mae.highest_rate, mae.weight_decay, mae.schedule) == ("adamw", 1.5e-4, 0.05, "cosine")
    assert (simclr.optimiser, simclr.weight_decay) == ("lars", 1e-6)
    assert simclr.highest_rate == pytest.approx(1.2)
    assert mae.network.dropout == 0 and Recipe(arm="mae").network.dropout == 0.1
    assert made("--arm", "mae", "--recipe", "published") == Recipe(arm="mae")
    assert made("--arm", "mae", "--lr", "0.1", "--image-normalisation").augmentation.crop_area == (0.2, 1.0)
    assert made("--arm", "simmim") == Recipe(arm="simmim") and made() == Recipe()
    assert simclr.learning_rate_at(0, 2000) == pytest.approx(0.012)


def test_the_decoder_of_the_masked_autoencoder_has_its_depth():
    from pretraining.job import build_objective

    objective = build_objective(Recipe.named("mae", size="tiny"))
    assert isinstance(objective, MaskedAutoencoder)
    block: Any = objective.decoder[0]
    assert len(objective.decoder) == 9 and block.mlp.dropout.p == 0
    assert {m.p for m in objective.network.modules() if type(m).__name__ == "Dropout"} == {0.0}
    other = build_objective(Recipe(arm="mae", size="tiny"))
    assert isinstance(other, MaskedAutoencoder) and len(other.decoder) == 5


def test_a_run_older_than_a_setting_is_continued():
    recorded = {key: value for key, value in Recipe().to_dict().items() if key not in ("optimiser", "crop", "clip")}
    assert Recipe().differences(recorded) == []
    assert Recipe(optimiser="adamw").differences(recorded) == ["optimiser 'sgd' there, 'adamw' now"]


def test_the_sizes_are_those_of_the_network():
    from nnunetv2_retina.network import SIZES

    assert tuple(SIZES) == SIZE_NAMES


def test_what_an_arm_ignored_does_not_keep_a_run_from_being_continued():
    recorded = {**Recipe(arm="mae").to_dict(), "blanked": 0.75, "norm_batch": 8}  # earlier versions took them
    assert Recipe(arm="mae").differences(recorded) == []
    assert Recipe(arm="masked").differences({**recorded, "arm": "masked"}) == [
        "norm_batch 8 there, 16 now",
        "blanked 0.75 there, 0.4 now",
    ]
    assert Recipe(arm="distil", restore=1, norm_batch=8).normed_together == 8


def written(folder: Path, text: str) -> str:
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


def test_a_recipe_replaces_in_a_file_what_recipes_set_and_nothing_else(tmp_path):
    (tmp_path / "exclude.txt").write_text("cremi*\n")
    run = written(
        tmp_path,
        "arm: masked\nbatch-size: 64\nhide-skips: true\nblock: 2\nsize: base\niterations: 7\nseed: 3\n"
        f"init: open\nimage-normalisation: true\nexclude: {tmp_path / 'exclude.txt'}\n",
    )
    recipe = made("--config", run, "--recipe", "distil")
    assert recipe == Recipe.named("distil", size="base", iterations=7, seed=3, exclude=("cremi*",), block=2)
    assert parse(["source", "-o", "out", "--config", run, "--recipe", "distil"]).init == "open"
    published = made("--config", run, "--recipe=published")
    assert published == Recipe(size="base", iterations=7, seed=3, exclude=("cremi*",))
    assert made("--config", run) == Recipe(
        arm="masked", batch_size=64, hide_skips=True, block=2, size="base", iterations=7, seed=3, exclude=("cremi*",),
        augmentation=AugmentationSettings(normalisation="image"),
    )  # fmt: skip


def test_a_file_gives_a_recipe_another_normalisation(tmp_path):
    run = written(tmp_path, "recipe: distil\nimage-normalisation: false\n")
    noise = Recipe.named("distil").augmentation
    assert noise.normalisation == "image"
    assert made("--config", run) == Recipe.named("distil", augmentation=replace(noise, normalisation="published"))


def test_a_recipe_serves_other_arms_as_far_as_it_has_settings_for_them():
    assert made("--recipe", "mae", "--arm", "simclr").decoder_blocks == Recipe().decoder_blocks
    assert made("--recipe", "distil", "--arm", "reconstruction").crop is None
    assert made("--recipe", "distil", "--arm", "simmim").crop == 112
