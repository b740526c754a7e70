"""A user's own images and masks."""
