"""What weights make of images: reconstructions where the decoder was trained, tokens in colours elsewhere."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.untrusted import Marker, checkpoint_with
from PIL import Image

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint
from nnunetv2_retina.weights.importing import read_weights
from pretraining.augmentation.draws import AugmentationSettings
from pretraining.cli import main
from pretraining.look import COLOURED, RESTORED, principal_colours, reconstructions, restores, some_tiles
from pretraining.store.packing import pack

CONFIG = NetworkConfig.named("tiny")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(4):
        grey = np.random.default_rng(number).integers(0, 255, (224, 224 + 224 * number), np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def weights(folder: Path, outputs: int = 1, **about: Any) -> Path:
    torch.manual_seed(0)
    checkpoint.save(folder / "weights.pth", TransUNet(1, outputs, CONFIG).state_dict(), CONFIG, **about)
    return folder / "weights.pth"


@pytest.mark.parametrize(
    ("outputs", "about", "expected"),
    [
        (1, {}, True),
        (1, {"trained": [""], "recipe": {"arm": "reconstruction"}}, True),
        (1, {"trained": ["cnn.", "transformer."]}, False),
        (1, {"recipe": {"arm": "simmim"}}, False),
        (3, {}, False),
    ],
)
def test_what_restores(tmp_path: Path, outputs: int, about: dict[str, Any], expected: bool) -> None:
    assert restores(read_weights(weights(tmp_path, outputs, **about))) is expected


def test_a_trained_decoder_restores_degraded_images(tmp_path: Path, images: Path, capsys) -> None:
    path = weights(tmp_path)
    assert main(["look", str(path), str(images), str(tmp_path / "new" / "look.png")]) == 0
    assert capsys.readouterr().out.splitlines() == [RESTORED, str(tmp_path / "new" / "look.png")]
    names, tiles = some_tiles(images)
    assert names == ["0.png", "2.png", "3.png"] and tiles.shape == (3, 224, 224)
    drawn = reconstructions(read_weights(path), tiles, AugmentationSettings())
    network = TransUNet(1, 1, CONFIG).eval()
    network.load_state_dict(checkpoint.load(path).weights)
    with torch.no_grad():
        expected = network(torch.from_numpy(drawn["degraded"])[:, None])[:, 0]
    np.testing.assert_allclose(drawn["restored"], expected.numpy(), atol=1e-5)
    changed = drawn["degraded"] != drawn["image"]
    assert changed.mean(axis=(1, 2)).min() > 0.1, "every image is degraded"


def test_distilled_weights_show_their_tokens(tmp_path: Path, images: Path, capsys) -> None:
    assert main(["look", "open", str(images), str(tmp_path / "look.png")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == COLOURED
    picture = np.asarray(Image.open(tmp_path / "look.png").convert("RGB")).astype(int)
    assert np.ptp(picture, axis=2).max() > 100, "in colours"


def test_tokens_that_are_alike_have_one_colour() -> None:
    tokens = np.zeros((2, 4, 8))
    tokens[0, 1] = tokens[1, 2] = np.arange(8)
    colours = principal_colours(tokens, side=2)
    assert colours.shape == (2, 32, 32, 3) and (colours.min(), colours.max()) == (0, 1)
    odd = colours[0, 0, 16]
    np.testing.assert_allclose(colours[0, :16, 16:], np.broadcast_to(odd, (16, 16, 3)), atol=1e-9)
    np.testing.assert_allclose(colours[1, 16:, :16], np.broadcast_to(odd, (16, 16, 3)), atol=1e-9)
    assert np.abs(colours[0, 0, 0] - odd).max() == pytest.approx(1)


def test_what_cannot_be_drawn_is_said(tmp_path: Path, images: Path, capsys) -> None:
    assert main(["look", "opne", str(images), str(tmp_path / "a.png")]) == 2
    assert "Did you mean open?" in capsys.readouterr().err
    assert main(["look", "open", str(tmp_path / "none"), str(tmp_path / "a.png")]) == 2
    Image.new("L", (50, 50)).save(tmp_path / "small.png")
    (tmp_path / "small").mkdir()
    (tmp_path / "small.png").rename(tmp_path / "small" / "small.png")
    assert main(["look", "open", str(tmp_path / "small"), str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert "can be drawn: small.png is too small: 50 x 50 pixels" in error and len(error.splitlines()) == 2
    assert not (tmp_path / "a.png").exists()


def drawn(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(weights(tmp_path)), str(source), str(tmp_path / "look.png")]) == 0, capsys.readouterr().err
    assert (tmp_path / "look.png").is_file()


def test_files_that_cannot_be_read_are_passed_over_as_in_packing(tmp_path: Path, images: Path, capsys) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(images.iterdir()):
            archive.write(path, path.name)
        place = archive.getinfo("1.png").header_offset + 200
    content = bytearray((tmp_path / "bad.zip").read_bytes())
    content[place : place + 50] = bytes(50)
    (tmp_path / "bad.zip").write_bytes(content)
    assert some_tiles(tmp_path / "bad.zip")[0] == ["0.png", "2.png", "3.png"]
    drawn(tmp_path / "bad.zip", tmp_path, capsys)
    (images / "00.png").symlink_to(tmp_path / "nowhere.png")
    drawn(images, tmp_path, capsys)


def test_a_store_and_a_volume_with_empty_parts_are_drawn(tmp_path: Path, images: Path, capsys) -> None:
    store = pack(images, tmp_path / "store")
    names, tiles = some_tiles(store.path)
    assert names == [store.name(number) for number in (0, (len(store) - 1) // 2, len(store) - 1)]
    assert torch.equal(tiles[0], torch.from_numpy(store.read(np.array([0])))[0])
    drawn(store.path, tmp_path, capsys)
    zarr = pytest.importorskip("zarr")
    grey = np.zeros((4, 600, 600), np.uint8)
    grey[:, :300, :300] = np.random.default_rng(0).integers(0, 256, (4, 300, 300))
    volume = zarr.create_array(tmp_path / "grey.zarr", shape=grey.shape, chunks=(1, 256, 256), dtype=grey.dtype)
    volume[:] = grey
    drawn(tmp_path / "grey.zarr", tmp_path, capsys)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("x", "weights.pth is damaged: its entry recipe is a str; expected a dictionary"),
        ({"augmentation": [1]}, "weights.pth is damaged: its entry augmentation is a list"),
        ({"augmentation": {"mean": "x"}}, "weights.pth is damaged: its images were normalised with {'mean': 'x'}"),
        ({"augmentation": {"std": 0.0}}, "weights.pth is damaged: its images were normalised with {'std': 0.0}"),
    ],
)
def test_a_description_that_is_none_is_said(tmp_path: Path, images: Path, recipe: object, message: str, capsys) -> None:
    assert main(["look", str(weights(tmp_path, recipe=recipe)), str(images), str(tmp_path / "a.png")]) == 2
    assert message in capsys.readouterr().err


def test_no_description_is_none_and_skips_that_were_never_trained_are_left_out(tmp_path: Path, images: Path) -> None:
    _, tiles = some_tiles(images)
    given, restored = {}, {}
    for recipe in (None, {"skip_drop": 0.5}, {"skip_drop": 1.0}):
        path = weights(tmp_path, recipe=recipe)
        pictures = reconstructions(read_weights(path), tiles, AugmentationSettings())
        key = str(recipe)
        given[key], restored[key] = torch.from_numpy(pictures["degraded"])[:, None], pictures["restored"]
    network = TransUNet(1, 1, CONFIG).eval()
    network.load_state_dict(checkpoint.load(path).weights)
    with torch.no_grad():
        alone = network(given["None"], torch.zeros(3, 3))[:, 0].numpy()
    np.testing.assert_array_equal(restored["None"], restored["{'skip_drop': 0.5}"])
    np.testing.assert_allclose(restored["{'skip_drop': 1.0}"], alone, atol=1e-5)
    assert np.abs(alone - restored["None"]).max() > 1e-3


def test_weights_that_run_code_are_not_opened(tmp_path: Path, images: Path, capsys) -> None:
    marker = Marker(tmp_path / "marker")
    torch.save(checkpoint_with(marker), tmp_path / "evil.pth")
    assert main(["look", str(tmp_path / "evil.pth"), str(images), str(tmp_path / "a.png")]) == 2
    assert ".pth is not opened: it asks for" in capsys.readouterr().err and not marker.path.exists()
