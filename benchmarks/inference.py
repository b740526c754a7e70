"""retina_predict against nnUNetv2_predict: time of whole processes, agreement, memory, and the batch size.

    python benchmarks/inference.py speed -m MODEL_FOLDER -i IMAGES [-f 0] [--cases 2] [--pairs 1] [--disable_tta]
    python benchmarks/inference.py agreement -m MODEL_FOLDER -i IMAGES [--cases 1] [-device cpu] [--disable_tta]
    python benchmarks/inference.py memory [--classes 2 50] [--size 64 512 512] [--orthoplane]
    python benchmarks/inference.py batches -m MODEL_FOLDER [-device cpu]
    python benchmarks/inference.py network -m MODEL_FOLDER [-device cpu]

``speed`` runs the two commands in turn, because a machine's speed drifts, and prints the median ratio of the pairs.
``agreement`` compares logits and labels in one process. ``memory`` predicts a random volume with a model of one layer,
so that what is measured is everything but the network, and prints the peak of the process's own memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

COMMANDS = {
    "nnUNetv2_predict": "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as run",
    "retina_predict": "from nnunetv2_retina.commands.predict import main as run",
}


def seconds(command: str, arguments: list[str]) -> float:
    """Wall time of one process that predicts a folder."""
    start = time.perf_counter()
    code = f"{COMMANDS[command]}; run()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - start


def speed(options: argparse.Namespace) -> None:
    """Print the times of both commands and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        images = some_images(options, Path(folder))
        pairs = []
        for number in range(options.pairs):
            times = {}
            for command in COMMANDS:
                out = Path(folder) / f"{command}_{number}"
                paths = ["-i", str(images), "-o", str(out), "-m", str(options.m)]
                arguments = [*paths, "-f", options.f, "-device", options.device]
                times[command] = seconds(command, arguments + ["--disable_tta"] * options.disable_tta)
                print(f"{command:18}{times[command]:8.1f} s", flush=True)
            pairs.append(times["nnUNetv2_predict"] / times["retina_predict"])
        print(f"ratio {statistics.median(pairs):.2f} ({describe(options)})")


