"""The command ``retina_pretrain``: arguments in, one function call each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_retina.console import run as guarded
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import SIZES
from pretraining.recipe import ARMS, Execution, Recipe

STOPPED = 75
"""Exit status of a run that a signal stopped: a temporary failure, the same command continues."""

_DESCRIPTION = """\
Pre-train a TransUNet on electron-microscopy images without labels, by restoring masked and degraded images (RETINA;
Xing, Xie, Bader, PLoS Comput Biol 2025). The defaults are the published recipe. The same command continues a run that
was stopped or killed. Also:

  retina_pretrain pack SOURCE STORE    prepare the images alone: once, for several runs or machines
  retina_pretrain verify STORE         read every packed image and compare it with its checksum
"""
_EPILOG = """\
In the output folder: checkpoint_final.pth (for nnUNetv2_train -pretrained_weights), checkpoint_latest.pth, log.jsonl,
progress.png, reconstructions_*.png. Several machines: start it with torchrun on each.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``retina_pretrain``. Returns the exit status: 0, 2 for a user's error, 75 if a signal stopped the run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["pack"]:
        return _pack(arguments[1:])
    if arguments[:1] == ["verify"]:
        return _verify(arguments[1:])
    args = _parser().parse_args(arguments)
    status = 0

    def run() -> None:
        nonlocal status
        status = _run(args, arguments)

    return guarded(run) or status


