"""One small file of each format and trap, read alike by conversion, pre-training, prediction and evaluation.

The right array is the file's own, or nothing at all: a refusal in one sentence.
"""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.format_files import FORMATS, PLANE, TRAPS, write_format
from helpers.mutations import SUBJECTS, judge, mutate

from dataset_conversion.own_data.new_images import convert_images
from dataset_conversion.readers.images import file_suffix, read_image
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.images.plain import check_plain
from nnunetv2_retina.nnunet.inputs import read_channel
from nnunetv2_retina.nnunet.labels import choose_reader, read_labels
from pretraining.store.decoding import decode

SHOWN = {name: array for name, (array, _) in FORMATS.items()} | {name: shown for name, (shown, _, _) in TRAPS.items()}
STORED = {name: array for name, (array, _) in FORMATS.items()} | {name: mask for name, (_, mask, _) in TRAPS.items()}
PICTURES = (".png", ".bmp", ".tif", ".jpg")
NNUNET = (".png", ".bmp", ".tif", ".nii", ".nii.gz", ".nrrd")


def _contents(name):
    """A ``dataset.json`` for such files; TIFF volumes name their reader, as nnU-Net's documentation has it."""
    volume = {"overwrite_image_reader_writer": "Tiff3DIO"} if name.endswith(".tif") and SHOWN[name].ndim == 3 else {}
    return {"file_ending": file_suffix(Path(name)), "channel_names": {"0": "EM"}, **volume}


@pytest.mark.parametrize("name", SHOWN)
def test_images(tmp_path, name):
    path = write_format(name, tmp_path)
    np.testing.assert_array_equal(read_image(path).array, SHOWN[name])
    if path.suffix in PICTURES:
        np.testing.assert_array_equal(np.squeeze(decode(path.read_bytes())), SHOWN[name])
    if file_suffix(path) in NNUNET:
        try:
            check_plain(path)
            read = read_channel(path, _contents(name))
        except (ImageError, RetinaError) as error:
            assert name in TRAPS and "\n" not in str(error)
        else:
            np.testing.assert_array_equal(np.squeeze(read), SHOWN[name])


@pytest.mark.parametrize("name", SHOWN)
def test_new_images_become_what_the_model_was_trained_on(tmp_path, name):
    """``retina_convert images``, then nnU-Net's reader: the way of a file that nnU-Net would misread."""
    path = write_format(name, tmp_path)
    ending = ".png" if SHOWN[name].ndim == 2 else ".nii.gz"
    contents = {"channel_names": {"0": "EM"}, "labels": {"background": 0}, "file_ending": ending}
    (tmp_path / "dataset.json").write_text(json.dumps(contents))
    convert_images(path, tmp_path / "new", tmp_path)
    (written,) = (tmp_path / "new").iterdir()
    check_plain(written)
    np.testing.assert_array_equal(np.squeeze(read_channel(written, contents)), SHOWN[name])


@pytest.mark.parametrize("name", [name for name in STORED if not name.endswith(".jpg")])
def test_masks(tmp_path, name):
    path = write_format(name, tmp_path)
    with contextlib.suppress(RetinaError):
        np.testing.assert_array_equal(read_image(path, mask=True).array, STORED[name])
    if file_suffix(path) in NNUNET:
        try:
            read = read_labels(path, choose_reader(_contents(name), path))
        except RetinaError as error:
            assert "\n" not in str(error)
        else:
            np.testing.assert_array_equal(np.squeeze(read.array), STORED[name])


@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_files(tmp_path, name):
    """A short form of ``tests/fuzz.py``."""
    subject = SUBJECTS[name]
    original = subject.read_original(tmp_path)
    outcomes = [judge(subject, *mutate(subject.content, f"test/{name}/{i}"), original, tmp_path) for i in range(12)]
    assert not [outcome for outcome in outcomes if outcome.is_fault]
    assert any(outcome.kind == "refused" for outcome in outcomes)


def test_a_damaged_file_that_is_read_otherwise_is_a_fault(tmp_path):
    """The judge itself: a file in the place of another."""
    subject = SUBJECTS["grey.png"]
    original = subject.read_original(tmp_path)
    assert judge(subject, subject.content, "", original, tmp_path).kind == "equal"
    other = SUBJECTS["grey16.png"].content
    assert judge(subject, other, "", original, tmp_path).is_fault
    assert PLANE.shape == original["pre-training"][0].shape
