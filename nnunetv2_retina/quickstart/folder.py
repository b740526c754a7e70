"""The quickstart's output folder: what is in it, and which of it a new run may replace."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder
from nnunetv2_retina.nnunet.commands import Workspace

MARKER = ".retina_quickstart"
"""In every output folder, so that the next run knows the folder for its own and may replace it."""
_ELSEWHERE = "Choose another folder with --output."
_OLD_FILES = ("scores.json", "overlay.png")
"""Written by version 0.1.0 alone."""


@dataclass(frozen=True)
class Found:
    """What a network found in the held-out images."""

    root: Path

    @property
    def predictions(self) -> Path:
        """Label files."""
        return self.root / "predictions"

    @property
    def scores(self) -> Path:
        """What ``retina_evaluate`` writes."""
        return self.root / "scores"


@dataclass(frozen=True)
class Output:
    """Paths inside the output folder."""

    root: Path

    @property
    def workspace(self) -> Workspace:
        """nnU-Net's three folders and the logs."""
        return Workspace(self.root)

    @property
    def data(self) -> Path:
        """Images and masks before the conversion, in train/ and test/."""
        return self.root / "data"

    @property
    def dataset(self) -> Path:
        """The raw data set that ``retina_convert`` writes."""
        return self.workspace.raw / "Dataset001_Quickstart"

    @property
    def network(self) -> Found:
        """Of the trained network."""
        return Found(self.root)

    @property
    def baseline(self) -> Found:
        """Of the same network from random initialisation."""
        return Found(self.root / "baseline")

    @property
    def weights_picture(self) -> Path:
        """What ``retina_pretrain look`` draws."""
        return self.root / "weights.png"

    @property
    def page(self) -> Path:
        """What ``retina_report`` writes."""
        return self.root / "report.html"

    def prepare(self, overwrite: bool, data: Path | None = None) -> None:
        """Make the folder, empty of an earlier run's files and no others.

        Args:
            overwrite: use a folder that holds other files; they are left alone.
            data: the folder of the user's images, which must not be among the files that are replaced.

        Raises:
            RetinaError: for a folder that cannot be used.
        """
        if self.root.exists() and not self.root.is_dir():
            raise RetinaError(f"{self.root} is a file; expected a folder to write to. {_ELSEWHERE}")
        if data is not None and any(
            path.resolve() in (data.resolve(), *data.resolve().parents) for path in self._own()
        ):
            raise RetinaError(f"{data} lies among the files that the quickstart replaces in {self.root}. {_ELSEWHERE}")
        if (self.root / MARKER).is_file():
            self._remove_earlier()
        elif self.root.is_dir() and any(self.root.iterdir()):
            self._refuse_foreign(overwrite)
        make_folder(self.root, _ELSEWHERE)
        (self.root / MARKER).touch()
        self.workspace.raw.mkdir()

    def _own(self) -> list[Path]:
        workspace = self.workspace
        folders = [workspace.raw, workspace.preprocessed, workspace.results, workspace.logs]
        found = [self.network.predictions, self.network.scores, self.baseline.root]
        made = [self.data, *found, self.weights_picture, self.page]
        return [*folders, *made]

    def _remove_earlier(self) -> None:
        for path in (*self._own(), *(self.root / name for name in _OLD_FILES)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _refuse_foreign(self, overwrite: bool) -> None:
        in_the_way = [path.name for path in self._own() if path.exists()]
        if in_the_way:
            raise RetinaError(
                f"{self.root} holds {', '.join(in_the_way)}, which the quickstart did not make. {_ELSEWHERE}"
            )
        if not overwrite:
            raise RetinaError(
                f"{self.root} is not empty and the quickstart did not make it. {_ELSEWHERE[:-1]}, "
                "or allow this one with --overwrite: its files are left alone, new ones are put beside them."
            )
