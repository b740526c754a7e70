"""Pre-training without labels: ``retina_pretrain``. Imports torch and NumPy, never nnU-Net."""
