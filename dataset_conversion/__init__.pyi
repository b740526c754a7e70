from dataset_conversion.converters.converter import convert_benchmark as convert_benchmark
from dataset_conversion.own_data.folder import convert_folder as convert_folder
from dataset_conversion.spec import Case as Case
from dataset_conversion.spec import DatasetSpec as DatasetSpec
from dataset_conversion.writer.raw_dataset import write_raw_dataset as write_raw_dataset
from nnunetv2_retina.images.spacing import Spacing as Spacing

__all__ = ["Case", "DatasetSpec", "Spacing", "convert_benchmark", "convert_folder", "write_raw_dataset"]
