"""Batched prediction against nnU-Net's own predictor: the same logits, labels and probabilities, slab by slab."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import known
from helpers.model_folders import LABELS, PATCH, REGIONS, make_model, transunet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.resnet_v2 import StdConv2d
from nnunetv2_retina.prediction.optimised import optimised
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings
from nnunetv2_retina.prediction.sliding_window import SlidingWindow

CPU = torch.device("cpu")
TIF: dict[str, Any] = {"ending": ".tif", "reader": "Tiff3DIO"}


pytestmark = pytest.mark.usefixtures("one_thread")


def nnunet(folder, folds=(0,), mirroring=True) -> nnUNetPredictor:
    predictor = nnUNetPredictor(use_mirroring=mirroring, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    return predictor


def ours(folder, folds=(0,), **settings) -> Predictor:
    return Predictor.from_model_folder(folder, folds, device="cpu", settings=PredictionSettings(**settings))


def volume(shape=(1, 5, 45, 70), seed=0) -> np.ndarray:
    """(channels, z, y, x) float32: smooth structures and noise, never 0."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(0, 3 * n, n) for n in shape[1:]), indexing="ij")
    waves = sum(np.sin(axis / (3 + 2 * i)) for i, axis in enumerate(axes))
    return np.asarray((100 + 20 * waves + rng.normal(0, 10, shape)).clip(1), np.float32)


def close(logits, expected) -> None:
    """Within 1e-3, or where nnU-Net's float16 has larger steps (from 1 on), within one of those."""
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


def compare(folder, image, spacing, folds=(0,), mirroring=True, **settings) -> None:
    """Logits, labels and probabilities of both predictors for one image."""
    theirs, mine = nnunet(folder, folds, mirroring), ours(folder, folds, mirroring=mirroring, **settings)
    labels, probabilities = theirs.predict_single_npy_array(image, {"spacing": spacing}, None, None, True)
    only_labels = theirs.predict_single_npy_array(image, {"spacing": spacing})
    data, _ = mine.preprocess_array(image, {"spacing": spacing})
    expected = theirs.predict_logits_from_preprocessed_data(data)
    logits = mine.predict_logits(data)
    close(logits, expected)
    my_labels = mine.predict(image, spacing)
    assert my_labels.dtype == only_labels.dtype and my_labels.shape == only_labels.shape
    assert (my_labels == only_labels).mean() >= 0.9999
    assert len(np.unique(my_labels)) > 1, "a map of one class would prove little"
    my_labels, mine_probable = mine.predict(image, spacing, probabilities=True)
    assert (my_labels == labels).mean() >= 0.9999
    np.testing.assert_allclose(mine_probable, probabilities, atol=1e-3)


