"""A user's own images and masks as an nnU-Net raw data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dataset_conversion.own_data.alignment import aligned_mask
from dataset_conversion.own_data.boxes import ignore_outside
from dataset_conversion.own_data.layout import CaseFiles, Hdf5Paths, case_names, find_pairs, section_remarks
from dataset_conversion.own_data.mask_survey import survey_masks
from dataset_conversion.own_data.mask_values import LabelNames, MaskMap, declared_map, found_map, with_ignore
from dataset_conversion.readers.images import ImageFile
from dataset_conversion.readers.slabs import Volume
from dataset_conversion.spec import IGNORE, Case, DatasetSpec, dataset_folder_name
from dataset_conversion.writer.raw_dataset import CasesToRead, write_raw_dataset
from dataset_conversion.writer.record import CaseProgress
from dataset_conversion.writer.target_folder import check_target
from nnunetv2_retina.console import say
from nnunetv2_retina.console.engines import ALONE, Engine, Workers
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.protocol import Protocol


def convert_folder(
    source: str | Path,
    dataset_id: int,
    name: str,
    *,
    mask: str | Path | None = None,
    labels: LabelNames | None = None,
    ignore: int | None = None,
    spacing: Spacing | None = None,
    unit: str | None = None,
    hdf5: Hdf5Paths | None = None,
    boxes: Sequence[str] = (),
    slices: bool = False,
    protocol: Protocol | None = None,
    stated: Collection[str] = (),
    held_out: Collection[str] = (),
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
    workers: Workers = ALONE,
) -> Path:
    """Convert a folder, or one image and its mask.

    Args:
        source: a folder, or an image file (``FILE.h5::path`` for HDF5); laid out as ``layout.EXPECTED`` says.
        dataset_id: 1 to 999.
        name: the part after ``Dataset123_``.
        mask: the mask file, if ``source`` is a file.
        labels: mask value -> class name; None: the values found, named ``label_1``, ...
        ignore: mask value of unannotated voxels; it becomes nnU-Net's ignore label.
        spacing: of all cases; None: what the image files state, else 1.
        unit: of the spacing in files that state none; None: it stays unknown.
        hdf5: paths inside HDF5 files.
        boxes: parts that are annotated, each ``z0:z1,y0:y1,x0:x1`` (2D: ``y0:y1,x0:x1``) or a file of such lines or of
            napari's rectangles. Of a Zarr volume each becomes a case; of an image file the rest is ignored.
        slices: numbered slices in a folder, or in each folder in it, are one volume.
        protocol: training settings for ``dataset.json``; None: the defaults.
        stated: names of those that are written although they are the defaults.
        held_out: stems of training images that become test cases.
        root: see ``write_raw_dataset``.
        overwrite: see ``write_raw_dataset``.
        progress: see ``write_raw_dataset``; called with the number of cases.
        workers: who shares the cases.

    Returns:
        The data set's folder.

    Raises:
        RetinaError: for anything a user can put right; nothing is left on disk then.
    """
    check_target(root, dataset_folder_name(dataset_id, name), overwrite)
    if workers.scheduler is not None:  # its workers may be at home elsewhere
        source, mask = Path(source).absolute(), None if mask is None else Path(mask).absolute()
    pairs, remarks = find_pairs(str(source), None if mask is None else str(mask), hdf5, boxes, slices)
    pairs = [replace(pair, split="test") if pair.name in held_out else pair for pair in pairs]
    names = case_names(pair.name for pair in pairs)
    with workers.engine(say) as engine:
        mask_map, more = (declared_map(labels, ignore), ()) if labels else _found(pairs, ignore, engine)
        more = (*more, *section_remarks(pairs))
        if any(pair.boxes for pair in pairs):
            mask_map = with_ignore(mask_map)
        if mask_map.changes:
            remarks.append(f"mask values stored as: {mask_map.describe()}")
        spec = DatasetSpec(
            id=dataset_id,
            name=name,
            labels=mask_map.labels,
            source=str(source) if mask is None else f"{source} {mask}",
            protocol=protocol or Protocol(),
            stated=stated,
            remarks=(*remarks, *more),
        )
        cases = CasesToRead(pairs, _Reading(names, mask_map, spacing, unit))
        return write_raw_dataset(spec, cases, root, overwrite, progress, engine)


@dataclass(frozen=True)
class _Reading:
    """Reads one case."""

    names: Mapping[str, str]
    """Stem of its files -> its name."""
    mask_map: MaskMap
    spacing: Spacing | None
    unit: str | None

    def __call__(self, pair: CaseFiles) -> Case:
        image = pair.image.open()
        remarks, label, colours = [*image.remarks], None, {}
        if pair.mask is not None:
            mask = pair.mask.open(mask=True)
            array, more = aligned_mask(image, mask, pair)
            label = self.mask_map.apply(array, pair.name)
            remarks += [*(f"mask: {text}" for text in mask.remarks), *more]
            colours = {value: shown for value, shown in mask.colours.items() if value in self.mask_map.values}
            if pair.boxes and label.shape == image.array.shape:  # the writer says what is wrong with another
                label, remark = ignore_outside(label, pair.boxes, self.mask_map.labels[IGNORE])
                remarks.append(remark)
        return Case(
            name=self.names[pair.name],
            image=image.array,
            label=label,
            spacing=self._spacing(image),
            split=pair.split,
            source=str(pair.image),
            remarks=tuple(remarks),
            colours=colours,
        )

    def _spacing(self, image: ImageFile[Volume]) -> Spacing | None:
        if self.spacing is not None:
            return self.spacing.for_axes(image.array.ndim)
        stated = image.spacing
        return stated if stated is None or stated.unit else replace(stated, unit=self.unit)


def _found(pairs: list[CaseFiles], ignore: int | None, engine: Engine) -> tuple[MaskMap, tuple[str, ...]]:
    """Return the map for the values in the masks, and remarks."""
    survey = survey_masks(pairs, engine)
    mask_map, remarks = found_map(survey.values, ignore, survey.together)
    if survey.objects:
        classes = len(mask_map.labels) - 1
        remarks = (
            f"each mask value is one connected region: they look like numbers of objects, and {classes} classes were "
            "made of them. If they are objects of one class, convert again with --labels any=NAME",
            *remarks,
        )
    return mask_map, remarks
