"""The settings of a pre-training."""

import pytest

from nnunetv2_retina.errors import RetinaError
from pretraining.recipe import Execution, Recipe


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
        ({"skip_drop": 1}, "skip_drop is 1; expected 0 to below 1"),
        ({"arm": "mae", "masked_loss": True}, "belong to the arm reconstruction, not to mae"),
    ],
)
def test_bad_recipes_are_refused_with_every_problem(settings, message):
    with pytest.raises(RetinaError, match=message):
        Recipe(**settings)


def test_bad_executions_are_refused():
    with pytest.raises(RetinaError, match=r"precision is 'half'; .*; workers is 0; expected a number above 0"):
        Execution(precision="half", workers=0)
