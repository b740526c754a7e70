"""Weights of other origin become checkpoints that compute the same; wrong files are refused in one sentence."""

import hashlib
import importlib.util
import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import known
from helpers.published import as_published

from nnunetv2_retina.commands import import_weights as command
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint, containers, imagenet
from nnunetv2_retina.weights.importing import import_weights, read_weights

TINY = NetworkConfig.named("tiny")
ENCODER = ("cnn.", "embedding.", "transformer.")


def network_of(config=TINY, outputs=1, seed=0):
    """A network, no tensor of which is at a value that initialisation also gives."""
    torch.manual_seed(seed)
    network = TransUNet(1, outputs, config).eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn_like(tensor) * 0.1
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else tensor + noise)
    return network


def as_jax(network, class_token=True) -> dict[str, Any]:
    """The encoder in the layout of R50+ViT-B_16.npz, written independently of the table under test."""
    out: dict[str, np.ndarray] = {}
    dim, heads = network.config.embed_dim, network.config.num_heads

    def norm(name, module, axes=1):
        for ours, theirs in (("weight", "scale"), ("bias", "bias")):
            out[f"{name}/{theirs}"] = getattr(module, ours).detach().numpy().reshape((1,) * (axes - 1) + (-1,))

    def conv(name, module):
        out[f"{name}/kernel"] = np.einsum("oihw->hwio", module.weight.detach().numpy())

    def linear(name, module, kernel_shape, bias_shape):
        out[f"{name}/kernel"] = np.einsum("oi->io", module.weight.detach().numpy()).reshape(kernel_shape)
        out[f"{name}/bias"] = module.bias.detach().numpy().reshape(bias_shape)

    conv("conv_root", network.cnn.stem[0])
    norm("gn_root", network.cnn.stem[1], 4)
    for i, stage in enumerate(network.cnn.stages, 1):
        for j, unit in enumerate(stage, 1):
            for k in (1, 2, 3):
                conv(f"block{i}/unit{j}/conv{k}", getattr(unit, f"conv{k}"))
                norm(f"block{i}/unit{j}/gn{k}", getattr(unit, f"norm{k}"), 4)
            if j == 1:
                conv(f"block{i}/unit1/conv_proj", unit.shortcut[0])
                norm(f"block{i}/unit1/gn_proj", unit.shortcut[1], 4)
    conv("embedding", network.embedding.proj)
    out["embedding/bias"] = network.embedding.proj.bias.detach().numpy()
    positions = network.embedding.pos_embed.detach().numpy()
    if class_token:
        out["cls"] = np.full((1, 1, dim), 7, np.float32)
        positions = np.concatenate([np.full((1, 1, dim), 9, np.float32), positions], axis=1)
    out["Transformer/posembed_input/pos_embedding"] = positions
    for i, block in enumerate(network.transformer.blocks):
        name = f"Transformer/encoderblock_{i}"
        norm(f"{name}/LayerNorm_0", block.norm1)
        norm(f"{name}/LayerNorm_2", block.norm2)
        for part in ("query", "key", "value"):
            shape = (dim, heads, dim // heads)
            linear(f"{name}/MultiHeadDotProductAttention_1/{part}", getattr(block.attn, part), shape, shape[1:])
        linear(f"{name}/MultiHeadDotProductAttention_1/out", block.attn.proj, (heads, dim // heads, dim), (dim,))
        linear(f"{name}/MlpBlock_3/Dense_0", block.mlp.fc1, (dim, -1), (-1,))
        linear(f"{name}/MlpBlock_3/Dense_1", block.mlp.fc2, (-1, dim), (-1,))
    norm("Transformer/encoder_norm", network.transformer.norm)
    for name in ("pre_logits", "head"):
        out |= {f"{name}/kernel": np.zeros((dim, 5), np.float32), f"{name}/bias": np.zeros(5, np.float32)}
    return out


def as_timm(network) -> dict[str, torch.Tensor]:
    """The encoder in timm's names, written independently of the table under test."""
    state, out = network.state_dict(), {}
    for key in state:
        parts = key.split(".")
        if parts[0] == "cnn" and parts[1] == "stem":
            out[f"patch_embed.backbone.stem.{('conv', 'norm')[int(parts[2])]}.{parts[3]}"] = state[key]
        elif parts[0] == "cnn":
            name = ".".join(parts[4:]).replace("shortcut.0", "downsample.conv").replace("shortcut.1", "downsample.norm")
            out[f"patch_embed.backbone.stages.{parts[2]}.blocks.{parts[3]}.{name}"] = state[key]
        elif key.startswith("embedding.proj"):
            out[f"patch_embed.proj.{parts[2]}"] = state[key]
        elif parts[0] == "transformer" and not set(parts) & {"query", "key", "value"}:
            out[key.removeprefix("transformer.")] = state[key]
        elif parts[0] == "transformer" and parts[4] == "query":
            qkv = [state[key.replace("query", part)] for part in ("query", "key", "value")]
            out[key.removeprefix("transformer.").replace("query", "qkv")] = torch.cat(qkv)
    dim = network.config.embed_dim
    positions = torch.cat([torch.full((1, 1, dim), 9.0), state["embedding.pos_embed"]], dim=1)
    return out | {"pos_embed": positions, "cls_token": torch.zeros(1, 1, dim)}


def write_safetensors(path, tensors, metadata=None):
    """The format, written from its description."""
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    header, data = {} if metadata is None else {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def output_of(network_or_weights, size=224):
    network = network_or_weights
    if not isinstance(network, TransUNet):
        network = TransUNet(1, 1, network_or_weights.config).eval()
        network.load_state_dict(network_or_weights.weights)
    torch.manual_seed(3)
    with torch.no_grad():
        return network(torch.randn(1, 1, size, size))


def features_of(network):
    torch.manual_seed(4)
    with torch.no_grad():
        return network.transformer(network.embedding(network.cnn(torch.randn(1, 3, 224, 224))[0]))


def assert_same_encoder(imported, network):
    got = TransUNet(1, 1, imported.config).eval()
    got.load_state_dict(imported.weights)
    assert imported.config.num_heads == network.config.num_heads
    assert torch.equal(features_of(got), features_of(network))


# ---- what becomes of the tensors


@pytest.fixture(scope="module")
def network():
    return network_of()


def test_jax_names(tmp_path, network):
    np.savez(tmp_path / "weights.npz", **as_jax(network))
    imported = import_weights(tmp_path / "weights.npz", tmp_path / "out.pth")
    assert_same_encoder(imported, network)
    assert imported.kind == "ImageNet hybrid, JAX names"
    assert imported.retina["trained"] == list(ENCODER)
    assert {step.source for step in imported.steps if step.source} == set(as_jax(network))
    assert {step.target for step in imported.steps if step.target} == set(network.state_dict())
    assert {s.source for s in imported.steps if s.target is None} == {
        "cls", "head/kernel", "head/bias", "pre_logits/kernel", "pre_logits/bias"}  # fmt: skip
    fresh = {step.target for step in imported.steps if step.source is None}
    assert fresh == {key for key in network.state_dict() if key.startswith("decoder.")}


def test_timm_names_in_safetensors(tmp_path, network):
    write_safetensors(tmp_path / "model.safetensors", as_timm(network), {"format": "pt"})
    # timm's names do not tell the number of heads: a size that is known has it, another one 12
    imported = read_weights(tmp_path / "model.safetensors")
    for key, value in imported.weights.items():
        assert key.startswith("decoder.") or torch.equal(value, network.state_dict()[key]), key
    assert imported.kind == "ImageNet hybrid, timm names"
    assert {step.source for step in imported.steps if step.source} == set(as_timm(network))


def test_the_size_of_the_published_imagenet_file():
    with torch.device("meta"):
        base = TransUNet(1, 1, NetworkConfig.named("base"))
        tensors = {name: torch.empty(shape) for name, shape in real_file().items()}
    config, weights, _ = imagenet.from_jax(tensors)
    assert config == NetworkConfig.named("base")
    expected = {key: value.shape for key, value in base.state_dict().items() if key.startswith(ENCODER)}
    assert {key: value.shape for key, value in weights.items()} == expected


def real_file() -> dict[str, tuple[int, ...]]:
    """Names and shapes of imagenet21k/R50+ViT-B_16.npz, by google-research/vision_transformer, configs/models.py.

    The group norms have the four axes that its checkpoint.py takes away (``_fix_groupnorm``).
    """
    shapes: dict[str, tuple[int, ...]] = {"conv_root/kernel": (7, 7, 3, 64)}
    shapes |= {f"gn_root/{p}": (1, 1, 1, 64) for p in ("scale", "bias")}
    inputs = 64
    for block, (units, width) in enumerate([(3, 64), (4, 128), (9, 256)], 1):
        for unit in range(1, units + 1):
            name = f"block{block}/unit{unit}"
            shapes[f"{name}/conv1/kernel"] = (1, 1, inputs, width)
            shapes[f"{name}/conv2/kernel"] = (3, 3, width, width)
            shapes[f"{name}/conv3/kernel"] = (1, 1, width, 4 * width)
            norms = {"gn1": width, "gn2": width, "gn3": 4 * width}
            if unit == 1:
                shapes[f"{name}/conv_proj/kernel"] = (1, 1, inputs, 4 * width)
                norms["gn_proj"] = 4 * width
            shapes |= {f"{name}/{gn}/{p}": (1, 1, 1, size) for gn, size in norms.items() for p in ("scale", "bias")}
            inputs = 4 * width
    shapes |= {"embedding/kernel": (1, 1, 1024, 768), "embedding/bias": (768,), "cls": (1, 1, 768)}
    shapes["Transformer/posembed_input/pos_embedding"] = (1, 197, 768)
    for block in range(12):
        name = f"Transformer/encoderblock_{block}"
        shapes |= {f"{name}/LayerNorm_{i}/{p}": (768,) for i in (0, 2) for p in ("scale", "bias")}
        attention = f"{name}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (768, 12, 64), f"{attention}/{part}/bias": (12, 64)}
        shapes |= {f"{attention}/out/kernel": (12, 64, 768), f"{attention}/out/bias": (768,)}
        shapes |= {f"{name}/MlpBlock_3/Dense_0/kernel": (768, 3072), f"{name}/MlpBlock_3/Dense_0/bias": (3072,)}
        shapes |= {f"{name}/MlpBlock_3/Dense_1/kernel": (3072, 768), f"{name}/MlpBlock_3/Dense_1/bias": (768,)}
    shapes |= {f"Transformer/encoder_norm/{p}": (768,) for p in ("scale", "bias")}
    shapes |= {"pre_logits/kernel": (768, 768), "pre_logits/bias": (768,)}
    return shapes | {"head/kernel": (768, 21843), "head/bias": (21843,)}


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_timm_has_these_names_and_reads_the_same_npz_alike(tmp_path):
    import timm

    model: Any = timm.create_model("vit_base_r50_s16_224.orig_in21k", pretrained=False, depth=1)
    config = NetworkConfig(embed_dim=768, mlp_dim=3072, depth=1)
    np.savez(tmp_path / "weights.npz", **as_jax(network_of(config)))
    model.load_pretrained(str(tmp_path / "weights.npz"))
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    ours, theirs = (read_weights(tmp_path / name).weights for name in ("weights.npz", "timm.pth"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("grid", [24, 32])
def test_another_position_grid_computes_the_same_at_224_pixels(tmp_path, grid):
    config = NetworkConfig(**{**TINY.to_dict(), "grid_size": grid})
    network = network_of(config)
    np.savez(tmp_path / "weights.npz", **as_jax(network))
    checkpoint.save(tmp_path / "ours.pth", network.state_dict(), config)
    assert_same_encoder(read_weights(tmp_path / "weights.npz"), network)
    imported = read_weights(tmp_path / "ours.pth")
    assert imported.config == TINY
    assert torch.equal(output_of(imported), output_of(network))
    done = next(step.done for step in imported.steps if step.target == "embedding.pos_embed")
    assert done == f"copied, resampled {grid} x {grid} to 14 x 14"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model_state_dict": s, "epoch": 3},
        lambda s: {"state_dict": {"module." + k: v for k, v in s.items()}, "optimizer": {}},
    ],
)
def test_published_weights(tmp_path, wrap):  # fmt: skip
    config = NetworkConfig(embed_dim=48, mlp_dim=64, depth=1, grid_size=16)
    network = network_of(config)
    state = as_published(network.state_dict())
    state = {k.replace("segmentation_head.0", "FinalDecoder.conv1"): v for k, v in state.items()}
    state |= {"segmentation_head.0.weight": torch.ones(2, 16, 3, 3), "segmentation_head.0.bias": torch.ones(2)}
    torch.save(wrap(state), tmp_path / "published.pt")
    imported = import_weights(tmp_path / "published.pt", tmp_path / "out.pth")
    assert imported.kind == "published RETINA weights"
    assert "trained" not in imported.retina
    assert torch.equal(output_of(imported), output_of(network))
    dropped = {known(step.source).removeprefix("module.") for step in imported.steps if step.target is None}
    assert {"segmentation_head.0.weight", "segmentation_head.0.bias"} <= dropped
    assert dropped <= {"segmentation_head.0.weight", "segmentation_head.0.bias", "entry 'epoch'", "entry 'optimizer'"}
    assert len(imported.steps) == len(state) + len(dropped) - 2


def test_own_checkpoints_pass_through(tmp_path, network):
    checkpoint.save(
        tmp_path / "a.pth", network.state_dict(), TINY, {"optimizer": {"lr": 1.0}}, step=7, trained=["cnn."]
    )
    imported = import_weights(tmp_path / "a.pth", tmp_path / "b.pth")
    stored = checkpoint.load(tmp_path / "b.pth")
    assert stored.fingerprint == checkpoint.load(tmp_path / "a.pth").fingerprint == imported.fingerprint
    assert (stored.retina["step"], stored.retina["trained"], stored.training) == (7, ["cnn."], {})
    origin = stored.retina["origin"]
    assert origin["sha256"] == hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    assert (origin["file"], origin["kind"]) == ("a.pth", "RETINA checkpoint")
    assert "entry 'training' -> (dropped): not the network's weights" in "\n".join(origin["changes"])
    again = import_weights(tmp_path / "b.pth", tmp_path / "c.pth")
    assert again.retina["origin"]["before"] == origin


def test_entries_that_have_the_names_of_arguments_do_no_harm(tmp_path, network):
    retina = {"network": TINY.to_dict(), "path": "x", "weights": 1, "training": {"step": 1}, 5: 6, "step": 7}
    torch.save({"network_weights": network.state_dict(), "retina": retina}, tmp_path / "a.pth")
    import_weights(tmp_path / "a.pth", tmp_path / "b.pth")
    stored = checkpoint.load(tmp_path / "b.pth")
    assert stored.retina["step"] == 7 and stored.training == {} and "path" not in stored.retina


def test_results_of_nnunet_pass_through(tmp_path):
    network = network_of(outputs=3)
    init = {"retina": {"network": TINY.to_dict(), "format_version": 1}, "device": torch.device("cpu")}
    content = {"network_weights": network.state_dict(), "_best_ema": np.float32(0.5), "init_args": init}
    torch.save(content, tmp_path / "checkpoint_final.pth")
    imported = read_weights(tmp_path / "checkpoint_final.pth")
    assert imported.weights.keys() == network.state_dict().keys()
    assert all(torch.equal(imported.weights[key], value) for key, value in network.state_dict().items())


def test_own_names_in_safetensors_of_half_precision(tmp_path, network):
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    write_safetensors(tmp_path / "a.safetensors", half)
    imported = read_weights(tmp_path / "a.safetensors")
    assert imported.config == TINY
    assert all(torch.equal(imported.weights[key], half[key].to(value.dtype)) for key, value in imported.weights.items())
    assert imported.steps[0].done == "copied, bfloat16 to float32"


def test_reads_what_the_safetensors_library_writes(tmp_path):
    from safetensors.torch import save_file

    tensors = {"a": torch.randn(2, 3), "b": torch.arange(4), "c": torch.zeros(0, 2), "d": torch.tensor(True),
               "e": torch.randn(3).half(), "f": torch.randn(5, dtype=torch.float64)}  # fmt: skip
    save_file(tensors, tmp_path / "x.safetensors", {"note": "x"})
    got = containers.read(tmp_path / "x.safetensors").tensors
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[key], value) and got[key].dtype == value.dtype for key, value in tensors.items())


def test_what_is_missing_is_always_filled_alike(tmp_path, network):
    np.savez(tmp_path / "weights.npz", **as_jax(network))
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    first, second = (read_weights(tmp_path / "weights.npz") for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.fingerprint == second.fingerprint
    assert first.weights["decoder.seg_layers.0.weight"].std() > 0


# ---- the command


def test_the_command_accounts_for_every_tensor(tmp_path, network, capsys):
    np.savez(tmp_path / "weights.npz", **as_jax(network))
    assert command.main([str(tmp_path / "weights.npz"), str(tmp_path / "out.pth")]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = [int(line.split(" x ")[0]) for line in lines if " -> " in line]
    assert sum(counts) == len(read_weights(tmp_path / "weights.npz").steps)
    text = "\n".join(lines)
    assert ("   2 x Transformer/encoderblock_*/MultiHeadDotProductAttention_1/query/kernel -> "
            "transformer.blocks.*.attn.query.weight: heads joined, transposed") in text  # fmt: skip
    assert "   3 x block*/unit*/conv_proj/kernel -> cnn.stages.*.*.shortcut.0.weight: transposed (HWIO to OIHW)" in text
    assert "  56 x (not in the file) -> decoder.*: fresh initialisation (seed 0)" in text
    assert "   1 x cls -> (dropped): class token: this network has none" in text
    assert "Trained values: cnn., embedding., transformer.; the rest is freshly initialised." in text
    assert f"-tr nnUNetTrainerRETINA_tiny -pretrained_weights {tmp_path / 'out.pth'}" in lines[-1]


def test_the_command_on_a_checkpoint_of_ones_own(tmp_path, network, capsys):
    checkpoint.save(tmp_path / "a.pth", network.state_dict(), TINY, trained=[""])
    assert command.main([str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]) == 0
    out = capsys.readouterr().out
    assert "RETINA checkpoint" in out and "Trained values" not in out


# ---- what is refused


def plain_vit(path):
    arrays: dict[str, Any] = {"embedding/kernel": np.zeros((16, 16, 3, 8), np.float32), "cls": np.zeros((1, 1, 8))}
    np.savez(path, **arrays)


def truncated(write):
    def cut(path):
        write(path)
        path.write_bytes(path.read_bytes()[:-3000])

    return cut


def of_jax(change):
    return lambda path: np.savez(path, **change(as_jax(network_of())))


def of_tensors(tensors):
    return lambda path: write_safetensors(path, tensors)


def ours(**changes):
    return lambda path: torch.save({"network_weights": network_of().state_dict() | changes,
                                    "retina": {"network": TINY.to_dict()}}, path)  # fmt: skip


def ours_saying(retina):
    return lambda path: torch.save({"network_weights": network_of().state_dict(), "retina": retina}, path)


def damaged_array(path):
    np.savez(path, **as_jax(network_of()))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


REFUSED = {
    "outputs.pth": (ours(**{"decoder.seg_layers.0.weight": torch.ones(0, 16, 3, 3)}), r"num_classes \(0\) must be at"),
    "grid.pth": (
        lambda p: torch.save(
            {"network_weights": network_of().state_dict() | {"embedding.pos_embed": torch.ones(1, 0, 96)}}, p
        ),
        r"grid_size is 0; expected whole numbers",
    ),
    "width.pth": (
        lambda p: torch.save(as_published(network_of(replace(TINY, embed_dim=100)).state_dict()), p),
        r"embed_dim \(100\) must be divisible by num_heads \(12\)",
    ),
    "missing.pth": (lambda p: None, r"no weights file at .*missing\.pth: no such file"),
    "folder": (lambda p: p.mkdir(), r"no weights file at .*: that is a folder"),
    "text.pth": (lambda p: p.write_text("weights"), r"cannot be read as a PyTorch checkpoint: it is truncated"),
    "empty.npz": (lambda p: p.write_bytes(b""), r"empty\.npz \(0 bytes\) cannot be read"),
    "list.pth": (lambda p: torch.save([1], p), r"holds a list, no tensors by name\. Expected published RETINA weights"),
    "settings.pth": (
        lambda p: torch.save({"epoch": 3, "lr": 0.1}, p),
        r"no tensors by name: its entries are epoch, lr\. Expected published",
    ),
    "vit.npz": (plain_vit, r"JAX names\): a plain vision transformer, which embeds patches of 16x16 pixels: there is "
                r"no ResNet .*Expected the hybrid R50\+ViT-B_16\.npz"),
    "short.npz": (truncated(of_jax(dict)), r"short\.npz \([\d,]+ bytes\) begins as an \.npz or PyTorch file, but the"),
    "short.pth": (truncated(ours()), r"PyTorch file, but the directory at its end is missing or damaged\. Copy or"),
    "flipped.npz": (damaged_array, r"cannot be read as an \.npz file of numbers: .*Copy or download it again"),
    "objects.npz": (lambda p: np.savez(p, a=np.array([{}])), r"cannot be read as an \.npz file of numbers"),
    "short.safetensors": (
        truncated(of_tensors({"a": torch.zeros(2000)})),
        r"\(5,\d+ bytes\) cannot be read as a \.safetensors file: it is truncated, damaged.*file not fully covered",
    ),
    "header.safetensors": (
        lambda p: p.write_bytes(struct.pack("<Q", 500) + b'{"a"'),
        r"\(12 bytes\) cannot be read as a \.safetensors file: it is truncated, .*invalid header length",
    ),
    "empty.safetensors": (
        lambda p: p.write_bytes(b""),
        r"\(0 bytes\) cannot be read as a \.safetensors file: it is truncated, .*header too small",
    ),
    "text.safetensors": (
        lambda p: p.write_text("version https://git-lfs"),
        r"text\.safetensors \(23 bytes\) cannot be read as a \.safetensors file: .*Copy or download it again",
    ),
    "damaged.safetensors": (
        lambda p: p.write_bytes(struct.pack("<Q", 8) + b'{"a": 1}'),
        r"cannot be read as a \.safetensors file: .*invalid JSON in header",
    ),
    "type.safetensors": (
        lambda p: p.write_bytes(
            struct.pack("<Q", 60) + b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}  xxx'
        ),
        r"cannot be read as a \.safetensors file: .*F6_E2M3",
    ),
    "shape.safetensors": (
        lambda p: p.write_bytes(struct.pack("<Q", 56) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,1]}}  x'),
        r"cannot be read as a \.safetensors file: .*invalid shape, data type, or offset for tensor",
    ),
    "resnet.safetensors": (
        of_tensors({"layer1.0.weight": torch.zeros(1)}),
        r"holds tensors of an unknown network: layer1\.0\.weight\. Expected published RETINA weights, ImageNet",
    ),
    "unknown.npz": (
        of_jax(lambda a: a | {"block4/unit1/conv1/kernel": np.zeros((1, 1, 2, 2))}),
        r"unknown tensor 'block4/unit1/conv1/kernel': not the hybrid R50\+ViT-B_16, whose ResNet has three stages",
    ),
    "lacks.npz": (
        of_jax(lambda a: {k: v for k, v in a.items() if "Dense_1" not in k}),
        r"4 of \d+ tensors are missing: transformer\.blocks\.0\.mlp\.fc2\.weight",
    ),
    "lacks_more.npz": (
        of_jax(lambda a: {k: v for k, v in a.items() if "posembed" not in k}),
        r"the tensor that becomes embedding\.pos_embed is missing: not a whole R50\+ViT-B_16",
    ),
    "axes.npz": (
        of_jax(lambda a: a | {"conv_root/kernel": np.zeros((7, 7))}),
        r"tensor 'conv_root/kernel' has shape \(7, 7\); expected 4 axes",
    ),
    "grid.npz": (
        of_jax(lambda a: a | {"Transformer/posembed_input/pos_embedding": np.zeros((1, 150, 96), np.float32)}),
        r"the position embeddings have 149 entries, which is no square grid",
    ),
    "extra.pth": (ours(surprise=torch.zeros(1)), r"\(RETINA checkpoint\): unknown tensor 'surprise'\. Expected"),
    "misshapen.pth": (
        ours(**{"cnn.stem.1.weight": torch.zeros(3)}),
        r"the tensor that becomes cnn\.stem\.1\.weight has shape \(3,\), but \(32,\) by the sizes of the others",
    ),
    "nan.pth": (
        ours(**{"cnn.stem.1.weight": torch.full((32,), torch.nan)}),
        r"the tensor that becomes cnn\.stem\.1\.weight has infinite or missing values",
    ),
    "nameless.pth": (
        lambda p: torch.save(network_of(NetworkConfig(embed_dim=48, depth=1)).state_dict(), p),
        r"it does not say its sizes, which are none of retina, base, tiny, but an unnamed size \(embed_dim 48",
    ),
    "vast.pth": (
        ours_saying({"network": TINY.to_dict() | {"depth": 10**9}}),
        r"its description of the network cannot be read \(depth is 1000000000; expected whole numbers from 1 to 8192",
    ),
    "other_size.pth": (
        ours_saying({"network": TINY.to_dict() | {"decoder_channels": [64, 48, 32, 8192]}}),
        r"the tensor that becomes decoder\..* has shape .* by the sizes of the others",
    ),
    "nonsense.pth": (ours_saying({"network": 5}), r"its description of the network cannot be read"),
    "trained.pth": (ours_saying({"trained": 5}), r'says "trained": 5; expected a list of prefixes'),
    "block.pth": (ours_saying([1]), r"is damaged: its entry retina is a list; expected a dictionary"),
    "version.pth": (ours_saying({"format_version": "new"}), r"format version new; this is nnunetv2-retina"),
    "newer.pth": (
        lambda p: torch.save({"network_weights": network_of().state_dict(), "retina": {"network": {"surprise": 1}}}, p),
        r"its description of the network cannot be read \(unknown network settings surprise",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_wrong_files(tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(RetinaError, match=message):
        import_weights(tmp_path / name, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_refuses_wrong_targets(tmp_path, network, monkeypatch, capsys):
    source, target = tmp_path / "a.pth", tmp_path / "b.pth"
    checkpoint.save(source, network.state_dict(), TINY)
    with pytest.raises(RetinaError, match=r"IN and OUT are the same file, .*a\.pth\. Give OUT another name"):
        import_weights(source, tmp_path / "." / "a.pth", overwrite=True)
    with pytest.raises(RetinaError, match=r"none/b\.pth cannot be written: .*none is no folder\. Make it"):
        import_weights(source, tmp_path / "none" / "b.pth")
    with pytest.raises(RetinaError, match=r"is a folder\. Give the name of the file to write"):
        import_weights(source, tmp_path)
    target.write_text("mine")
    assert command.main([str(source), str(target)]) == 2
    assert "b.pth exists. Give another name, or --overwrite to replace it" in capsys.readouterr().err
    assert target.read_text() == "mine"

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", denied)
        with pytest.raises(RetinaError, match=r"b\.pth cannot be written .*Permission denied"):
            import_weights(source, target, overwrite=True)
    assert command.main([str(source), str(target), "--overwrite"]) == 0
    assert checkpoint.load(target).fingerprint == checkpoint.load(source).fingerprint