def agreement(options: argparse.Namespace) -> None:
    """Print how far logits and labels of the two are apart."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunetv2_retina.prediction.predictor import Predictor
    from nnunetv2_retina.prediction.settings import PredictionSettings

    theirs = nnUNetPredictor(
        use_mirroring=not options.disable_tta, device=torch.device(options.device), allow_tqdm=False
    )
    fold = options.f if options.f == "all" else int(options.f)
    theirs.initialize_from_trained_model_folder(str(options.m), (fold,))
    settings = PredictionSettings(mirroring=not options.disable_tta)
    ours = Predictor.from_model_folder(options.m, (fold,), device=options.device, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(some_images(options, Path(folder)).iterdir()):
            data, _ = ours.preprocess_files([str(path)])
            one, other = ours.predict_logits(data).float(), theirs.predict_logits_from_preprocessed_data(data).float()
            apart = (one - other).abs()
            equal = (one.argmax(0) == other.argmax(0)).double().mean()
            print(
                f"{path.name}: logits {other.min():.2f} to {other.max():.2f}, apart at most {apart.max():.2e}, more "
                f"than 1e-3 in {(apart > 1e-3).double().mean():.2e}, labels equal in {equal:.6%}",
                flush=True,
            )
    print(describe(options))


def some_images(options: argparse.Namespace, folder: Path) -> Path:
    """A folder with the first few images."""
    images = folder / "images"
    images.mkdir()
    for path in sorted(path for path in options.i.iterdir() if "_0000." in path.name)[: options.cases]:
        shutil.copy(path, images)
    return images


def describe(options: argparse.Namespace) -> str:
    """What was run."""
    tta = "without" if options.disable_tta else "with"
    return f"{options.cases} cases, {tta} mirroring, {options.device}, {torch.get_num_threads()} threads"


def batches(options: argparse.Namespace) -> None:
    """Print the time of a tile by the number of tiles at once: the least of several rounds through all sizes."""
    from nnunetv2_retina.prediction.predictor import Predictor
    from nnunetv2_retina.prediction.settings import PredictionSettings

    ours = Predictor.from_model_folder(
        options.m, (0,), device=options.device, settings=PredictionSettings(mirroring=False)
    )
    model = ours.window.models[0]
    channels = len(ours.nnunet.dataset_json["channel_names"])
    best = dict.fromkeys((1, 2, 4, 8, 16), float("inf"))
    for _ in range(4):
        for size in best:
            tiles = torch.randn(size, channels, *ours.window.patch_size, device=ours.window.device)
            model(tiles).sum().item()
            start = time.perf_counter()
            model(tiles).sum().item()
            best[size] = min(best[size], (time.perf_counter() - start) / size)
    for size, least in best.items():
        print(f"{size:3} tiles at once: {1e3 * least:8.2f} ms a tile, {best[1] / least:.2f} times as fast as one")


@torch.inference_mode()
def network(options: argparse.Namespace) -> None:
    """Print the time of a tile as trained, optimised, and in bf16, how far the logits are apart, and labels differ."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunetv2_retina.prediction.optimised import optimised

    device = torch.device(options.device)
    nnunet = nnUNetPredictor(device=device, allow_tqdm=False)
    nnunet.initialize_from_trained_model_folder(str(options.m), (int(options.f),))
    trained = nnunet.network.to(device).eval()
    faster = optimised(trained, device)

    def bf16(tiles: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return faster(tiles)

    variants = {"as trained": trained, "optimised": faster, "optimised, bf16": bf16}
    patch = nnunet.configuration_manager.patch_size
    for size in (1, 4):
        tiles = torch.randn(size, len(nnunet.dataset_json["channel_names"]), *patch, device=device)
        logits = {name: variant(tiles) for name, variant in variants.items()}
        best = dict.fromkeys(variants, float("inf"))
        for _ in range(8):
            for name, variant in variants.items():
                start = time.perf_counter()
                variant(tiles).sum().item()
                best[name] = min(best[name], (time.perf_counter() - start) / size)
        for name, least in best.items():
            apart = (logits[name] - logits["as trained"]).abs().max() / logits["as trained"].std()
            differ = (logits[name].argmax(1) != logits["as trained"].argmax(1)).double().mean()
            print(
                f"{size} at once, {name:16}{1e3 * least:8.1f} ms a tile, x {best['as trained'] / least:.2f}; "
                f"logits apart {apart:.1e} of their deviation, labels in {differ:.1e}"
            )


class Pointwise(nn.Module):
    """A network of one layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, classes, 1)

    def forward(self, tiles: Tensor) -> Tensor:
        return self.layer(tiles)


def memory(options: argparse.Namespace) -> None:
    """Print the peak memory above the start's for each number of classes, each in a process of its own."""
    if len(options.classes) > 1:
        for classes in options.classes:
            more = ["--orthoplane"] * options.orthoplane
            size = [str(n) for n in options.size]
            command = [sys.executable, __file__, "memory", "--classes", str(classes), "--size", *size, *more]
            subprocess.run(command, check=True)
        return
    classes = options.classes[0]
    predictor = pointwise_predictor(classes, options.orthoplane)
    volume = np.random.default_rng(0).normal(100, 20, (1, *options.size)).astype(np.float32)
    size = volume.nbytes
    watch = Watch()
    labels = predictor.predict(volume, (1, 1, 1))
    peak = watch.stop()
    assert isinstance(labels, np.ndarray) and labels.shape == tuple(options.size)
    bound = 3 * size + 2 * 2**30
    print(
        f"{classes:4} classes, {predictor.mode}: volume {size / 2**20:,.0f} MiB (float32), "
        f"peak of the process {peak / 2**20:,.0f} MiB, bound {bound / 2**20:,.0f} MiB",
        flush=True,
    )


def pointwise_predictor(classes: int, orthoplane: bool):  # noqa: ANN201 - imported where it is needed
    """A predictor with the network of one layer, through plans of nnU-Net's form."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_retina.prediction.predictor import Predictor
    from nnunetv2_retina.prediction.settings import PredictionSettings

    settings = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [224, 224],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {},
    }
    for what, is_seg in (("data", False), ("seg", True), ("probabilities", False)):
        settings[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        settings[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": is_seg,
            "order": 1,
            "order_z": 0,
            "force_separate_z": None,
        }
    plans = PlansManager(
        {
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"2d": settings},
            "foreground_intensity_properties_per_channel": {"0": {}},
        }
    )
    labels = {"background": 0} | {f"class {i}": i for i in range(1, classes)}
    about = {"labels": labels, "channel_names": {"0": "EM"}, "file_ending": ".tif"}
    nnunet = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    network = Pointwise(classes)
    nnunet.manual_initialization(
        network, plans, plans.get_configuration("2d"), [network.state_dict()], about, "none", None
    )
    return Predictor(nnunet, PredictionSettings(mode="orthoplane" if orthoplane else "stack", mirroring=False))


class Watch:
    """Looks at the process's resident memory every 10 ms."""

    def __init__(self) -> None:
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.01):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self._peak = max(self._peak, pages * os.sysconf("SC_PAGE_SIZE"))

    def stop(self) -> int:
        """The peak in bytes."""
        self._stopped.set()
        self._thread.join()
        return self._peak


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    for action in (speed, agreement, batches, network, memory):
        options = actions.add_parser(action.__name__, help=action.__doc__)
        options.set_defaults(action=action)
        if action is memory:
            options.add_argument("--classes", type=int, nargs="+", default=[2, 50])
            options.add_argument("--size", type=int, nargs=3, default=[64, 512, 512])
            options.add_argument("--orthoplane", action="store_true")
            continue
        options.add_argument("-m", type=Path, required=True)
        options.add_argument("-device", default="cpu")
        options.add_argument("-f", default="0", help="fold")
        if action in (speed, agreement):
            options.add_argument("-i", type=Path, required=True)
            options.add_argument("--cases", type=int, default=1)
            options.add_argument("--pairs", type=int, default=1)
            options.add_argument("--disable_tta", action="store_true")
    chosen = parser.parse_args()
    chosen.action(chosen)


if __name__ == "__main__":
    main()
