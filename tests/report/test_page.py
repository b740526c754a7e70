"""``retina_report``: what the page of a model says, and what is refused."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK
import torch
from helpers.checks import noting
from helpers.model_folders import make_model, transunet
from skimage.io import imsave

from nnunetv2_retina.commands import report as command
from nnunetv2_retina.console import USAGE_ERROR
from nnunetv2_retina.display.sheets import OverlayRow
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.evaluate import score_pairs
from nnunetv2_retina.evaluation.pairs import Pair
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.nnunet.record import read_record
from nnunetv2_retina.report import cases as report_cases
from nnunetv2_retina.report import page as model_report
from nnunetv2_retina.report import training, watching
from nnunetv2_retina.report.cases import choose_slice, validation_cases, value_names, worst_and_best
from nnunetv2_retina.report.page import write_model_report
from nnunetv2_retina.report.settings import ReportSettings

LABELS = {"background": 0, "mito": 1, "vesicle": 2}
NETWORK = transunet()["arch_kwargs"]["config"]
DATASET = "Dataset950_test"


def log(epochs: int, classes: int = 2) -> dict[str, Any]:
    """nnU-Net's, of epochs of 60 s."""
    steps = np.arange(epochs)
    return {
        "mean_fg_dice": [0.5] * epochs,
        "ema_fg_dice": [0.5] * epochs,
        "dice_per_class_or_region": [[np.float32(0.1 * step)] * classes for step in steps],
        "train_losses": [np.float32(1 / (step + 1)) for step in steps],
        "val_losses": [np.float32(1.5 / (step + 1)) for step in steps],
        "lrs": [0.01 / (step + 1) for step in steps],
        "epoch_start_timestamps": [1.7e9 + 61 * step for step in steps],
        "epoch_end_timestamps": [1.7e9 + 61 * step + 60 for step in steps],
    }


def finish(folder: Path, fold, name: str = "checkpoint_final.pth", epochs: int = 3, retina: bool = False) -> None:
    """Turn a fold of ``make_model`` into one that was trained: log, debug.json, and RETINA's block and report."""
    path = folder / f"fold_{fold}" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["logging"] = log(epochs)
    if retina:
        content["init_args"]["retina"] = {"version": "0.1.0", "network": NETWORK}
        report = {
            "scope": "transformer",
            "source": "/weights/cem500k.pth",
            "named_by": "-pretrained_weights",
            "fingerprint": "c64dc1",
            "pretraining": {"epoch": 6},
            "parameters": {"all": 1_229_218, "loaded": 149_760, "frozen": 149_760},
            "loaded": ["transformer.norm.weight"],
            "fresh": ["cnn.stem.0.weight"],
            "frozen": ["transformer.norm.weight"],
        }
        (path.parent / "transfer_report.json").write_text(json.dumps(report))
    path.unlink()
    torch.save(content, path.with_name(name))
    debug = {"num_epochs": "3", "num_iterations_per_epoch": "250", "device": "cuda:0", "gpu_name": "A <GPU>"}
    (path.parent / "debug.json").write_text(json.dumps(debug | {"torch_version": "2.9", "_seed": "7"}))


