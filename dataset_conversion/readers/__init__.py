"""Read files and archives into arrays."""