@pytest.mark.parametrize("mirroring", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_volume(tmp_path, mirroring, batch_size):
    folder = make_model(tmp_path / "model", **TIF)
    compare(folder, volume(), (1, 1, 1), mirroring=mirroring, batch_size=batch_size)


@pytest.mark.parametrize("shape", [(1, 1, 45, 70), (1, 1, 20, 50), (1, 1, 32, 32), (1, 3, 30, 20)])
def test_images_larger_and_smaller_than_a_tile(tmp_path, shape):
    compare(make_model(tmp_path / "model"), volume(shape), (999, 1, 1))


def test_several_folds(tmp_path):
    folder = make_model(tmp_path / "model", folds=(0, 1, 3), **TIF)
    compare(folder, volume(), (1, 1, 1), folds=(0, 1, 3))
    assert len(ours(folder, None).window.models) == 3


def test_regions_and_ignore_label(tmp_path):
    compare(make_model(tmp_path / "model", labels=REGIONS, **TIF), volume(), (1, 1, 1))


def test_several_channels(tmp_path):
    compare(make_model(tmp_path / "model", channels=2), volume((2, 1, 40, 50)), (999, 1, 1))


def test_transunet(tmp_path):
    """Its kernels are standardised once for each fold."""
    folder = make_model(
        tmp_path / "model", trainer="nnUNetTrainerRETINA_tiny", architecture=transunet(), patch=64, folds=(0, 1), **TIF
    )
    compare(folder, volume((1, 2, 70, 64)), (1, 1, 1), (0, 1), mirroring=False, batch_size=3)


def test_an_optimised_network_computes_the_same():
    network = TransUNet(1, 2, NetworkConfig.named("tiny"))
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        known(norm.running_mean).normal_()
        known(norm.running_var).uniform_(0.3, 3)
        norm.weight.data.uniform_(-2, 2)
    tiles = torch.randn(2, 1, 64, 80)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    ready = optimised(network, torch.device("cpu"))
    with torch.no_grad():
        expected = network.eval()(tiles)
        assert (ready(tiles) - expected).abs().max() < 1e-4 * expected.std()
    assert norms and not any(isinstance(m, (torch.nn.BatchNorm2d, StdConv2d)) for m in ready.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_bf16_is_near_and_a_wrong_precision_is_refused(tmp_path):
    folder = make_model(
        tmp_path / "model", trainer="nnUNetTrainerRETINA_tiny", architecture=transunet(), patch=64, **TIF
    )
    data = torch.randn(1, 1, 64, 64)
    exact, near = (ours(folder, mirroring=False, precision=p).predict_logits(data) for p in ("fp32", "bf16"))
    assert 0 < (exact - near).float().std() < 0.05 * exact.float().std()
    with pytest.raises(RetinaError, match="precision is 'int8'; expected one of fp32, bf16"):
        PredictionSettings(precision="int8")


@pytest.mark.parametrize("spacing", [(4, 1.3, 1.3), (1, 0.7, 1.2), (1.0, 1.0, 2.5)])
@pytest.mark.parametrize("slab_bytes", [1, 2**28])
def test_resampled_volume(tmp_path, spacing, slab_bytes):
    folder = make_model(tmp_path / "model", **TIF)
    compare(folder, volume((1, 4, 50, 40)), spacing, mirroring=False, slab_bytes=slab_bytes)


def test_cropped_and_turned_volume(tmp_path):
    image = np.zeros((1, 40, 6, 60), np.float32)
    image[:, 3:37, 1:5, 10:] = volume((1, 34, 4, 50))
    folder = make_model(tmp_path / "model", transpose=(1, 0, 2), **TIF)
    compare(folder, image, (1.2, 3, 1), mirroring=False)


@pytest.mark.parametrize("slab_bytes", [1, 100_000, 300_000])
def test_slabs_and_bands_change_nothing(tmp_path, slab_bytes):
    folder = make_model(tmp_path / "model", folds=(0, 1), **TIF)
    image = volume((1, 4, 150, 40))
    whole = ours(folder, (0, 1), mirroring=False)
    sliced = ours(folder, (0, 1), mirroring=False, slab_bytes=slab_bytes)
    data, _ = whole.preprocess_array(image, {"spacing": (1, 1, 1)})
    parts = [(part.slices, part.rows) for part in sliced.window.parts(data)]
    assert len(parts) > 1
    if slab_bytes == 1:
        assert len(parts) == 4 * len({(rows.start, rows.stop) for _, rows in parts})
        assert len({rows.start for _, rows in parts}) > 4, "slices come in bands"
    close(sliced.predict_logits(data), whole.predict_logits(data))
    assert (whole.predict(image, (1, 1, 1)) == sliced.predict(image, (1, 1, 1))).mean() >= 0.9999


def window(model, batch_size=8, heads=2) -> SlidingWindow:
    return SlidingWindow([model], heads, (PATCH, PATCH), 0.5, CPU, batch_size)


def test_tiles_of_several_slices_share_batches():
    sizes = []

    def model(tiles):
        sizes.append(len(tiles))
        return torch.zeros(len(tiles), 2, PATCH, PATCH)

    list(window(model).parts(torch.zeros(1, 10, PATCH, PATCH)))
    assert sizes == [5, 5], "batches of nearly equal size, not 8 and 2"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_batch_is_halved_until_it_fits(error):
    sizes = []

    def model(tiles):
        sizes.append(len(tiles))
        if len(tiles) > 3:
            raise error("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return tiles.expand(-1, 2, -1, -1).clone()

    small = window(model, batch_size=16)
    data = torch.arange(20.0)[None, :, None, None].expand(1, 20, PATCH, PATCH)
    logits = torch.cat([part.logits for part in small.parts(data)], 1)
    torch.testing.assert_close(logits.float(), data.expand(2, -1, -1, -1), atol=0, rtol=1e-3)
    assert sizes[:3] == [10, 5, 2] and max(sizes[3:]) <= 3
    assert small.batch_size == 2


def test_no_room_for_one_tile():
    def model(tiles):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RetinaError, match=r"not enough memory on cpu for one tile of 32 x 32.*-device cpu"):
        list(window(model).parts(torch.zeros(1, 1, PATCH, PATCH)))


def test_other_errors_of_a_network_are_its_own():
    def model(tiles):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(window(model).parts(torch.zeros(1, 1, PATCH, PATCH)))


def test_diverged_network():
    with pytest.raises(RetinaError, match="training has diverged"):
        list(window(lambda tiles: torch.full((1, 2, PATCH, PATCH), 1e6)).parts(torch.zeros(1, 1, PATCH, PATCH)))


def test_2d_array_is_the_volume_of_one_slice(tmp_path):
    predictor = ours(make_model(tmp_path / "model"), mirroring=False)
    image = volume((1, 1, 40, 50))
    flat = predictor.predict(image[:, 0], (1, 1))
    assert flat.shape == (40, 50) and flat.dtype == np.uint8
    np.testing.assert_array_equal(flat, predictor.predict(image, (999, 1, 1))[0])
    labels, probabilities = predictor.predict(image[:, 0], (1, 1), probabilities=True)
    assert probabilities.shape == (4, 40, 50) and probabilities.dtype == np.float32
    np.testing.assert_array_equal(labels, flat)


def test_the_predictor_holds_no_state_between_images(tmp_path):
    predictor = ours(make_model(tmp_path / "model", folds=(0, 1)), (0, 1))
    first = predictor.predict(volume((1, 1, 40, 50)), (999, 1, 1))
    predictor.predict(volume((1, 1, 50, 40), seed=2), (999, 1, 1))
    np.testing.assert_array_equal(predictor.predict(volume((1, 1, 40, 50)), (999, 1, 1)), first)


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((40, 50), (1, 1), r"shape \(40, 50\).*expected \(channels, z, y, x\) or \(channels, y, x\)"),
        ((1, 40, 50), (1, 1, 1), "a number for each axis"),
        ((1, 40, 50), (1, 0), "expected numbers above 0"),
        ((2, 40, 50), (1, 1), "has 2 channels; the model takes 1"),
    ],
)
def test_wrong_arrays(tmp_path, shape, spacing, message):
    with pytest.raises(RetinaError, match=message):
        ours(make_model(tmp_path / "model")).predict(np.ones(shape, np.float32), spacing)


