"""Which objective teaches a transformer something: each pre-trained for the same steps, then the probe of them all.

    python benchmarks/objectives.py SOURCE DATA -o OUT [--iterations 620] [--exclude FILE] [--only NAME ...] PROBE ...

Size tiny. Every step sees as many pixels: 16 crops of 112 x 112, or 4 whole images where the objective takes no crops.
SOURCE is what ``retina_pretrain`` takes, DATA and PROBE what ``probe.py`` takes. Stopped, it goes on with the
same command; with ``--only`` several processes can share the work (the table is made by the last one, without it).
Needs torch, NumPy, scikit-image, and for distillation the extra ``distil``. Ten minutes an objective on a core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from pretraining.cli import main as retina_pretrain

_ADAMW = (
    "--batch-size 4 --optimiser adamw --lr 1e-3 --weight-decay .05 --warmup 100 --schedule cosine --clip 1 "
    "--positions sine --image-normalisation"
)
OBJECTIVES = {
    "published": "--batch-size 4 --lr 0.005",
    "adamw": _ADAMW,
    "adamw_masked_loss": f"{_ADAMW} --masked-loss",
    "adamw_no_skips": f"{_ADAMW} --skip-drop 1",
    "adamw_two_terms": f"{_ADAMW} --two-terms",
    "denoising": "--recipe denoising --batch-size 4",
    "masked": "--recipe masked",
    "masked_hidden_skips": "--recipe masked --hide-skips",
    "no_decoder": "--recipe masked --arm simmim",
    "distil": "--recipe distil",
    "distil_and_restore": "--recipe distil --restore 1",
}
"""Name -> options of ``retina_pretrain``."""


def main() -> None:
    """Pre-train what is not finished, then print the table."""
    parser = argparse.ArgumentParser(description="Pre-train by each objective, and probe the results.")
    add = parser.add_argument
    add("source", metavar="SOURCE")
    add("data", metavar="DATA", help="folder with images/ and masks/")
    add("-o", "--output", type=Path, required=True, metavar="OUT")
    add("--iterations", type=int, default=620, metavar="N", help="steps of each (default 620)")
    add("--exclude", metavar="FILE", help="patterns of images that are left out")
    add("--seed", default="1")
    add("--only", nargs="+", choices=OBJECTIVES, metavar="NAME", help="train these, and make no table")
    args, of_the_probe = parser.parse_known_args()

    common = ["--size", "tiny", "--iterations", str(args.iterations), "--seed", args.seed, "--keep-every", "0"]
    common += ["--measure-every", "1000", *(["--exclude", args.exclude] if args.exclude else [])]
    for name in args.only or OBJECTIVES:
        status = retina_pretrain([args.source, "-o", str(args.output / name), *common, *OBJECTIVES[name].split()])
        if status:
            raise SystemExit(status)
    if not args.only:
        checkpoints = [str(args.output / name / "checkpoint_final.pth") for name in OBJECTIVES]
        probe = [sys.executable, str(Path(__file__).with_name("probe.py")), args.data, *checkpoints, *of_the_probe]
        subprocess.run(probe, check=True)


if __name__ == "__main__":
    main()
