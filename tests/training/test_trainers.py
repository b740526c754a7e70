"""The trainers through nnU-Net's own ``run_training``: what is transferred, frozen, trained, resumed and refused."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import known, noting
from helpers.environment import PROTOCOL
from helpers.trainings import CPU, KilledError, fold_folder, log_of, results, set_protocol, train, write_weights
from nnunetv2.run import run_training as nnunet_run
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig
from nnunetv2_retina.protocol import FEW_LABELS, Protocol, iteration_checkpoint
from nnunetv2_retina.training import trainers
from nnunetv2_retina.weights import checkpoint, shipped, transfer
from nnunetv2_retina.weights.adaptation import resample_positions, stem_kernel
from nnunetv2_retina.weights.importing import import_weights

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def seen(monkeypatch):
    """The trainers that nnU-Net makes, in order; each with its network's state before the first iteration."""
    made = []
    get, start = nnunet_run.get_trainer_from_args, nnUNetTrainer.on_train_start

    def remember(*args, **kwargs):
        made.append(get(*args, **kwargs))
        return made[-1]

    def snapshot(self):
        state = {key: value.clone() for key, value in self._plain_network().state_dict().items()}
        start(self)  # writes every attribute in words, also hundreds of tensors
        self.at_start = state

    monkeypatch.setattr(nnunet_run, "get_trainer_from_args", remember)
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", snapshot)
    return made


@pytest.fixture
def weights(tmp_path) -> Path:
    """A pre-training checkpoint of size tiny, no tensor at a value that initialisation also gives."""
    return write_weights(tmp_path / "pretrained.pth", "tiny")


def initialised(trainer: str, dataset: int = 901) -> nnUNetTrainer:
    """A trainer that has its network and loss, and has not trained."""
    made = nnunet_run.get_trainer_from_args(str(dataset), "2d", 0, trainer, device=CPU)
    made.initialize()
    return made


SCOPES = {
    "nnUNetTrainerRETINA_tiny": ("transformer.",),
    "nnUNetTrainerRETINA_encoder_tiny": ("cnn.", "embedding.", "transformer."),
    "nnUNetTrainerRETINA_full_tiny": ("cnn.", "embedding.", "transformer.", "decoder.bottleneck", "decoder.blocks"),
}


@pytest.mark.parametrize(
    ("trainer", "by"), [("nnUNetTrainerRETINA_tiny", "variable"), *((trainer, "option") for trainer in SCOPES)]
)
def test_transfer(trainer, by, workspace, weights, seen, monkeypatch):
    monkeypatch.setenv("RETINA_SEED", "3")
    fresh = initialised("nnUNetTrainerTransUNet_tiny")._plain_network().state_dict()
    if by == "option":
        train(trainer, pretrained_weights=str(weights))
    else:
        monkeypatch.setenv("RETINA_WEIGHTS", str(weights))
        train(trainer)
    run = seen[-1]
    stored = checkpoint.load(weights).weights
    frozen = trainer != "nnUNetTrainerRETINA_full_tiny"
    ended = checkpoint.load(fold_folder(workspace, trainer) / "checkpoint_final.pth").weights
    for key, value in run.at_start.items():
        expected = stored[key] if key.startswith(SCOPES[trainer]) else fresh[key]
        assert torch.equal(value, expected), key
        still = frozen and key.startswith("transformer.")
        assert torch.equal(ended[key], value) == still or key.endswith("attn.key.bias"), key
    held = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    for name, parameter in run.network.named_parameters():
        still = frozen and name.startswith("transformer.")
        assert (id(parameter) in held) != still, name
        assert parameter.requires_grad != still, name
    report = json.loads((fold_folder(workspace, trainer) / "transfer_report.json").read_text())
    assert report["source"] == str(weights)
    assert report["fingerprint"] == checkpoint.load(weights).fingerprint
    assert set(report["loaded"]) == {k for k in ended if k.startswith(SCOPES[trainer])}
    assert set(report["frozen"]) == {k for k in ended if frozen and k.startswith("transformer.")}


