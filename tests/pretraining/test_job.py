"""The pre-training loop: it learns, it goes on exactly where it was, alone and with several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint
from pretraining.cli import main
from pretraining.job import Job, build_objective, pretrain
from pretraining.loop.engine import Engine
from pretraining.loop.run import Run
from pretraining.recipe import Execution, Recipe
from pretraining.store.reader import ImageStore

SETTINGS = ["--size", "tiny", "--batch-size", "2", "--device", "cpu", "--precision", "fp32", "--seed", "5"]
NUMBER_OF_THREADS = torch.get_num_threads()
# In other processes as in this one: sums over other parts differ in the last bits.
THREADS = f"import torch; torch.set_num_threads({NUMBER_OF_THREADS})"
TIMES = ("seconds", "images_per_second")


def write_images(folder, count=12, seed=0):
    """Smooth random textures with dark discs, 224 x 224 uint8 PNG, in two sources."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:224, :224]
    for i in range(count):
        image = rng.normal(150, 12, (56, 56)).repeat(4, 0).repeat(4, 1)
        for cy, cx in rng.integers(20, 204, (8, 2)):
            image[(y - cy) ** 2 + (x - cx) ** 2 < 300] = rng.normal(60, 10)
        path = folder / f"source_{i % 2}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module", autouse=True)
