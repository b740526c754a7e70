"""Electron-microscopy data sets as nnU-Net raw data sets: one writer, and the converters that feed it.

The public names are imported at first use: importing the package costs nothing.
"""

from importlib import import_module

_HOMES = {
    "Case": "dataset_conversion.spec",
    "DatasetSpec": "dataset_conversion.spec",
    "Spacing": "nnunetv2_retina.images.spacing",
    "convert_benchmark": "dataset_conversion.converters.converter",
    "convert_folder": "dataset_conversion.own_data.folder",
    "write_raw_dataset": "dataset_conversion.writer.raw_dataset",
}
__all__ = ["Case", "DatasetSpec", "Spacing", "convert_benchmark", "convert_folder", "write_raw_dataset"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