def test_the_weights_that_come_with_the_package_train(workspace, seen, monkeypatch):
    set_protocol(workspace, iterations=1)
    monkeypatch.setenv("RETINA_WEIGHTS", "open")
    train("nnUNetTrainerRETINA_full_tiny")
    stored = checkpoint.load(shipped.resolve(shipped.OPEN)).weights
    taken = {key for key, value in seen[-1].at_start.items() if key in stored and torch.equal(value, stored[key])}
    assert taken >= {key for key in stored if not key.startswith("decoder.")}
    assert "decoder.bottleneck.0.weight" in stored.keys() - taken
    monkeypatch.delenv("RETINA_WEIGHTS")
    with pytest.raises(RetinaError, match=r"nnU-Net itself opens it, as a file\..*set RETINA_WEIGHTS=open"):
        train("nnUNetTrainerRETINA_tiny", pretrained_weights="open")
    assert not fold_folder(workspace, "nnUNetTrainerRETINA_tiny").exists()


def test_images_that_the_pre_training_saw_are_named(workspace, seen, tmp_path, monkeypatch):
    set_protocol(workspace, iterations=1)
    sources = {"sources": ["Dataset901_test", "Dataset901_test_test", "other"]}
    monkeypatch.setenv("RETINA_WEIGHTS", str(write_weights(tmp_path / "own.pth", "tiny", store=sources)))
    train("nnUNetTrainerRETINA_tiny")
    (log,) = fold_folder(workspace, "nnUNetTrainerRETINA_tiny").glob("training_log_*.txt")
    assert "without labels: training and validation cases and test cases. Scores of them" in log.read_text()


def test_two_seeds_share_no_tensor_that_the_file_holds_untrained(workspace, seen, tmp_path, monkeypatch):
    """As of ImageNet weights, whose decoder is the importer's random one."""
    weights = write_weights(tmp_path / "imported.pth", "tiny", trained=["cnn.", "embedding.", "transformer."])
    set_protocol(workspace, iterations=1)
    trainer = "nnUNetTrainerRETINA_full_tiny"
    for seed in ("1", "2"):
        monkeypatch.setenv("RETINA_SEED", seed)
        train(trainer, fold=int(seed), pretrained_weights=str(weights))
    first, second = (run.at_start for run in seen)
    equal = {key for key in first if torch.equal(first[key], second[key]) and first[key].ndim == 4}
    assert equal and {key.split(".")[0] for key in equal} == {"cnn", "embedding"}
    report = json.loads((fold_folder(workspace, trainer, fold=1) / "transfer_report.json").read_text())
    assert {name.split(".")[0] for name in report["untrained"]} == {"decoder"}
    assert not set(report["untrained"]) & set(report["loaded"])
    assert "(decoder.) were not trained in the file" in log_of(fold_folder(workspace, trainer, fold=1))


def test_without_weights_it_says_so_and_trains_everything(workspace, seen):
    train("nnUNetTrainerRETINA_tiny")
    log = log_of(fold_folder(workspace, "nnUNetTrainerRETINA_tiny"))
    assert "NO PRE-TRAINED WEIGHTS: nothing is frozen" in log
    assert all(p.requires_grad for p in seen[0].network.parameters())


def test_schedule_is_per_iteration_and_the_last_epoch_is_shortened(workspace, seen, monkeypatch):
    set_protocol(workspace, iterations=5)
    rates: list[float] = []
    step = noting(rates, lambda self, _: self.optimizer.param_groups[0]["lr"], nnUNetTrainer.train_step)
    monkeypatch.setattr(nnUNetTrainer, "train_step", step)
    train("nnUNetTrainerTransUNet_tiny")
    assert seen[0].current_epoch == 3
    np.testing.assert_allclose(rates, [0.003 * (1 - i / 5) ** 0.9 for i in range(5)])
    group = seen[0].optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, False)


