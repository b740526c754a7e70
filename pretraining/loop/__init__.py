"""The training loop: steps, batches, processes, progress, state."""
