"""Commands that are killed at random moments, that find the disk full, or run twice at once. Not part of the tests.

    python tests/chaos.py --kills 100                # over all commands, at size tiny; 100 take about an hour on a core
    python tests/chaos.py --kills 5 --only convert

Each command first runs undisturbed, and its result is kept. Then it is started anew, killed (SIGKILL, with all its
processes) at a random moment, and started again with the same words until it ends (--c for a training, which nnU-Net
asks for; --continue_prediction for a prediction). What is there then must be the undisturbed result: bit for bit for
conversion, pre-training and prediction; for fine-tuning, whose order of the data a kill changes, a whole training with
the same schedule and frozen tensors. No temporary file may be left. ``tests/test_chaos.py`` has a short form.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from helpers.warm import become, entry_code

SENTENCE = "error: "
MOST_FAULTS = 5
"""Of one command, after which no more is tried."""
MOST_STARTS = 12
"""Of one command until it ends, the last ones undisturbed."""


@dataclass
class Situation:
    """A command, in a folder of its own."""

    name: str
    command: list[str]
    again: list[str] = field(default_factory=list)
    """More words with which it is started again."""
    result: str = "."
    """Its output, below the folder."""
    same: Callable[[Path, Path], str] = lambda one, other: ""
    """Compares two results: what differs, or nothing."""


def start(folder: Path, words: list[str], environment: dict[str, str], limit: int | None = None) -> tuple[int, Path]:
    """Start a command in a process group of its own; return its process and the file of its output."""
    output = folder / "output.txt"
    output.touch()
    arguments = ["-c", entry_code(words[0]), *words[1:]]
    request = {"arguments": arguments, "environment": environment, "folder": str(folder), "output": str(output)}
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))  # not those of a test
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        become(request)
    return child, output


def finish(child: int, seconds: float) -> int | None:
    """Wait for a process; None: it was killed after so many seconds, with its whole group."""
    end = time.time() + seconds
    while time.time() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(folder: Path, words: list[str], environment: dict[str, str], **more: int) -> tuple[int, str]:
    child, output = start(folder, words, environment, **more)
    status = finish(child, 900)
    text = output.read_text(errors="replace")
    output.unlink()
    return 124 if status is None else status, text


def is_clear(status: int, text: str) -> bool:
    """Whether a command ended well, or in one sentence."""
    return status == 0 or ("Traceback" not in text and SENTENCE in text)


# ---- results


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("output.txt", ".lock")
    }


def same_files(*passed_over: str) -> Callable[[Path, Path], str]:
    """Compare all files but those whose names contain one of these."""

    def same(one: Path, other: Path) -> str:
        first, second = files(one), files(other)
        names = [name for name in sorted({*first, *second}) if not any(part in name for part in passed_over)]
        different = [name for name in names if first.get(name) != second.get(name)]
        return ", ".join(different[:5])

    return same


def same_pretraining(one: Path, other: Path) -> str:
    from nnunetv2_retina.weights import checkpoint

    prints = [checkpoint.load(folder / "run/checkpoint_final.pth").fingerprint for folder in (one, other)]
    return "" if prints[0] == prints[1] else "the weights"


def same_training(one: Path, other: Path) -> str:
    """Whether two trainings are finished, with the same schedule and what is frozen unchanged."""
    from nnunetv2_retina.weights.unpickling import read_file

    states = [read_file(next(folder.rglob("checkpoint_final.pth"))) for folder in (one, other)]
    first, second = states
    if first["current_epoch"] != second["current_epoch"]:
        return f"epochs {first['current_epoch']} and {second['current_epoch']}"
    if first["logging"]["lrs"] != second["logging"]["lrs"]:
        return "learning rates"
    frozen = [name for name in first["network_weights"] if name.startswith("transformer.blocks.")]
    changed = [name for name in frozen if not first["network_weights"][name].equal(second["network_weights"][name])]
    return f"frozen {changed[0]}" if changed or not frozen else ""


def same_study(one: Path, other: Path) -> str:
    """Whether two studies have results of the same runs, iterations and cases."""
    import json

    def runs(folder: Path) -> dict[str, Any]:
        results = {path: json.loads(path.read_text()) for path in sorted(folder.rglob("result.json"))}
        return {
            str(path.relative_to(folder)): {step: sorted(score["cases"]) for step, score in result["scores"].items()}
            for path, result in results.items()
        }

    first, second = runs(one), runs(other)
    pages = [folder / "report/report.html" for folder in (one, other)]
    return "" if first and first == second and all(page.is_file() for page in pages) else f"{first} and {second}"


def leftovers(folder: Path) -> list[str]:
    """Files and folders that no finished command leaves."""
    from nnunetv2_retina.files import is_leftover

    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if is_leftover(path.name) or "partial" in path.name or "unfinished" in path.name
    ]


# ---- the commands


def prepare_images(root: Path) -> dict[str, str]:
    """Make six small images with masks and a source for pre-training; return the environment of all commands."""
    import numpy as np
    from PIL import Image

    environment = os.environ | {
        "nnUNet_raw": str(root / "raw"), "nnUNet_preprocessed": str(root / "pre"), "nnUNet_results": str(root / "res"),
        "OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "MPLBACKEND": "Agg",
        "RETINA_SEED": "1", "nnUNet_compile": "f", "RETINA_WEIGHTS": str(root / "weights.pth"),
    }  # fmt: skip
    for name in ("raw", "pre", "res", "own/images", "own/masks", "big"):
        (root / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(6):
        image = draw.integers(0, 120, (48, 56), np.uint8)
        mask = np.zeros_like(image)
        mask[8:30, 10 + number : 30 + number] = 1
        Image.fromarray(image + 100 * mask).save(root / f"own/images/c{number}.png")
        Image.fromarray(mask).save(root / f"own/masks/c{number}.png")
    for number in range(40):
        Image.fromarray(draw.integers(0, 255, (224, 224), np.uint8)).save(root / f"big/{number}.png")
    return environment


def prepare(root: Path) -> dict[str, str]:
    """Make data set 700 of the images, its plans, weights and a model, too."""
    from helpers.trainings import write_weights

    environment = prepare_images(root)
    write_weights(root / "weights.pth", "tiny")
    _must(run(root, CONVERT, environment))
    for name in ("images", "labels"):  # the study scores the training images; only whether it does is looked at
        shutil.copytree(root / f"raw/Dataset700_Mito/{name}Tr", root / f"raw/Dataset700_Mito/{name}Ts")
    (root / "study.yaml").write_text(STUDY)
    plan = ["nnUNetv2_plan_and_preprocess", "-d", "700", "-c", "2d", "-npfp", "1", "-np", "1"]
    _must(run(root, plan, environment | {"nnUNet_n_proc_DA": "1"}))
    _must(run(root, TRAIN, environment))
    return environment


def _must(ended: tuple[int, str]) -> None:
    if ended[0]:
        raise SystemExit(ended[1])


CONVERT = [
    "retina_convert", "folder", "own", "-d", "700", "--name", "Mito", "--labels", "1=mito", "--iterations", "12",
    "--iterations-per-epoch", "2", "--batch-size", "2", "--patch-size", "32",
]  # fmt: skip
TRAIN = ["nnUNetv2_train", "700", "2d", "0", "-tr", "nnUNetTrainerRETINA_tiny", "-device", "cpu"]
PRETRAIN = [
    "retina_pretrain", "big", "-o", "run", "--store", "store", "--size", "tiny", "--batch-size", "2", "--iterations",
    "12", "--device", "cpu", "--precision", "fp32", "--checkpoint-minutes", "0.001", "--workers", "1",
]  # fmt: skip
PREDICT = [
    "retina_predict", "-i", "raw/Dataset700_Mito/imagesTr", "-o", "out", "-d", "700", "-f", "0", "-tr",
    "nnUNetTrainerRETINA_tiny", "-device", "cpu",
]  # fmt: skip

STUDY = """
name: small
seeds: [1]
reference: TransUNet
prediction: {step_size: 1.0}
datasets: [{dataset: 700, iterations: [2, 12]}]
systems: [{name: TransUNet, trainer: nnUNetTrainerTransUNet_tiny}]
"""
BENCHMARK = ["retina_benchmark", "study.yaml", "-o", "out", "-device", "cpu", "--no-rehearsal"]

SITUATIONS = {
    "convert": Situation("convert", CONVERT, [], "raw", same_files("report")),
    "pretrain": Situation("pretrain", PRETRAIN, [], ".", same_pretraining),
    "train": Situation("train", TRAIN, ["--c"], "res", same_training),
    "predict": Situation("predict", PREDICT, ["--continue_prediction"], "out", same_files("args.json")),
    "benchmark": Situation("benchmark", BENCHMARK, [], "out", same_study),
}


# ---- what is done to them


@dataclass
class Count:
    """What became of one command."""

    kills: int = 0
    starts: int = 0
    full: int = 0
    twice: int = 0
    faults: list[str] = field(default_factory=list)


def fresh(root: Path, situation: Situation, place: Path) -> tuple[Path, dict[str, str]]:
    """Make a folder for one try: the inputs are links, the output is empty."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("own", "big", "weights.pth", "study.yaml"):
        (place / name).symlink_to(root / name)
    names = {"raw": "nnUNet_raw", "pre": "nnUNet_preprocessed", "res": "nnUNet_results"}
    for name in names:
        if name == situation.result:
            (place / name).mkdir()
        else:
            (place / name).symlink_to(root / name)
    return place, {variable: str(place / name) for name, variable in names.items()}