def test_what_was_transferred_waits_for_its_thaw(workspace, weights):
    settings: dict[str, Any] = {
        "optimiser": "adamw",
        "learning_rate": 0.001,
        "warmup": 0.25,
        "transferred_rate": 0.3,
        "thaw": 0.5,
    }
    set_protocol(workspace, checkpoints=[2], **settings)
    trainer = "nnUNetTrainerRETINA_full_tiny"
    train(trainer, pretrained_weights=str(weights))
    donor, folder = checkpoint.load(weights).weights, fold_folder(workspace, trainer)
    half = checkpoint.load(folder / iteration_checkpoint(2)).weights
    ended = checkpoint.load(folder / "checkpoint_final.pth").weights
    for key in ("cnn.stem.0.weight", "transformer.blocks.0.mlp.fc1.weight", "embedding.pos_embed"):
        assert torch.equal(half[key], donor[key]) and not torch.equal(ended[key], donor[key]), key
    assert not torch.equal(half["decoder.seg_layers.0.weight"], ended["decoder.seg_layers.0.weight"])


def test_continues_as_if_nothing_had_happened(workspace, weights, seen, monkeypatch):
    set_protocol(workspace, iterations=8)
    trainer = "nnUNetTrainerRETINA_tiny"
    train(trainer, pretrained_weights=str(weights))
    whole = checkpoint.load(fold_folder(workspace, trainer) / "checkpoint_final.pth")
    whole_rates = seen[0].logger.get_value("lrs", step=None)

    start = nnUNetTrainer.on_epoch_start

    def die_in_the_third_epoch(self):
        if self.current_epoch == 2:
            raise KilledError
        start(self)

    monkeypatch.setattr(nnUNetTrainer, "on_epoch_start", die_in_the_third_epoch)
    with pytest.raises(KilledError):
        train(trainer, fold=1, pretrained_weights=str(weights))
    monkeypatch.setattr(nnUNetTrainer, "on_epoch_start", start)
    weights.unlink()  # resuming does not need it
    half = fold_folder(workspace, trainer, fold=1) / "checkpoint_latest.pth.99999999.tmp"
    half.touch()  # as a kill leaves it
    train(trainer, fold=1, continue_training=True)
    assert not half.exists()
    resumed = seen[2]
    assert [float(r) for r in resumed.logger.get_value("lrs", step=None)] == [float(r) for r in whole_rates]
    assert len(resumed.logger.get_value("train_losses", step=None)) == 4
    ended = checkpoint.load(fold_folder(workspace, trainer, fold=1) / "checkpoint_final.pth")
    for stored in (ended.retina["settings"], whole.retina["settings"]):
        assert len(stored.pop("train") + stored.pop("val")) == 6  # other cases in another fold
    assert ended.retina == whole.retina
    for key in ended.weights:
        if key.startswith("transformer."):
            assert torch.equal(ended.weights[key], whole.weights[key]), key
    frozen = [name for name, p in resumed.network.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, _ in resumed.network.named_parameters() if name.startswith("transformer.")]
    assert len(resumed.optimizer.state) == sum(p.requires_grad for p in resumed.network.parameters())


