"""Volumes, models and outputs that do not fit are refused in one sentence, and nothing is written."""

import json
from typing import Any

import numpy as np
import pytest
from helpers.model_folders import make_model
from helpers.ome_volumes import SMALL, cells, labels, needs_zarr, write

from nnunetv2_retina.commands import volume as command
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import parse_box
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.volumes.blocks import candidates, check_block, cut, shard_shape, size, voxels
from nnunetv2_retina.volumes.settings import VolumeSettings, parse_bytes

pytestmark = needs_zarr
TIF: dict[str, Any] = {"ending": ".tif", "reader": "Tiff3DIO"}


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "in.zarr", cells((8, 40, 40)), spacing=(4, 4, 4), levels=2)


def refused(capsys: pytest.CaptureFixture[str], source, model, output, *more) -> str:
    arguments = ["predict", str(source), str(output), "-m", str(model), *SMALL, *map(str, more)]
    assert command.main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    return shown


def test_models_that_do_not_fit(source, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    model = make_model(tmp_path / "two", channels=2, **TIF)
    assert "takes 2 channels; a volume has one" in refused(capsys, source, model, output)
    model = make_model(tmp_path / "turned", transpose=(1, 0, 2), **TIF)
    assert "axes turned (transpose_forward" in refused(capsys, source, model, output)
    model = make_model(tmp_path / "other", spacing=(5.0, 5.0), **TIF)
    shown = refused(capsys, source, model, output)
    assert "no level of" in shown and "5 x 5 (y, x); the finest is 4 x 4 x 4 (z, y, x)" in shown and "rescale" in shown
    shown = refused(capsys, source, model, output, "--level", "0", "--moments-box", "0:80,:,:")
    assert "--moments-box 0:80,:,:; expected z0:z1,y0:y1,x0:x1 inside 8 x 40 x 40 voxels" in shown
    shown = refused(capsys, source, model, output, "--moments", "training", "--moments-box", "0:4,:,:")
    assert "--moments training states mean and standard deviation, --moments-box says where to measure" in shown
    assert "has no level 7; it has 0, 1" in refused(capsys, source, model, output, "--level", "7")
    model = make_model(tmp_path / "flat", spacing=(8.0, 8.0), **TIF)
    assert "(z, y, x) are 4 x 8 x 8, 2.0 to 1" in refused(capsys, source, model, output, "--orthoplane")
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["2d"]["use_mask_for_norm"] = [True]
    (model / "plans.json").write_text(json.dumps(plans))
    assert "normalises inside the non-zero mask" in refused(capsys, source, model, output)
    assert not output.exists()


def test_the_level_at_the_models_spacing_is_taken(source, tmp_path, capsys):
    model = make_model(tmp_path / "model", spacing=(8.0, 8.0), **TIF)
    arguments = [str(source), str(tmp_path / "out.zarr"), "-m", str(model), *SMALL, "--disable_tta"]
    assert command.main(["predict", *arguments, "--dry-run"]) == 0
    assert "level 1 (at the model's spacing, 8 x 8), 4 x 8 x 8 nm" in capsys.readouterr().out
    assert command.main(["predict", *arguments, "--dry-run", "--level", "0"]) == 0
    assert "warning: the model was trained at 8 x 8 (y, x); this level" in capsys.readouterr().out


def test_outputs_that_hold_something_else(source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path / "model", spacing=(4.0, 4.0), **TIF)
    assert "lie in each other" in refused(capsys, source, model, source)
    assert "lie in each other" in refused(capsys, source, model, source / "labels")
    for remote in ("s3://bucket/out.zarr", "https://host/out.zarr"):
        shown = refused(capsys, source, model, remote)
        assert "is not a local folder; outputs are written to one" in shown
    assert command.main(["rescale", str(source), "s3://bucket/out.zarr", "--spacing", "8,8"]) == 2
    assert "is not a local folder" in capsys.readouterr().err
    assert not any(path.name.startswith(("s3", "https")) for path in tmp_path.iterdir())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    assert "was not begun by this command" in refused(capsys, source, model, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]


def test_an_array_without_metadata_at_another_spacing(tmp_path, capsys):
    import zarr

    zarr.save_array(str(tmp_path / "bare.zarr"), cells((8, 40, 40)))
    model = make_model(tmp_path / "model", spacing=(4.0, 4.0), **TIF)
    arguments = [tmp_path / "bare.zarr", model, tmp_path / "out.zarr"]
    shown = refused(capsys, *arguments, "--spacing", "4,8,8")
    assert "Write one with retina_volume rescale" in shown and "or insist with --level 0" in shown
    chosen = ["predict", *map(str, (arguments[0], arguments[2])), "-m", str(model), *SMALL, "--spacing", "4,8,8"]
    assert command.main([*chosen, "--level", "0", "--dry-run"]) == 0
    rescale = ["rescale", str(tmp_path / "bare.zarr"), str(tmp_path / "fine.zarr"), "--spacing", "4,4"]
    assert command.main(rescale) == 2
    assert "Add --from-spacing Z,Y,X in nm" in capsys.readouterr().err
    assert command.main([*rescale, "--from-spacing", "4,8"]) == 2
    assert "--from-spacing 4,8; expected three numbers above 0, Z,Y,X in nm" in capsys.readouterr().err
    assert command.main([*rescale, "--from-spacing", "4,8,8"]) == 0
    (level,) = open_volume(tmp_path / "fine.zarr").levels
    assert tuple(level.spacing) == (4, 4, 4) and level.origin == (0.0, -2.0, -2.0)


def test_moments_of_a_file_for_a_model_that_needs_the_extremes(tmp_path, capsys):
    model = make_model(tmp_path / "model", **TIF)
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["2d"]["normalization_schemes"] = ["RescaleTo01Normalization"]
    (model / "plans.json").write_text(json.dumps(plans))
    source, file = write(tmp_path / "in.zarr", cells((8, 40, 40))), tmp_path / "moments.json"
    for contents, message in (
        ({"mean": 3, "sd": 2}, 'states no mean, sd, least, most. Give a file {"mean": ..., "sd": ..., "least": ...'),
        (
            {"mean": 3, "sd": 2, "least": 3, "most": 3},
            "states least 3.0 and most 3.0; expected the second to be larger",
        ),
    ):
        file.write_text(json.dumps(contents))
        assert message in refused(capsys, source, model, tmp_path / "no.zarr", "--moments", file)
    outputs = [tmp_path / "exact.zarr", tmp_path / "file.zarr"]
    arguments = ["-m", str(model), *SMALL, "--disable_tta", "--moments"]
    assert command.main(["predict", str(source), str(outputs[0]), *arguments, "exact"]) == 0
    stored = outputs[0] / ".retina/moments.json"
    assert command.main(["predict", str(source), str(outputs[1]), *arguments, str(stored)]) == 0
    np.testing.assert_array_equal(labels(outputs[1]), labels(outputs[0]))
    assert len(np.unique(labels(outputs[0]))) > 1


def test_volumes_of_nothing_and_of_no_numbers(tmp_path, capsys):
    model = make_model(tmp_path / "model", **TIF)
    empty = write(tmp_path / "empty.zarr", np.zeros((8, 40, 40), np.uint8))
    assert "the volume is 0 everywhere" in refused(capsys, empty, model, tmp_path / "out.zarr")
    values = np.full((8, 40, 40), 5, np.float32)
    values[3, 4, 5] = np.nan
    nan = write(tmp_path / "nan.zarr", values)
    assert "NaN or infinite values in the block at 0 x 0 x 0" in refused(capsys, nan, model, tmp_path / "nan_out.zarr")


def test_a_scheduler_that_does_not_answer(source, tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed")
    from nnunetv2_retina.console import engines

    monkeypatch.setattr(engines, "PATIENCE", 0.3)
    with (
        pytest.raises(RetinaError, match=r"no dask scheduler answers at tcp://127.0.0.1:9"),
        engines.connected("tcp://127.0.0.1:9", print),
    ):
        pass
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(RetinaError, match=r'need dask.*pip install "nnunetv2-retina\[volumes\]"'):
        engines.import_distributed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers 0; expected at least 1"),
        ({"workers": 2, "part": "1/2"}, "--workers and --part were given; expected one way"),
        ({"memory": "much"}, "--memory much; expected a number of bytes such as 8GiB"),
        ({"memory": "1e999"}, "--memory 1e999; expected a number of bytes such as 8GiB"),
        ({"spacing": "4,nan,4"}, "--spacing 4,nan,4; expected three numbers above 0"),
        ({"block": "8,x,8"}, "--block 8,x,8; expected three whole numbers"),
        ({"shard": "10,64,64"}, "--shard 10,64,64; expected multiples of the chunk, 64"),
        ({"spacing": "1,2"}, "--spacing 1,2; expected three numbers above 0"),
        ({"moments": "nowhere.json"}, "nowhere.json: no such file"),
    ],
)
def test_settings(options, message):
    with pytest.raises(RetinaError, match=message):
        VolumeSettings(**options)


