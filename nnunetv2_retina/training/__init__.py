"""The nnU-Net trainers: RETINA's, those of the systems it is compared with, and what they share."""
