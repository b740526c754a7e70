"""Pictures, plots and pages: matplotlib and HTML, without nnU-Net."""
