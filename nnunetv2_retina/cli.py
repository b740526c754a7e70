"""The command line: arguments in, one function call each, errors without a traceback. The only module that prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunetv2_retina.errors import RetinaError

USAGE_ERROR = 2


def guarded(action: Callable[[], None]) -> int:
    """Call ``action``; the exit status: 0, 2 after a RetinaError, whose text goes to stderr, or 130 after Ctrl-C."""
    try:
        action()
    except RetinaError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def quickstart(argv: Sequence[str] | None = None) -> int:
    """``retina_quickstart``: see ``nnunetv2_retina.quickstart.run``. The last line it prints is the report's path."""
    from nnunetv2_retina.quickstart.run import DEFAULT_OUTPUT, DEFAULT_TRAINER, QuickstartSettings, run_quickstart

    defaults = QuickstartSettings()
    parser = argparse.ArgumentParser(
        prog="retina_quickstart",
        description="Run the whole chain on generated EM-like volumes, or on images of your own: convert, preprocess, "
        "train a tiny network, predict images that were held out, score and draw them. Two to six minutes on "
        "two CPU cores. Everything goes into one folder; nnU-Net's own folders are not touched.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT_OUTPUT, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        default=argparse.SUPPRESS,
        help="images and masks of your own, laid out as for 'retina_convert folder': images/ and masks/ (some are "
        "then held out for the scores), or train/ and test/ with both in each (default: generated volumes)",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=defaults.iterations,
        metavar="N",
        help="training steps; more is better and slower",
    )
    parser.add_argument(
        "--batch-size", type=int, default=defaults.batch_size, metavar="N", help="patches per training step"
    )
    parser.add_argument(
        "--trainer", default=DEFAULT_TRAINER, metavar="NAME", help="nnU-Net trainer, for instance nnUNetTrainerRETINA"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default=argparse.SUPPRESS, help="(default: cuda where there is one)"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, metavar="N", help="seed of the generated volumes")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        default=argparse.SUPPRESS,
        help="use an output folder that holds other files; they are left alone. A folder that an earlier quickstart "
        "made is always replaced",
    )
    arguments = parser.parse_args(argv)

    def say(line: str) -> None:
        print(line, flush=True)

    def run() -> None:
        settings = QuickstartSettings(
            iterations=arguments.iterations,
            batch_size=arguments.batch_size,
            trainer=arguments.trainer,
            device=getattr(arguments, "device", None),
            seed=arguments.seed,
        )
        data, overwrite = getattr(arguments, "data", None), getattr(arguments, "overwrite", False)
        say(str(run_quickstart(arguments.output, data, settings, overwrite, say)))

    return guarded(run)


def doctor(argv: Sequence[str] | None = None) -> int:
    """``retina_doctor``: see ``nnunetv2_retina.commands.doctor``. Exit status 1 if something is wrong."""
    from nnunetv2_retina.commands.doctor import examine

    argparse.ArgumentParser(
        prog="retina_doctor",
        description="Check the installation: versions, devices, nnU-Net's three folders, registration, weights. Says "
        "what is right, what is wrong and what to type. Exit status 1 if something is wrong.",
    ).parse_args(argv)
    wrong = 0
    for finding in examine():
        wrong += finding.level == "wrong"
        print(f"{finding.level:6}{finding.topic:21}{finding.text}", flush=True)
        if finding.advice:
            print(f"{'':6}{'':21}-> {finding.advice}", flush=True)
    print(f"\n{wrong} to put right" if wrong else "\nEverything that is needed is there.")
    return 1 if wrong else 0