def _run(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    import torch

    from pretraining.job import dry_run, pretrain
    from pretraining.loop.processes import Processes, start_several

    job = _job(args)
    if args.dry_run:
        dry_run(job, _say)
        return 0
    if args.num_gpus > 1 and "WORLD_SIZE" not in os.environ:
        Processes(torch.device("cpu"), count=args.num_gpus).share(job.recipe.batch_size)
        start_several(args.num_gpus, arguments)
    outcome = pretrain(job, _say)
    if int(os.environ.get("RANK", "0")) == 0:
        print(outcome.checkpoint, flush=True)
    return STOPPED if outcome.stopped else 0


def _job(args: argparse.Namespace) -> Any:
    from pretraining.augmentation.views import AugmentationSettings
    from pretraining.job import Job

    recipe = Recipe(
        size=args.size,
        arm=args.arm,
        epochs=args.epochs,
        iterations=args.iterations,
        batch_size=args.batch_size,
        learning_rate=args.lr,
        seed=args.seed,
        balance=args.balance,
        exclude=_patterns(args.exclude) if args.exclude else (),
        masked_loss=args.masked_loss,
        skip_drop=args.skip_drop,
        augmentation=AugmentationSettings(normalisation="image" if args.image_normalisation else "published"),
    )
    execution = Execution(
        device=args.device,
        precision=args.precision,
        compile=args.compile,
        micro_batch=args.micro_batch,
        workers=args.workers,
        checkpoint_minutes=args.checkpoint_minutes,
        keep_every=args.keep_every,
        tensorboard=args.tensorboard,
    )
    return Job(
        source=args.source,
        output=args.output,
        store=args.store,
        init=args.init,
        recipe=recipe,
        execution=execution,
        packing=_packing(args),
    )


def _patterns(path: Path) -> tuple[str, ...]:
    """Lines of a file that are neither empty nor comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RetinaError(f"--exclude: {path} cannot be read as a text file ({error})") from error
    patterns = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not patterns:
        raise RetinaError(f"--exclude: {path} holds no pattern; expected one a line, such as cremi*")
    return patterns


def _packing(args: argparse.Namespace) -> dict[str, Any]:
    return {"deduplicate": args.deduplicate, "max_rejected": args.max_rejected / 100, "progress": show_packing}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    recipe, execution = Recipe(), Execution()
    parser = argparse.ArgumentParser(
        prog="retina_pretrain",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder tree, .zip or .tar of images (TIFF, PNG, JPEG), or a store")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the run")
    _add_recipe(parser, recipe)
    _add_execution(parser, execution)
    images = parser.add_argument_group("images")
    images.add_argument("--exclude", type=Path, metavar="FILE", help="patterns of image names to leave out, one a line")
    images.add_argument(
        "--balance", type=float, default=recipe.balance, metavar="GAMMA",
        help="draw an image of a source with n images with weight n^-GAMMA (default 0: every image once an epoch)",
    )  # fmt: skip
    images.add_argument("--store", type=Path, metavar="FOLDER", help="where packed images go (default: beside SOURCE)")
    _add_packing(images)
    return parser


def _add_recipe(parser: argparse.ArgumentParser, default: Recipe) -> None:
    add = parser.add_argument_group("recipe").add_argument
    add("--size", choices=tuple(SIZES), default=default.size, help=f"of the network (default {default.size})")
    add("--epochs", type=float, default=default.epochs, help=f"(default {default.epochs:g})")
    add("--iterations", type=int, metavar="N", help="optimiser steps, instead of --epochs")
    add(
        "--batch-size", type=int, default=default.batch_size, metavar="N",
        help=f"images a step, over all processes together (default {default.batch_size})",
    )  # fmt: skip
    add("--lr", type=float, default=default.learning_rate, help=f"learning rate (default {default.learning_rate})")
    add("--seed", type=int, default=default.seed, metavar="N", help=f"(default {default.seed})")
    add(
        "--init",
        type=Path,
        metavar="FILE",
        help="weights to start from: a checkpoint, or what retina_import_weights reads",
    )
    add("--arm", choices=ARMS, default=default.arm, help="what is learned; mae: transformer alone, simclr: CNN alone")
    add("--masked-loss", action="store_true", help="count only pixels that were changed")
    add(
        "--skip-drop",
        type=float,
        default=0.0,
        metavar="P",
        help="probability of dropping a skip connection (default 0)",
    )
    add("--image-normalisation", action="store_true", help="normalise each image by its own mean and deviation")


def _add_execution(parser: argparse.ArgumentParser, default: Execution) -> None:
    add = parser.add_argument_group("execution (may change when a run is continued)").add_argument
    add("--num-gpus", type=int, default=1, metavar="N", help="processes on this machine, one a GPU (default 1)")
    add("--device", choices=("auto", "cuda", "cpu"), default=default.device, help="(default auto)")
    add("--precision", choices=("auto", "bf16", "fp16", "fp32"), default=default.precision, help="(default auto)")
    add("--compile", choices=("auto", "on", "off"), default=default.compile, help="torch.compile (auto: on GPUs)")
    add("--micro-batch", type=int, metavar="N", help="images computed at once (default: what fits; 16 on CPUs)")
    add("--workers", type=int, default=default.workers, metavar="N", help="threads that read images")
    add(
        "--checkpoint-minutes", type=float, default=default.checkpoint_minutes, metavar="N",
        help=f"time between checkpoints within an epoch (default {default.checkpoint_minutes:g})",
    )  # fmt: skip
    add(
        "--keep-every", type=int, default=default.keep_every, metavar="N",
        help=f"epochs between checkpoints that are kept; 0: none (default {default.keep_every})",
    )  # fmt: skip
    add(
        "--tensorboard",
        action="store_true",
        help='also log for TensorBoard (pip install "nnunetv2-retina[tensorboard]")',
    )
    add("--dry-run", action="store_true", help="check everything, estimate the time, and write nothing")


def _add_packing(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deduplicate", type=int, nargs="?", const=12, metavar="BITS",
        help="drop images within so many of 64 bits (default 12) of an earlier one of the same source",
    )  # fmt: skip
    parser.add_argument(
        "--max-rejected", type=float, default=5, metavar="PERCENT",
        help="stop if more files than this cannot be used (default 5)",
    )  # fmt: skip


def _pack(arguments: Sequence[str]) -> int:
    from pretraining.store.packing import pack

    parser = argparse.ArgumentParser(prog="retina_pretrain pack", description="Pack images for fast random access.")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder tree, .zip or .tar of images")
    parser.add_argument("store", type=Path, metavar="STORE", help="folder to write; an unfinished one is continued")
    _add_packing(parser)
    args = parser.parse_args(arguments)

    def run() -> None:
        store = pack(args.source, args.store, **_packing(args))
        _say(f"{len(store):,} images of {len(store.groups)} sources; what was left out: {store.path / 'rejected.csv'}")
        print(store.path)

    return guarded(run)


def _verify(arguments: Sequence[str]) -> int:
    from pretraining.store.reader import ImageStore

    parser = argparse.ArgumentParser(prog="retina_pretrain verify", description="Read and check every packed image.")
    parser.add_argument("store", type=Path, metavar="STORE")
    args = parser.parse_args(arguments)

    def run() -> None:
        store = ImageStore(args.store)
        store.verify()
        print(f"{len(store):,} images are as they were packed")

    return guarded(run)


def show_packing(done: int, total: int | None) -> None:
    """A line of progress every thousand files."""
    if done % 1000 == 0 or done == total:
        _say(f"packed {done:,}{'' if total is None else f' of {total:,}'} files")


if __name__ == "__main__":
    sys.exit(main())
