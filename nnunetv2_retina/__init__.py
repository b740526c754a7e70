"""RETINA for nnU-Net: pre-trained transformers for electron microscopy, trained and applied by nnU-Net v2.

The public names are resolved at their first use. Imports nothing: it is imported at every start of the interpreter (see
``registration``).
"""

__version__ = "0.1.0"

_HOMES = {
    "NetworkConfig": "nnunetv2_retina.network",
    "Predictor": "nnunetv2_retina.prediction.predictor",
    "TransUNet": "nnunetv2_retina.network",
    "evaluate": "nnunetv2_retina.evaluation.evaluate",
    "read_weights": "nnunetv2_retina.weights.importing",
    "write_model_report": "nnunetv2_retina.report.page",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