def threads():
    """What earlier tests did to PyTorch's number of threads does not count."""
    before = torch.get_num_threads()
    torch.set_num_threads(NUMBER_OF_THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A packed store of 5 images: 4 to train on and one held out."""
    from pretraining.store.packing import pack

    folder = tmp_path_factory.mktemp("images")
    return pack(write_images(folder / "images", 5), folder / "store").path


def weights_of(folder, name="checkpoint_final.pth"):
    return checkpoint.load(folder / name).weights


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


def log_of(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.fixture(scope="module")
def reference(source, tmp_path_factory):
    """Four epochs in one go."""
    folder = tmp_path_factory.mktemp("reference")
    assert main([str(source), "-o", str(folder), "--epochs", "4", "--keep-every", "2", *SETTINGS]) == 0
    return folder


def test_a_run_leaves_what_a_user_expects(reference, source):
    log = log_of(reference)
    assert [record["epoch"] for record in log] == [1, 2, 3, 4]
    assert log[-1]["iteration"] == 8 and log[-1]["learning_rate"] == pytest.approx(0.003 * (1 / 8) ** 0.9)
    assert {"held_out_loss", "held_out_hole_loss", "held_out_unrestored_loss"} <= log[0].keys()
    for name in ("progress.png", "reconstructions_latest.png", "reconstructions_epoch_0002.png"):
        with Image.open(reference / name) as picture:
            assert picture.size[0] > 400
    final = checkpoint.load(reference / "checkpoint_final.pth")
    assert torch.load(final.path, weights_only=True).keys() == {"network_weights", "retina"}
    assert final.retina["recipe"]["batch_size"] == 2 and final.retina["iteration"] == 8
    assert final.retina["store"]["fingerprint"] == ImageStore(source).fingerprint
    TransUNet(1, 1, NetworkConfig.named("tiny")).load_state_dict(final.weights)
    assert_equal_weights(final.weights, weights_of(reference, "checkpoint_epoch_0004.pth"))
    assert not list(reference.glob("*.tmp"))


def test_epochs_can_go_unmeasured_and_train_the_same(reference, source, tmp_path):
    """Everything else is as the first run wrote it down."""
    assert main(["--config", str(reference / "run.yaml"), "-o", str(tmp_path), "--measure-every", "3"]) == 0
    assert [record["epoch"] for record in log_of(tmp_path)] == [2, 3, 4]  # kept, measured, the last
    assert (tmp_path / "checkpoint_epoch_0002.pth").is_file()
    assert_equal_weights(weights_of(tmp_path), weights_of(reference))


def test_short_epochs_are_not_all_drawn_but_the_last_is(source, tmp_path, monkeypatch):
    """Drawing takes longer than an epoch of a few images on a GPU."""
    drawn = []

    def plot(folder, history):
        drawn.append(len(history))
        time.sleep(0.5)

    monkeypatch.setattr("pretraining.loop.run.plot", plot)
    assert main([str(source), "-o", str(tmp_path), "--epochs", "3", "--keep-every", "0", *SETTINGS]) == 0
    assert drawn == [1, 3] and len(log_of(tmp_path)) == 3


def test_the_loss_falls(source, tmp_path):
    recipe = Recipe(size="tiny", batch_size=2, iterations=20, learning_rate=0.02)
    job = Job(
        source=source,
        output=tmp_path / "run",
        recipe=recipe,
        execution=Execution(device="cpu", keep_every=0, measure_every=2),
    )
    pretrain(job, lambda _: None)
    losses = [record["train_loss"] for record in log_of(tmp_path / "run")]
    assert np.mean(losses[-2:]) < 0.7 * losses[0], losses


def start(source, folder, *more):
    script = f"{THREADS}; import sys; from pretraining.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, str(source), "-o", str(folder), *SETTINGS, "--epochs", "4"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, "--keep-every", "2", *more], stderr=quiet, stdout=quiet)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before the moment it was to be killed at"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(source, reference, tmp_path):
    latest = tmp_path / "checkpoint_latest.pth"
    for seed in range(3):
        process = start(source, tmp_path, "--checkpoint-minutes", "0")  # written after every step
        written = latest.stat().st_mtime_ns if latest.exists() else 0
        wait_for(lambda before=written: latest.exists() and latest.stat().st_mtime_ns > before, process)
        time.sleep(np.random.default_rng(seed).uniform(0, 0.8))
        process.kill()
        process.wait()
    assert start(source, tmp_path).wait() == 0
    assert_equal_weights(weights_of(tmp_path), weights_of(reference))
    assert log_of(tmp_path) == log_of(reference)


def test_killed_while_writing_a_checkpoint_it_goes_on_from_the_one_before(source, reference, tmp_path):
    script = f"""{THREADS}
import os, sys
from pretraining.cli import main
whole, calls = torch.save, []
def half_written(content, path):
    whole(content, path)
    calls.append(path)
    if len(calls) == 4:  # latest, latest, epoch 2, and in the middle of the latest after epoch 2
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), 9)
torch.save = half_written
main(sys.argv[1:])
"""
    arguments = [str(source), "-o", str(tmp_path), *SETTINGS, "--epochs", "4", "--keep-every", "2"]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("*.tmp"))
    assert main(arguments) == 0
    assert not list(tmp_path.glob("*.tmp"))
    assert_equal_weights(weights_of(tmp_path), weights_of(reference))
    assert log_of(tmp_path) == log_of(reference)


def test_each_signal_saves_and_the_same_command_continues(source, reference, tmp_path, monkeypatch, capsys):
    step, signals = Run._agree, {2: signal.SIGTERM, 4: signal.SIGUSR1, 6: signal.SIGINT}

    def signalled(run, unread, *more):
        if run.progress.iteration in signals:
            os.kill(os.getpid(), signals.pop(run.progress.iteration))
        return step(run, unread, *more)

    monkeypatch.setattr(Run, "_agree", signalled)
    arguments = [str(source), "-o", str(tmp_path), *SETTINGS, "--epochs", "4", "--keep-every", "0"]
    for left in (2, 1, 0):
        assert main(arguments) == 75 and len(signals) == left
        said = capsys.readouterr().err
        assert "the same command continues" in said and ("continuing after step" in said) == (left < 2)
        assert not (tmp_path / "checkpoint_final.pth").exists()
    assert main(arguments) == 0
    assert "continuing after step" in capsys.readouterr().err
    assert_equal_weights(weights_of(tmp_path), weights_of(reference))


def test_a_run_of_other_settings_or_images_is_not_continued(source, reference, tmp_path, capsys):
    assert main([str(source), "-o", str(reference), *SETTINGS, "--epochs", "5"]) == 2
    assert "holds a run with other settings: epochs 4.0 there, 5.0 now. Take these" in capsys.readouterr().err
    other = write_images(tmp_path / "other", 6, seed=1)
    assert main([str(other), "-o", str(reference), *SETTINGS, "--epochs", "4"]) == 2
    assert "other images" in capsys.readouterr().err
    assert main([str(source), "-o", str(reference), *SETTINGS, "--epochs", "4", "--size", "retina"]) == 2
    assert "size 'tiny' there, 'retina' now" in capsys.readouterr().err


def test_a_finished_run_is_not_repeated(source, reference):
    before = weights_of(reference)
    assert main([str(source), "-o", str(reference), *SETTINGS, "--epochs", "4", "--keep-every", "2"]) == 0
    assert_equal_weights(weights_of(reference), before)
    assert len(log_of(reference)) == 4


TWO_PROCESSES = """
import os, sys, numpy as np, torch
from pretraining import cli, job
from pretraining.loop import batches, run
rank, folder, seen = os.environ["RANK"], sys.argv[3], []
read = batches.read
def noted(store, indices, device):
    seen.append(indices)
    return read(store, indices, device)
batches.read = noted
save = run.Run._save
def both(self, name, **more):
    if name == run.FINAL:
        torch.save(self.engine.objective.state_dict(), os.path.join(folder, f"rank_{rank}.pt"))
    save(self, name, **more)
