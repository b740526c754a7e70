"""Trainings that end with their last iteration."""

import pytest
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


@pytest.fixture
def short(monkeypatch):
    """The final validation starts processes, the progress plot takes seconds; test_end_to_end.py has both."""
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, *args: None)
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: None)
