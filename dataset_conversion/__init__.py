"""Electron-microscopy data sets as nnU-Net raw data sets: one writer, and the converters that feed it."""
