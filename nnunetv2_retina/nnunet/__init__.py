"""What nnU-Net keeps on disk and runs: data sets, images, labels, models, records, commands."""
