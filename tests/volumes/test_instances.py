"""``retina_volume instances``: the ids of the volume in memory, across blocks."""

import json

import numpy as np
import pytest
from helpers.ome_volumes import labels, needs_zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_retina.commands import volume as command
from nnunetv2_retina.console.engines import Serial
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.instances import find_instances
from nnunetv2_retina.prediction.objects import table
from nnunetv2_retina.prediction.objects.columns import NAMES
from nnunetv2_retina.prediction.settings import InstanceSettings
from nnunetv2_retina.volumes import blocks, components, store
from nnunetv2_retina.volumes.instances import TABLE, InstanceRun
from nnunetv2_retina.volumes.journal import Journal, digest
from nnunetv2_retina.volumes.moments import Moments
from nnunetv2_retina.volumes.tasks import PREDICT

pytestmark = needs_zarr
CHUNK, SHARD, STEPS = 8, (8, 16, 16), (2.0, 1.0, 1.0)


def predicted(folder, volume, origin=(0.0, 0.0, 0.0)):
    """An output as ``predict`` leaves it, of labels that are given."""
    shape = volume.shape
    journal, shard = Journal(folder), blocks.shard_shape(shape, SHARD, CHUNK)
    plan = {
        "shape": shape, "block": shard, "shard": shard, "chunk": CHUNK, "spacing": STEPS, "unit": "nm",
        "names": {"1": "one"}, "input": "IN.zarr", "path": "0",
    }  # fmt: skip
    journal.begin({"-step_size": 0.5}, plan)
    moments = Moments(1.5, 2.0, blocks.whole(shape), 0, 3, "exact").to_json()  # whole numbers, as of 8 bits
    journal.write("moments.json", moments)
    key = digest({"-step_size": 0.5, "moments": moments})
    sizes = store.levels(shape, Spacing.of(STEPS, "nm"), shard, CHUNK, origin)
    store.create(folder, sizes, "uint8", CHUNK, "test", {1: "one", 2: "two"})
    writer = store.LevelWriter(folder, "0")
    for block in blocks.cut(shape, shard):
        journal.mark(PREDICT, block, key, 0.0, {"files": writer.write(block.box, volume[block.box])})
    return folder


def blobs(shape, seed=0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.asarray(np.digitize(noise, np.quantile(noise, [0.6, 0.85])), np.uint8)


@pytest.mark.parametrize(
    "chosen",
    [
        InstanceSettings(min_distance=0.0, min_size=3),
        InstanceSettings(min_distance=6.0, min_size=20.0, units="physical"),
    ],
)
def test_ids_are_those_of_the_volume_in_memory(tmp_path, chosen):
    volume = blobs((12, 36, 30))
    ids, instances = find_instances(volume, STEPS, chosen)
    assert len(instances) > 10
    count = InstanceRun(predicted(tmp_path / "out.zarr", volume), chosen, print).run(Serial())
    assert count == len(instances)
    np.testing.assert_array_equal(labels(tmp_path / "out.zarr", "labels/instances/0"), ids)
    frame = table.Frame.of(volume.shape, Spacing.of(STEPS, "nm"))
    expected = table.describe(ids, [item.label for item in instances], {1: "one"}, frame)
    table.write(tmp_path / "expected.csv", expected)
    assert (tmp_path / "out.zarr/objects.csv").read_text() == (tmp_path / "expected.csv").read_text()


def test_again_and_with_other_settings(tmp_path):
    volume = blobs((12, 20, 20))
    output = predicted(tmp_path / "out.zarr", volume)
    for distance in (1000.0, 1000.0, 2.0):
        chosen = InstanceSettings(min_distance=distance)
        InstanceRun(output, chosen, print).run(Serial())
        expected = find_instances(volume, STEPS, chosen)[0]
        np.testing.assert_array_equal(labels(output, "labels/instances/0"), expected)
    about = json.loads((output / "labels/zarr.json").read_text())["attributes"]["ome"]
    assert about["labels"] == ["instances"]


@pytest.mark.parametrize("objects", [0, 1])
def test_command(tmp_path, capsys, objects):
    volume = np.zeros((8, 12, 20), np.uint8)
    volume[3:5, 2:6, 4 : 4 + 14 * objects] = 1  # in two blocks
    output = predicted(tmp_path / "out.zarr", volume, origin=(200.0, 0.0, 10.0))
    assert command.main(["instances", str(output)]) == 0
    assert f"{objects} instances are in" in capsys.readouterr().out
    read = table.read(output / TABLE, ["voxels", "z", "x", "centre_z", "centre_x", "length", "neighbour"])
    centre = ["207", "20.5"]  # 200 + 3.5 x 2 nm, 10 + 10.5: where a viewer shows it
    line = ["112", "3.5", "10.5", *centre, f"{np.linalg.norm([4, 4, 14]):.6g}", ""]
    assert list(read.values()) == [[value] * objects for value in line]
    assert tuple(json.loads((output / table.DICTIONARY).read_text())["columns"]) == NAMES
    assert f"{objects} objects in 1 image" in (output / "objects.html").read_text()
    assert open_volume(output / "labels/instances").levels[0].origin == (200.0, 0.0, 10.0)


def test_an_unfinished_prediction_is_refused(tmp_path):
    output = predicted(tmp_path / "out.zarr", blobs((12, 20, 20)))
    next((output / ".retina/done/predict").glob("*.json")).unlink()
    with pytest.raises(RetinaError, match=r"1 of 8 blocks of .* are not predicted yet"):
        InstanceRun(output, InstanceSettings(), print)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_pieces_unite_to_components(data):
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    volume = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 3, shape).astype(np.uint8)
    low = data.draw(st.integers(1, max(1, shape[0] - 1)))
    halves = [volume[:low], volume[low:]]
    numbers, pieces = zip(
        *(
            components.find_pieces(half, (at, 0, 0), shape)
            for half, at in zip(halves, (0, low), strict=True)
            if half.size
        ),
        strict=True,
    )
    columns = {
        name: np.concatenate([part.arrays()[name] for part in pieces]) for name in ("label", "first", "voxels", "box")
    }
    pairs = np.zeros((0, 2), np.int64)
    if len(pieces) == 2:
        pairs = components.meeting(numbers[0][-1:], numbers[1][:1], halves[0][-1:], halves[1][:1])
        pairs += np.array([0, len(pieces[0])])
    objects = components.unite(components.Pieces(**columns), pairs)
    shifted = [
        part + (at * (part > 0)).astype(np.int64) for part, at in zip(numbers, (0, len(pieces[0])), strict=False)
    ]
    ids = objects.of_piece[np.concatenate(shifted)] + 1
    expected, count = np.zeros(shape, np.int64), 0
    for label in (1, 2):
        regions, more = ndimage.label(volume == label)
        expected[regions > 0] = regions[regions > 0] + count
        count += more
    np.testing.assert_array_equal(ids, expected)
