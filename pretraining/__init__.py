"""Pre-training without labels: ``retina_pretrain``. Imports torch and NumPy, never nnU-Net.

The public names are resolved at their first use: importing the package costs nothing.
"""

from importlib import import_module

_PUBLIC = {
    "Execution": "pretraining.recipe",
    "ImageStore": "pretraining.store.reader",
    "Job": "pretraining.job",
    "Recipe": "pretraining.recipe",
    "pack": "pretraining.store.packing",
    "pretrain": "pretraining.job",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
