"""Splits: nnU-Net's own where nothing else is asked, volumes kept together, impossible folds refused."""

import json

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol, with_usual
from nnunetv2_retina.protocol.folds import make_splits, prepare_splits

CASES = [f"v{v}_{axis}" for v in range(4) for axis in ("xy", "xz", "yz")]
GROUPED = Protocol(groups={case: case[:2] for case in CASES})


def test_is_nnunets_split_for_plain_cases():
    assert make_splits(CASES, Protocol()) == generate_crossval_split(sorted(CASES), seed=12345, n_splits=5)


def test_volumes_stay_together():
    splits = make_splits(CASES, GROUPED)
    assert len(splits) == 4
    for split in splits:
        assert sorted([*split["train"], *split["val"]]) == sorted(CASES)
        assert not {c[:2] for c in split["train"]} & {c[:2] for c in split["val"]}
    assert sorted(case for split in splits for case in split["val"]) == sorted(CASES)


def test_fixed_folds_are_taken_as_they_are():
    protocol = Protocol(folds=({"train": ["a"], "val": ["b"]},))
    assert make_splits(["a", "b"], protocol) == [{"train": ["a"], "val": ["b"]}]


def test_writes_the_file_once(tmp_path):
    prepare_splits(tmp_path, CASES, GROUPED, 3)
    path = tmp_path / "splits_final.json"
    written = path.read_text()
    assert json.loads(written) == make_splits(CASES, GROUPED)
    prepare_splits(tmp_path, CASES, GROUPED, 0)
    assert path.read_text() == written
    assert [p.name for p in tmp_path.iterdir()] == ["splits_final.json"]


@pytest.mark.parametrize(
    ("cases", "protocol", "fold", "message"),
    [
        (CASES, GROUPED, 4, r"fold 4 cannot exist: the folds of 12 training cases are 0, 1, 2, 3 \(and all\)"),
        (CASES, GROUPED, -1, r"fold -1 cannot exist"),
        (CASES[:3], GROUPED.__class__(groups={c: "v0" for c in CASES[:3]}), 0, r"are one volume.*Train fold all"),
        (["a", "b"], Protocol(), 2, r"the folds of 2 training cases are 0, 1"),
        (["a"], Protocol(groups={"b": "v"}), 0, r"name 'b', which is no training case; the training cases are a$"),
    ],
)
def test_refuses_a_fold_that_cannot_exist(tmp_path, cases, protocol, fold, message):
    with pytest.raises(RetinaError, match=message):
        prepare_splits(tmp_path, cases, protocol, fold)
    assert not (tmp_path / "splits_final.json").exists()


def test_fold_all_needs_no_split(tmp_path):
    prepare_splits(tmp_path, ["a"], Protocol(), "all")
    assert not list(tmp_path.iterdir())


def test_refuses_an_existing_file_that_parts_a_volume(tmp_path):
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["v0_xy"], "val": ["v0_xz"]}]))
    with pytest.raises(RetinaError, match=r"puts v0_xz into validation and v0_xy into training.*cut from v0.*Delete"):
        prepare_splits(tmp_path, CASES, GROUPED, 0)


def test_names_the_folds_of_an_existing_file(tmp_path):
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    with pytest.raises(RetinaError, match=r"the folds in .*splits_final.json are 0 \(and all\)"):
        prepare_splits(tmp_path, ["a", "b"], Protocol(), 1)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("[{", r"splits_final\.json cannot be read as JSON .*Delete that file"),
        ('{"train": []}', r"holds no splits; expected a list"),
        ('[{"train": ["a"]}]', r"holds no splits; expected a list"),
        (
            '[{"train": ["a", "gone"], "val": ["b"]}]',
            r"fold 0 names gone, .*no preprocessed data, and leaves out c: .*",
        ),
    ],
)
def test_refuses_a_file_that_is_damaged_or_older_than_the_cases(tmp_path, contents, message):
    (tmp_path / "splits_final.json").write_text(contents)
    with pytest.raises(RetinaError, match=message):
        prepare_splits(tmp_path, ["a", "b", "c"], Protocol(), 0)


def test_refuses_a_file_of_other_folds_than_the_protocols(tmp_path):
    first, other = {"train": ["a", "b"], "val": ["c"]}, {"train": ["a"], "val": ["c"]}
    (tmp_path / "splits_final.json").write_text(json.dumps([first]))
    assert prepare_splits(tmp_path, ["a", "b", "c"], Protocol(folds=({"train": ["b", "a"], "val": ["c"]},)), 0) == first
    with pytest.raises(RetinaError, match=r"holds other folds than dataset\.json.*Delete that file"):
        prepare_splits(tmp_path, ["a", "b", "c"], Protocol(folds=(other,)), 0)


def test_refuses_a_split_that_leaves_cases_out_unless_the_protocol_says_so(tmp_path):
    split = {"train": ["a"], "val": ["b"]}
    (tmp_path / "splits_final.json").write_text(json.dumps([split]))
    with pytest.raises(RetinaError, match=r"fold 0 leaves out 1 of 3 preprocessed cases: c\. If they were added"):
        prepare_splits(tmp_path, ["a", "b", "c"], Protocol(), 0)
    assert prepare_splits(tmp_path, ["a", "b", "c"], Protocol(folds=(split,)), 0) == split


def test_a_fold_may_validate_on_all_that_it_trains_on_or_on_none_of_it(tmp_path):
    """Also where volumes are to be kept together: nothing else can be done with one labelled case."""
    both = Protocol(folds=({"train": CASES[:3], "val": CASES[:3]},), groups=GROUPED.groups)
    assert prepare_splits(tmp_path, CASES, both, 0)["val"] == CASES[:3]
    path = tmp_path / "splits_final.json"
    for part, fault in ((CASES[:1], "has v0_xy in train and in val, where its score"), ([], "has no case in val")):
        path.write_text(json.dumps([{"train": CASES, "val": part}]))
        with pytest.raises(RetinaError, match=rf"splits_final\.json: fold 0 {fault}.* Correct it, or delete that file"):
            prepare_splits(tmp_path, CASES, Protocol(), 0)


def test_settings_of_a_trainer_leave_out_the_warm_up_of_another_schedule():
    usual = {"warmup": 0.1, "iterations": 400}
    assert with_usual({"retina": {"schedule": "onecycle"}}, usual)["retina"] == {
        "iterations": 400, "schedule": "onecycle"
    }  # fmt: skip
