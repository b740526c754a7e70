"""The zoo's own test of packages, where it is installed: ``pip install ".[zoo]"``."""

import pytest
from helpers.extras import needs
from helpers.model_folders import make_model, transunet

from nnunetv2_retina.commands.share import main

needs("bioimageio.core", "bioimageio.core is not installed: pip install .[zoo]")
META = ["--licence", "CC-BY-4.0", "--author", "A. Nobody"]


@pytest.mark.filterwarnings("ignore")
def test_packages_pass_the_zoos_own_test(tmp_path, capsys):
    make_model(
        tmp_path / "retina", trainer="nnUNetTrainerTransUNet_tiny", architecture=transunet(), folds=(0, 1), patch=48,
        channels=2,
    )  # fmt: skip
    make_model(tmp_path / "unet", labels={"background": 0, "a": [1, 2], "b": [2]}, patch=32)
    for name in ("retina", "unet"):
        assert main(["zoo", str(tmp_path / f"{name}.zip"), "-m", str(tmp_path / name), *META]) == 0
        assert "bioimageio.core's test of the package passed" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_a_package_that_does_not_pass_is_not_written(tmp_path, capsys):
    make_model(tmp_path / "unet", patch=32)
    meta = ["--licence", "no-such-licence", "--author", "A"]
    assert main(["zoo", str(tmp_path / "a.zip"), "-m", str(tmp_path / "unet"), *meta]) == 2
    error = capsys.readouterr().err
    assert "bioimageio.core refuses the package" in error and "licen" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "a.zip").exists()
