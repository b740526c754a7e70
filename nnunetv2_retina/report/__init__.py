"""The HTML page about a trained model."""
