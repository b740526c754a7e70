"""Weights files of any origin: read, recognised, translated, compared with a network, transferred into it."""
