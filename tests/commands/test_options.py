"""Spellings of options, and the settings that they give."""

from pathlib import Path

import pytest

from nnunetv2_retina.commands import benchmark, evaluate, import_weights, predict, quickstart, report
from nnunetv2_retina.console import read_settings
from nnunetv2_retina.prediction.settings import InstanceSettings, PredictionSettings, RunSettings
from nnunetv2_retina.quickstart.settings import QuickstartSettings

TYPED_BEFORE = {
    quickstart: "-o out --data d --iterations 3 --batch-size 2 --trainer nnUNetTrainerRETINA --device cpu --seed 1 "
    "--overwrite",
    import_weights: "in.npz out.pth --overwrite",
    evaluate: "-p a -g b -d 801 -o out --tolerance 200 --no-distances -np 2",
    predict: "-i in -o out -d 801 -tr T -p P -c 2d -f 0 all -chk best.pth -device mps -step_size 0.25 --disable_tta "
    "--save_probabilities --continue_prediction -npp 0 -nps 2 --batch-size 3 --orthoplane --force --instances "
    "--instance-distance 6 --instance-size 4 --instance-units physical",
    report: "-m model -f 0 1 --predictions a --labels b --images c --no-distances -o page.html",
    benchmark: "study.yaml -o out -device cpu --part 1/4 --merge a b --no-rehearsal --estimate",
}
NEW_SINCE = {
    quickstart: {"labels", "ignore", "spacing", "like", "hdf5", "hdf5_mask"},
    predict: {"m", "precision", "config", "output_format", "spacing", "hdf5", "gpus", "scheduler"},
    report: {"d", "watch"},
    benchmark: {"gpus", "scheduler"},
}
"""Options that are not among those above, and have no default."""


@pytest.mark.parametrize("command", TYPED_BEFORE, ids=lambda command: command.__name__.rpartition(".")[2])
def test_what_users_have_typed_stays_valid(command):
    parsed = vars(command.parser().parse_args(TYPED_BEFORE[command].split()))
    unset = {name for name, value in parsed.items() if value is None}
    assert unset == NEW_SINCE.get(command, set())


def test_options_of_predict_become_settings():
    arguments = predict.parser().parse_args(TYPED_BEFORE[predict].split())
    assert read_settings(PredictionSettings, arguments, mode=arguments.mode) == PredictionSettings(
        mode="orthoplane", mirroring=False, batch_size=3, step_size=0.25, force=True
    )
    assert read_settings(InstanceSettings, arguments) == InstanceSettings(min_distance=6, min_size=4, units="physical")
    assert read_settings(RunSettings, arguments) == RunSettings(
        probabilities=True, continued=True, preparing=0, writing=2
    )


def test_defaults_of_options_are_those_of_settings(monkeypatch):
    for variable in ("nnUNet_npp", "nnUNet_nps"):
        monkeypatch.delenv(variable, raising=False)
    arguments = predict.parser().parse_args(["-i", "a", "-o", "b"])
    assert read_settings(PredictionSettings, arguments) == PredictionSettings()
    assert read_settings(InstanceSettings, arguments) == InstanceSettings()
    assert read_settings(RunSettings, arguments) == RunSettings()
    assert read_settings(QuickstartSettings, quickstart.parser().parse_args([])) == QuickstartSettings()


def test_workers_of_nnunets_variables(monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_npp", "5")
    arguments = predict.parser().parse_args(["-i", "a", "-o", "b"])
    assert read_settings(RunSettings, arguments) == RunSettings(preparing=5)
    monkeypatch.setenv("nnUNet_nps", "many")
    with pytest.raises(SystemExit):
        predict.parser().parse_args(["-i", "a", "-o", "b"])
    assert "argument -nps: invalid int value: 'many (of $nnUNet_nps)'" in capsys.readouterr().err


def test_nnunets_spellings_of_the_quickstart():
    arguments = quickstart.parser().parse_args(["-device", "cuda", "-tr", "nnUNetTrainer", "--output", "there"])
    settings = read_settings(QuickstartSettings, arguments)
    assert (settings.device, settings.trainer, arguments.output) == ("cuda", "nnUNetTrainer", Path("there"))
