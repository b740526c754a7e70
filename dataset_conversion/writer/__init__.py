"""nnU-Net raw data sets, written whole or not at all."""
