"""Predict images and volumes with a trained 2d model."""