def test_iteration_checkpoints_are_what_the_protocol_names_and_a_continued_run_has_the_same(
    workspace, seen, monkeypatch
):
    set_protocol(workspace, iterations=5, checkpoints=[1, 3, 4])
    trainer = "nnUNetTrainerTransUNet_tiny"
    monkeypatch.setenv("RETINA_SEED", "1")
    after, step = {}, nnUNetTrainer.train_step

    def remember(self, batch):
        outputs = step(self, batch)
        after[self._iteration] = self.network.decoder.seg_layers[0].weight.detach().clone()
        if self.current_epoch == 1 and self.fold == 1 and self._iteration == 4 and len(seen) == 2:
            raise KilledError  # after step 4 and before its checkpoint
        return outputs

    monkeypatch.setattr(nnUNetTrainer, "train_step", remember)
    train(trainer)
    names = [iteration_checkpoint(number) for number in (1, 3, 4)]
    assert names[0] == "checkpoint_iteration_000001.pth"
    folder = fold_folder(workspace, trainer)
    assert sorted(path.name for path in folder.glob("checkpoint_iteration_*")) == names
    for number, name in zip((1, 3, 4), names, strict=True):
        stored = torch.load(folder / name, weights_only=False)
        assert torch.equal(stored["network_weights"]["decoder.seg_layers.0.weight"], after[number])
        assert stored["trainer_name"] == trainer and stored["init_args"]["configuration"] == "2d"
    with pytest.raises(KilledError):
        train(trainer, fold=1)
    folder = fold_folder(workspace, trainer, fold=1)
    assert sorted(path.name for path in folder.glob("checkpoint_iteration_*")) == names[:2]
    train(trainer, fold=1, continue_training=True)
    assert sorted(path.name for path in folder.glob("checkpoint_iteration_*")) == names
    assert not list(folder.glob("*.tmp"))


