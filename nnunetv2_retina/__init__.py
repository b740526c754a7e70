"""RETINA for nnU-Net: what nnU-Net runs.

Imports nothing: it is imported at every start of the interpreter (see ``registration``), and on machines without nnU-Net.
"""

__version__ = "0.1.0"
