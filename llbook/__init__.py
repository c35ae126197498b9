"""A reproducible companion to "Towards Optimal Learning of Language Models".

Importing the package imports nothing heavy: PyTorch comes with the modules that need it.
"""

__version__ = "0.1.0"
