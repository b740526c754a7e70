"""Every trainer of this project, at one address for Python code: ``from nnunetv2_retina.trainers import ...``."""

from nnunetv2_retina.training import baselines as _baselines
from nnunetv2_retina.training import trainers as _trainers
from nnunetv2_retina.training.baselines import *  # noqa: F403
from nnunetv2_retina.training.trainers import *  # noqa: F403

__all__ = [*_baselines.__all__, *_trainers.__all__]