run.Run._save = both
status = cli.main(sys.argv[1:])
np.save(os.path.join(folder, f"seen_{rank}.npy"), np.concatenate(seen))
sys.exit(status)
"""


def two_processes(folder, *arguments):
    script = folder.parent / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    command = [sys.executable, *launcher, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_two_processes_agree_see_every_image_once_and_continue(source, tmp_path):
    settings = [
        *SETTINGS,
        "--epochs",
        "2",
        "--keep-every",
        "0",
        "--workers",
        "1",
        "--norm-batch",
        "1",
        "--dropout",
        "0",
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = two_processes(whole, source, "-o", whole, *settings)
    assert done.returncode == 0, done.stderr
    seen = [np.load(whole / f"seen_{rank}.npy").reshape(2, -1) for rank in (0, 1)]
    for epoch in (0, 1):
        both = np.concatenate([seen[0][epoch], seen[1][epoch]])
        assert len(both) == 4 and len(set(both)) == 4
    states = [torch.load(whole / f"rank_{rank}.pt") for rank in (0, 1)]
    assert_equal_weights(states[0], states[1])
    assert main([str(source), "-o", str(tmp_path / "alone"), *settings]) == 0
    alone, shared = weights_of(tmp_path / "alone"), weights_of(whole)
    for name in (name for name in alone if "running_" in name or "num_batches" in name):
        torch.testing.assert_close(shared[name], alone[name], rtol=0.02, atol=0.02, msg=name)

    stopping = TWO_PROCESSES.replace(
        "status = cli",
        "agree = run.Run._agree\n"
        "def stop(self, unread, stop, due):\n"
        "    return agree(self, unread, self.progress.iteration == 1 and rank == '1', due)\n"
        "run.Run._agree = stop\nstatus = cli",
    )
    (tmp_path / "stopping.py").write_text(stopping)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(tmp_path / "stopping.py"), str(source), "-o", str(parts), *settings]
    stopped = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert stopped.returncode != 0 and "stopped after step 2" in stopped.stderr
    continued = two_processes(parts, source, "-o", parts, *settings)
    assert continued.returncode == 0, continued.stderr
    assert_equal_weights(weights_of(parts), weights_of(whole))
    assert log_of(parts) == log_of(whole)


def test_the_micro_batch_is_halved_until_it_fits():
    from pretraining.loop.engine import largest_fitting

    def attempt(size, room):
        if size > room:
            raise torch.OutOfMemoryError

    assert largest_fitting(lambda size: attempt(size, 300), 256, "GPU") == 256
    assert largest_fitting(lambda size: attempt(size, 70), 256, "GPU") == 64
    assert largest_fitting(lambda size: attempt(size, 70), 240, "GPU", 16) == 64
    with pytest.raises(RetinaError, match=r"not even the 16 images of a batch norm fit .*--size or --norm-batch"):
        largest_fitting(lambda size: attempt(size, 15), 256, "GPU", 16)
    with pytest.raises(RetinaError, match="not even one image fits into the memory of GPU"):
        largest_fitting(lambda size: attempt(size, 0), 256, "GPU")


def test_batches_must_divide_among_the_processes(source, tmp_path, capsys):
    assert main([str(source), "-o", str(tmp_path), "--batch-size", "7", "--num-gpus", "2", "--device", "cpu"]) == 2
    assert "--batch-size is 7 over all processes together, which 2 processes cannot share" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_with_the_images_names(source, tmp_path):
    recipe = Recipe(size="tiny", batch_size=2, iterations=4, learning_rate=1e30)
    job = Job(source=source, output=tmp_path, recipe=recipe, execution=Execution(device="cpu", precision="fp32"))
    with pytest.raises(
        RetinaError, match=r"the loss became (nan|inf) at step \d+, on the images source_\d/.*--exclude"
    ):
        pretrain(job, lambda _: None)


@pytest.mark.parametrize("minutes", [0, 15])
def test_weights_that_the_last_step_spoiled_are_not_saved(source, tmp_path, monkeypatch, minutes):
    """Its loss is from before it, and there may be no other step whose loss would tell."""
    step = Engine.step

    def spoiling(engine, images, iteration, total):
        loss = step(engine, images, iteration, total)
        if iteration == 1:
            with torch.no_grad():
                next(engine.objective.parameters())[0] = torch.nan
        return loss

    monkeypatch.setattr(Engine, "step", spoiling)
    execution = Execution(device="cpu", precision="fp32", checkpoint_minutes=minutes)
    job = Job(
        source=source, output=tmp_path, recipe=Recipe(size="tiny", batch_size=2, iterations=2), execution=execution
    )
    with pytest.raises(RetinaError, match=r"^weights became infinite or not a number at step 2, on ") as raised:
        pretrain(job, lambda _: None)
    assert ("checkpoint_latest.pth is from before it" in str(raised.value)) == (minutes == 0)
    left = {path.name for path in tmp_path.glob("*.pth")}
    assert left == ({"checkpoint_latest.pth"} if minutes == 0 else set())
    if left:
        weights = weights_of(tmp_path, "checkpoint_latest.pth")
        assert all(values.isfinite().all() for values in weights.values())


def test_a_checkpoint_of_another_size_is_refused(source, tmp_path, capsys):
    network = TransUNet(1, 1, NetworkConfig())
    checkpoint.save(tmp_path / "retina.pth", network.state_dict(), network.config)
    arguments = [str(source), "-o", str(tmp_path / "run"), *SETTINGS, "--init", str(tmp_path / "retina.pth")]
    assert main(arguments) == 2
    assert "retina.pth is of another size: retina" in capsys.readouterr().err


def test_init_starts_from_the_weights(source, reference, tmp_path):
    initial = checkpoint.load(reference / "checkpoint_final.pth")
    objective = build_objective(Recipe(size="tiny"), initial)
    assert_equal_weights(objective.network.state_dict(), initial.weights)
    arguments = [str(source), "-o", str(tmp_path), *SETTINGS, "--iterations", "1", "--init"]
    assert main([*arguments, str(initial.path)]) == 0
    assert checkpoint.load(tmp_path / "checkpoint_final.pth").retina["recipe"]["init"] == initial.fingerprint


def test_init_takes_what_was_trained_alone(reference):
    """Not the decoder of a file made from ImageNet weights, which is the same random one for every seed."""
    stored = checkpoint.load(reference / "checkpoint_final.pth")
    stored.retina["trained"] = ["cnn.", "embedding.", "transformer."]
    starts = [build_objective(Recipe(size="tiny", seed=seed), stored).network.state_dict() for seed in (1, 2)]
    same = {key for key in starts[0] if torch.equal(starts[0][key], starts[1][key]) and starts[0][key].ndim == 4}
    assert {key.split(".")[0] for key in same} == {"cnn", "embedding"}
    assert torch.equal(starts[0]["cnn.stem.0.weight"], stored.weights["cnn.stem.0.weight"])


def test_an_output_that_cannot_be_written_is_refused(source, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(source), "-o", str(tmp_path / "file"), *SETTINGS]) == 2
    assert "file (" in (text := capsys.readouterr().err) and "Choose another output folder with -o" in text


def test_a_full_disk_keeps_the_earlier_checkpoint(source, tmp_path, monkeypatch, capsys):
    whole, calls = torch.save, []

    def full(content, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        whole(content, path)

    monkeypatch.setattr(torch, "save", full)
    assert main([str(source), "-o", str(tmp_path), *SETTINGS, "--epochs", "2", "--keep-every", "0"]) == 2
    text = capsys.readouterr().err
    assert "checkpoint_latest.pth cannot be written (No space left on device). The file of that name is still" in text
    assert checkpoint.load(tmp_path / "checkpoint_latest.pth").retina["iteration"] == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_dry_run_writes_nothing(source, tmp_path, capsys):
    assert main([str(source), "-o", str(tmp_path / "run"), *SETTINGS, "--dry-run"]) == 0
    text = capsys.readouterr().err
    assert "5 images in the store" in text and "steps of 2 images" in text and "in all" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--masked-loss"],
        ["--arm", "simmim", "--crop", "64"],
        ["--arm", "masked", "--crop", "64", "--block", "2", "--hide-skips"],
        ["--skip-drop", "0.5"],
        ["--two-terms"],
        ["--image-normalisation"],
        ["--arm", "mae"],
        ["--arm", "simclr"],
    ],
)
def test_every_option_trains_and_is_recorded(source, tmp_path, more):
    assert main([str(source), "-o", str(tmp_path), *SETTINGS, "--iterations", "2", *more]) == 0
    recipe = checkpoint.load(tmp_path / "checkpoint_final.pth").retina["recipe"]
    assert recipe != Recipe(size="tiny", batch_size=2, seed=5, iterations=2).to_dict()


def test_no_process_at_all_is_refused(source, tmp_path, capsys):
    assert main([str(source), "-o", str(tmp_path / "run"), "--num-gpus", "0", "--device", "cpu"]) == 2
    assert "--num-gpus is 0; expected at least 1" in capsys.readouterr().err and not (tmp_path / "run").exists()
