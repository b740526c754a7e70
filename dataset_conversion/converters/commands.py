"""The subcommands of the five benchmarks: their help texts. Imports nothing heavy."""

from __future__ import annotations

from dataset_conversion.converters.converter import benchmark_command

_TEXTS = {
    "cremi": (
        "synaptic clefts in the Drosophila brain (CREMI challenge)",
        """\
The CREMI benchmark as Dataset801_CREMI. SOURCE holds the challenge's training data, not the padded version:

  sample_A_20160501.hdf sample_B_20160501.hdf           training; fold 0 validates on B, fold all trains on both
  sample_C_20160501.hdf                                 test

Every cleft becomes label 1. Invalid voxels become nnU-Net's ignore label; with --protocol paper they count as cleft.
""",
    ),
    "guay": (
        "organelles of human platelets (Guay et al. 2021)",
        """\
The Guay benchmark as Dataset802_Guay. SOURCE holds platelet_data_1219.zip, or what is in it:

  train-images.tif eval-images.tif test-images.tif      signed 16 bit, kept as they are
  train-labels.tif eval-labels.tif test-labels.tif      0 to 6

Train and eval volume are the training cases: fold 0 validates on eval, as published; fold all trains on both. Labels
have the names of the data set's authors; CEM500K's and RETINA's configurations exchange the names of 3 and 4, not the
voxels.
""",
    ),
    "kasthuri": (
        "mitochondria in the mouse neocortex (Kasthuri++)",
        """\
The Kasthuri++ benchmark as Dataset803_KasthuriPP. SOURCE holds kasthuri_pp.zip, or the folders unpacked from it:

  Train_In Train_Out                                    one PNG per slice: images, masks; cut into five slabs along z,
                                                        fold i validates on slab i, fold all trains on all five
  Test_In Test_Out                                      the same, one volume

Pixels outside the annotated area become nnU-Net's ignore label; with --protocol paper they count as background.
""",
    ),
    "perez": (
        "lysosomes, mitochondria, nuclei and nucleoli in the mouse brain, 2D (Perez et al.)",
        """\
The Perez benchmark as Dataset804_PerezLysosomes, 805_PerezMitochondria, 806_PerezNuclei and 807_PerezNucleoli.
SOURCE holds chm-supplemental_data.zip, or the folders unpacked from it:

  training_images training_labels                       training
  test_images ground_truth                              test

Each holds the folders lysosomes, mitochondria, nuclei and nucleoli, with one PNG per image; an image and its mask have
the same NNN in PREFIX.NNN.png. In test images not every object is labelled: the scores count only predicted objects
that touch a labelled one.
""",
    ),
    "urocell": (
        "lysosomes and mitochondria in the mouse urothelium (UroCell)",
        """\
The UroCell benchmark as Dataset808_UroCell. SOURCE holds the repository (as zip or unpacked), or these files of the
volumes fib1-1-0-3, -3-2-1, -3-3-0 and -4-3-0 (training) and fib1-0-0-0 (test):

  data/VOLUME.nii.gz                                    the image
  mito/binary/VOLUME.nii.gz  lyso/binary/VOLUME.nii.gz  the masks; the older mito/VOLUME.nii.gz and lyso/... will do

Each training volume becomes three cases, with its xy, xz and yz planes as slices; they share a fold. The test volume
is written once. Rows where data are missing are cut off. Labels: 1 lysosome, 2 mitochondrion.
""",
    ),
}
"""Benchmark -> one line for the list of subcommands, and the text of its own ``--help``."""

BENCHMARK_COMMANDS = {benchmark: benchmark_command(benchmark, *texts) for benchmark, texts in _TEXTS.items()}
