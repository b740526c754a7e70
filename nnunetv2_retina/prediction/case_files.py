"""What is written for a case: its labels, objects, probabilities and overlay, under which names and in which format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from batchgenerators.utilities.file_and_folder_operations import save_pickle
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.datasets import class_names
from nnunetv2_retina.nnunet.inputs import InputCase, read_channel
from nnunetv2_retina.nnunet.labels import INSTANCES, known_spacing
from nnunetv2_retina.prediction import formats
from nnunetv2_retina.prediction.instances import find_instances
from nnunetv2_retina.prediction.objects import table
from nnunetv2_retina.prediction.objects.columns import VOXELS
from nnunetv2_retina.prediction.predictor import Prediction
from nnunetv2_retina.prediction.settings import SAME, RunSettings
from nnunetv2_retina.protocol import BLOCK, Protocol, with_unit

OVERLAY, PROBABILITIES = "_overlay.png", "_probabilities.tif"
_INSTEAD = {".jpg": ".png", ".jpeg": ".png"}
"""What is written where the images' own format would change labels."""


@dataclass(frozen=True)
class Origin:
    """Where an image was read from, if it was not from files that are named as nnU-Net has it."""

    files: tuple[Path, ...]
    slices: bool = False
    """Whether they are the slices of a volume."""
    spacing: Spacing | None = None
    """Of a voxel; None: not known."""
    geometry: Mapping[str, Any] | None = None
    """Spacing, origin and direction as SimpleITK has them, for formats that hold them; None: not known."""


class CaseFiles:
    """The files of the cases of one run.

    Args:
        dataset_json: of the model.
        writer: nnU-Net's, which writes its own format.
        settings: what to write.
        origins: of the cases whose images were read from other files: name -> files.
    """

    def __init__(
        self,
        dataset_json: dict[str, Any],
        writer: BaseReaderWriter,
        settings: RunSettings,
        origins: Mapping[str, Origin],
    ) -> None:
        self.dataset_json = dataset_json
        self.writer = writer
        self.settings = settings
        self.origins = origins
        self.ending: str = dataset_json["file_ending"]
        self.classes = class_names(dataset_json)
        self.multichannel = settings.output_format == "tif"

    def main(self, case: InputCase) -> str:
        """Return the name of the file of the labels, or of the folder of its slices."""
        return case.name + self._ending(case)

    def names(self, case: InputCase) -> list[str]:
        """Return the names of all files of a case, the labels' last."""
        names = []
        if self.settings.probabilities:
            names += [f"{case.name}.npz", f"{case.name}.pkl", *self._if(self.multichannel, case.name + PROBABILITIES)]
        if self.settings.instances is not None:
            names += [f"{case.name}{INSTANCES}{self._ending(case)}", f"{case.name}{INSTANCES}.csv"]
        return [*names, *self._if(self.settings.overlay, case.name + OVERLAY), self.main(case)]

    def write(self, folder: Path, case: InputCase, prediction: Prediction, properties: dict[str, Any]) -> None:
        """Write the files of a case into a folder.

        Raises:
            RetinaError: if a format cannot hold them, or a spacing is needed and not known.
        """
        spacing = self._spacing(case, prediction.labels, properties)
        if type(self.writer) is SimpleITKIO:
            properties = {**properties, "sitk_stuff": self._geometry(case, properties)}
        if prediction.probabilities is not None:
            np.savez_compressed(folder / f"{case.name}.npz", probabilities=prediction.probabilities)
            save_pickle(properties, str(folder / f"{case.name}.pkl"))
            if self.multichannel:
                path = folder / (case.name + PROBABILITIES)
                formats.write_probabilities(path, prediction.probabilities, spacing, self._heads())
        if self.settings.instances is not None:
            self._write_instances(folder, case, prediction.labels, properties, spacing)
        if self.settings.overlay:
            from nnunetv2_retina.display.overlays import write_overlay

            image = read_channel(case.files[0], self.dataset_json)
            write_overlay(folder / (case.name + OVERLAY), image, prediction.labels, self.classes, spacing)
        if self.settings.output_format is None:
            self.writer.write_seg(prediction.labels, str(folder / self.main(case)), properties)
        else:
            self._write(folder / self.main(case), case, prediction.labels, properties, spacing, self.classes)

    def _write_instances(
        self, folder: Path, case: InputCase, labels: np.ndarray, properties: dict[str, Any], spacing: Spacing | None
    ) -> None:
        settings = self.settings.instances
        assert settings is not None, "asked for"
        if spacing is None and settings.units == "physical":
            raise RetinaError(
                f"instances are to be measured in the unit of the spacing, but {self.ending} images hold none, and the "
                f'model\'s dataset.json has no "pixel_size": [Y, X] (nm) in its block "{BLOCK}". Add it there, or '
                "measure in voxels"
            )
        if spacing is None:
            frame = table.Frame.of(labels.shape, Spacing.of(properties["spacing"]), VOXELS)
        else:
            frame = table.Frame.of(labels.shape, spacing)
        ids, instances = find_instances(labels, frame.spacing, settings)
        rows = table.describe(ids, [item.label for item in instances], self.classes, frame)
        table.write(folder / f"{case.name}{INSTANCES}.csv", rows)
        path = folder / f"{case.name}{INSTANCES}{self._ending(case)}"
        if self.settings.output_format is not None:
            self._write(path, case, ids, properties, spacing, None)
        elif ids.dtype.itemsize <= 2:
            self.writer.write_seg(ids, str(path), properties)
        else:
            write_wide(self.writer, path, ids, properties)

    def _write(
        self,
        path: Path,
        case: InputCase,
        labels: np.ndarray,
        properties: dict[str, Any],
        spacing: Spacing | None,
        names: Mapping[int, str] | None,
    ) -> None:
        """Write labels (z, y, x), or ids where ``names`` is None, in the format that was asked for."""
        if self._sliced(case):
            path.mkdir()
            flat = None if spacing is None else Spacing(None, spacing.y, spacing.x, spacing.unit)
            for plane, source in zip(labels, self.origins[case.name].files, strict=True):
                ending = _kind(source)
                formats.write_labels(path / (source.name[: -len(ending)] + _written(ending)), plane, flat, names)
            return
        geometry = self._geometry(case, properties)
        formats.write_labels(path, labels[0] if len(labels) == 1 else labels, spacing, names, geometry)

    def _geometry(self, case: InputCase, properties: dict[str, Any]) -> Mapping[str, Any] | None:
        """Return how the voxels of the file that a user gave lie in space, so that labels lie on it; None: unknown."""
        origin = self.origins.get(case.name)
        if origin is not None and origin.geometry is not None:
            return origin.geometry
        return properties["sitk_stuff"] if type(self.writer) is SimpleITKIO else None

    def _spacing(self, case: InputCase, labels: np.ndarray, properties: dict[str, Any]) -> Spacing | None:
        """Return the size of an image's voxels: the file's or, of formats that hold none, the data set's, if known."""
        origin = self.origins.get(case.name)
        if origin is not None and (origin.spacing is not None or len(labels) > 1):
            return origin.spacing
        size = Protocol.from_dataset_json(self.dataset_json).pixel_size
        known = known_spacing(self.ending, len(labels), Spacing.of(properties["spacing"]), size)
        return known if known is None or known.unit else with_unit(known, self.dataset_json)

    def _ending(self, case: InputCase) -> str:
        """Return the ending of the file of labels; nothing for a folder of slices."""
        wanted = self.settings.output_format
        if wanted is None:
            return self.ending
        if wanted != SAME:
            return f".{wanted}"
        if self._sliced(case):
            return ""
        origin = self.origins.get(case.name)
        return self.ending if origin is None else _written(_kind(origin.files[0]))

    def _sliced(self, case: InputCase) -> bool:
        return self.settings.output_format == SAME and case.name in self.origins and self.origins[case.name].slices

    def _heads(self) -> list[str]:
        """Return the name of each channel of probabilities."""
        regions = "regions_class_order" in self.dataset_json
        left_out = ("ignore", "background") if regions else ("ignore",)
        return [name for name in self.dataset_json["labels"] if name not in left_out]

    @staticmethod
    def _if(wanted: bool, name: str) -> list[str]:
        return [name] if wanted else []


