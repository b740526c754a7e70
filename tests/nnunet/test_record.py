"""What nnU-Net keeps of a training, read back."""

import json
from pathlib import Path

import pytest
import torch
from helpers.model_folders import make_model

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.record import count_parameters, find_folds, folds_without_checkpoint, read_record


def test_shared_tensors_are_counted_once() -> None:
    tensor = torch.zeros(3, 4)
    weights = {"a": tensor, "b.a": tensor, "c": torch.zeros(5), "n.running_mean": torch.zeros(7)}
    assert count_parameters(weights) == 17


def test_what_was_never_written_is_none(tmp_path: Path) -> None:
    record = read_record(make_model(tmp_path / "model"), "0")
    assert record.finished and record.epochs.train_loss == [] and record.debug == {}
    assert (record.network, record.version, record.transfer, record.cases, record.planned_epochs) == (None,) * 5


def test_folds_are_those_with_any_checkpoint(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", folds=(0, 1, 10))
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_best.pth")
    (folder / "fold_2").mkdir()
    assert find_folds(folder, None) == ["0", "1", "10"] and find_folds(folder, ["10", "10"]) == ["10"]
    assert folds_without_checkpoint(folder) == ["2"]
    assert not read_record(folder, "1").finished
    with pytest.raises(RetinaError, match=r"-f 2: .* it has folds 0, 1, 10"):
        find_folds(folder, ["2"])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "fold_0" / "debug.json").write_text(json.dumps({"num_epochs": 3}))
    assert read_record(folder, "0").planned_epochs == 3
    (folder / "fold_0" / "debug.json").write_text("{")
    with pytest.raises(RetinaError, match=r"debug\.json cannot be read as JSON .* or move it away"):
        read_record(folder, "0")
    torch.save({"network_weights": {}}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(RetinaError, match=r"final\.pth is not a checkpoint of an nnU-Net training \(KeyError"):
        read_record(folder, "0")


REPORT = {
    "scope": None, "source": None, "fingerprint": None, "loaded": [], "fresh": ["a"], "frozen": [],
    "parameters": {"loaded": 0, "frozen": 0, "all": 5},
}  # fmt: skip


@pytest.mark.parametrize("lacking", [*REPORT, "named_by"])
def test_a_transfer_report_that_lacks_something_is_refused(tmp_path: Path, lacking: str) -> None:
    path = make_model(tmp_path / "model") / "fold_0" / "transfer_report.json"
    path.write_text(json.dumps(REPORT))
    assert read_record(path.parents[1], "0").transfer == REPORT
    changed = {key: value for key, value in REPORT.items() if key != lacking}
    path.write_text(json.dumps(changed | ({"source": "w.pth"} if lacking == "named_by" else {})))
    with pytest.raises(RetinaError, match=rf"transfer_report\.json lacks {lacking}, or .* Copy it again"):
        read_record(path.parents[1], "0")
