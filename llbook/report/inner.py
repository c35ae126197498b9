"""What is said of other optimisers: what a policy saves, and what a larger rate would have saved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["equal_rate", "saved"]


def saved(area: float | NDArray[np.float64], usual: float | NDArray[np.float64]) -> float:
    """1 - J/J of equal weights; of several trainings the ratio of their sums."""
    return float(1 - np.sum(area) / np.sum(usual))


def equal_rate(factors: NDArray[np.float64], usual: NDArray[np.float64], area: float) -> float:
    """By what the rate must be multiplied for equal weights to have this area.

    Interpolated between the two first neighbours that have it between them, in logarithms.

    Args:
        factors: multiples of the rate, ascending, shape (F,).
        usual: J under equal weights at each of them, shape (F,); nan where it diverged.
        area: J to be had.

    Returns:
        The multiple; nan where equal weights get there at none.
    """
    x, y = np.log(factors), np.log(usual)
    for left in range(len(x) - 1):
        above, below = y[left] - np.log(area), y[left + 1] - np.log(area)
        if above >= 0 >= below:
            share = above / (above - below) if above > below else 0.0
            return float(np.exp(x[left] + share * (x[left + 1] - x[left])))
    return float("nan")
