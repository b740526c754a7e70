"""Rooms and the imports that are allowed between them; sizes of modules. Imports inside functions count, too."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nnunetv2_retina", "pretraining", "dataset_conversion")
GROUND = {"nnunetv2_retina", "console", "errors", "files", "images"}
"""Modules that every room may import; they import each other alone."""
ALLOWED = {
    "ground": set(),
    "protocol": set(),
    "network": set(),
    "display": set(),
    "weights": {"network"},
    "nnunet": {"weights.checkpoint", "network"},
    "training": {"weights", "network", "protocol", "display.patches"},
    "prediction": {"nnunet", "network", "protocol", "display"},
    "volumes": {"prediction", "nnunet", "protocol"},
    "sharing": {
        "prediction", "volumes.model", "nnunet", "network", "weights", "protocol", "display.tints",
        "quickstart.synthetic",
    },
    "evaluation": {"nnunet", "protocol"},
    "viewing": {"display", "dataset_conversion", "nnunet", "prediction", "protocol", "volumes"},
    "report": {"evaluation", "prediction.objects", "nnunet", "display", "weights", "protocol"},
    "study": {"training", "prediction", "evaluation", "report", "nnunet", "display", "weights.checkpoint", "protocol"},
    "quickstart": {"nnunet", "display", "report", "evaluation", "weights.shipped", "protocol"},
    "trainers": {"training"},
    "registration": {"trainers"},
    "commands": {
        "protocol", "network", "display", "weights", "nnunet", "training", "prediction", "evaluation",
        "report", "study", "quickstart", "registration", "trainers", "viewing", "volumes", "sharing",
        "dataset_conversion",
    },
    "pretraining": {"network", "weights", "protocol", "display", "nnunet.datasets"},
    "dataset_conversion": {"protocol", "display", "nnunet.datasets"},
}  # fmt: skip
"""Room -> rooms that it may import besides the ground; ``room.module`` allows that module alone."""
MOST_LINES, MOST_ENTRIES = 350, 24


@cache
def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def known() -> set[str]:
    return {module_name(path) for path in modules()}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a module: a package of its own, or the first name below ``nnunetv2_retina``."""
    package, _, rest = module.partition(".")
    if package != "nnunetv2_retina":
        return package
    first = rest.partition(".")[0] or package
    return "ground" if first in GROUND else first


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and module of every import of this project's own modules."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((node.lineno, whole if whole in known() else str(node.module)))
    return [(line, name) for line, name in found if name.partition(".")[0] in PACKAGES]


def is_allowed(source: str, target: str) -> bool:
    """Whether a module may import another."""
    start, end = room(source), room(target)
    inside = target.removeprefix("nnunetv2_retina.")
    return end in ("ground", start) or any(
        inside == allowed or inside.startswith(f"{allowed}.") for allowed in ALLOWED[start]
    )


def violations() -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {module_name(path)} may not import {target}"
        for path in modules()
        for line, target in imports(path)
        if not is_allowed(module_name(path), target)
    ]


def test_every_room_is_in_the_table():
    assert {room(module_name(path)) for path in modules()} == set(ALLOWED)


def test_imports_follow_the_arrows():
    assert violations() == []


def test_the_arrows_form_no_circle():
    order = TopologicalSorter({name: {entry.partition(".")[0] for entry in ALLOWED[name]} for name in ALLOWED})
    assert len(list(order.static_order())) == len(ALLOWED)


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("nnunetv2_retina.report.page", "nnunetv2_retina.evaluation.scores", True),
        ("nnunetv2_retina.evaluation.scores", "nnunetv2_retina.report.page", False),
        ("nnunetv2_retina.nnunet.models", "nnunetv2_retina.weights.checkpoint", True),
        ("nnunetv2_retina.nnunet.models", "nnunetv2_retina.weights.transfer", False),
        ("nnunetv2_retina.files", "nnunetv2_retina.protocol", False),
        ("nnunetv2_retina.files", "nnunetv2_retina.console.wording", True),
        ("dataset_conversion.spec", "nnunetv2_retina.nnunet.datasets", True),
        ("dataset_conversion.spec", "nnunetv2_retina.nnunet", False),
        ("pretraining.job", "nnunetv2_retina.nnunet.labels", False),
        ("nnunetv2_retina.quickstart.data", "dataset_conversion.spec", False),
    ],
)
def test_the_table_is_read_as_meant(source, target, allowed):
    assert is_allowed(source, target) is allowed


def test_imports_in_functions_are_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from nnunetv2_retina import files\n    import nnunetv2_retina.report.page\n")
    assert imports(path) == [(2, "nnunetv2_retina.files"), (3, "nnunetv2_retina.report.page")]


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_each_other_in_no_circle(package):
    """At the top of modules, where a circle would be an error at the first import."""
    graph = {}
    for path in modules():
        top = parsed(path).body
        lines = {node.lineno for node in top if isinstance(node, (ast.Import, ast.ImportFrom))}
        graph[module_name(path)] = {name for line, name in imports(path) if line in lines and name.startswith(package)}
    assert list(TopologicalSorter(graph).static_order())


def test_sizes():
    long = {
        str(path.relative_to(ROOT)): n for path in modules() if (n := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}
    entries = [path.name for path in (ROOT / "nnunetv2_retina").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)
