"""What a notebook imports, and what the command's help costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pretraining


def test_every_public_name_resolves_and_the_stub_has_them_all():
    assert all(getattr(pretraining, name).__name__ == name for name in pretraining.__all__)
    assert set(pretraining.__all__) <= set(dir(pretraining))
    stub = ast.parse(Path(pretraining.__file__).with_suffix(".pyi").read_text())
    assert sorted(alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names) == (
        pretraining.__all__
    )
    with pytest.raises(AttributeError, match="has no attribute 'Jobs'"):
        getattr(pretraining, "Jobs")  # noqa: B009


CHEAP = """
import sys
import pretraining
from pretraining.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(status, [name for name in ("torch", "nnunetv2", "matplotlib", "scipy", "skimage") if name in sys.modules])
"""


def cheap(*arguments):
    done = subprocess.run([sys.executable, "-c", CHEAP, *map(str, arguments)], capture_output=True, text=True)
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_help_version_and_refusals_import_nothing_heavy(tmp_path):
    assert cheap("--help")[0] == "0 []"
    last, text = cheap("--version")
    assert last == "0 []" and "retina_pretrain 0" in text
    (tmp_path / "notes.txt").write_text("no image")
    last, text = cheap(tmp_path, "-o", tmp_path / "run")
    assert last == "2 []" and f"no images in {tmp_path}: none of its files ends in .tif" in text
    last, text = cheap(tmp_path / "absent", "-o", tmp_path / "run")
    assert last == "2 []" and "absent" in text
    (tmp_path / "image.png").write_bytes(b"")
    last, text = cheap(tmp_path, "-o", tmp_path / "run", "--lr", "0", "--recipe", "distil")
    assert last == "2 []" and "learning_rate is 0.0; expected a number above 0" in text
    assert not (tmp_path / "run").exists()
