"""Images and masks of one's own."""
