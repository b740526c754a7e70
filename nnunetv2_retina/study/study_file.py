"""Reading a study's YAML file: unknown, missing and repeated settings are refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.study.definition import PrimaryComparison, Study, StudyDataset, StudyPrediction, StudySystem
from nnunetv2_retina.training.weights_request import weights_path


def read_study(path: str | Path) -> Study:
    """Read a study's file.

    Raises:
        RetinaError: if it is missing or no YAML, has unknown or lacks needed keys, or contradicts itself.
    """
    path = Path(path)
    contents = _load_yaml(path)
    try:
        block = _table(contents, Study, "the file")
        block["datasets"] = tuple(_entry(StudyDataset, entry, "datasets") for entry in _list(block, "datasets"))
        block["systems"] = tuple(_entry(StudySystem, entry, "systems") for entry in _list(block, "systems"))
        block["seeds"] = tuple(_list(block, "seeds"))
        if "primary" in block:
            block["primary"] = tuple(_entry(PrimaryComparison, entry, "primary") for entry in _list(block, "primary"))
        if "prediction" in block:
            block["prediction"] = StudyPrediction(**_table(block["prediction"], StudyPrediction, "prediction"))
        block["weights"] = _weights(block.get("weights", {}), path.resolve().parent)
        return Study(**block)
    except RetinaError as error:
        raise RetinaError(f"{path}: {error}") from error


def _load_yaml(path: Path) -> object:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise RetinaError('reading a study needs PyYAML. Run: pip install "nnunetv2-retina[study]"') from error

    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated_keys(yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RetinaError(f"{path}: cannot be read ({error}). Give the path of a study's YAML file") from error
    except yaml.YAMLError as error:
        raise RetinaError(f"{path} is not YAML: {' '.join(str(error).split())}. Correct it there") from error


def _refuse_repeated_keys(node: Any) -> None:
    """Refuse a key that a mapping has twice, of which YAML would take the last without a word."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            known.add(str(key.value))
            _refuse_repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value)


_Entry = TypeVar("_Entry", StudyDataset, StudySystem, PrimaryComparison)


def _entry(kind: type[_Entry], value: object, where: str) -> _Entry:
    block = _table(value, kind, f"an entry of {where}")
    for name in ("dataset", "trainer", "configuration", "name", "against"):
        if name in block:
            if str(block[name]).strip() in ("", "None"):
                raise RetinaError(f"an entry of {where}: {name} is {block[name]!r}; expected a text. Correct it")
            block[name] = str(block[name])
    for name in ("iterations", "labelled", "datasets"):
        if block.get(name) is not None and kind is not PrimaryComparison:
            values = _list(block, name)
            block[name] = tuple(map(str, values)) if name == "datasets" else tuple(values)
    on: Any = block.get("training_on", {})
    if not isinstance(on, Mapping):
        raise RetinaError(f"an entry of {where}: training_on is {on!r}; expected a data set: settings for each")
    if on:
        block["training_on"] = {str(name): training for name, training in on.items()}
    for name, training in (("training", block.get("training", {})), *((f"training_on {key}", on[key]) for key in on)):
        if not isinstance(training, Mapping):
            raise RetinaError(f"an entry of {where}: {name} is {training!r}; expected settings, name: value")
    return kind(**block)


def _table(value: object, kind: type[Any], where: str) -> dict[str, Any]:
    """Return a block of named settings; refuse unknown and missing ones."""
    if not isinstance(value, Mapping):
        raise RetinaError(f"{where} is {value!r}; expected settings, name: value. Correct it")
    known = [entry.name for entry in fields(kind)]
    for key in value:
        if key not in known:
            guess = difflib.get_close_matches(str(key), known, n=1)
            hint = f". Did you mean {guess[0]}?" if guess else ""
            raise RetinaError(f"{where}: unknown setting {key!r}; known are {', '.join(known)}{hint}")
    needed = [entry.name for entry in fields(kind) if entry.default is MISSING and entry.default_factory is MISSING]
    missing = [name for name in needed if name not in value]
    if missing:
        raise RetinaError(
            f"{where} lacks {', '.join(missing)}; it has {', '.join(map(str, value))}. Add what is missing"
        )
    return dict(value)


def _list(block: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = block[name]
    if not isinstance(value, list):
        raise RetinaError(f"{name} is {value!r}; expected a list, such as [1, 2, 3]. Correct it")
    return value


def _weights(value: object, folder: Path) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise RetinaError(f"weights is {value!r}; expected name: file. Correct it")
    files = {}
    for name, given in value.items():
        if not isinstance(given, str) or not given.strip():
            raise RetinaError(f"weights {name} is {given!r}; expected the path of a file. Correct it")
        text = weights_path(os.path.expandvars(given), folder)
        if "$" in text:
            raise RetinaError(f"weights {name} is {given!r}, and that variable is not set. Set it, or write the path")
        files[str(name)] = str(folder / text)
    return files
