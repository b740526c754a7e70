"""Options in a file, for every command that takes ``--config``."""

import argparse
from pathlib import Path

import pytest
import yaml

from nnunetv2_retina import console
from nnunetv2_retina.commands import predict
from nnunetv2_retina.console import config_file
from nnunetv2_retina.console.config_file import RUN_YAML, parse, write
from nnunetv2_retina.errors import RetinaError
from pretraining import options


def make() -> argparse.ArgumentParser:
    parser = console.parser("retina_example", "")
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("-step_size", type=float, default=0.5)
    parser.add_argument("--size", choices=("tiny", "base"), default="base")
    parser.add_argument("--also", nargs="+", type=Path, default=[])
    parser.add_argument("--bits", type=int, nargs="?", const=12)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--no-mirror", dest="mirror", action="store_false")
    mode = parser.add_mutually_exclusive_group()
    for name in ("stack", "planes"):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name)
    config_file.add_option(parser)
    return parser


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "given.yaml"

    def given(text: str) -> list[str]:
        path.write_text(text, encoding="utf-8")
        return ["--config", str(path)]

    return given


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(file):
    config = file("output: out\nbatch_size: 8\nstep-size: 1e-3\nfast: true\nno-mirror: true\nplanes: true\nalso: [a]\n")
    options = parse(make, [*config, "--batch-size", "2", "--stack"])
    assert (options.output, options.batch_size, options.step_size, options.size) == (Path("out"), 2, 1e-3, "base")
    assert (options.fast, options.mirror, options.mode, options.also) == (True, False, "stack", [Path("a")])


def test_an_option_on_the_command_line_takes_the_place_of_one_in_the_file_that_it_excludes(file, capsys):
    config = file("i: images\no: out\nd: 710\nf: 0")
    options = parse(predict.parser, [*config, "-m", "model"])
    assert (options.m, options.d, options.f) == (Path("model"), None, ["0"])
    with pytest.raises(SystemExit):
        parse(predict.parser, [*config, "-m", "model", "-d", "711"])
    assert "argument -d: not allowed with argument -m" in capsys.readouterr().err
    with pytest.raises(RetinaError, match=r"given.yaml: argument -m: not allowed with argument -d"):
        parse(predict.parser, file("i: images\no: out\nd: 710\nm: model"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize: 3", "has no option 'batchsize'; did you mean batch-size?"),
        ("batch-size: many", "argument --batch-size: invalid int value: 'many'"),
        ("size: huge", "argument --size: invalid choice: 'huge'"),
        ("fast: 3", "fast is 3; expected true or false"),
        ("stack: true\nplanes: true", "planes contradicts another switch for mode"),
        ("also: {a: b}", "also is {'a': 'b'}; expected a number, a text, or a list of them"),
        ("config: other.yaml", "has no option 'config'"),
        ("- 1", "holds a list; expected option: value"),
        ("a: [", "is no YAML file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(file, capsys, text, message):
    main = console.command(make, lambda _: pytest.fail("it ran"))
    assert main([*file(text), "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error and "given.yaml" in error and len(error.splitlines()) == 1


def test_values_are_what_they_would_be_on_the_command_line(file):
    """YAML takes 010 for 8, off for false and 1_0 for ten."""
    config = file("output: 010\nalso: [off, 1_0, ~]\nbatch-size: null\nsize:\nfast: True\n")
    options = parse(make, config)
    assert options.output == Path("010") and options.also == [Path("off"), Path("1_0"), Path("~")]
    assert (options.batch_size, options.size, options.fast) == (4, "base", True)


def test_a_data_set_in_a_file_is_written_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.h5").touch()
    written = write(tmp_path, make(), vars(make().parse_args(["x.h5::raw", "-o", "o"])), leave_out=("output",))
    assert yaml.safe_load(written.read_text())["source"] == f"{tmp_path / 'x.h5'}::raw"


def test_an_absent_file_is_named(capsys):
    assert console.command(make, lambda _: None)(["--config", "absent.yaml"]) == 2
    assert "--config absent.yaml cannot be read" in capsys.readouterr().err


LINES = (
    "x -o a --batch-size 2 -step_size 0.25 --size tiny --also x y --bits --fast --planes",
    "x -o a --no-mirror --bits 3",
    "x -o a",
)


@pytest.mark.parametrize("line", LINES)
def test_what_a_run_writes_repeats_it(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    Path("x").touch()
    first = parse(make, line.split())
    write(tmp_path, make(), vars(first), leave_out=("output",))
    monkeypatch.chdir("/")  # another working folder
    again = vars(parse(make, ["--config", str(tmp_path / RUN_YAML), "-o", "a"]))
    expected = vars(first) | {"config": tmp_path / RUN_YAML, "source": tmp_path / "x"}
    if first.also:
        expected["also"] = [tmp_path / "x", Path("y")]
    assert again == expected


def test_every_option_of_the_commands_has_a_key_of_its_own():
    for parser in (predict.parser(), options.make_parser()):
        keys = config_file._keys(parser)
        for action in config_file._settings(parser):
            assert keys[config_file._name(action).replace("_", "-")] is action


def test_a_recipe_on_the_command_line_takes_the_place_of_the_files(tmp_path, file):
    first = vars(options.parse(["x", "-o", "a", "--recipe", "distil", "--epochs", "3", "--workers", "1"]))
    write(tmp_path, options.make_parser(), first, leave_out=("output", "dry_run"))
    config = ["--config", str(tmp_path / RUN_YAML), "-o", "a"]
    assert vars(options.parse(config)) == first | {"config": tmp_path / RUN_YAML}
    again = vars(options.parse([*config, "--recipe", "published"]))
    expected = vars(options.parse(["x", "-o", "a", "--recipe", "published", "--epochs", "3", "--workers", "1"]))
    assert again == expected | {"config": tmp_path / RUN_YAML}
    assert yaml.safe_load((tmp_path / RUN_YAML).read_text())["arm"] == "distil"