def test_frozen_dropout_is_off_and_the_rest_is_on_while_training(workspace, weights, seen, monkeypatch):
    modes: dict[str, bool] = {}
    step = nnUNetTrainer.train_step

    def look(self, batch):
        modes.update((name, m.training) for name, m in self.network.named_modules() if isinstance(m, torch.nn.Dropout))
        return step(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", look)
    train("nnUNetTrainerRETINA_tiny", pretrained_weights=str(weights))
    assert modes["embedding.dropout"] and not modes["transformer.blocks.0.mlp.dropout"]
    train("nnUNetTrainerRETINA_full_tiny", pretrained_weights=str(weights))
    assert all(modes.values())


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_seed_gives_the_same_losses(workspace, seen, monkeypatch, processes):
    monkeypatch.setenv("nnUNet_n_proc_DA", processes)
    for seed in ("11", "11", "12"):
        monkeypatch.setenv("RETINA_SEED", seed)
        train("nnUNetTrainerTransUNet_tiny")
    losses = [[run.logger.get_value(name, step=None) for name in ("train_losses", "val_losses")] for run in seen]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.parametrize("dataset", [902, 903])
@pytest.mark.parametrize("trainer", ["nnUNetTrainerTransUNet_tiny", "nnUNetTrainerRETINA_tiny"])
def test_regions_and_the_ignore_label_train(workspace, seen, weights, dataset, trainer, monkeypatch):
    monkeypatch.setenv("RETINA_SEED", "1")
    set_protocol(workspace, dataset, iterations=15, iterations_per_epoch=5)
    options: dict[str, Any] = {"pretrained_weights": str(weights)} if "RETINA" in trainer else {}
    train(trainer, dataset, **options)
    losses = seen[0].logger.get_value("train_losses", step=None)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert seen[0].network(torch.zeros(1, 1, 64, 64)).shape[1] == (3 if dataset == 902 else 2)


@pytest.mark.parametrize("dataset", [902, 903])
def test_ignored_pixels_give_no_gradient(workspace, dataset):
    loss = initialised("nnUNetTrainerTransUNet_tiny", dataset).loss
    logits = torch.zeros(1, 3 if dataset == 902 else 2, 8, 8, requires_grad=True)
    if dataset == 902:
        target = torch.zeros(1, 1, 8, 8)
        target[..., 4:] = 3
    else:
        target = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
        target[:, 2, :, 4:] = True
    loss(logits, target).backward()
    assert known(logits.grad)[..., :4].abs().min() > 0
    assert known(logits.grad)[..., 4:].abs().max() == 0


def test_class_weights_reach_the_cross_entropy(workspace):
    set_protocol(workspace, class_weights=[0.1, 1, 3])
    assert initialised("nnUNetTrainerTransUNet_tiny").loss.ce.weight.tolist() == pytest.approx([0.1, 1, 3])


def test_protocol_and_network_are_in_the_saved_plans(workspace):
    train("nnUNetTrainerTransUNet_tiny")
    plans = json.loads((fold_folder(workspace, "nnUNetTrainerTransUNet_tiny").parent / "plans.json").read_text())
    saved = plans["configurations"]["2d"]
    assert (saved["patch_size"], saved["batch_size"]) == ([64, 64], 2)
    assert NetworkConfig.from_dict(saved["architecture"]["arch_kwargs"]["config"]) == NetworkConfig.named("tiny")
    prepared = json.loads((workspace / "nnUNet_preprocessed/Dataset901_test/nnUNetPlans.json").read_text())
    assert "TransUNet" not in json.dumps(prepared)


def test_fold_all(workspace, seen):
    train("nnUNetTrainerTransUNet_tiny", fold="all")
    assert (fold_folder(workspace, "nnUNetTrainerTransUNet_tiny", fold="all") / "checkpoint_final.pth").is_file()


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def changed(path: Path, weights: dict[str, Any], **retina: Any) -> None:
    content = torch.load(path, weights_only=False)
    content["network_weights"] |= weights
    content["retina"] |= retina
    torch.save(content, path)


def of_another(path: Path, **sizes: Any) -> None:
    """The network of the trainer, in a file of another one, whose tensors are the same."""
    changed(path, {}, network=NetworkConfig.named("tiny").to_dict() | sizes)


FC1 = "transformer.blocks.0.mlp.fc1.weight"
SPOILT = (
    (
        lambda p: of_another(p, num_heads=2),
        r"says that its network has num_heads 2; this trainer's has 4\. Give",
    ),
    (
        lambda p: changed(p, {"transformer.blocks.2.norm1.weight": torch.ones(96)}),
        r"holds more than a TransUNet of this size: 1 tensors, the first is transformer\.blocks\.2\.norm1\.weight",
    ),
    (
        lambda p: changed(p, {FC1: torch.full((192, 96), torch.nan)}),
        f"{FC1} has infinite or missing values",
    ),
    (
        lambda p: changed(p, {FC1: torch.ones(192, 96, dtype=torch.int8)}),
        rf"{FC1} is of torch\.int8; expected",
    ),
    (lambda p: changed(p, {"more": torch.zeros(1).expand(10**13)}), "holds no network_weights"),
    (lambda p: changed(p, {"more": torch.zeros(3, dtype=torch.complex64)}), "holds no network_weights"),
    (lambda p: changed(p, {}, store="x"), "is damaged: its entry store is a str; expected a dictionary"),
    (lambda p: changed(p, {}, recipe=torch.ones(1)), "what it says of its pre-training is no plain text and numbers"),
    (lambda p: write_weights(p, "retina"), r"is of another size: retina .*embed_dim 192.*use|Use the trainer"),
    (lambda p: torch.save({"state_dict": {}}, p), r"holds no network_weights \(its entries are state_dict\)"),
    (
        lambda p: write_weights(p, "tiny", trained=["cnn."]),
        r"holds trained values of cnn\. alone, but scope transformer takes and freezes transformer\., which would "
        r"stay random\. Use nnUNetTrainerRETINA_full_tiny, which freezes nothing",
    ),
    (damaged, r"cannot be read as a PyTorch checkpoint: it is truncated"),
    (lambda p: p.unlink(), r"no checkpoint at .*: no such file"),
)


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_wrong_checkpoint_leaves_nothing_behind(workspace, weights, by, monkeypatch, seen):
    """However many are refused: the right one then trains."""
    good = weights.read_bytes()
    if by == "variable":
        monkeypatch.setenv("RETINA_WEIGHTS", str(weights))
    options: dict[str, Any] = {"pretrained_weights": str(weights)} if by == "option" else {}
    for spoil, message in SPOILT:
        spoil(weights)
        with pytest.raises(RetinaError, match=message):
            train("nnUNetTrainerRETINA_tiny", **options)
        assert results(workspace) == []
        weights.write_bytes(good)
    train("nnUNetTrainerRETINA_tiny", **options)
    assert (fold_folder(workspace, "nnUNetTrainerRETINA_tiny") / "checkpoint_final.pth").is_file()


@pytest.mark.parametrize("by", ["option", "variable"])
def test_imported_weights_train(workspace, tmp_path, by, monkeypatch, seen):
    """With the encoder's values alone, as ImageNet files have. A file that nnU-Net cannot load is refused before."""
    path, size = tmp_path / "pretrained.npz", "tiny"
    write_weights(tmp_path / "other.pth", size, grid=24, trained=["cnn.", "embedding.", "transformer."])
    path.write_bytes((tmp_path / "other.pth").read_bytes())

    def start(weights):
        if by == "variable":
            monkeypatch.setenv("RETINA_WEIGHTS", str(weights))
        options: dict[str, Any] = {"pretrained_weights": str(weights)} if by == "option" else {}
        train("nnUNetTrainerRETINA_tiny", **options)

    with pytest.raises(
        RetinaError, match=r"is no PyTorch checkpoint\. Run: retina_import_weights IN OUT, and give OUT"
    ):
        start(path)
    assert results(workspace) == []
    imported = import_weights(path, tmp_path / "imported.pth")
    start(imported.path)
    for key, value in seen[-1].at_start.items():
        assert torch.equal(value, imported.weights[key]) or not key.startswith("transformer."), key
    report = json.loads((fold_folder(workspace, "nnUNetTrainerRETINA_tiny") / "transfer_report.json").read_text())
    assert report["pretraining"]["trained"] == ["cnn.", "embedding.", "transformer."]
    assert report["pretraining"]["origin"]["file"] == "pretrained.npz"


@pytest.mark.parametrize("by", ["option", "variable"])
def test_weights_that_were_saved_on_a_gpu_train_without_one(workspace, weights, by, monkeypatch, seen):
    """Neither nnU-Net's loader nor its caller says where the tensors should go."""
    content = torch.load(weights)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(content, weights)
    if by == "variable":
        monkeypatch.setenv("RETINA_WEIGHTS", str(weights))
    options: dict[str, Any] = {"pretrained_weights": str(weights)} if by == "option" else {}
    train("nnUNetTrainerRETINA_tiny", **options)
    assert torch.equal(seen[0].at_start[FC1], content["network_weights"][FC1])


def test_as_a_module_or_script_nnunets_command_is_known_too(workspace, weights):
    """Where its module is called ``__main__``."""
    command = runpy.run_path(known(nnunet_run.__file__))
    command["run_training"]("901", "2d", 0, "nnUNetTrainerRETINA_tiny", device=CPU, pretrained_weights=str(weights))
    report = json.loads((fold_folder(workspace, "nnUNetTrainerRETINA_tiny") / "transfer_report.json").read_text())
    assert report["scope"] == "transformer" and report["named_by"] == "-pretrained_weights" and report["frozen"]


def test_nnunet_does_not_know_the_home_folder(workspace):
    with pytest.raises(RetinaError, match=r"-pretrained_weights ~/w\.pth: nnU-Net itself opens it, without knowing ~"):
        train("nnUNetTrainerRETINA_tiny", pretrained_weights="~/w.pth")
    assert results(workspace) == []


def test_a_random_trainer_does_not_ask_for_weights_that_others_would_take(workspace, monkeypatch):
    monkeypatch.setenv("RETINA_WEIGHTS", "retina")  # a name that must be fetched
    initialised("nnUNetTrainerTransUNet_tiny")


def test_weights_of_the_cnn_alone_train_where_nothing_is_frozen(workspace, tmp_path, seen):
    weights = write_weights(tmp_path / "simclr.pth", "tiny", trained=["cnn."])
    train("nnUNetTrainerRETINA_full_tiny", pretrained_weights=str(weights))
    assert torch.equal(seen[0].at_start["cnn.stem.0.weight"], checkpoint.load(weights).weights["cnn.stem.0.weight"])


def test_random_trainer_refuses_weights(workspace, weights):
    with pytest.raises(RetinaError, match=r"takes no weights file, but -pretrained_weights .* was given"):
        train("nnUNetTrainerTransUNet_tiny", pretrained_weights=str(weights))
    assert results(workspace) == []


@pytest.mark.parametrize(
    ("settings", "fold", "message"),
    [
        ({"iteratons": 5}, 0, r"unknown key 'iteratons'.*Did you mean iterations\?"),
        ({"batch_size": "big"}, 0, r"batch_size is 'big'; expected a whole number"),
        ({}, 5, r"fold 5 cannot exist: the folds of 6 training cases are 0, 1, 2, 3, 4 \(and all\)"),
        ({"groups": {"nobody": "v"}}, 0, r"name 'nobody', which is no training case"),
        ({"class_weights": [1, 1]}, 0, r"class_weights has 2 entries, but there are 3 classes"),
    ],
)
def test_wrong_settings_leave_nothing_behind(workspace, settings, fold, message):
    set_protocol(workspace, **settings)
    with pytest.raises(RetinaError, match=message):
        train("nnUNetTrainerTransUNet_tiny", fold=fold)
    assert results(workspace) == []


def test_class_weights_do_not_go_with_regions(workspace):
    set_protocol(workspace, 903, class_weights=[1, 1])
    with pytest.raises(RetinaError, match=r"class_weights cannot be used with region-based training"):
        train("nnUNetTrainerTransUNet_tiny", 903)


def with_channels(workspace, trainer, channels, weights, monkeypatch):
    """A trainer of a data set with so many channels, with the weights of a file."""
    monkeypatch.setenv("RETINA_WEIGHTS", str(weights))
    folder = workspace / "nnUNet_preprocessed/Dataset901_test"
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    names = {"channel_names": {str(number): f"EM{number}" for number in range(channels)}}
    made = trainer(plans, "2d", 0, json.loads((folder / "dataset.json").read_text()) | names, CPU)
    made.initialize()
    return made


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_weights_go_with_any_number_of_channels(workspace, weights, channels, monkeypatch):
    made = with_channels(workspace, trainers.nnUNetTrainerRETINA_encoder_tiny, channels, weights, monkeypatch)
    stored, now = checkpoint.load(weights).weights, made.network.state_dict()
    kernel = stored["cnn.stem.0.weight"]
    assert torch.equal(now["cnn.stem.0.weight"], stem_kernel(kernel, channels))
    assert made.network(torch.zeros(1, channels, 64, 64)).shape == (1, 3, 64, 64)
    for name, value in now.items():
        if name.startswith(("cnn.", "transformer.")) and name != "cnn.stem.0.weight":
            assert torch.equal(value, stored[name]), name
    report = transfer.report(made.network, made._record, made.scopes)
    words = {"cnn.stem.0.weight": f"3 input channels to {channels}: repeated in order, times 3/{channels}"}
    assert report["adapted"] == ({} if channels == 3 else words)
    assert channels == 3 or words["cnn.stem.0.weight"] in transfer.summary(report)


def test_what_is_not_taken_need_not_fit(workspace, weights, monkeypatch):
    made = with_channels(workspace, trainers.nnUNetTrainerRETINA_tiny, 2, weights, monkeypatch)
    assert made.network.cnn.stem[0].weight.shape[1] == 2 and made._record["adapted"] == {}
    stored = checkpoint.load(weights).weights
    assert torch.equal(made.network.transformer.norm.weight, stored["transformer.norm.weight"])


def test_positions_on_another_grid_are_resampled(workspace, tmp_path, seen):
    weights = write_weights(tmp_path / "weights.pth", "tiny", grid=24)
    set_protocol(workspace, iterations=1)
    trainer = "nnUNetTrainerRETINA_encoder_tiny"
    train(trainer, pretrained_weights=str(weights))
    positions = checkpoint.load(weights).weights["embedding.pos_embed"]
    assert torch.equal(seen[0].at_start["embedding.pos_embed"], resample_positions(positions, 14))
    report = json.loads((fold_folder(workspace, trainer) / "transfer_report.json").read_text())
    assert report["adapted"] == {"embedding.pos_embed": "resampled 24 x 24 to 14 x 14"}
    assert "embedding.pos_embed" in report["loaded"]
    assert "embedding.pos_embed: resampled 24 x 24 to 14 x 14;" in log_of(fold_folder(workspace, trainer))
    assert checkpoint.load(fold_folder(workspace, trainer) / "checkpoint_final.pth").weights.keys() == (
        checkpoint.load(weights).weights.keys()
    )


def test_3d_configuration_is_refused(workspace):
    path = workspace / "nnUNet_preprocessed/Dataset901_test/nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_fullres"] = plans["configurations"]["2d"] | {"patch_size": [16, 64, 64]}
    path.write_text(json.dumps(plans))
    with pytest.raises(RetinaError, match=r"3d_fullres has 3D patches; the TransUNet is two-dimensional"):
        nnunet_run.run_training("901", "3d_fullres", 0, "nnUNetTrainerTransUNet_tiny", device=CPU)


