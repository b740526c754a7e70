"""Write nnU-Net raw data sets, completely or not at all."""
