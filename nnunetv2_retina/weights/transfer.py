"""Which tensors a checkpoint gives, and what is frozen.

Scopes (Xing et al. 2025, "Fine-tuning", and BaderLab/RETINA train.py where text and code differ):

=============  =================================================  ==================  ==========================
scope          taken from the checkpoint                          frozen              source
=============  =================================================  ==================  ==========================
transformer    blocks and final norm                              the same            the paper's text (default)
encoder        CNN, patch and position embeddings, transformer    the transformer     the released code
full           everything but the head                            nothing             the paper's ablation
random blocks  CNN, patch and position embeddings                 the transformer     a control: what the blocks carry
=============  =================================================  ==================  ==========================

Of these, what a file says was trained: the rest of it, such as the decoder of a file made from ImageNet weights, is
some random initialisation, the same for every seed, and is left at the network's own.

Frozen parts run in evaluation mode during training, without dropout: dropout regularises weights that are being
learned, and on fixed ones it would only make the features of training and prediction differ. They contain layer norms,
which have no running statistics (the CNN has group norms, also without); a batch norm in a frozen part would stop
updating its statistics by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.unet_resnet50 import ENCODER as UNET_ENCODER
from nnunetv2_retina.weights.adaptation import adapted
from nnunetv2_retina.weights.compatibility import HEAD


@dataclass(frozen=True)
class Scope:
    """A rule of transfer: prefixes of the keys that are taken, and of those that are frozen."""

    name: str
    taken: tuple[str, ...]
    frozen: tuple[str, ...]
    trained: tuple[str, ...] = ("",)
    """Prefixes of the keys that the weights file holds trained values of; ("",): of all."""

    def within(self, trained: Iterable[str]) -> Scope:
        """Return the scope for a file that holds trained values below these prefixes alone."""
        return replace(self, trained=tuple(trained))

    def takes(self, key: str) -> bool:
        """Tell whether the tensor of this key comes from the checkpoint. The head never does."""
        return self.covers(key) and key.startswith(self.trained)

    def covers(self, key: str) -> bool:
        """Tell whether the tensor of this key would come from a checkpoint in which all is trained."""
        return HEAD not in key and key.startswith(self.taken)


SCOPES = {
    scope.name: scope
    for scope in (
        Scope("transformer", ("transformer.",), ("transformer.",)),
        Scope("encoder", ("cnn.", "embedding.", "transformer."), ("transformer.",)),
        Scope("full", ("",), ()),
        Scope("random blocks", ("cnn.", "embedding."), ("transformer.",)),
    )
}
UNET_SCOPES = {"encoder": Scope("encoder", (UNET_ENCODER,), (UNET_ENCODER,))}
"""Of the UNet-ResNet50: the encoder is taken and frozen, as in the CEM500K project's benchmarks."""


def scope_of(record: Mapping[str, Any], scopes: Mapping[str, Scope]) -> Scope | None:
    """Return the scope of a transfer, from its record; None if nothing was transferred.

    Records of earlier versions have no ``trained``: those trainings took all that the scope covers.
    """
    name = record["scope"]
    return scopes[name].within(record.get("trained", ("",))) if name else None


