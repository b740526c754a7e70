"""RETINA for nnU-Net: what nnU-Net runs.

Imports nothing: it is imported at every start of the interpreter (see ``registration``).
"""

__version__ = "0.1.0"
