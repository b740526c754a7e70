"""Model folders: how one is found, and what is said of one that is not complete. Nothing is loaded."""

from pathlib import Path

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.models import BEST, FINAL, LATEST, check, find, folds_without, model_name

NAME = model_name("nnUNetTrainer", "nnUNetPlans", "2d")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete one, of folds 0 and 2; its files are empty."""
    folder = tmp_path / "results" / "Dataset950_test" / NAME
    for fold in (0, 2):
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / f"fold_{fold}" / FINAL).touch()
    for name in ("plans.json", "dataset.json"):
        (folder / name).touch()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.mark.parametrize("dataset", ["950", "Dataset950_test"])
def test_a_model_is_found_by_its_data_set(model: Path, dataset: str) -> None:
    assert find(dataset, "nnUNetTrainer", "nnUNetPlans", "2d") == model


def test_a_model_that_is_not_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RetinaError, match=f"no model Mine__.*__2d in .*There are {NAME}.*nnUNetv2_train 950 2d"):
        find("950", "Mine", "nnUNetPlans", "2d")
    with pytest.raises(RetinaError, match="-d: data set 951 not found"):
        find("951", "nnUNetTrainer", "nnUNetPlans", "2d")
    raw = model.parents[2] / "raw"
    (raw / "Dataset951_untrained").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", str(raw))
    with pytest.raises(RetinaError, match=r"in .*results.Dataset951_untrained\. There are none\. .*or train it"):
        find("951", "nnUNetTrainer", "nnUNetPlans", "2d")
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(RetinaError, match=r"\$nnUNet_results is not set"):
        find("950", "nnUNetTrainer", "nnUNetPlans", "2d")


def test_folds_with_a_checkpoint_are_used(model: Path) -> None:
    assert check(model, None, FINAL) == [0, 2]
    assert check(model, ["2"], FINAL) == [2]
    (model / "fold_all").mkdir()
    (model / "fold_all" / BEST).touch()
    assert check(model, None, BEST) == ["all"]


def test_what_a_model_folder_lacks(model: Path) -> None:
    with pytest.raises(RetinaError, match=r"-f 4: .* has folds 0, 2"):
        check(model, [4], FINAL)
    with pytest.raises(RetinaError, match=rf"has no {BEST} in any fold\. There are {FINAL}.*-chk"):
        check(model, None, BEST)
    (model / "plans.json").unlink()
    with pytest.raises(RetinaError, match=r"has no plans\.json, so it is not a model folder"):
        check(model, None, FINAL)
    with pytest.raises(RetinaError, match="no model folder"):
        check(model / "nowhere", None, FINAL)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x.pth", "checkpoint_*.pth"])
def test_a_checkpoint_is_the_name_of_a_file(model: Path, name: str) -> None:
    message = "is a path; expected the name of a file" if "/" in name else "in any fold"
    with pytest.raises(RetinaError, match=message):
        check(model, None, name)


def test_folds_that_were_begun_and_have_no_checkpoint_are_known(tmp_path: Path) -> None:
    for fold, file in ((0, FINAL), (1, LATEST), (2, "")):
        (tmp_path / f"fold_{fold}").mkdir()
        if file:
            (tmp_path / f"fold_{fold}" / file).touch()
    assert folds_without(tmp_path, [FINAL]) == ["1", "2"]
    assert folds_without(tmp_path, [LATEST]) == ["0", "2"]