def trained_prefixes(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the prefixes of the tensors with trained values, from what a file says of itself; ("",) for all.

    Raises:
        RetinaError: if it says something other than a list of texts.
    """
    prefixes = description.get("trained") or ("",)
    if not isinstance(prefixes, (list, tuple)) or not all(isinstance(prefix, str) for prefix in prefixes):
        raise RetinaError(f'the weights file says "trained": {prefixes!r}; expected a list of prefixes of tensors')
    return ("",) if "" in prefixes else tuple(prefixes)


def freeze(network: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Exclude every parameter below the prefixes from training; return their names."""
    frozen = [name for name, _ in network.named_parameters() if prefixes and name.startswith(prefixes)]
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    return frozen


def set_train_mode(network: nn.Module) -> None:
    """Call ``network.train()``, but leave modules whose parameters are all frozen in evaluation mode."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def restrict_load(
    network: nn.Module, scope: Scope, file_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
) -> ExitStack:
    """Let ``network.load_state_dict`` change only what the scope takes, until the returned stack is closed.

    nnU-Net's loader hands over the whole checkpoint but the head, after it has compared the shapes. This keeps the rest
    at its fresh initialisation, and makes fit what ``adaptation`` can, without a second loader.

    Args:
        network: of this project.
        scope: what is taken.
        file_shapes: the shapes in the file of the tensors that are made to fit: ``state_dict`` shows these until the
            file is loaded.
    """

    def keep_fresh(module: nn.Module, state_dict: dict[str, Tensor], *_: Any) -> None:
        mine = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        fitting, _changes = adapted(state_dict, {name: tuple(value.shape) for name, value in mine.items()})
        state_dict.update({key: fitting[key] if scope.takes(key) else value.detach() for key, value in mine.items()
                           if key in state_dict})  # fmt: skip

    def show_file_shapes(module: nn.Module, state_dict: dict[str, Tensor], *_: Any) -> None:
        state_dict.update({name: torch.empty(shape, device="meta") for name, shape in file_shapes.items()})

    hooks: Any = network  # PyTorch does not annotate these methods
    handles = ExitStack()
    handles.callback(hooks.register_load_state_dict_pre_hook(keep_fresh).remove)
    shown = hooks.register_state_dict_post_hook(show_file_shapes)
    handles.callback(shown.remove)
    handles.callback(hooks.register_load_state_dict_post_hook(lambda *_: shown.remove()).remove)
    return handles


def report(
    network: nn.Module, record: Mapping[str, Any], scopes: Mapping[str, Scope] = MappingProxyType(SCOPES)
) -> dict[str, Any]:
    """Return what was loaded, left fresh and frozen, as ``transfer_report.json`` holds it.

    Args:
        network: after the transfer.
        record: where the weights came from; ``record["scope"]`` is a key of ``scopes``, or None, and
            ``record["trained"]`` what the file says was trained.
        scopes: those of the network.

    Returns:
        The record with ``loaded``, ``fresh`` and ``frozen``, names of tensors; ``untrained``: those of the fresh ones
        that the scope covers, which the file holds without trained values; and ``parameters``, numbers.
    """
    scope = scope_of(record, scopes)
    names = list(network.state_dict())
    loaded = [name for name in names if scope is not None and scope.takes(name)]
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return {
        **record,
        "parameters": {
            "all": sum(sizes.values()),
            "loaded": sum(sizes.get(name, 0) for name in loaded),
            "frozen": sum(sizes[name] for name in frozen),
        },
        "loaded": loaded,
        "fresh": [name for name in names if name not in set(loaded)],
        "untrained": [name for name in names if scope is not None and scope.covers(name) and not scope.takes(name)],
        "frozen": frozen,
    }


def summary(report: Mapping[str, Any]) -> str:
    """Put the report into one line, for the training log."""
    counts = {key: f"{value / 1e6:.2f} M" for key, value in report["parameters"].items()}
    if report["source"] is None and report["frozen"]:
        return f"Random initialisation, at which {counts['frozen']} of {counts['all']} parameters stay frozen."
    if report["source"] is None:
        return f"Random initialisation: all {counts['all']} parameters are trained, nothing was transferred."
    untrained = report.get("untrained") or ()
    parts = ", ".join(dict.fromkeys(f"{name.split('.')[0]}." for name in untrained))
    fitted = "".join(f" {name}: {change};" for name, change in (report.get("adapted") or {}).items())
    left_out = f" {len(untrained)} tensors of that scope ({parts}) were not trained in the file;" if untrained else ""
    return (
        f"Transferred from {report['source']} ({report['named_by']}): {counts['loaded']} of {counts['all']} parameters "
        f"(scope {report['scope']}); {counts['frozen']} frozen;{fitted}{left_out} the rest is at its fresh "
        "initialisation. See transfer_report.json."
    )
