"""What the network learns: reconstruction, masked autoencoding, contrast."""