def check_names(cases: Sequence[InputCase], files: CaseFiles) -> None:
    """Check that no result takes the name of another.

    Raises:
        RetinaError: naming both.
    """
    owners: dict[str, tuple[str, str]] = {}
    for case in cases:
        for name in files.names(case):
            owner, what = owners.setdefault(name, (case.name, _meaning(name, case.name)))
            if owner != case.name:
                one, other = sorted(((owner, what), (case.name, _meaning(name, case.name))), key=lambda pair: pair[0])
                raise RetinaError(
                    f"the {one[1]} of case {one[0]} and the {other[1]} of case {other[0]} would be one file. "
                    f"Rename the image, or predict without {_option(one[1])}"
                )


def write_wide(writer: BaseReaderWriter, path: Path, ids: np.ndarray, properties: dict[str, Any]) -> None:
    """Write more than 65535 ids (z, y, x), which nnU-Net's writers would cut to 16 bits.

    Raises:
        RetinaError: for a kind of file that this cannot write 32-bit numbers to, such as PNG.
    """
    flat = ids[0] if len(ids) == 1 else ids
    if type(writer) is SimpleITKIO:
        formats.write_labels(path, ids, geometry=properties["sitk_stuff"])
    elif path.suffix.lower() in formats.TIFF:
        tifffile.imwrite(path, flat, compression="zlib")
    else:
        raise RetinaError(
            f"{path.name} would hold {int(ids.max())} instances, but {type(writer).__name__} writes numbers up to "
            "65535. Leave out small ones with --instance-size, or write another format: --output-format tif"
        )


def _kind(path: Path) -> str:
    """Return a file's ending as it is written, ``.nii.gz`` as one."""
    return path.name[-len(".nii.gz") :] if path.name.lower().endswith(".nii.gz") else path.suffix


def _written(ending: str) -> str:
    """Return the ending of labels for an image's."""
    known = ending.lower() in formats.WRITTEN
    return ending if known else _INSTEAD.get(ending.lower(), ".tif")


def _meaning(name: str, case: str) -> str:
    rest = name[len(case) :]
    if rest.startswith(INSTANCES):
        return "instances"
    return {OVERLAY: "overlay", PROBABILITIES: "probabilities"}.get(rest, "prediction")


def _option(meaning: str) -> str:
    return {"overlay": "--overlay", "probabilities": "--save_probabilities"}.get(meaning, "--instances")
