"""retina_doctor: what it finds, and that it says what to type."""

import importlib.util
import os
from importlib import metadata
from pathlib import Path

import pytest
import torch
from helpers.environment import FOLDERS

from nnunetv2_retina import registration
from nnunetv2_retina.commands import doctor
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint


def findings(topic):
    return [finding for finding in doctor.examine() if finding.topic == topic]


def test_a_good_installation_has_nothing_wrong(tmp_path, monkeypatch):
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    config = NetworkConfig.named("base")
    with torch.device("meta"):
        state = TransUNet(1, 1, config).state_dict()
    checkpoint.save(tmp_path / "w.pth", {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in state.items()}, config)
    monkeypatch.setenv("RETINA_WEIGHTS", str(tmp_path / "w.pth"))
    everything = list(doctor.examine())
    assert [f for f in everything if f.level == "wrong" and f.topic != "nnunetv2-retina"] == []
    assert "base (embed_dim 768" in everything[-1].text
    assert "nnUNetTrainerRETINA_base" in everything[-1].text
    assert {f.topic for f in everything} >= {"python", "nnunetv2", "torch", "device", "registration", *FOLDERS}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_wrong(name, tmp_path, monkeypatch):
    (found,) = findings(name)
    assert (found.level, found.text) == ("wrong", "not set")
    assert "retina_doctor --init" in found.advice and f"{name}=" in found.advice
    monkeypatch.setenv(name, str(tmp_path / "none"))
    (found,) = findings(name)
    assert "does not exist" in found.text
    assert "mkdir -p" in found.advice
    for value in ("here", "~/here"):
        monkeypatch.setenv(name, value)
        (found,) = findings(name)
        assert found.text == f"{value} is not a whole path" and f'export {name}="/' in found.advice
    monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(doctor, "_writable", lambda folder: False)
    assert "is not writable" in findings(name)[0].text


def test_missing_registration(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "")
    (found,) = findings("registration")
    assert found.level == "wrong"
    assert "nnU-Net does not find the trainers" in found.text
    assert "pip install ." in found.advice


def test_registration_switched_off(monkeypatch):
    monkeypatch.setenv("RETINA_REGISTER", "0")
    first, second = findings("registration")
    assert first.level == "note"
    assert registration.external_folder() in first.advice
    assert second.level == "ok"


