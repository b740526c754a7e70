"""Cases whose voxels encode their coordinates, and what a raw data set holds."""

import json

import numpy as np
from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from dataset_conversion.converters.converter import convert_benchmark
from dataset_conversion.spec import Case, DatasetSpec
from dataset_conversion.writer.record import REPORT

LABELS = {"background": 0, "mito": 1, "er": 2}


def coordinates(shape, dtype=np.uint16):
    """Every element holds its own coordinates, one decimal pair an axis: (z=1, y=2, x=3) -> 10203."""
    grid = np.indices(shape)
    return sum(axis * 100 ** (len(shape) - 1 - i) for i, axis in enumerate(grid)).astype(dtype)


def label_of(image):
    return (image % 3).astype(np.uint8)


def case(name="a", shape=(5, 7), dtype=np.uint16, **options):
    image = coordinates(shape, dtype)
    return Case(name, image, options.pop("label", label_of(image)), **options)


def spec(**options):
    return DatasetSpec(**{"id": 501, "name": "Test", "labels": LABELS, **options})


def convert_one(benchmark, source, *arguments, **options):
    """Convert a benchmark of one data set."""
    (folder,) = convert_benchmark(benchmark, source, *arguments, **options)
    return folder


def read_back(folder, name, part="Tr"):
    """Image, label and spacing as nnU-Net's own reader gives them, after its own integrity checks."""
    dataset = json.loads((folder / "dataset.json").read_text())
    ending = dataset["file_ending"]
    image, label = str(folder / f"images{part}/{name}_0000{ending}"), str(folder / f"labels{part}/{name}{ending}")
    reader = determine_reader_writer_from_dataset_json(dataset, image, verbose=False)
    manager = LabelManager(dataset["labels"], None)
    expected = manager.all_labels + ([manager.ignore_label] if manager.has_ignore_label else [])
    assert verify_labels(label, reader, expected)
    assert check_cases([image], label, 1, reader)
    pixels, properties = reader().read_images([image])
    return pixels[0], reader().read_seg(label)[0][0], tuple(properties["spacing"])


def report_of(folder):
    return json.loads((folder / REPORT).read_text())
