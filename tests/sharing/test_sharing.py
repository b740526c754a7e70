"""Models written for others, and what comes back of them. The zoo's own test of a package is in ``test_zoo``."""

import importlib.util
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.checks import known
from helpers.model_folders import make_model, transunet
from safetensors.torch import load_file

from nnunetv2_retina.commands.share import main
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings
from nnunetv2_retina.sharing import zoo
from nnunetv2_retina.sharing.bundle import MANIFEST, _public, read_bundle
from nnunetv2_retina.sharing.description import identifiers
from nnunetv2_retina.sharing.settings import About
from nnunetv2_retina.sharing.zoo_operations import preprocessing

META = ["--licence", "CC-BY-4.0", "--author", "A. Nobody"]
SECRET = "/home/somebody/patients"


@pytest.fixture(autouse=True)
def untested(monkeypatch):
    """Without the zoo's own test, which takes long where it is installed."""
    monkeypatch.setattr(zoo, "_test", lambda _: False)


def model(folder: Path, folds: tuple[int, ...] = (0, 1)) -> Path:
    """A model of RETINA whose checkpoints hold what a training leaves, weights that make up their mind, and scores."""
    made = make_model(
        folder, trainer="nnUNetTrainerTransUNet_tiny", architecture=transunet(), folds=folds, patch=48,
        spacing=(8.0, 8.0), retina={"spacing_unit": "nm", "pixel_size": [8, 8], "groups": {"patient_1": "patient_1"}},
    )  # fmt: skip
    for fold in folds:
        path = made / f"fold_{fold}" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=False)
        head = "decoder.seg_layers.0.weight"
        content["network_weights"][head] *= 100
        content["optimizer_state"] = {"momentum": torch.zeros(3)}
        content["logging"] = {"ema_fg_dice": [np.float32(0.5).item(), 0.75]}
        content["init_args"] |= {
            "device": torch.device("cpu"),
            "retina": {
                "transfer": {"source": f"{SECRET}/w.pth", "scope": "full", "fingerprint": "abc"},
                "settings": {"train": ["patient_1"], "val": ["patient_2"], "seed": 3},
            },
        }
        torch.save(content, path)
        summary = {"foreground_mean": {"Dice": 0.8125, "IoU": 0.6875}, "metric_per_case": [{"reference_file": SECRET}]}
        (path.parent / "validation").mkdir()
        (path.parent / "validation" / "summary.json").write_text(json.dumps(summary))
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        from nnunetv2_retina.registration import external_folder

        patch.setenv("nnUNet_extTrainer", external_folder())
        return model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def package(trained, tmp_path_factory):
    """The model as a package of the zoo."""
    with pytest.MonkeyPatch.context() as patch:
        from nnunetv2_retina.registration import external_folder

        patch.setenv("nnUNet_extTrainer", external_folder())
        patch.setattr(zoo, "_test", lambda _: False)
        path = tmp_path_factory.mktemp("zoo") / "model.zip"
        about = About(licence="CC-BY-4.0", authors=("A. Nobody",))
        assert zoo.write_zoo_package(read_bundle(trained, None, "checkpoint_final.pth"), about, path).path == path
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.parent / "unpacked")
        return path


def labels(folder: Path, image: np.ndarray) -> np.ndarray:
    settings = PredictionSettings(mirroring=False)
    return Predictor.from_model_folder(folder, device="cpu", settings=settings).predict(image, (8.0, 8.0))


