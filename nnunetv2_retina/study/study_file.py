"""Reading a study's YAML file: unknown, missing and repeated settings are refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

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
        block = _settings(contents, Study, "the file")
        for name, kind in (("datasets", StudyDataset), ("systems", StudySystem), ("primary", PrimaryComparison)):
            if name in block:
                block[name] = tuple(_entry(kind, entry, name) for entry in block[name])
        if "prediction" in block:
            block["prediction"] = StudyPrediction(**_settings(block["prediction"], StudyPrediction, "prediction"))
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


def _entry(kind: type[Any], value: object, where: str) -> Any:
    where = f"an entry of {where}"
    block = _settings(value, kind, where)
    if "training_on" in block:
        block["training_on"] = {str(name): training for name, training in block["training_on"].items()}
        for name, training in block["training_on"].items():
            if not isinstance(training, Mapping):
                raise RetinaError(f"{where}: training_on {name} is {training!r}; expected {_EXPECTED['Mapping']}")
    return kind(**block)


def _settings(value: object, kind: type[Any], where: str) -> dict[str, Any]:
    """Return a block of named settings, each of its field's type; refuse unknown and missing ones and other types."""
    if not isinstance(value, Mapping):
        raise RetinaError(f"{where} is {value!r}; expected {_EXPECTED['Mapping']}. Correct it")
    known = {entry.name: entry for entry in fields(kind)}
    for key in value:
        if key not in known:
            guess = difflib.get_close_matches(str(key), known, n=1)
            hint = f". Did you mean {guess[0]}?" if guess else ""
            raise RetinaError(f"{where}: unknown setting {key!r}; known are {', '.join(known)}{hint}")
    needed = [name for name, entry in known.items() if entry.default is MISSING and entry.default_factory is MISSING]
    missing = [name for name in needed if name not in value]
    if missing:
        raise RetinaError(
            f"{where} lacks {', '.join(missing)}; it has {', '.join(map(str, value))}. Add what is missing"
        )
    return {name: _typed(given, str(known[name].type), f"{where}: {name}") for name, given in value.items()}


_EXPECTED = {
    "tuple": "a list, such as [1, 2, 3]",
    "Mapping": "settings, name: value",
    "str": "a text (in quotes, where it would be yes, no or empty)",
    "bool": "true or false",
}


def _typed(value: Any, annotation: str, where: str) -> Any:
    """Return a value as its field has it: lists are tuples, numbers where texts are expected are names.

    Numbers are left to the dataclasses, which know their limits.
    """
    if value is None and annotation.endswith("| None"):
        return value
    kind = next((kind for kind in _EXPECTED if annotation.startswith(kind)), None)
    usable = {
        "tuple": isinstance(value, list),
        "Mapping": isinstance(value, Mapping),
        "str": isinstance(value, (str, int, float)) and not isinstance(value, bool) and bool(str(value).strip()),
        "bool": isinstance(value, bool),
        None: True,
    }
    if not usable[kind]:
        raise RetinaError(f"{where} is {value!r}; expected {_EXPECTED[str(kind)]}. Correct it")
    if kind == "tuple":
        return tuple(map(str, value)) if annotation.startswith("tuple[str") else tuple(value)
    return str(value) if kind == "str" else value


def _weights(value: Mapping[str, Any], folder: Path) -> dict[str, str]:
    files = {}
    for name, given in value.items():
        if not isinstance(given, str) or not given.strip():
            raise RetinaError(f"weights {name} is {given!r}; expected the path of a file. Correct it")
        text = weights_path(os.path.expandvars(given), folder)
        if "$" in text:
            raise RetinaError(f"weights {name} is {given!r}, and that variable is not set. Set it, or write the path")
        files[str(name)] = str(folder / text)
    return files
