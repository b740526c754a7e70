"""Images on disk and the store they are packed into. NumPy only."""
