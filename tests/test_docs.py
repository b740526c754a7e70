"""The documentation: links lead somewhere, command lines are understood, pages and public names are all there."""

import importlib
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import SCRIPTS

from nnunetv2_retina import console

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
NAMES = [page.name for page in PAGES]
TRAINER = re.compile(r"\bnnUNetTrainer(?:_?[A-Za-z0-9]+)*")


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose own tags are not of interest."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


def without_code(text: str) -> str:
    """The prose: no fenced and no indented blocks, no `code`."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?<=\n\n)(?: {4,}.*\n)+", "", text)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """What the page's headings are called, alike on GitHub and on the site."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_checker_sees_broken_links(tmp_path):
    (tmp_path / "b.md").write_text("# One, two: three\n\n## `code` and (more)\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[x](b.md#one-two-three) [y](b.md#code-and-more)\n\n    [no](link)\n\n`[no](link)` [z](b.md#four)\n"
    )
    assert links(page) == ["b.md#one-two-three", "b.md#code-and-more", "b.md#four"]
    assert anchors(tmp_path / "b.md") == {"one-two-three", "code-and-more"}


def command_lines(text: str) -> list[list[str]]:
    """The words of each of our commands in the blocks of code, without comments; joined where a line goes on."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?<=\n\n)((?: {4,}.*\n|\n(?= {4}))+)", text + "\n")
    found = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\||(?<= )&(?= |$)", re.sub(r"(^| )#.*", "", line)):
            words = shlex.split(part) if part.count("'") % 2 == part.count('"') % 2 == 0 else []
            words = words[next((i for i, word in enumerate(words) if not re.fullmatch(r"\w+=.*", word)), 0) :]
            if words and words[0] in SCRIPTS and "..." not in words:
                found.append(words)
    return found


def test_the_lines_are_found():
    text = "\n\n    A=1 retina_predict -i x \\\n        -o y   # more\n    pip x && retina_doctor\n"
    text += "\n```bash\nretina_view a\n```\n"
    assert sorted(command_lines(text)) == [
        ["retina_doctor"],
        ["retina_predict", "-i", "x", "-o", "y"],
        ["retina_view", "a"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_command_lines_are_understood(page, monkeypatch, capsys, tmp_path):
    """By the commands' own parsers; nothing is carried out."""
    monkeypatch.setattr(console, "run", lambda action: 0)
    monkeypatch.chdir(tmp_path)
    lines = command_lines(page.read_text(encoding="utf-8"))
    for name, *arguments in lines:
        module, _, function = SCRIPTS[name].partition(":")
        try:
            getattr(import_module(module), function)(arguments)
        except SystemExit as ended:
            assert ended.code == 0, f"{page.name}: {shlex.join([name, *arguments])}: {capsys.readouterr().err}"
    assert lines or page.name not in ("README.md", "first_steps.md", "volumes.md", "pretraining.md")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_trainers_and_commands_exist(page):
    from nnunetv2_retina.training import baselines, trainers

    text = page.read_text(encoding="utf-8")
    known = {*trainers.__all__, *baselines.__all__, "nnUNetTrainer"}
    assert set(TRAINER.findall(text)) <= known
    typed = set(re.findall(r"(?<![\w.])retina_[a-z_]+\b", text))
    assert typed <= SCRIPTS.keys()


def pages_of(nav: list[Any]) -> list[str]:
    found = []
    for entry in nav:
        for value in entry.values():
            found += [value] if isinstance(value, str) else pages_of(value)
    return found


def test_every_page_is_in_the_site():
    assert sorted(pages_of(SITE["nav"])) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_reference_has_all_public_names():
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (DOCS / "reference.md").read_text(), re.M | re.S))
    for package, section in sections.items():
        module = importlib.import_module(package)
        objects = [getattr(module, name) for name in module.__all__]
        wanted = {f"{each.__module__}.{each.__name__}" for each in objects}
        assert set(re.findall(r"^::: ([\w.]+)$", section, re.MULTILINE)) == wanted
    assert list(sections) == ["nnunetv2_retina", "pretraining", "dataset_conversion"]


def test_the_site_leaves_out_links_that_lead_out_of_it_and_indents_lists():
    hooks = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert hooks and hooks.loader
    module = importlib.util.module_from_spec(hooks)
    hooks.loader.exec_module(module)
    text = "[`a.yaml`](../studies/a.yaml) [b](b.md)\n1. item\n\n       code\n\n   text\n"
    assert module.on_page_markdown(text, page=None) == "`a.yaml` [b](b.md)\n1. item\n\n        code\n\n    text\n"