def undisturbed(root: Path, situation: Situation, environment: dict[str, str]) -> tuple[Path, float]:
    """The result that all tries are compared with, and the seconds that it took."""
    place, variables = fresh(root, situation, root / f"{situation.name}-undisturbed")
    begin = time.time()
    _must(run(place, situation.command, environment | variables))
    return place, time.time() - begin


def judge(situation: Situation, right: Path, place: Path, what: str, count: Count) -> None:
    different = situation.same(right / situation.result, place / situation.result)
    if different:
        count.faults.append(f"{what}: {different} differ")
    if left := leftovers(place / situation.result):
        count.faults.append(f"{what}: {left} left")


def kill(root: Path, situation: Situation, environment: dict[str, str], right: Path, seconds: float,
         draw: random.Random, count: Count) -> None:  # fmt: skip
    """Start, kill, start again until it ends; then compare."""
    place, variables = fresh(root, situation, root / f"{situation.name}-killed")
    moments = []
    for number in range(MOST_STARTS):
        words = situation.command + (situation.again if number else [])
        child, output = start(place, words, environment | variables)
        last = number == MOST_STARTS - 1 or (number > 0 and draw.random() < 0.4)
        moments.append(round(draw.uniform(0, 1.1 * seconds), 2))
        status = finish(child, 900 if last else moments[-1])
        text = output.read_text(errors="replace")
        output.unlink()
        count.starts += 1
        if status is None:
            count.kills += 1
        elif status == 0:
            break
        elif number and situation.name == "convert" and "exists already" in text:
            break  # the kill came after the end
        else:
            count.faults.append(f"killed after {moments}: status {status}, {text.strip()[-400:]}")
            return
    judge(situation, right, place, f"killed after {moments}", count)


