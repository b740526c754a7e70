"""Model folders as nnU-Net writes them, of tiny networks with random weights: no training, no planning."""

import json
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_retina.network import NetworkConfig

PATCH = 32
RESAMPLE = {
    f"resampling_fn_{what}{suffix}": value
    for what, seg, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1))
    for suffix, value in (
        ("", "resample_data_or_seg_to_shape"),
        ("_kwargs", {"is_seg": seg, "order": order, "order_z": 0, "force_separate_z": None}),
    )
}
LABELS = {"background": 0, "one": 1, "two": 2, "three": 3}
REGIONS = {"background": 0, "any": [1, 2], "two": [2], "ignore": 3}


def unet(dimensions: int = 2) -> dict[str, Any]:
    """nnU-Net's own network, as its plans describe it."""
    conv = f"torch.nn.modules.conv.Conv{dimensions}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d"
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": conv,
            "kernel_sizes": [[3] * dimensions] * 2,
            "strides": [[1] * dimensions, [2] * dimensions],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": norm,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def transunet() -> dict[str, Any]:
    """RETINA's, of size tiny."""
    return {
        "network_class_name": "nnunetv2_retina.network.TransUNet",
        "arch_kwargs": {"config": NetworkConfig.named("tiny").to_dict()},
        "_kw_requires_import": [],
    }


def make_model(
    folder: Path,
    *,
    ending: str = ".png",
    reader: str = "NaturalImage2DIO",
    trainer: str = "nnUNetTrainer",
    architecture: dict[str, Any] | None = None,
    folds: tuple[int | str, ...] = (0,),
    labels: dict[str, Any] = LABELS,
    spacing: tuple[float, ...] = (1.0, 1.0),
    channels: int = 1,
    patch: int = PATCH,
    transpose: tuple[int, ...] = (0, 1, 2),
    configuration: str = "2d",
    **dataset,
) -> Path:
    """Write plans.json, dataset.json and a checkpoint for each fold; return the folder."""
    dimensions = 3 if configuration.startswith("3d") else 2
    settings = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [patch] * dimensions,
        "spacing": [1.0] * (dimensions - 2) + list(spacing),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "architecture": architecture or unet(dimensions),
        **RESAMPLE,
    }
    plans = {
        "dataset_name": "Dataset950_test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "configurations": {configuration: settings},
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(channels)},
        "label_manager": "LabelManager",
    }
    names = {str(channel): f"EM{channel}" for channel in range(channels)}
    about = {"channel_names": names, "labels": labels, "numTraining": 1, "file_ending": ending, **dataset}
    if any(isinstance(value, list) for value in labels.values()):
        about["regions_class_order"] = [1, 2]
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(about))
    for fold in folds:
        write_checkpoint(folder, fold, trainer, configuration, plans, about)
    return folder


def write_checkpoint(
    folder: Path, fold, trainer: str, configuration: str, plans: dict[str, Any], about: dict[str, Any]
) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    manager = PlansManager(json.loads(json.dumps(plans)))
    heads = manager.get_label_manager(about).num_segmentation_heads
    torch.manual_seed(7 if fold == "all" else 11 + fold)
    network = recursive_find_trainer_class_by_name(trainer).build_network_architecture(
        manager, manager.get_configuration(configuration), len(about["channel_names"]), heads, False
    )
    weights = {name: value + 0.02 * torch.randn(value.shape) for name, value in network.state_dict().items()}
    (folder / f"fold_{fold}").mkdir()
    content = {
        "network_weights": weights,
        "trainer_name": trainer,
        "init_args": {"configuration": configuration},
        "inference_allowed_mirroring_axes": tuple(range(3 if configuration.startswith("3d") else 2)),
    }
    torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