def test_a_hub_folder_becomes_the_same_model_again(trained, tmp_path, capsys):
    assert main(["hub", str(tmp_path / "hub"), "-m", str(trained), *META, "--name", "My cells"]) == 0
    assert f"hf upload USER/My-cells {tmp_path / 'hub'} ." in capsys.readouterr().out
    assert main(["import", str(tmp_path / "hub"), "-o", str(tmp_path / "back")]) == 0
    for fold in (0, 1):
        ours, theirs = (
            torch.load(f / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
            for f in (tmp_path / "back", trained)
        )
        assert all(torch.equal(ours["network_weights"][key], value) for key, value in theirs["network_weights"].items())
        assert ours.keys() == theirs.keys() - {"optimizer_state"}
        assert ours["logging"] == theirs["logging"] and ours["inference_allowed_mirroring_axes"] == (0, 1)
    image = np.random.default_rng(0).integers(0, 255, (1, 60, 70)).astype(np.float32)
    np.testing.assert_array_equal(labels(tmp_path / "back", image), labels(trained, image))


def test_the_card_says_what_it_is_and_nothing_private(trained, tmp_path):
    assert main(["hub", str(tmp_path / "hub"), "-m", str(trained), "-f", "1", *META]) == 0
    text = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "nnunetv2-retina"
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "dice", "name": "Dice, foreground", "value": 0.8125}
    assert "fold 1, of checkpoint_final.pth" in text and "| 1 | 0.812 | 0.688 |" in text and "w.pth" in text
    assert "8 x 8 nm" in text and "## What not to expect" in text
    for path in (tmp_path / "hub").iterdir():
        content = path.read_bytes()
        assert SECRET.encode() not in content and b"patient_1" not in content, path.name
    assert "cnn.stem.0.weight" in load_file(tmp_path / "hub" / "model.safetensors"), "one fold has no prefix"


@pytest.mark.parametrize(("fold", "cases"), [("all", "all cases"), ("1", "cases of its validation")])
def test_scores_of_training_images_are_not_published_as_validation(trained, tmp_path, fold, cases):
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "fold_1").rename(tmp_path / "model" / f"fold_{fold}")
    path = tmp_path / "model" / f"fold_{fold}" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    if fold != "all":  # as a study's run on few labelled cases
        content["init_args"]["retina"]["settings"]["val"] = ["patient_1"]
    torch.save(content, path)
    made = {}
    for folds in ([fold], ["0", fold]):
        target = tmp_path / "_".join(folds)
        assert main(["hub", str(target), "-m", str(tmp_path / "model"), "-f", *folds, *META]) == 0
        made[len(folds)] = (target / "README.md").read_text(encoding="utf-8")
    said = f"Fold {fold} was trained on {cases}: nnU-Net's scores of it are not of unseen images."
    assert said in made[1] and "There is no validation of this model" in made[1]
    assert "model-index" not in made[1] and "0.812" not in made[1] and "Test scores" not in made[1]
    assert said in made[2] and "| 0 | 0.812 | 0.688 |" in made[2] and f"| {fold} | 0.8" not in made[2]
    (result,) = yaml.safe_load(made[2].split("---\n")[1])["model-index"][0]["results"]
    assert result["dataset"]["split"] == "validation of fold 0"


