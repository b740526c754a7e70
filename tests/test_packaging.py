"""What packages this project elsewhere agrees with pyproject.toml: citation, Dockerfile, conda recipe."""

import re
from pathlib import Path

import yaml

from nnunetv2_retina import __version__

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
RECIPE = yaml.safe_load((ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
CONDA_NAMES = {"torch": "pytorch", "SimpleITK": "simpleitk", "matplotlib": "matplotlib-base"}


def setting(name: str) -> str:
    (value,) = re.findall(rf'^{name} = "([^"]+)"$', PYPROJECT, re.MULTILINE)
    return str(value)


def listed(name: str) -> list[str]:
    (block,) = re.findall(rf"^{name} = \[(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    return re.findall(r'"([^"]+)"', block)


def test_one_version_and_one_licence():
    labels = dict(re.findall(r'image\.(version|licenses)="([^"]+)"', DOCKERFILE))
    versions = {CITATION["version"], RECIPE["package"]["version"], labels["version"]}
    assert versions == {__version__}
    assert {CITATION["license"], RECIPE["about"]["license"], labels["licenses"]} == {setting("license")}
    assert RECIPE["package"]["name"] == setting("name") and RECIPE["about"]["summary"] == setting("description")


def test_citation_has_what_the_format_asks_for():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["message"] and CITATION["title"]
    assert CITATION["authors"] == [{"name": "the RETINA for nnU-Net developers"}]  # an entity
    for reference in CITATION["references"]:
        assert {"type", "title", "authors", "journal", "year", "doi"} <= reference.keys()
        assert all(person.keys() == {"family-names", "given-names"} for person in reference["authors"])
        assert re.fullmatch(r"10\.\d{4,9}/\S+", reference["doi"])
    assert CITATION["references"][0]["doi"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_recipe_has_the_requirements_and_commands():
    run = [re.sub(r"\s", "", line) for line in RECIPE["requirements"]["run"]]
    wanted = [
        re.sub(r"^[\w-]+", lambda name: CONDA_NAMES.get(name[0], name[0]), line) for line in listed("dependencies")
    ]
    assert run == [f"python{setting('requires-python')}", *wanted]
    scripts = re.findall(r'^(retina_\w+) = "([^"]+)"$', PYPROJECT, re.MULTILINE)
    assert RECIPE["build"]["entry_points"] == [f"{name} = {target}" for name, target in scripts]
    assert all(command.split()[0] in dict(scripts) for command in RECIPE["test"]["commands"])
    assert (ROOT / RECIPE["about"]["license_file"]).is_file()


def test_the_image_installs_what_there_is_and_is_no_root():
    (extras,) = re.findall(r'^ARG EXTRAS="([^"]+)"$', DOCKERFILE, re.MULTILINE)
    assert all(re.search(rf"^{extra} = \[", PYPROJECT, re.MULTILINE) for extra in extras.split(","))
    steps = re.findall(r"^(FROM|USER|CMD)\b", DOCKERFILE, re.MULTILINE)
    assert steps == ["FROM", "USER", "CMD"]
    (python,) = re.findall(r"^FROM python:3\.(\d+)", DOCKERFILE, re.MULTILINE)
    assert int(python) >= int(setting("requires-python").rpartition(".")[2])
    assert re.findall(r"(nnUNet_\w+)=/nnunet", DOCKERFILE) == ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"]
