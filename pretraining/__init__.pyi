from pretraining.job import Job, pretrain
from pretraining.recipe import Execution, Recipe
from pretraining.store.packing import pack
from pretraining.store.reader import ImageStore

__all__ = ["Execution", "ImageStore", "Job", "Recipe", "pack", "pretrain"]
