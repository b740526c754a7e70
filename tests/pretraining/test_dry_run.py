"""What is found out before hours of packing, and what ``--dry-run`` says without writing anything."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.unet_resnet50 import UNetConfig, UNetResNet50
from nnunetv2_retina.weights import checkpoint
from pretraining import job
from pretraining.cli import main
from pretraining.loop.engine import Engine
from pretraining.recipe import Execution, Recipe

SETTINGS = ["--size", "tiny", "--batch-size", "4", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(6):
        grey = np.random.default_rng(number).integers(0, 255, (224, 224), np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def no_teacher() -> None:
    raise RetinaError("the teacher is not installed")


def of_another_size(folder: Path) -> str:
    config = NetworkConfig.named("retina")
    checkpoint.save(folder / "other.pth", TransUNet(1, 1, config).state_dict(), config)
    return str(folder / "other.pth")


def of_another_network(folder: Path) -> str:
    checkpoint.save(folder / "unet.pth", UNetResNet50(3, 1).state_dict(), UNetConfig())
    return str(folder / "unet.pth")


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_mistakes_are_found_before_the_images_are_packed(source, tmp_path, monkeypatch, capsys, more):
    monkeypatch.setattr(job, "efficientnet_lite0", no_teacher)
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    arguments = [str(source), "-o", str(tmp_path / "run"), *SETTINGS, *more]
    assert "no weights file at none.pth" in refused([*arguments, "--init", "none.pth"], capsys)
    text = refused([*arguments, "--init", of_another_size(tmp_path)], capsys)
    assert "other.pth is of another size: retina (" in text and "--size is tiny. Give --size retina" in text
    assert "rainer" not in text
    text = refused([*arguments, "--init", of_another_network(tmp_path)], capsys)
    assert "unet.pth holds a UNet-ResNet50; --init expects a TransUNet" in text
    assert "the teacher is not installed" in refused([*arguments, "--arm", "distil"], capsys)
    assert "--tensorboard needs the package" in refused([*arguments, "--tensorboard"], capsys)
    assert "--micro-batch 2 would part the 4" in refused([*arguments, "--micro-batch", "2"], capsys)
    assert "which 3 processes cannot share" in refused([*arguments, "--num-gpus", "3"], capsys)
    assert "--num-gpus is 0" in refused([*arguments, "--num-gpus", "0"], capsys)
    assert not list(tmp_path.glob("*.retina_store"))


def test_a_dry_run_checks_what_lies_there(source, tmp_path, capsys):
    arguments = [str(source), *SETTINGS, "--iterations", "1"]
    out, elsewhere = ["-o", str(tmp_path / "run")], ["-o", str(tmp_path / "other"), "--dry-run"]
    assert "deduplicate is 99" in refused([*arguments, *elsewhere, "--deduplicate", "99"], capsys)
    assert main([*arguments, *out, "--precision", "fp32"]) == 0
    capsys.readouterr()
    (tmp_path / "exclude.txt").write_text("cremi*\n")
    text = refused([*arguments, *elsewhere, "--exclude", str(tmp_path / "exclude.txt")], capsys)
    assert "exclude: cremi* fits no image of" in text
    assert "seed 0 there, 1 now" in refused([*arguments, *out, "--dry-run", "--seed", "1"], capsys)
    (tmp_path / "exclude.txt").write_text("0.png\n")
    other = [*arguments, *out, "--exclude", str(tmp_path / "exclude.txt")]
    assert "exclude [] there, ['0.png'] now" in refused([*other, "--dry-run"], capsys)
    assert main([*arguments, *out, "--dry-run"]) == 0
    assert "5 to train on, 1 held out" in capsys.readouterr().err
    (tmp_path / "run" / "checkpoint_latest.pth").unlink()
    assert "nothing to continue from" in refused([*arguments, *out, "--dry-run"], capsys)
    Image.fromarray(np.eye(224, dtype=np.uint8)).save(source / "new.png")
    assert "is not what" in refused([*arguments, *elsewhere], capsys)
    assert not (tmp_path / "other").exists()


def test_of_several_processes_the_share_of_one_is_timed(source, tmp_path, monkeypatch, capsys):
    step, sizes = Engine.step, []

    def noted(engine, images, *more):
        sizes.append(len(images))
        return step(engine, images, *more)

    monkeypatch.setattr(Engine, "step", noted)
    arguments = [str(source), "-o", str(tmp_path / "run"), *SETTINGS, "--norm-batch", "2", "--iterations", "1"]
    assert main([*arguments, "--num-gpus", "2", "--dry-run"]) == 0
    assert set(sizes) == {2} and "of 4 images, 2 in each of 2 processes" in capsys.readouterr().err
    sizes.clear()
    simclr = [str(source), "-o", str(tmp_path / "run"), *SETTINGS, "--arm", "simclr", "--iterations", "1"]
    assert main([*simclr, "--num-gpus", "4", "--dry-run"]) == 0 and set(sizes) == {2}


def test_what_does_not_go_with_a_store(source, tmp_path, capsys):
    assert main(["pack", str(source), str(tmp_path / "store"), "--deduplicate", "3"]) == 0
    for more in ([], ["--dry-run"]):
        arguments = [str(tmp_path / "store"), "-o", str(tmp_path / "run"), *SETTINGS, *more]
        text = refused([*arguments, "--store", str(tmp_path / "elsewhere")], capsys)
        assert "is a store, and --store" in text and "Leave one out" in text
        text = refused([*arguments, "--deduplicate", "12"], capsys)
        assert "was packed with --deduplicate 3, not with --deduplicate 12" in text
    assert main([*arguments, "--deduplicate", "3", "--iterations", "1"]) == 0


def test_a_class_without_a_probe_is_refused():
    with pytest.raises(RetinaError, match="probe_label is 2 without probe"):
        Execution(probe_label=2)


def test_a_single_held_out_image_has_no_contrast(source, tmp_path, capsys):
    arguments = [str(source), "-o", str(tmp_path / "run"), *SETTINGS, "--arm", "simclr", "--iterations", "1"]
    assert main(arguments) == 0
    text = capsys.readouterr().err
    assert "nothing to be told apart from: there is no held-out loss" in text and ", no held-out loss, " in text
    assert '"held_out_loss": null' in (tmp_path / "run" / "log.jsonl").read_text()
    assert Recipe(arm="simclr").seen_together == 256
