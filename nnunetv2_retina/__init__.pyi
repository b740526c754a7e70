from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.report.page import write_model_report
from nnunetv2_retina.weights.importing import read_weights

__version__: str

__all__ = ["NetworkConfig", "Predictor", "TransUNet", "evaluate", "read_weights", "write_model_report"]
