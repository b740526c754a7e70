"""Two networks beside each other: their scores, the difference, what it does not prove, and pictures of both."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.own_images import write_own
from skimage.io import imread, imsave

from dataset_conversion.own_data.folder import convert_folder
from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.output import write_scores
from nnunetv2_retina.quickstart import beside
from nnunetv2_retina.quickstart.folder import Output


@pytest.fixture
def files(tmp_path: Path) -> Output:
    """A perfect network, and one that finds the upper half of everything, in three held-out images."""
    files = Output(tmp_path / "out")
    files.workspace.raw.mkdir(parents=True)
    write_own(tmp_path / "own" / "train", ["a", "b"])
    write_own(tmp_path / "own" / "test", ["c", "d", "e"])
    convert_folder(tmp_path / "own", 1, "Quickstart", root=files.workspace.raw)
    truths = files.dataset / "labelsTs"
    for found in (files.network, files.baseline):
        shutil.copytree(truths, found.predictions)
    for path in files.baseline.predictions.glob("*.png"):
        labels = imread(path)
        labels[len(labels) // 2 :] = 0
        imsave(path, labels, check_contrast=False)
    for found in (files.network, files.baseline):
        write_scores(evaluate(found.predictions, truths, files.dataset), found.scores)
    return files


def test_scores_and_their_difference(files: Output) -> None:
    truths = [imread(path) > 0 for path in sorted((files.dataset / "labelsTs").glob("*.png"))]
    halves = [np.count_nonzero(truth[: len(truth) // 2]) / np.count_nonzero(truth) for truth in truths]
    mean = np.mean(halves)
    assert beside.sentence(files) == (
        f"mean IoU 1.000 from the weights, {mean:.3f} from random initialisation with the same settings and patches: "
        f"{1 - mean:+.3f}"
    )
    text = "".join(beside.blocks(files))
    for name, share in zip("cde", halves, strict=True):
        assert f"<td>{name}</td><td>1.000</td><td>{share:.3f}</td><td>{1 - share:+.3f}</td>" in text
    assert beside.NO_PROOF.split("(")[0][:40] in text
    assert text.count("<img") == beside.MOST_PICTURES and 'alt="c: image, ground truth' in text


def test_undefined_scores_have_no_difference(files: Output) -> None:
    path = files.baseline.scores / "scores.json"
    contents = json.loads(path.read_text())
    contents["mean"]["iou"] = None
    path.write_text(json.dumps(contents))
    assert beside.sentence(files).endswith("undefined from random initialisation with the same settings and patches: "
                                           "undefined")  # fmt: skip