def fill(root: Path, situation: Situation, environment: dict[str, str], right: Path, limit: int, count: Count) -> None:
    """Let no file grow beyond ``limit`` bytes, as on a full disk; then start again with space."""
    place, variables = fresh(root, situation, root / f"{situation.name}-full")
    status, text = run(place, situation.command, environment | variables, limit=limit)
    count.full += 1
    what = f"files of at most {limit} bytes"
    if not is_clear(status, text):
        count.faults.append(f"{what}: status {status}, {text.strip()[-600:]}")
    if status:
        status, text = run(place, situation.command + situation.again, environment | variables)
        if status and situation.again:
            status, text = run(place, situation.command, environment | variables)
        if status:
            count.faults.append(f"{what}, then with space: status {status}, {text.strip()[-400:]}")
            return
    judge(situation, right, place, what, count)


def twice(
    root: Path, situation: Situation, environment: dict[str, str], right: Path, apart: float, count: Count
) -> None:
    """Start a command a second time while it runs: one of the two ends well, the other too or in one sentence."""
    place, variables = fresh(root, situation, root / f"{situation.name}-twice")
    child, output = start(place, situation.command, environment | variables)
    time.sleep(apart)
    first = output.rename(place / "first.txt")
    other, output = start(place, situation.command, environment | variables)
    ends = [(finish(process, 900), path) for process, path in ((child, first), (other, output))]
    texts = [(124 if status is None else status, path.read_text(errors="replace")) for status, path in ends]
    for _, path in ends:
        path.unlink()
    count.twice += 1
    what = f"two at once, {apart:.2f} s apart"
    for status, text in texts:
        if not is_clear(status, text):
            count.faults.append(f"{what}: status {status}, {text.strip()[-600:]}")
    if all(status for status, _ in texts):
        count.faults.append(f"{what}: none of both ended well")
        return
    judge(situation, right, place, what, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all commands")
    parser.add_argument("--others", type=int, default=4, help="full disks and commands twice at once, each a command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SITUATIONS, help="one command")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))

    import dataset_conversion.own_data.folder  # noqa: F401  # once, for all children

    draw, faults = random.Random(arguments.seed), 0
    try:
        environment = prepare(root)
        chosen = [situation for name, situation in SITUATIONS.items() if arguments.only in (None, name)]
        for situation in chosen:
            faults += _try(root, situation, environment, draw, arguments, len(chosen))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return int(bool(faults))


def _try(root: Path, situation: Situation, environment: dict[str, str], draw: random.Random,
         arguments: argparse.Namespace, shares: int) -> int:  # fmt: skip
    right, seconds = undisturbed(root, situation, environment)
    count = Count()
    while count.kills < arguments.kills / shares and len(count.faults) < MOST_FAULTS:
        kill(root, situation, environment, right, seconds, draw, count)
    largest = max(map(len, files(right / situation.result).values()))
    for _ in range(arguments.others):
        fill(root, situation, environment, right, int(largest * draw.random() ** 2), count)
        twice(root, situation, environment, right, draw.uniform(0, 0.8 * seconds), count)
    figures = f"{count.kills} kills, {count.starts} starts, {count.full} full disks, {count.twice} twice at once"
    print(f"{situation.name}: {figures}, {len(count.faults)} faults ({seconds:.1f} s undisturbed)", flush=True)
    for fault in count.faults:
        print(f"    FAULT {fault}", flush=True)
    return len(count.faults)


if __name__ == "__main__":
    sys.exit(main())