def import_weights(argv: Sequence[str] | None = None) -> int:
    """``retina_import_weights``: see ``nnunetv2_retina.weights.importing``. Says what became of every tensor."""
    from nnunetv2_retina.weights.importing import advise, import_weights, summarise

    parser = argparse.ArgumentParser(
        prog="retina_import_weights",
        description="Turn weights of other origin into a checkpoint for nnUNetv2_train -pretrained_weights: published "
        "RETINA weights, the ImageNet-21k hybrid R50+ViT-B_16 (.npz of the authors, or timm's), a ResNet-50 of MoCo v2 "
        "(CEM500K's) or torchvision for the UNet-ResNet50, or a checkpoint of RETINA or nnU-Net with another position "
        "grid; PyTorch, .npz or .safetensors.",
    )
    parser.add_argument("source", type=Path, metavar="IN", help="the weights file")
    parser.add_argument("target", type=Path, metavar="OUT", help="the checkpoint to write, for example weights.pth")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    arguments = parser.parse_args(argv)

    def run() -> None:
        imported = import_weights(arguments.source, arguments.target, arguments.overwrite)
        print(f"{arguments.source}: {imported.kind}")
        for line in summarise(imported.steps):
            print(line)
        print(advise(imported))

    return guarded(run)


def evaluate(argv: Sequence[str] | None = None) -> int:
    """``retina_evaluate``: see ``nnunetv2_retina.evaluation.evaluate``. Prints a table; the files hold everything."""
    from nnunetv2_retina.evaluation.evaluate import default_processes
    from nnunetv2_retina.evaluation.evaluate import evaluate as evaluate_folders
    from nnunetv2_retina.evaluation.output import ADVICE, CSV_FILE, JSON_FILE, table, write_scores
    from nnunetv2_retina.files import make_folder

    parser = argparse.ArgumentParser(
        prog="retina_evaluate",
        description="Score predicted label files against ground truths as the papers do. The rule (classes, masks, "
        'whole volumes or images) comes from the block "retina" of dataset.json; a data set without one gets plain '
        "scores over volumes. Voxels of the ignore label count nowhere; what is undefined is left out and listed.",
    )
    parser.add_argument("-p", type=Path, required=True, metavar="FOLDER", help="predictions, one file a case")
    parser.add_argument("-g", type=Path, required=True, metavar="FOLDER", help="ground truths, such as labelsTs")
    parser.add_argument(
        "-d", required=True, metavar="DATASET", help="ID, name (in nnUNet_raw or nnUNet_preprocessed), or dataset.json"
    )
    parser.add_argument(
        "-o", type=Path, required=True, metavar="FOLDER", help=f"where to write {JSON_FILE} and {CSV_FILE}"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="NM",
        help="CREMI's scores with this tolerance (the challenge: 200), by the spacing of the ground truth, which must "
        "be in nm (default: the data set's distance_tolerance; without one, no such scores)",
    )
    parser.add_argument("--no-distances", action="store_true", help="without Mean False Distance and CREMI's scores")
    parser.add_argument("-np", type=int, metavar="N", help="cases at a time (default: processors, at most 4)")
    arguments = parser.parse_args(argv)

    def run() -> None:
        make_folder(arguments.o, ADVICE)
        scores = evaluate_folders(
            arguments.p,
            arguments.g,
            arguments.d,
            tolerance=arguments.tolerance,
            distances=not arguments.no_distances,
            processes=default_processes() if arguments.np is None else arguments.np,
        )
        files = write_scores(scores, arguments.o)
        for line in table(scores):
            print(line)
        print(f"wrote {' and '.join(map(str, files))}")

    return guarded(run)


def predict(argv: Sequence[str] | None = None) -> int:
    """``retina_predict``: see ``nnunetv2_retina.prediction.folder``. Prints a line for each case."""
    from nnunetv2_retina.commands import predict as predict_options

    parser = predict_options.parser()
    arguments = parser.parse_args(argv)

    def run() -> None:
        predict_options.run(arguments, lambda line: print(line, flush=True))

    return guarded(run)