def test_missing_preprocessing_is_said(workspace):
    import shutil

    shutil.rmtree(workspace / "nnUNet_preprocessed/Dataset901_test/nnUNetPlans_2d")
    with pytest.raises(RetinaError, match=r"no preprocessed data in .*Run: nnUNetv2_plan_and_preprocess -d 901 -c 2d"):
        train("nnUNetTrainerTransUNet_tiny")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_is_said(workspace):
    with pytest.raises(RetinaError, match=r"no CUDA GPU is usable here.*-device cpu"):
        nnunet_run.run_training("901", "2d", 0, "nnUNetTrainerTransUNet_tiny")


@pytest.mark.parametrize("seed", ["-1", "one"])
def test_a_wrong_seed_is_said(workspace, monkeypatch, seed):
    monkeypatch.setenv("RETINA_SEED", seed)
    with pytest.raises(RetinaError, match=rf"\$RETINA_SEED is '{seed}'; expected a whole number from 0"):
        train("nnUNetTrainerTransUNet_tiny")


def test_every_variant_has_its_size_and_scope():
    for name in trainers.__all__:
        trainer = getattr(trainers, name)
        suffix = name.rsplit("_", 1)[-1]
        assert trainer.network_size == {"base": "base", "tiny": "tiny", "few": "tiny"}.get(suffix, "retina")
        scopes = {"encoder": "encoder", "full": "full", "few": "full", "random_blocks": "random blocks"}
        taken = next((scope for part, scope in scopes.items() if part in name), "transformer")
        expected = None if "TransUNet" in name else taken
        assert trainer.transfer_scope == expected
        assert trainer.__name__ == name


