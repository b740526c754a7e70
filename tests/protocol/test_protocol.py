"""The ``retina`` block: defaults, round trip, and an answer to every wrong setting."""

import json
import math

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.protocol import Protocol, iteration_checkpoint, with_unit

FULL = Protocol(
    iterations=1000,
    iterations_per_epoch=50,
    checkpoints=(200, 400, 1000),
    learning_rate=0.01,
    batch_size=8,
    class_weights=(0.1, 1.0, 1.0),
    evaluated_classes=(1, 2),
    inference="orthoplane",
    mask_rule="foreground",
    score_unit="slice",
    normalisation=(0.5, 0.1),
    groups={"a_xy": "a", "a_xz": "a"},
    folds=({"train": ["b"], "val": ["a_xy"]},),
    source="Table 1",
)


def test_defaults_without_a_block():
    assert Protocol.from_dataset_json({"labels": {}}) == Protocol()


def test_round_trip_through_json():
    assert Protocol.from_dataset_json(json.loads(json.dumps({"retina": FULL.to_json()}))) == FULL
    assert Protocol().to_json() == {}


def test_names_of_iteration_checkpoints():
    assert iteration_checkpoint(200) == "checkpoint_iteration_000200.pth"


def test_complete_block_states_defaults_too():
    block = Protocol(evaluated_classes=(1,)).to_json(complete=True)
    assert (block["iterations"], block["inference"], block["mask_rule"]) == (5000, "stack", "none")
    assert "class_weights" not in block
    assert Protocol.from_dataset_json({"retina": block}) == Protocol(evaluated_classes=(1,))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"iteration": 5}, r"unknown key 'iteration'; known are iterations.* Did you mean iterations\?"),
        ({"zzz": 5}, r"unknown key 'zzz'; known are .*source\.$"),
        ([], r'"retina" is list; expected an object'),
        ({"iterations": "many"}, r"iterations is 'many'; expected a whole number of at least 1"),
        ({"iterations": 2.5}, r"iterations is 2.5"),
        (
            {"checkpoints": [5, 3]},
            r"checkpoints is \(5, 3\); expected a list of whole numbers, each larger.* from 1 to iterations \(5000\)",
        ),
        ({"checkpoints": [5, 5]}, r"checkpoints is \(5, 5\)"),
        ({"checkpoints": [0, 5]}, r"checkpoints is \(0, 5\)"),
        ({"checkpoints": [5], "iterations": 4}, r"checkpoints is \(5,\).* to iterations \(4\)"),
        ({"checkpoints": []}, r"checkpoints is \(\)"),
        ({"checkpoints": [True]}, r"checkpoints is \(True,\)"),
        ({"checkpoints": 200}, r"checkpoints is 200; expected a list"),
        ({"learning_rate": 0}, r"learning_rate is 0; expected a number above 0"),
        ({"learning_rate": "fast"}, r"learning_rate is 'fast'"),
        ({"batch_size": True}, r"batch_size is True"),
        ({"patch_size": 8}, r"patch_size is 8; expected a whole number of at least 16"),
        ({"class_weights": [1, -1]}, r"class_weights is \(1, -1\); expected a list of numbers >= 0"),
        ({"class_weights": 3}, r"class_weights is 3; expected a list"),
        ({"class_weights": [0, 0]}, r"at least one must be above 0"),
        ({"class_weights": [1, math.inf]}, r"class_weights is \(1, inf\); expected a list of numbers"),
        ({"normalisation": [math.nan, 1]}, r"normalisation is \(nan, 1\); expected two numbers"),
        ({"evaluated_classes": [1, 1]}, r"evaluated_classes is \(1, 1\); expected .* each once"),
        ({"evaluated_classes": [-1]}, r"evaluated_classes is \(-1,\); expected a list of label values"),
        (
            {"folds": [{"train": ["a", "b"], "val": ["b"]}]},
            r"fold 0 of folds has b in train and in val, where",
        ),
        ({"folds": [{"train": ["a", "a"], "val": ["b"]}]}, r"fold 0 of folds has a twice in train; expected it once"),
        ({"evaluated_classes": ["a"]}, r"evaluated_classes is \('a',\); expected a list of label values"),
        ({"inference": "3d"}, r"inference is '3d'; expected one of stack, orthoplane"),
        ({"mask_rule": "some"}, r"mask_rule is 'some'; expected one of none, foreground, instance_match"),
        ({"score_unit": "pixel"}, r"score_unit is 'pixel'; expected one of volume, slice"),
        ({"normalisation": [0.5]}, r"normalisation is \(0.5,\); expected two numbers, mean and standard deviation"),
        ({"normalisation": [0.5, 0]}, r"normalisation is \(0.5, 0\)"),
        ({"groups": ["a"]}, r"groups is \('a',\); expected an object of case name -> volume name"),
        ({"folds": [{"train": ["a"]}]}, r"folds is .*; expected a list of \{\"train\": \[cases\]"),
        ({"source": 3}, r"source is 3; expected a text"),
        ({"iterations": 0, "inference": "x"}, r"iterations is 0.*; inference is 'x'"),
    ],
)
def test_refuses(block, message):
    with pytest.raises(RetinaError, match=message):
        Protocol.from_dataset_json({"retina": block})


@pytest.mark.parametrize(
    ("dataset_json", "spacing", "unit"),
    [
        ({"retina": {"spacing_unit": "nm"}}, (40, 4, 4), "nm"),
        ({"retina": {"spacing_unit": "nm"}}, (1, 1, 1), "nm"),
        ({"converted_by": "retina_convert 0.1.0"}, (40, 4, 4), "nm"),
        ({"converted_by": "retina_convert 0.1.0"}, (999, 1, 1), None),
        ({}, (40, 4, 4), None),
    ],
)
def test_unit_of_the_spacing(dataset_json, spacing, unit) -> None:
    assert with_unit(Spacing.of(spacing), dataset_json) == Spacing.of(spacing, unit)