def test_bytes_boxes_and_blocks():
    assert [parse_bytes(text) for text in ("8GiB", "500 MB", "1e3", "2k")] == [2**33, 500 * 10**6, 1000, 2000]
    assert parse_box(" 1: 3, : ,5: ", (4, 5, 6)) == parse_box("1:3,:,5:", (4, 5, 6))
    assert parse_box("1:3,:,5:", (4, 5, 6)) == (slice(1, 3), slice(0, 5), slice(5, 6))
    for wrong in ("1:3,:", "3:3,:,:", "0:5,:,:", "a:3,:,:", "1-3,:,:"):
        with pytest.raises(RetinaError, match=r"expected z0:z1,y0:y1,x0:x1 inside 4 x 5 x 6"):
            parse_box(wrong, (4, 5, 6))
    with pytest.raises(RetinaError, match=r"^--moments-box 0:80,:,:; expected"):
        parse_box("0:80,:,:", (4, 5, 6), "--moments-box")
    assert shard_shape((10, 3000, 70), (64, 1024, 1024), 64) == (64, 1024, 128)
    assert voxels(cut((10, 30, 70), (4, 16, 64))) == 10 * 30 * 70
    assert {size(block.box) for block in cut((4, 30, 64), (4, 16, 64))} == {(4, 16, 64), (4, 14, 64)}
    with pytest.raises(RetinaError, match="expected three multiples of the output's shards, 4,16,64"):
        check_block((4, 8, 64), (4, 16, 64))
    for orthoplane in (False, True):
        for block in candidates((300, 5000, 5000), (64, 1024, 1024), orthoplane):
            assert check_block(block, (64, 1024, 1024)) == block
