"""Model folders of nnU-Net: which folds they hold, and loading them, with a message for whatever is missing.

Imports neither torch nor nnU-Net until a model is loaded.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.nnunet.datasets import DATASET_JSON, PREPROCESSED, RAW, RESULTS, find_dataset, nnunet_folder

if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

PLANS_JSON = "plans.json"
FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"


def model_name(trainer: str, plans: str, configuration: str) -> str:
    """Return the name of a model's folder."""
    return f"{trainer}__{plans}__{configuration}"


def find(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """Return the folder of a model in ``$nnUNet_results``, from nnU-Net's options -d -tr -p -c.

    Raises:
        RetinaError: if the variable is not set or there is no such model; it names those that there are.
    """
    results = nnunet_folder(RESULTS)
    if results is None:
        raise RetinaError(
            "$nnUNet_results is not set. Run: retina_doctor --init, set it to nnU-Net's results folder, or give the "
            "model with -m"
        )
    try:
        name = find_dataset(dataset, RESULTS, PREPROCESSED, RAW).name
    except RetinaError as error:
        raise RetinaError(f"-d: {str(error).rstrip('.')}; or give -m MODEL_FOLDER") from error
    folder = results / name / model_name(trainer, plans, configuration)
    if not folder.is_dir():
        models = sorted(path.name for path in folder.parent.glob("*__*__*") if path.is_dir())
        others = f"There are {shorten(models)}" if models else "There are none"
        raise RetinaError(
            f"no model {folder.name} in {folder.parent}. {others}. Choose one with -tr, -p and -c, or train it: "
            f"nnUNetv2_train {dataset} {configuration} 0 -tr {trainer}"
        )
    return folder


def check(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> list[int | str]:
    """Check that a model folder is complete.

    Args:
        folder: the one with dataset.json, plans.json and fold_0, fold_1, ...
        folds: those asked for; None: every numbered fold that has the checkpoint, else fold_all.
        checkpoint: name of the file in each fold's folder.

    Returns:
        The folds to use.

    Raises:
        RetinaError: naming what is missing.
    """
    if not folder.is_dir():
        raise RetinaError(f"no model folder {folder}. Give the folder that holds plans.json and fold_0")
    for name in (PLANS_JSON, DATASET_JSON):
        if not (folder / name).is_file():
            raise RetinaError(
                f"{folder} has no {name}, so it is not a model folder of nnU-Net. Give the one that holds it, "
                "dataset.json, plans.json and fold_0; it is named TRAINER__PLANS__CONFIGURATION"
            )
    if Path(checkpoint).name != checkpoint:
        raise RetinaError(f"-chk {checkpoint} is a path; expected the name of a file in each fold's folder: {FINAL}")
    checkpoints = folder.glob(f"fold_*/{glob.escape(checkpoint)}")
    trained = sorted(path.parent.name.removeprefix("fold_") for path in checkpoints)
    if not trained:
        others = sorted({path.name for path in folder.glob("fold_*/*.pth")})
        hint = f"There are {shorten(others)}: choose one with -chk" if others else "Finish its training first"
        raise RetinaError(f"{folder} has no {checkpoint} in any fold. {hint}")
    if folds is None:
        numbered = [int(fold) for fold in trained if fold.isdecimal()]
        return list(numbered) if numbered else ["all"]
    unknown = [fold for fold in folds if str(fold) not in trained]
    if unknown:
        raise RetinaError(
            f"-f {unknown[0]}: {folder} has no {checkpoint} of that fold; it has folds {', '.join(trained)}. "
            "Choose among them, or leave -f out to use all"
        )
    return list(dict.fromkeys(fold if str(fold) == "all" else int(fold) for fold in folds))


def folds_without(folder: Path, checkpoints: Collection[str]) -> list[str]:
    """Return the folds that were begun and hold none of these checkpoints."""
    begun = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    return [path.name.removeprefix("fold_") for path in begun if not any((path / n).is_file() for n in checkpoints)]


def _trained_by(paths: Sequence[Path]) -> tuple[str, str]:
    """Read every checkpoint before nnU-Net's own loader does, which lets a file run code.

    Returns:
        The first one's trainer and configuration.
    """
    from nnunetv2_retina.weights.checkpoint import read_file

    for path in reversed(paths):
        stored = read_file(path)
    try:
        return stored["trainer_name"], stored["init_args"]["configuration"]
    except (KeyError, TypeError) as error:
        raise RetinaError(
            f"{paths[0]} is not a checkpoint of an nnU-Net training: it does not name its trainer. Give a model folder "
            "that nnUNetv2_train wrote"
        ) from error


def initialise(nnunet: nnUNetPredictor, folder: Path, folds: Sequence[int | str], checkpoint: str) -> None:
    """Load network, weights and settings with nnU-Net's own method.

    Raises:
        RetinaError: for a damaged checkpoint, an unknown trainer, weights that do not fit or a model that is not 2d.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    trainer, configuration = _trained_by([folder / f"fold_{fold}" / checkpoint for fold in folds])
    try:
        dimensions = len(PlansManager(str(folder / PLANS_JSON)).get_configuration(configuration).patch_size)
        if dimensions == 2:
            nnunet.initialize_from_trained_model_folder(str(folder), tuple(folds), checkpoint)
    except (RuntimeError, ValueError, LookupError, AttributeError, ImportError, TypeError) as error:
        raise RetinaError(
            f"the model in {folder}, trained with {trainer}, cannot be loaded: {_beginning(error)}. Check that the "
            "trainer is installed (retina_doctor) and that plans.json is the one of this training"
        ) from error
    if dimensions != 2:
        raise RetinaError(
            f"configuration {configuration} of {folder} predicts {dimensions}D tiles; retina_predict is for 2d models. "
            "Use nnUNetv2_predict for this one"
        )


def _beginning(error: Exception, limit: int = 300) -> str:
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]} ..."
