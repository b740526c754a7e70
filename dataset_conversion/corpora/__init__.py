"""Images for pre-training."""
