"""Splits of a data set into training and validation cases that keep the cases of one volume together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import save_json

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import replacing
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.protocol.kinds import fold_fault

MAX_FOLDS = 5
Split = Mapping[str, Sequence[str]]


def make_splits(cases: Sequence[str], protocol: Protocol) -> list[Split]:
    """Return the protocol's fixed folds, or nnU-Net's cross-validation over the volumes.

    Five folds, fewer where there are fewer volumes, none for a single one. With one volume a case and five of them this
    is nnU-Net's own split.

    Raises:
        RetinaError: if the protocol names a case that the data set does not have.
    """
    groups = dict(protocol.groups or {})
    _check_names(cases, protocol)
    if protocol.folds is not None:
        return [dict(fold) for fold in protocol.folds]
    members: dict[str, list[str]] = {}
    for case in sorted(cases):
        members.setdefault(groups.get(case, case), []).append(case)
    volumes = sorted(members)
    if len(volumes) < 2:
        return []
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # scikit-learn: seconds

    splits = generate_crossval_split(volumes, seed=12345, n_splits=min(MAX_FOLDS, len(volumes)))
    return [{part: [case for v in split[part] for case in members[v]] for part in ("train", "val")} for split in splits]


def _check_names(cases: Sequence[str], protocol: Protocol) -> None:
    in_folds = {case for fold in protocol.folds or () for part in fold.values() for case in part}
    if unknown := sorted({*(protocol.groups or {}), *in_folds} - set(cases)):
        raise RetinaError(
            f'dataset.json, block "retina": groups or folds name {unknown[0]!r}, which is no training case; '
            f"the training cases are {shorten(sorted(cases))}"
        )


def prepare_splits(folder: Path, cases: Sequence[str], protocol: Protocol, fold: Any) -> Split:
    """Make sure that ``folder/splits_final.json`` holds the fold, before nnU-Net reads it.

    nnU-Net itself answers a fold outside the file with a random split, and needs five cases to make the file.

    Args:
        folder: the data set's preprocessed folder.
        cases: names of all training cases.
        protocol: with groups or fixed folds, where the data set has them.
        fold: a number from 0, or ``"all"``, which needs no file.

    Returns:
        The cases of the fold; for ``"all"`` all of them twice.

    Raises:
        RetinaError: if the fold cannot exist, or an existing file is damaged, is older than the cases or the
            protocol's folds, or parts the cases of one volume.
    """
    if fold == "all":
        return {"train": list(cases), "val": list(cases)}
    path = folder / "splits_final.json"
    splits, number = find_splits(folder, cases, protocol, fold), int(fold)
    _check_parts(splits[number], number, path)
    _check_volumes_together(splits[number], protocol.groups or {}, path)
    _check_complete(splits[number], cases, protocol, number, path)
    if not path.is_file():
        with replacing(path) as temporary:
            save_json(splits, temporary, sort_keys=False)
    return splits[number]


def find_splits(folder: Path | None, cases: Sequence[str], protocol: Protocol, fold: Any) -> Sequence[Split]:
    """Return the splits of ``folder/splits_final.json``, else those that the next training would write.

    Args:
        folder: the data set's preprocessed folder; None: whatever file it has is not read.
        cases: names of all training cases.
        protocol: with groups or fixed folds, where the data set has them.
        fold: a number from 0, which must be among them.

    Raises:
        RetinaError: if it is not, or the file is damaged or holds other folds than the protocol.
    """
    path = None if folder is None else folder / "splits_final.json"
    path = path if path is not None and path.is_file() else None
    splits = make_splits(cases, protocol) if path is None else _read_splits(path, protocol)
    if not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise RetinaError(f"fold {fold} cannot exist: {_available(splits, cases, path)}")
    return splits


_ANEW = "Delete that file; the next training makes one that fits"


def _read_splits(path: Path, protocol: Protocol) -> Sequence[Split]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RetinaError(f"{path} cannot be read as JSON ({error}). {_ANEW}") from error
    if not isinstance(splits, list) or not all(map(_is_split, splits)):
        raise RetinaError(f'{path} holds no splits; expected a list of {{"train": [cases], "val": [cases]}}. {_ANEW}')
    if protocol.folds is not None and list(map(_sorted, splits)) != list(map(_sorted, protocol.folds)):
        raise RetinaError(
            f'{path} holds other folds than dataset.json, block "{BLOCK}", which may have been changed since. {_ANEW}, '
            "or remove folds from dataset.json to keep the file's"
        )
    return splits


def _is_split(split: object) -> bool:
    parts = [split.get(part) for part in ("train", "val")] if isinstance(split, dict) else [None]
    return all(isinstance(part, list) and all(isinstance(case, str) for case in part) for part in parts)


def _sorted(split: Split) -> list[list[str]]:
    return [sorted(split[part]) for part in ("train", "val")]


def _check_parts(split: Split, fold: int, path: Path) -> None:
    if fault := fold_fault(split):
        raise RetinaError(f"{path}: fold {fold} {fault}. Correct it, or delete that file; the next training makes one")


def _check_complete(split: Split, cases: Sequence[str], protocol: Protocol, fold: int, path: Path) -> None:
    """Refuse a split that names other cases than there are; the protocol's own folds may leave some out."""
    named = {*split["train"], *split["val"]}
    unknown, unused = sorted(named - {*cases}), sorted({*cases} - named)
    if unknown:
        also = f", and leaves out {shorten(unused)}" if unused else ""
        raise RetinaError(
            f"{path}: fold {fold} names {shorten(unknown)}, for which there is no preprocessed data{also}: cases were "
            f"removed or renamed since. {_ANEW}, or preprocess those cases"
        )
    if unused and protocol.folds is None:
        raise RetinaError(
            f"{path}: fold {fold} leaves out {len(unused)} of {len(cases)} preprocessed cases: {shorten(unused)}. If "
            "they were added since, delete that file; the next training makes one with all. If they are to be left "
            f'out, say so: put the splits of that file into dataset.json, block "{BLOCK}", as folds'
        )


def _available(splits: Sequence[Split], cases: Sequence[str], path: Path | None) -> str:
    if not splits:
        return f"the training cases ({shorten(sorted(cases))}) are one volume, which cannot be split. Train fold all"
    source = f"in {path}" if path is not None else f"of {len(cases)} training cases"
    return f"the folds {source} are {', '.join(str(i) for i in range(len(splits)))} (and all)"


def _check_volumes_together(split: Split, groups: Mapping[str, str], path: Path) -> None:
    if {*split["train"]} == {*split["val"]}:
        return
    training = {groups[case]: case for case in split["train"] if case in groups}
    for case in split["val"]:
        if groups.get(case) in training:
            raise RetinaError(
                f"{path} puts {case} into validation and {training[groups[case]]} into training, though both were cut "
                f"from {groups[case]}: the validation would be too good. Delete that file; the next training makes one "
                "that keeps volumes together"
            )