def test_a_data_set_names_its_weights_and_the_variable_comes_before_it(workspace, monkeypatch, seen):
    train("nnUNetTrainerRETINA_few")
    path = fold_folder(workspace, "nnUNetTrainerRETINA_few") / "transfer_report.json"
    assert json.loads(path.read_text())["named_by"].startswith('"weights" in dataset.json')
    assert seen[-1].protocol == Protocol(**{**trainers.nnUNetTrainerRETINA_few.usual, **PROTOCOL})
    assert FEW_LABELS.items() <= trainers.nnUNetTrainerRETINA_few.usual.items()
    set_protocol(workspace, weights="open", transferred_rate=0.3)
    train("nnUNetTrainerRETINA_full_tiny")
    path = fold_folder(workspace, "nnUNetTrainerRETINA_full_tiny") / "transfer_report.json"
    assert json.loads(path.read_text())["named_by"].startswith('"weights" in dataset.json')
    with pytest.raises(
        RetinaError,
        match=r'"weights" in dataset.json; .* is of another size: tiny .*, for example nnUNetTrainerRETINA_tiny',
    ):
        train("nnUNetTrainerRETINA")
    monkeypatch.setenv("RETINA_WEIGHTS", "")
    train("nnUNetTrainerRETINA_full_tiny")
    assert json.loads(path.read_text())["source"] is None
