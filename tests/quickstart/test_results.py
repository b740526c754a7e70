"""The network's scores beside those of the best threshold, both by retina_evaluate's definition."""

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from helpers.own_images import write_own

from dataset_conversion.own_data.folder import convert_folder
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import count_masks
from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.output import write_scores
from nnunetv2_retina.quickstart.results import compare_with_threshold, read_examples
from nnunetv2_retina.quickstart.threshold import best_threshold


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A raw data set of two images and two held out."""
    write_own(tmp_path / "own" / "train", ["a", "b"])
    write_own(tmp_path / "own" / "test", ["c", "d"])
    (tmp_path / "raw").mkdir()
    return convert_folder(tmp_path / "own", 1, "Quickstart", root=tmp_path / "raw")


def test_examples_are_read_back(dataset: Path) -> None:
    examples = list(read_examples(dataset, "train"))
    assert [example.name for example in examples] == ["a", "b"]
    assert all(example.image.shape == example.labels.shape == (1, 96, 96) for example in examples)
    assert set(np.unique(examples[0].labels)) == {0, 1}


def test_network_and_threshold_are_means_over_the_images(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset / "labelsTs", tmp_path / "perfect")
    scores = evaluate(tmp_path / "perfect", dataset / "labelsTs", dataset)
    write_scores(scores, tmp_path / "scores")
    (sentence,) = compare_with_threshold(dataset, tmp_path / "scores")
    training, test = list(read_examples(dataset, "train")), list(read_examples(dataset, "test"))
    threshold = best_threshold([e.image for e in training], [e.labels for e in training])
    expected = np.mean([count_masks(threshold.apply(e.image), e.labels == 1).iou for e in test])
    assert sentence == (
        f"label_1: mean IoU 1.000 by the network, {expected:.3f} by the best global threshold ({threshold.describe()})"
    )


def test_the_threshold_is_chosen_on_annotated_voxels(dataset: Path, tmp_path: Path) -> None:
    contents = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(contents | {"labels": contents["labels"] | {"ignore": 2}}))
    for path in (dataset / "labelsTr").iterdir():  # nobody annotated the lower half
        labels = iio.imread(path)
        labels[labels.shape[0] // 2 :] = 2
        iio.imwrite(path, labels)
    shutil.copytree(dataset / "labelsTs", tmp_path / "perfect")
    write_scores(evaluate(tmp_path / "perfect", dataset / "labelsTs", dataset), tmp_path / "scores")
    (sentence,) = compare_with_threshold(dataset, tmp_path / "scores")
    training = list(read_examples(dataset, "train"))
    masks, valid = [e.labels == 1 for e in training], [e.labels != 2 for e in training]
    expected = best_threshold([e.image for e in training], masks, valid)
    assert expected != best_threshold([e.image for e in training], masks)
    assert expected.describe() in sentence


def test_scores_that_are_not_there(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match="retina_evaluate writes it"):
        compare_with_threshold(dataset, tmp_path)