def case(number: int, size: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, truth and prediction; the higher the number, the worse the prediction."""
    truth = np.zeros((size, size), np.uint8)
    truth[5:25, 5:25], truth[28:36, 10:30] = 1, 2
    prediction = np.roll(truth, number, axis=1)
    return (90 * truth + 30).astype(np.uint8), truth, prediction


@pytest.fixture
def nnunet(tmp_path: Path, monkeypatch) -> Path:
    """nnU-Net's folders with a plain 2D model of one fold whose four validation cases were predicted."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    make_model(model(tmp_path), labels=LABELS)
    finish(model(tmp_path), 0)
    add_validation(tmp_path, 0, range(4))
    return tmp_path


def model(root: Path) -> Path:
    return root / "results" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"


def add_validation(root: Path, fold, numbers) -> None:
    folders = (
        root / "raw" / DATASET / "imagesTr",
        root / "preprocessed" / DATASET / "gt_segmentations",
        model(root) / f"fold_{fold}" / "validation",
    )
    for number in numbers:
        for folder, suffix, array in zip(folders, ("_0000", "", ""), case(number), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            imsave(folder / f"case_{number}{suffix}.png", array, check_contrast=False)


@pytest.fixture
def no_drawing(monkeypatch) -> None:
    """Drawing takes most of the time, and most tests are about the text."""
    for module, name in ((model_report, "overlay_sheet"), (model_report, "class_bars"), (training, "curves")):
        monkeypatch.setattr(module, name, lambda path, *_: path.touch())


def page(root: Path, **settings) -> str:
    return write_model_report(model(root), settings=ReportSettings(**settings)).read_text()


def text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def pictures(page: str) -> list[str]:
    return re.findall(r'<img alt="([^"]*)"', page)


# The page


def test_page_stands_alone_and_tells_all(nnunet) -> None:
    html = page(nnunet)
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', html) == []
    assert "<script" not in html and "<link" not in html and "url(" not in html and "@import" not in html
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html
    said = text(html)
    assert "nnUNetTrainer on Dataset950_test" in said
    assert "Network PlainConvUNet," in said and "background (0), mito (1), vesicle (2)" in said
    assert "Iterations 750 (3 epochs of 250)" in said and "Patch, batch 32 x 32 px, 2 patches" in said
    assert "0.01 in the first epoch, 0.003333 in the last" in said
    assert "3 min in all, 60 s an epoch; begun 2023-11-14" in said
    assert "A &lt;GPU&gt;" in said and "PyTorch 2.9" in said
    assert "What was transferred" not in said and "not finished" not in said
    assert "Mean IoU 0.8" in said and "over 4 cases" in said
    assert "classes in the means: mito (1), vesicle (2)" in said
    assert "RETINA_SEED=7 nnUNetv2_train 950 2d 0 -tr nnUNetTrainer" in said
    assert len(pictures(html)) == 4  # curves, bars, worst, best
    assert [path.name for path in model(nnunet).glob("*report*")] == ["report.html"]


def test_scores_are_those_of_the_evaluation(nnunet, no_drawing) -> None:
    from nnunetv2_retina.evaluation.evaluate import evaluate

    folder = model(nnunet)
    expected = evaluate(
        folder / "fold_0/validation", nnunet / "preprocessed" / DATASET / "gt_segmentations", folder / "dataset.json"
    )
    row = re.search(r"<td>mito</td><td>([\d.]+)</td>", page(nnunet))
    assert row is not None and row[1] == f"{expected.classes['mito']['iou']:.3f}"
    cases = validation_cases(folder, ["0"], DATASET, ".png")
    contents = read_dataset_json(folder)
    assert score_pairs(cases.pairs, contents, Rule.from_dataset_json(contents)).mean == expected.mean


def test_transfer_of_a_retina_model(nnunet, no_drawing) -> None:
    make_model(nnunet / "other", labels=LABELS, architecture=transunet(), trainer="nnUNetTrainerRETINA_tiny")
    finish(nnunet / "other", 0, retina=True)
    html = write_model_report(nnunet / "other", nnunet / "out" / "page.html").read_text()
    said = text(html)
    assert "Transferred from /weights/cem500k.pth (-pretrained_weights): 0.15 M of 1.23 M parameters" in said
    assert "TransUNet, size tiny" in said and "nnunetv2-retina 0.1.0" in said
    assert "Iterations 300 (3 epochs of 100)" in said
    assert "fresh 1 1,079,458" in said and "The 1 frozen tensors transformer.norm.weight" in said
    assert "-pretrained_weights /weights/cem500k.pth" in said
    assert "There are no validation predictions" in said and "Not scored." in said


def test_curves_of_several_folds(nnunet, tmp_path) -> None:
    record = read_record(model(nnunet), "0")
    blocks = training.curve_blocks([record, replace(record, fold="1", epochs=record.epochs)], tmp_path)
    assert [block.startswith("<details>") for block in blocks] == [False, False, True, True]
    sizes = [iio.imread(tmp_path / name).shape[:2] for name in ("folds.png", "fold_0.png", "fold_1.png")]
    assert sizes[0] == sizes[1] == sizes[2]


def test_several_folds(nnunet, no_drawing) -> None:
    folder = model(nnunet)
    for fold in (1, 2):
        (folder / f"fold_{fold}").mkdir()
        content = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    finish(folder, 1, "checkpoint_latest.pth", epochs=2)
    finish(folder, 2, "checkpoint_best.pth", epochs=1)
    (folder / "fold_3").mkdir()
    add_validation(nnunet, 1, [3, 4])  # case_3 is in two folds
    html = page(nnunet)
    said = text(html)
    assert "The training of fold 1 is not finished: 2 of 3 epochs in checkpoint_latest.pth." in said
    assert "1 of 3 epochs in checkpoint_best.pth, of the best epoch so far" in said
    assert "Fold 3 was begun and has no checkpoint yet." in said
    assert "Fold 2 has no validation predictions." in said and "over 6 cases" in said
    assert "case_3 (fold 0)" in said and "case_3 (fold 1)" in said
    assert "Losses and pseudo Dice of every fold by epoch" in pictures(html)
    assert "Fold 1 was" not in text(page(nnunet, folds=["0"])) and "over 4 cases" in text(page(nnunet, folds=["0"]))


def test_fold_all_scores_training_images(nnunet, no_drawing) -> None:
    model(nnunet).joinpath("fold_0").rename(model(nnunet) / "fold_all")
    said = text(page(nnunet))
    assert "these are scores of training images, not of unseen ones" in said
    assert "all 1 to train on, the same to validate" in said


def test_a_fold_that_is_validated_on_training_cases_says_so(nnunet, no_drawing) -> None:
    assert "scores of training images" not in text(page(nnunet))
    path = model(nnunet) / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    split, said = {"train": ["case_3"], "val": ["case_3"]}, "Fold 0 trains on cases of its validation: these are scores"
    content["init_args"]["retina"] = {"settings": split}
    torch.save(content, path)
    assert said in text(page(nnunet))
    del content["init_args"]["retina"]  # nnU-Net's own trainer, in a study
    content["init_args"]["dataset_json"] = {"retina": {"folds": [split]}}
    torch.save(content, path)
    assert said in text(page(nnunet))


def test_a_later_training_beside_a_finished_one(nnunet, no_drawing) -> None:
    (model(nnunet) / "fold_0" / "checkpoint_latest.pth").touch()
    assert "a later training of this fold, which is not finished" in text(page(nnunet))


def test_training_without_a_finished_epoch(nnunet, no_drawing) -> None:
    torch.save(
        torch.load(model(nnunet) / "fold_0" / "checkpoint_final.pth", weights_only=False) | {"logging": log(0)},
        model(nnunet) / "fold_0" / "checkpoint_final.pth",
    )
    said = text(page(nnunet))
    assert "No epoch was finished yet." in said and "Learning rate not recorded" in said


def test_predictions_of_ones_own(nnunet, no_drawing) -> None:
    (nnunet / "mine").mkdir()
    imsave(nnunet / "mine" / "case_1.png", case(1)[2], check_contrast=False)
    imsave(nnunet / "mine" / "case_1_instances.png", case(1)[2], check_contrast=False)
    (nnunet / "truth").mkdir()
    imsave(nnunet / "truth" / "case_1.png", case(1)[1], check_contrast=False)
    folders = {"predictions": nnunet / "mine", "labels": nnunet / "truth"}
    html = page(nnunet, **folders)
    assert "No pictures: the images are not there. Give their folder with --images." in text(html)
    assert "Without a ground truth" not in text(html)
    html = page(nnunet, **folders, images=nnunet / "raw" / DATASET / "imagesTr")
    assert "The only case with a defined IoU case_1 (" in text(html) and "Best" not in pictures(html)


def test_without_ground_truths_or_images_the_rest_is_reported(nnunet, no_drawing, monkeypatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    html = page(nnunet)
    assert "No pictures: the images are not there" in text(html) and "worst: case_3" in text(html)
    monkeypatch.setenv("nnUNet_preprocessed", "/nowhere")
    said = text(page(nnunet))
    assert "no Dataset950_test/gt_segmentations in $nnUNet_preprocessed (/nowhere)" in said and "Training" in said


def test_undefined_values_are_told_with_their_reason(nnunet, no_drawing) -> None:
    empty = np.zeros((40, 40), np.uint8)
    for number in range(4):
        imsave(model(nnunet) / "fold_0/validation" / f"case_{number}.png", empty, check_contrast=False)
        imsave(
            nnunet / "preprocessed" / DATASET / "gt_segmentations" / f"case_{number}.png", empty, check_contrast=False
        )
    said = text(page(nnunet))
    assert "Mean IoU undefined over 4 cases." in said and "why undefined" in said
    assert "No case has a defined IoU" in said


def test_volumes_show_the_telling_slice_with_a_scale_bar_in_nm(nnunet, no_drawing, monkeypatch) -> None:
    folder = nnunet / "volumes"
    make_model(folder, labels=LABELS, ending=".nii.gz", reader="SimpleITKIO", converted_by="retina_convert 0.1.0")
    finish(folder, 0)
    truth = np.zeros((5, 40, 40), np.uint8)
    truth[2, 5:30, 5:30], truth[4, :4, :4] = 1, 1
    prediction = truth.copy()
    prediction[4] = 1
    for name, array in (("pred/v", prediction), ("truth/v", truth), ("images/v_0000", 50 * truth)):
        path = nnunet / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((4.0, 8.0, 40.0))
        SimpleITK.WriteImage(image, str(path))
    drawn: list[list[OverlayRow]] = []
    draw = noting(drawn, lambda _, rows, *__: rows, lambda path, *_: path.touch())
    monkeypatch.setattr(model_report, "overlay_sheet", draw)
    settings = ReportSettings(
        predictions=nnunet / "pred", labels=nnunet / "truth", images=nnunet / "images", distances=False
    )
    said = text(write_model_report(folder, settings=settings).read_text())
    rows = [row for sheet in drawn for row in sheet]
    assert [row.name for row in rows] == ["v, z = 4"] and "MFD-m" not in said
    assert rows[0].spacing == Spacing(None, 8, 4, NANOMETRES)


# Its parts


def test_slice_choice() -> None:
    truth = np.zeros((4, 3, 3), np.uint8)
    truth[1], truth[2, 0], truth[3] = 1, 1, 9
    prediction = truth.copy()
    prediction[2] = 1
    assert choose_slice(prediction, truth, 9, "disagreement") == 2
    assert choose_slice(prediction, truth, 9, "foreground") == 1


@pytest.mark.parametrize(("number", "worst", "best"), [(1, 1, 0), (2, 1, 1), (3, 2, 1), (5, 3, 2), (9, 3, 3)])
def test_worst_and_best_share_no_case(nnunet, no_drawing, number, worst, best) -> None:
    pairs = []
    for index in range(number):
        for role, array in zip(("t", "p"), case(index)[1:], strict=True):
            imsave(nnunet / f"{role}{index}.png", array, check_contrast=False)
        pairs.append(Pair(f"case_{index}", nnunet / f"p{index}.png", nnunet / f"t{index}.png"))
    cases = report_cases.CaseSet(tuple(pairs), "", None)
    contents = {"labels": LABELS, "file_ending": ".png"}
    found = worst_and_best(score_pairs(cases.pairs, contents, Rule.from_dataset_json(contents, distances=False)))
    assert [len(part) for part in found] == [worst, best]
    assert found[0][0].name == f"case_{number - 1}"
    assert not best or found[1][0].name == "case_0"


def test_the_smallest_region_names_a_value() -> None:
    rule = Rule((ScoredClass("two", (2,)), ScoredClass("any", (1, 2)), ScoredClass("background", (0,))))
    assert value_names(rule) == {1: "any", 2: "two"}


def test_cases_of_the_split_come_from_the_newest_log(nnunet, no_drawing) -> None:
    for day, numbers in (("1", "1 training and 2"), ("2", "24 training and 6")):
        path = model(nnunet) / "fold_0" / f"training_log_2026_1_{day}.txt"
        path.write_text(f"2026: This split has {numbers} validation cases.\n")
    assert read_record(model(nnunet), "0").cases == (24, 6)
    assert "24 to train on, 6 to validate" in text(page(nnunet))


# A training that is running


def fold(root: Path) -> Path:
    return model(root) / "fold_0"


def refreshed(page: str) -> bool:
    return '<meta http-equiv="refresh" content="30">' in page


def test_a_running_training_is_followed_to_its_end(nnunet, no_drawing, monkeypatch) -> None:
    final = fold(nnunet) / "checkpoint_final.pth"
    content = torch.load(final, weights_only=False)
    final.unlink()
    pages: list[str] = []
    lines: list[str] = []

    def first_epoch() -> None:
        torch.save(content | {"logging": log(1)}, fold(nnunet) / "checkpoint_latest.pth")

    def being_written() -> None:
        pages.append((model(nnunet) / "report.html").read_text())
        (fold(nnunet) / "checkpoint_latest.pth").write_bytes(b"half a file")

    def last_epoch() -> None:
        assert (model(nnunet) / "report.html").read_text() == pages[0]
        (fold(nnunet) / "checkpoint_latest.pth").unlink()
        torch.save(content, final)

    def validated() -> None:
        pages.append((model(nnunet) / "report.html").read_text())
        (fold(nnunet) / "validation" / "summary.json").write_text("{}")

    steps = iter([first_epoch, being_written, last_epoch, validated])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(steps)())
    watching.watch_model_report(model(nnunet), None, ReportSettings(watch=30), lines.append)
    pages.append((model(nnunet) / "report.html").read_text())
    assert [refreshed(page) for page in pages] == [True, True, False]
    assert "1 of 3 epochs in checkpoint_latest.pth" in text(pages[0]) and "3 epochs of 250" in text(pages[1])
    assert [line.split(" ")[0] for line in lines] == ["Waiting", f"{model(nnunet) / 'report.html'}:", "The"]


def test_what_stays_damaged_is_said(nnunet, no_drawing, monkeypatch) -> None:
    (fold(nnunet) / "checkpoint_final.pth").write_bytes(b"half a file")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(RetinaError, match=r"checkpoint_final\.pth"):
        watching.watch_model_report(model(nnunet), None, ReportSettings(watch=1), print)
    with pytest.raises(RetinaError, match="no model folder /nowhere"):
        watching.watch_model_report("/nowhere", None, ReportSettings(watch=1), print)
    with pytest.raises(RetinaError, match="--watch is 0; expected 1 second or more"):
        ReportSettings(watch=0)


def test_the_patches_of_our_trainers_are_shown(nnunet, no_drawing) -> None:
    imsave(fold(nnunet) / "validation_patches.png", np.zeros((9, 9, 3), np.uint8), check_contrast=False)
    assert "Validation patches of fold 0: image, label and prediction" in pictures(page(nnunet))


def test_one_case_has_no_spread(nnunet, no_drawing) -> None:
    for number in (1, 2, 3):
        (fold(nnunet) / "validation" / f"case_{number}.png").unlink()
    assert "There is one case: the bars are its scores" in text(page(nnunet))


# What is refused


@pytest.mark.parametrize("given", ["predictions", "labels"])
def test_predictions_and_labels_come_together(given, tmp_path) -> None:
    with pytest.raises(RetinaError, match=f"--{given} was given without --.*expected both"):
        ReportSettings(**{given: tmp_path})


def test_no_model(nnunet, no_drawing) -> None:
    with pytest.raises(RetinaError, match="no model folder /nowhere"):
        write_model_report("/nowhere")
    with pytest.raises(RetinaError, match=r"has no plans\.json, so it is not a model folder"):
        write_model_report(nnunet)
    with pytest.raises(RetinaError, match=r"-f 4: .* has no checkpoint of that fold; it has folds 0\. Choose"):
        page(nnunet, folds=["4"])
    (model(nnunet) / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(RetinaError, match=r"has no checkpoint yet, in the folds 0 that were begun. Wait for the first"):
        page(nnunet)


def test_damaged_files(nnunet, no_drawing) -> None:
    folder = model(nnunet)
    (folder / "fold_0/validation/case_0.png").write_bytes(b"no image")
    with pytest.raises(RetinaError, match=r"case_0\.png: cannot be read"):
        page(nnunet)
    (folder / "fold_0" / "debug.json").write_text("{")
    with pytest.raises(RetinaError, match=r"debug\.json cannot be read as JSON .* or move it away"):
        page(nnunet)
    torch.save({"network_weights": {}}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(RetinaError, match=r"final\.pth is not a checkpoint of an nnU-Net training \(KeyError"):
        page(nnunet)


def test_images_that_do_not_fit(nnunet, no_drawing) -> None:
    with pytest.raises(RetinaError, match=r"--images .*/none is not a folder"):
        ReportSettings(images=nnunet / "none")
    (nnunet / "mine").mkdir()
    with pytest.raises(RetinaError, match=r"no image .*mine/case_3_0000\.png for case case_3. Give .* with --images"):
        page(nnunet, images=nnunet / "mine")
    for number in range(4):
        imsave(nnunet / "mine" / f"case_{number}_0000.png", np.eye(9, dtype=np.uint8), check_contrast=False)
    with pytest.raises(RetinaError, match=r"image in .* has shape \(1, 9, 9\), the ground truth \(1, 40, 40\)"):
        page(nnunet, images=nnunet / "mine")
    (nnunet / "mine" / "case_3_0000.png").write_bytes(b"no image")
    with pytest.raises(RetinaError, match=r"case_3_0000\.png: cannot be read"):
        page(nnunet, images=nnunet / "mine")


def test_validation_of_another_data_set(nnunet, no_drawing) -> None:
    truths = nnunet / "preprocessed" / DATASET / "gt_segmentations"
    for path in truths.iterdir():
        path.rename(truths / f"other_{path.name}")
    with pytest.raises(RetinaError, match=r"no prediction of .*validation has a ground truth in .*expected the same"):
        page(nnunet)


def test_output_that_cannot_be_written(nnunet, no_drawing) -> None:
    with pytest.raises(RetinaError, match="is a folder; expected the name of a page"):
        write_model_report(model(nnunet), nnunet)
    (nnunet / "file").touch()
    with pytest.raises(RetinaError, match=r"cannot write to .*Give another page with -o"):
        write_model_report(model(nnunet), nnunet / "file" / "page.html")


# The command


def test_command(nnunet, no_drawing, capsys) -> None:
    page = nnunet / "page.html"
    assert command.main(["-m", str(model(nnunet)), "-o", str(page), "--no-distances"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(page) and "MFD-m" not in page.read_text()
    assert command.main(["-d", "950", "-f", "0", "-o", str(nnunet / "same.html")]) == 0
    assert (nnunet / "same.html").is_file()
    assert command.main([]) == USAGE_ERROR
    assert "either -m MODEL_FOLDER, or -d DATASET" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["-d", "950", "-m", str(nnunet)])