def report(argv: Sequence[str] | None = None) -> int:
    """``retina_report``: see ``nnunetv2_retina.report.page``. The last line it prints is the page's path."""
    arguments = _report_parser().parse_args(argv)

    def run() -> None:
        from nnunetv2_retina.nnunet import models
        from nnunetv2_retina.report.page import ReportSettings, write_model_report

        if (arguments.m is None) == (arguments.d is None):
            raise RetinaError("give the model either as -m FOLDER, or as -d DATASET with -tr, -p and -c")
        settings = ReportSettings(
            folds=arguments.f,
            predictions=arguments.predictions,
            labels=arguments.labels,
            images=arguments.images,
            distances=not arguments.no_distances,
        )
        folder = arguments.m or models.find(arguments.d, arguments.tr, arguments.p, arguments.c)
        print(write_model_report(folder, arguments.o, settings))

    return guarded(run)


def _report_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retina_report",
        description="Write one HTML page about a trained model of nnU-Net, RETINA's or any other: what was trained, "
        "what was transferred, training curves, scores by the data set's rule, pictures of the worst and best cases. "
        "The file needs no other and opens offline. Without --predictions and --labels, the validation predictions "
        "that nnU-Net made at the end of the training are scored.",
    )
    model = parser.add_argument_group("model")
    model.add_argument("-m", type=Path, metavar="FOLDER", help="model folder, instead of -d -tr -p -c")
    model.add_argument("-d", metavar="DATASET", help="number or name of the data set it was trained on")
    model.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="default: nnUNetTrainer")
    model.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="default: nnUNetPlans")
    model.add_argument("-c", default="2d", metavar="CONFIGURATION", help="default: 2d")
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds, or all; default: every numbered one, else all")
    cases = parser.add_argument_group("cases")
    cases.add_argument("--predictions", type=Path, metavar="FOLDER", help="label files to score; needs --labels")
    cases.add_argument("--labels", type=Path, metavar="FOLDER", help="their ground truths, such as labelsTs")
    cases.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="images to show, such as imagesTs; default, for validation predictions: imagesTr of the raw data set",
    )
    cases.add_argument("--no-distances", action="store_true", help="without Mean False Distance and CREMI's scores")
    parser.add_argument("-o", type=Path, metavar="FILE", help="the page; default: report.html in the model folder")
    return parser


def benchmark(argv: Sequence[str] | None = None) -> int:
    """``retina_benchmark``: see ``nnunetv2_retina.study``. Exit status 1 if a run failed."""
    from nnunetv2_retina.study.command import StudyOptions, run_study

    parser = argparse.ArgumentParser(
        prog="retina_benchmark",
        description="Run a study: data sets x systems x seeds, scored at several iteration counts, and report it. A "
        "study that was stopped goes on with the same command; finished runs are never made again, and a run that "
        "fails stops no other. Several of these commands may share one output folder: each takes the next run.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="see studies/ for examples")
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="for runs and report")
    parser.add_argument("-device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument(
        "--part", metavar="I/N", help="only every N-th run, from the I-th, for machines that share no folder"
    )
    parser.add_argument(
        "--merge", type=Path, nargs="+", default=[], metavar="FOLDER", help="take finished runs of other folders first"
    )
    parser.add_argument(
        "--no-rehearsal",
        action="store_true",
        help="do not try every system on every data set for a few steps first; then there is no estimate either",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--estimate", action="store_true", help="rehearse, say how long all will take, and stop")
    only.add_argument("--report", action="store_true", help="report what is finished, and stop")
    arguments = parser.parse_args(argv)
    status = 0

    def run() -> None:
        nonlocal status
        options = StudyOptions(
            device=arguments.device,
            part=arguments.part,
            merge=arguments.merge,
            rehearse=not arguments.no_rehearsal,
            only="estimate" if arguments.estimate else "report" if arguments.report else None,
        )
        page, outcome = run_study(arguments.study, arguments.o, options, lambda line: print(line, flush=True))
        if outcome.failed:
            print(f"{len(outcome.failed)} failed; the same command tries them again", file=sys.stderr)
            status = 1
        if page is not None:
            print(page)

    return guarded(run) or status