@pytest.mark.filterwarnings("ignore:.*torch.jit.load")
def test_a_package_gives_what_our_network_gives(trained, package):
    """Described to the zoo: mean 0, deviation 1 in y and x, then the network, then softmax over the channels."""
    folder = package.parent / "unpacked"
    contents = yaml.safe_load((folder / "rdf.yaml").read_text())
    (of_input,), (of_output,) = contents["inputs"], contents["outputs"]
    tile, expected = np.load(folder / "test_input.npy"), np.load(folder / "test_output.npy")
    assert of_input["preprocessing"] == [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"], "eps": 1e-6}}]
    assert of_output["postprocessing"] == [{"id": "softmax", "kwargs": {"axis": "channel"}}]
    data = torch.from_numpy((tile - tile.mean((2, 3), keepdims=True)) / (tile.std((2, 3), keepdims=True) + 1e-6))
    script = torch.jit.load(folder / contents["weights"]["torchscript"]["source"])
    for network in (script, from_source(folder, contents["weights"]["pytorch_state_dict"])):
        with torch.no_grad():
            np.testing.assert_allclose(network(data).softmax(1).numpy(), expected, atol=1e-5)
    assert expected.shape == (1, 4, 48, 48) and expected.std(axis=(2, 3)).max() > 0.05, "it tells pixels apart"
    ours = labels(trained, tile[0])
    assert (ours == expected[0].argmax(0)).mean() > 0.999 and len(np.unique(ours)) > 1


def from_source(folder: Path, entry: dict[str, Any]) -> torch.nn.Module:
    """Build the network as the zoo does, of the file in the package alone."""
    path = folder / entry["architecture"]["source"]
    spec = known(importlib.util.spec_from_file_location("shared_architecture", path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        known(spec.loader).exec_module(module)
    finally:
        del sys.modules[spec.name]
    assert "nnunetv2_retina" not in {name.partition(".")[0] for name in vars(module)}
    network = getattr(module, entry["architecture"]["callable"])(**entry["architecture"]["kwargs"])
    network.load_state_dict(torch.load(folder / entry["source"], weights_only=True))
    built: torch.nn.Module = network.eval()
    return built


def test_axes_have_the_sizes_the_network_was_trained_with(package):
    contents = yaml.safe_load((package.parent / "unpacked" / "rdf.yaml").read_text())
    *_, y, x = contents["inputs"][0]["axes"]
    assert y == {"type": "space", "id": "y", "unit": "nanometer", "scale": 8.0, "size": 48} and x["size"] == 48
    *_, y, _ = contents["outputs"][0]["axes"]
    assert y["size"] == {"tensor_id": "image", "axis_id": "y"} and y["halo"] == 12
    files = {path.name for path in (package.parent / "unpacked").iterdir()}
    assert {entry["source"] for entry in contents["attachments"]} == {"plans.json", "dataset.json", MANIFEST}
    assert contents["covers"][0]["source"] in files


def test_a_package_becomes_the_same_model_again(trained, package, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    assert main(["import", str(package)]) == 0
    home = tmp_path / "Dataset950_test" / "nnUNetTrainerTransUNet_tiny__nnUNetPlans__2d"
    image = np.random.default_rng(1).integers(0, 255, (1, 60, 70)).astype(np.float32)
    np.testing.assert_array_equal(labels(home, image), labels(trained, image))
    assert main(["import", str(package)]) == 2, "it is there already"


def damaged(package: Path, tmp_path: Path, change) -> Path:
    """A copy of a package in which ``change`` has altered a file: name -> bytes."""
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(tmp_path / "copy.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return tmp_path / "copy.zip"


def edited(files: dict[str, Any], **values) -> None:
    files[MANIFEST] = json.dumps(json.loads(files[MANIFEST]) | values).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.update({"weights.pt": files["weights.pt"][:-1] + b"x"}), "weights.pt: got sha256"),
        (lambda files: files.pop("plans.json"), "plans.json: got sha256 no such file, expected"),
        (lambda files: files.pop(MANIFEST), "of the BioImage Model Zoo, but not one that retina_share made"),
        (lambda files: edited(files, format_version=2), "has format version 2, made by nnunetv2-retina"),
        (lambda files: edited(files, model="../../x"), f"{MANIFEST} is damaged"),
        (lambda files: edited(files, checkpoint="../x.pth"), f"{MANIFEST} is damaged"),
        (lambda files: edited(files, folds={"../../0": {}}), f"{MANIFEST} is damaged"),
        (lambda files: (files.clear(), files.update({"D/T__P__2d/plans.json": b"{}"})), "nnUNetv2_install_pretrained"),
        (lambda files: (files.clear(), files.update({"a.txt": b""})), "no shared model"),
    ],
)
def test_other_packages_are_refused_in_one_sentence_and_nothing_is_made(package, tmp_path, capsys, change, message):
    copy = damaged(package, tmp_path, change)
    assert main(["import", str(copy), "-o", str(tmp_path / "made" / "model")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob("made/*"))


def test_what_is_no_archive_is_refused(tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04nothing")
    assert main(["import", str(tmp_path / "a.zip")]) == 2
    assert "is no whole zip archive" in capsys.readouterr().err


def test_networks_without_a_source_of_ours_go_as_torchscript(tmp_path):
    make_model(tmp_path / "unet", labels={"background": 0, "a": [1, 2], "b": [2]}, patch=32)
    assert main(["zoo", str(tmp_path / "a.zip"), "-m", str(tmp_path / "unet"), *META]) == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        contents = yaml.safe_load(archive.read("rdf.yaml"))
    assert list(contents["weights"]) == ["torchscript"] and "parent" not in contents["weights"]["torchscript"]
    assert contents["outputs"][0]["postprocessing"] == [{"id": "sigmoid"}]
    assert contents["outputs"][0]["axes"][1]["channel_names"] == ["a", "b"]
    assert "weights.pt" in [entry["source"] for entry in contents["attachments"]]
    assert main(["import", str(tmp_path / "a.zip"), "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "fold_0" / "checkpoint_final.pth").is_file()


def test_normalisation_becomes_the_zoos_operations():
    def plan(*schemes, mask=False):
        return {"normalization_schemes": schemes, "use_mask_for_norm": [mask] * len(schemes)}

    values = {"0": {"percentile_00_5": 10, "percentile_99_5": 200, "mean": 100, "std": 20}}
    assert preprocessing(plan("CTNormalization"), values) == [
        {"id": "clip", "kwargs": {"min": 10.0, "max": 200.0}},
        {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 100.0, "std": 20.0}},
    ]
    assert preprocessing(plan("RGBTo01Normalization"), {})[0]["kwargs"] == {"gain": 1 / 255, "offset": 0.0}
    assert preprocessing(plan("NoNormalization"), {}) == []
    with pytest.raises(RetinaError, match="inside the non-zero mask"):
        preprocessing(plan("ZScoreNormalization", mask=True), {})
    with pytest.raises(RetinaError, match="the same for all channels"):
        preprocessing(plan("ZScoreNormalization", "NoNormalization"), {})
    with pytest.raises(RetinaError, match="clips each channel"):
        preprocessing(plan("CTNormalization", "CTNormalization"), values | {"1": values["0"]})


def test_names_and_paths():
    assert identifiers(["EM", "Synaptic cleft", "em", "5-HT"]) == ["em", "synaptic_cleft", "em_2", "_5_ht"]
    assert _public({"a": ["/x/y.pth", "C:\\u\\z.pth", "https://a/b", "n/m"], "b": 1}) == {
        "a": ["y.pth", "z.pth", "https://a/b", "n/m"],
        "b": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("zoo model.zip -m nowhere --licence MIT --author A", "no model folder nowhere"),
        ("hub out -m nowhere --licence MIT --author A", "no model folder nowhere"),
        ("zoo model.zip --licence MIT --author A", "either -m MODEL_FOLDER"),
        ("hub out --licence not.given.yet? --author ,", "either -m MODEL_FOLDER"),
        ("import absent.zip", "no package at absent.zip"),
    ],
)
def test_what_is_not_there_is_said(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err


def test_targets_that_are_there_are_kept(trained, tmp_path, capsys):
    (tmp_path / "a.zip").write_text("mine")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine").touch()
    for arguments in (["zoo", "a.zip"], ["zoo", "a.tar"], ["hub", "hub"]):
        target = str(tmp_path / arguments[1])
        assert main([arguments[0], target, "-m", str(trained), *META]) == 2
    shown = capsys.readouterr().err
    assert "is there already" in shown and "ends in .zip" in shown and "is not empty" in shown
    assert (tmp_path / "a.zip").read_text() == "mine"
    with pytest.raises(RetinaError, match="expected an identifier of SPDX"):
        About(licence="my own", authors=("A",))
    with pytest.raises(RetinaError, match="at least one name"):
        About(licence="MIT", authors=())
