"""A reproducible companion to "Towards Optimal Learning of Language Models".

Importing the package imports nothing heavy: PyTorch comes with the modules that need it.
"""

import os

__version__ = "0.1.0"

# Processes that torchrun starts share the cores. It tells PyTorch so by OMP_NUM_THREADS; Numba
# asks this variable, once, when it is imported.
if "TORCHELASTIC_RUN_ID" in os.environ:
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