def test_wrong_settings(tmp_path):
    folder = make_model(tmp_path / "model")
    with pytest.raises(RetinaError, match="inference mode is 'slices'; expected one of stack, orthoplane"):
        ours(folder, mode="slices")
    with pytest.raises(RetinaError, match=r"batch size is 0; expected at least 1"):
        ours(folder, batch_size=0)
    with pytest.raises(RetinaError, match=r"step size is 1.5; expected a share"):
        ours(folder, step_size=1.5)


def test_3d_model(tmp_path):
    folder = make_model(tmp_path / "model", configuration="3d_fullres", patch=16)
    with pytest.raises(RetinaError, match=r"3d_fullres.*3D tiles.*Use nnUNetv2_predict"):
        ours(folder)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_model_folder_without(tmp_path, name):
    folder = make_model(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(RetinaError, match=f"has no {name}, so it is not a model folder"):
        ours(folder)


def test_no_model_folder(tmp_path):
    with pytest.raises(RetinaError, match="no model folder"):
        ours(tmp_path / "nowhere")


def test_model_folder_without_checkpoint(tmp_path):
    folder = make_model(tmp_path / "model")
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint.rename(folder / "fold_0" / "checkpoint_best.pth")
    with pytest.raises(RetinaError, match=r"no checkpoint_final.pth in any fold. There are checkpoint_best.pth.*-chk"):
        ours(folder)
    assert Predictor.from_model_folder(folder, None, "checkpoint_best.pth", "cpu")
    (folder / "fold_0" / "checkpoint_best.pth").unlink()
    with pytest.raises(RetinaError, match="Finish its training first"):
        ours(folder)


def test_unknown_fold(tmp_path):
    folder = make_model(tmp_path / "model", folds=(0, 2))
    with pytest.raises(RetinaError, match=r"-f 4: .* has folds 0, 2"):
        ours(folder, ("4",))


def test_fold_all_if_there_is_no_other(tmp_path):
    assert len(ours(make_model(tmp_path / "model", folds=("all",)), None).window.models) == 1


def test_damaged_checkpoint(tmp_path):
    folder = make_model(tmp_path / "model")
    path = folder / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RetinaError, match="cannot be read as a PyTorch checkpoint"):
        ours(folder)
    torch.save({"network_weights": {}}, path)
    with pytest.raises(RetinaError, match="does not name its trainer"):
        ours(folder)


def test_unknown_trainer_and_other_weights(tmp_path):
    folder = make_model(tmp_path / "model")
    path = folder / "fold_0" / "checkpoint_final.pth"
    stored = torch.load(path, weights_only=False)
    torch.save(stored | {"trainer_name": "nnUNetTrainerElsewhere"}, path)
    with pytest.raises(RetinaError, match=r"trained with nnUNetTrainerElsewhere, cannot be loaded.*retina_doctor"):
        ours(folder)
    torch.save(stored, path)
    about = json.loads((folder / "dataset.json").read_text())
    about["labels"] = {key: value for key, value in LABELS.items() if key != "three"}
    (folder / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(RetinaError, match=r"(?s)cannot be loaded: .*size mismatch"):
        ours(folder)


def test_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RetinaError, match=r"no CUDA GPU is usable here.*-device cpu"):
        Predictor.from_model_folder(make_model(tmp_path / "model"), device="cuda")
