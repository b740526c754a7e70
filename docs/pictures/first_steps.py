"""Takes the pictures of docs/first_steps.md from the pages of a quickstart, of generated images:

retina_quickstart -o FOLDER && python docs/pictures/first_steps.py FOLDER
"""

import base64
import io
import os
import re
import shutil
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH = 1000
PICTURES = {
    "first_steps_curves": "Losses, pseudo Dice and learning rate",
    "first_steps_cases": "(?:Best|Worst) cases",
    "first_steps_objects": "Histograms of size",
    "first_steps_tokens": "What the weights make of images",
    "first_steps_beside": "test_.*: image, ground truth",
}
"""Name of the file -> pattern that begins the picture's description."""


def main(folder: Path) -> None:
    """Predict the held-out volumes with objects, write the two pages, and take the pictures out of them."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / f"nnUNet_{name}")
    from nnunetv2_retina.commands.predict import main as retina_predict
    from nnunetv2_retina.quickstart.settings import DEFAULT_TRAINER
    from nnunetv2_retina.report.page import write_model_report
    from nnunetv2_retina.report.settings import ReportSettings

    (dataset,) = (folder / "nnUNet_raw").glob("Dataset*")
    (model,) = (folder / "nnUNet_results" / dataset.name).glob(f"{DEFAULT_TRAINER}__*")
    found = folder / "objects"
    words = [
        "-i",
        dataset / "imagesTs",
        "-o",
        found,
        "-m",
        model,
        "--instances",
        "--disable_tta",
        "--c",
        "-npp",
        0,
        "-nps",
        0,
    ]
    if not (found / "objects.html").is_file() and retina_predict([str(word) for word in words]):
        raise SystemExit(1)
    settings = ReportSettings(predictions=found, labels=dataset / "labelsTs", images=dataset / "imagesTs")
    report = write_model_report(model, folder / "first_steps.html", settings)
    pages = "".join(
        path.read_text(encoding="utf-8") for path in (report, found / "objects.html", folder / "report.html")
    )
    for name, beginning in PICTURES.items():
        data = re.search(rf'<img alt="{beginning}[^"]*" src="data:image/png;base64,([^"]+)"', pages)
        if data is None:
            raise SystemExit(f"no picture '{beginning} ...' in the pages of {folder}")
        picture = Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB")
        picture.thumbnail((WIDTH, WIDTH))
        picture.save(HERE / f"{name}.png", optimize=True)
    (patches,) = model.glob("fold_*/validation_patches.png")
    shutil.copyfile(patches, HERE / patches.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
