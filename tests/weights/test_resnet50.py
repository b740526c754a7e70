"""MoCo's and torchvision's ResNet-50 become the encoder of the UNet-ResNet50; everything else is refused in words."""

import pytest
import torch
from helpers.moco import moco, resnet50

from nnunetv2_retina.commands import import_weights as command
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.unet_resnet50 import ENCODER, STEM, UNetResNet50
from nnunetv2_retina.weights import checkpoint
from nnunetv2_retina.weights.compatibility import check_compatible
from nnunetv2_retina.weights.importing import import_weights, read_weights


@pytest.fixture(scope="module")
def grey():
    return resnet50()


@pytest.fixture
def write(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "weights.pth.tar")
        return tmp_path / "weights.pth.tar"

    return write


def test_the_query_encoder_is_the_encoder(write, grey, tmp_path, capsys):
    source = write(moco(grey))
    assert command.main([str(source), str(tmp_path / "out.pth")]) == 0
    shown = capsys.readouterr().out
    for line in (
        "MoCo v2 ResNet-50",
        "module.encoder_k.* -> (dropped): key encoder",
        "module.queue -> (dropped): MoCo's queue",
        "module.encoder_q.fc.0.weight -> (dropped): projection head",
        "entry 'norms' -> (dropped)",
        "Trained values: unet.encoder.; the rest is freshly initialised.",
        "-tr nnUNetTrainerUNetResNet50_frozen -pretrained_weights",
    ):
        assert line in shown
    stored = checkpoint.load(tmp_path / "out.pth")
    assert stored.retina["network"] == {"encoder": "resnet50"} and stored.retina["trained"] == [ENCODER]
    network = UNetResNet50(1, 1)
    network.load_state_dict(stored.weights)
    for name, value in network.unet.encoder.state_dict().items():
        assert torch.equal(value, grey[name]), name
    check_compatible(stored.weights, network, "out.pth")  # raises nothing


def test_the_rest_is_fresh_and_always_the_same(write, grey):
    first, second = (read_weights(write(moco(grey))) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.weights["unet.decoder.blocks.0.conv1.0.weight"].std() > 0


def test_three_channels_are_summed_which_is_the_same_for_grey(write):
    state = resnet50(3)
    imported = read_weights(write({"model": state | {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}}))
    assert imported.kind == "ResNet-50, torchvision names"
    assert any("summed to one: the same for grey repeated" in step.done for step in imported.steps)
    image = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        wanted = torch.nn.functional.conv2d(image.expand(-1, 3, -1, -1), state["conv1.weight"].double(), None, 2, 3)
        got = torch.nn.functional.conv2d(image, imported.weights[STEM].double(), None, 2, 3)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_files_without_the_batch_norms_counters(write, grey):
    old = {name: value for name, value in grey.items() if not name.endswith("num_batches_tracked")}
    imported = read_weights(write(old))
    assert imported.weights[f"{ENCODER}bn1.num_batches_tracked"] == 0


def test_a_result_of_the_trainer_is_read_as_it_is(write):
    torch.manual_seed(1)
    state = UNetResNet50(2, 4).state_dict()
    imported = read_weights(write({"network_weights": state, "init_args": {}}))
    assert all(torch.equal(imported.weights[name], value) for name, value in state.items())
    assert "trained" not in imported.retina


def blocks(state, stage, count):
    """With another number of blocks in a stage."""
    kept = {name: v for name, v in state.items() if not name.startswith(f"layer{stage}.")}
    last = {name: v for name, v in state.items() if name.startswith(f"layer{stage}.1.")}
    for block in range(count):
        kept |= {name.replace(f"layer{stage}.1.", f"layer{stage}.{block}."): v for name, v in last.items()}
    return kept


def resnet18(state):
    for stage in (1, 2, 3, 4):
        state = blocks(state, stage, 2)
    return {name: value for name, value in state.items() if "conv3" not in name and "bn3" not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: v for n, v in s.items() if n != "conv1.weight"},
            r"MoCo v2 ResNet-50\): the first convolution \(conv1\.weight, .*\) is missing",
        ),
        (
            resnet18,
            r"a ResNet with 2, 2, 2, 2 basic blocks in its stages; expected a ResNet-50, which has 3, 4, 6, 3 bo",
        ),
        (lambda s: blocks(s, 3, 23), r"a ResNet with 3, 4, 23, 3 bottleneck blocks"),
        (lambda s: s | {"bn1.bias": s["bn1.bias"] * torch.nan}, r"bn1\.bias has infinite or missing values"),
        (lambda s: s | {"layer9.0.conv1.weight": s["conv1.weight"]}, r"unknown tensor 'encoder_q\.layer9\.0\.conv1"),
        (
            lambda s: s | {"conv1.weight": s["conv1.weight"].expand(-1, 2, -1, -1)},
            r"its first convolution takes 2 channels; expected one \(grey\) or three",
        ),
        (
            lambda s: s | {"layer2.0.conv2.weight": s["layer2.0.conv2.weight"][:, :4]},
            r"layer2\.0\.conv2\.weight has shape \(128, 4, 3, 3\), but \(128, 128, 3, 3\) by the sizes",
        ),
        (
            lambda s: {n: v for n, v in s.items() if n != "layer2.0.bn2.running_mean"},
            r"1 of \d+ tensors are missing: unet\.encoder\.layer2\.0\.bn2\.running_mean",
        ),
    ],
)
def test_wrong_files_are_refused(write, grey, change, message):
    with pytest.raises(RetinaError, match=message):
        read_weights(write(moco(change(dict(grey)))))


def test_a_key_encoder_alone_is_refused(write, grey):
    content = {name: value for name, value in moco(grey)["state_dict"].items() if "encoder_k" in name}
    with pytest.raises(RetinaError, match=r"is missing or no kernel"):
        read_weights(write(content))


def test_each_network_refuses_the_other_ones_weights(grey, write, tmp_path):
    unet = import_weights(write(moco(grey)), tmp_path / "out.pth").weights
    with torch.device("meta"):
        transunet, ours = TransUNet(1, 1, NetworkConfig.named("tiny")), UNetResNet50(1, 1)
        three = UNetResNet50(3, 1).state_dict()
    with pytest.raises(
        RetinaError,
        match=r"f.pth holds a UNet-ResNet50, but .* is a TransUNet\. Use .* nnUNetTrainerUNetResNet50_frozen",
    ):
        check_compatible(unet, transunet, "f.pth")
    with pytest.raises(
        RetinaError, match=r"f.pth holds a TransUNet, but .* is a UNet-ResNet50\. Use .* nnUNetTrainerRETINA_tiny"
    ):
        check_compatible(transunet.state_dict(), ours, "f.pth")
    with pytest.raises(
        RetinaError, match=r"does not hold a UNet-ResNet50: \d+ of .* names of a ResNet\. Run: retina_imp"
    ):
        check_compatible(grey, ours, "f.pth")
    with pytest.raises(RetinaError, match=r"f.pth has a stem for 3 channels, but this trainer's takes 1"):
        check_compatible(three, ours, "f.pth")