def test_a_trainer_of_the_same_name_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerRETINA(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    (found,) = findings("registration")
    assert "another nnUNetTrainerRETINA, of module mine" in found.text


def test_weights(tmp_path, monkeypatch):
    (found,) = findings("weights")
    assert (found.level, "export RETINA_WEIGHTS=" in found.advice) == ("note", True)
    monkeypatch.setenv("RETINA_WEIGHTS", str(tmp_path / "none.pth"))
    (found,) = findings("weights")
    assert (found.level, "no such file" in found.text) == ("wrong", True)
    torch.save({"network_weights": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    monkeypatch.setenv("RETINA_WEIGHTS", str(tmp_path / "other.pth"))
    assert "not the tensors of a TransUNet" in findings("weights")[0].text


def test_old_nnunet(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.5.0")
    (found,) = findings("nnunetv2")
    assert "2.5.0; 2.8.1 or newer is needed" in found.text


@pytest.mark.parametrize("knows", [True, False])
def test_data_of_numpy_2_under_numpy_1(tmp_path, monkeypatch, knows):
    (tmp_path / "Dataset700_A" / "nnUNetPlans_2d").mkdir(parents=True)
    (tmp_path / "Dataset700_A" / "nnUNetPlans_2d" / "a.pkl").write_bytes(b"\x80\x04cnumpy._core.multiarray\n")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if knows else None)
    findings = list(doctor._preprocessed())
    assert [finding.topic for finding in findings] == ([] if knows else ["Dataset700_A"])
    assert knows or "preprocessed under NumPy 2" in findings[0].text


def test_command(capsys):
    assert doctor.main([]) == 1  # the folders are not set here
    shown = capsys.readouterr().out
    assert "nnUNet_raw" in shown
    assert "retina_doctor --init" in shown


@pytest.mark.parametrize(
    ("name", "value", "level", "words"),
    [
        ("nnUNet_n_proc_DA", "0", "note", "stops nnUNetv2_plan_and_preprocess"),
        ("nnUNet_n_proc_DA", "abc", "wrong", "is 'abc'; nnU-Net needs a whole number from 0"),
        ("nnUNet_def_n_proc", "0", "wrong", "needs a whole number from 1"),
        ("nnUNet_npp", "-1", "wrong", "needs a whole number from 0"),
    ],
)
def test_numbers_of_processes(monkeypatch, name, value, level, words):
    monkeypatch.setenv(name, value)
    (found,) = [finding for finding in doctor._processes() if finding.topic == name]
    assert found.level == level and words in found.text and name in found.advice


def test_init_makes_the_folders_and_notes_them_for_every_later_start(tmp_path, monkeypatch, capsys):
    assert doctor.main(["--init", str(tmp_path / "home")]) == 0
    out = capsys.readouterr().out
    folders = {name: str(tmp_path / "home" / name.removeprefix("nnUNet_")) for name in FOLDERS}
    assert registration.noted_folders() == folders and all(path in out for path in folders.values())
    registration.register()
    assert {name: os.environ[name] for name in FOLDERS} == folders
    assert all("noted by retina_doctor --init" in findings(name)[0].text for name in FOLDERS)
    assert doctor.main(["--init", str(tmp_path / "other")]) == 0  # what is set is what was noted
    assert f"take the place of those in {tmp_path / 'home'}" in capsys.readouterr().out
    assert registration.noted_folders()["nnUNet_raw"] == str(tmp_path / "other" / "raw")


def test_a_variable_of_the_user_comes_before_what_is_noted(tmp_path, monkeypatch, capsys):
    assert doctor.main(["--init", str(tmp_path / "home")]) == 0
    monkeypatch.setenv("nnUNet_raw", "/mine")
    registration.register()
    assert os.environ["nnUNet_raw"] == "/mine" and "nnUNet_results" not in os.environ
    assert doctor.main(["--init", str(tmp_path / "other")]) == 2
    assert "nnUNet_raw=/mine is set in your environment and comes first" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_noted_folders_that_are_not_read_are_no_circle(tmp_path, monkeypatch):
    assert doctor.main(["--init", str(tmp_path / "home")]) == 0
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    (found,) = findings("nnUNet_raw")
    assert "are not read, since nnUNet_results is set: unset that, or set nnUNet_raw=" in found.advice
    monkeypatch.setenv("nnUNet_results", "")
    monkeypatch.setenv("RETINA_REGISTER", "0")
    (found,) = findings("nnUNet_raw")
    assert "are not read, since RETINA_REGISTER is off" in found.advice
    monkeypatch.delenv("RETINA_REGISTER")
    registration.register()  # a variable that is empty is not set
    assert os.environ["nnUNet_results"] == str(tmp_path / "home" / "results")


@pytest.mark.parametrize("content", ["nnUNet_raw=/a\n", "", "\x00\xff", None])
def test_a_damaged_note_counts_as_none(content, monkeypatch):
    if content is not None:
        file = Path(registration.folders_file())
        file.parent.mkdir(parents=True)
        file.write_text(content, encoding="latin-1")
    assert registration.noted_folders() == {}
    registration.register()
    assert not any(name in os.environ for name in FOLDERS)


def test_a_name_of_weights_that_is_none_is_one_finding(monkeypatch):
    monkeypatch.setenv("RETINA_WEIGHTS", "opne")
    (finding,) = doctor._weights()
    assert finding.level == "wrong" and "Did you mean open?" in finding.text
