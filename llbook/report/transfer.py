"""What is left of a policy under another optimiser, and where something was drawn anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llbook.runs.run import Run

__all__ = ["changed_shares", "transferred_shares"]


def transferred_shares(run: Run, *, on: str = "test") -> NDArray[np.float64]:
    """Of what an optimiser's own policy gains, how much another's does, shape (M, M).

    (J_j - J_ij) / (J_j - J_jj), with J_j of conventional learning under optimiser j and J_ij of the policy
    found for i: 1 on the diagonal, 0 where it is no better than equal weights, negative where it is worse.

    Args:
        run: of :data:`llbook.experiments.inner.INNER`.
        on: ``"test"`` or ``"desired"``, the examples of the areas.
    """
    usual, found = run.arrays[on][0], run.arrays[on][1:]
    return np.asarray((usual - found) / (usual - found.diagonal()))


def changed_shares(run: Run, *, on: str = "test") -> NDArray[np.float64]:
    """Of the share of the area that a policy saves, how much it saves where something else was drawn, (M, 3).

    (1 - J'/J'_conventional) / (1 - J/J_conventional) in the order of
    :data:`llbook.experiments.inner.CHANGES`; nan where there is nothing to draw.

    Args:
        run, on: as for :func:`transferred_shares`.
    """
    usual, own = run.arrays[on][0], run.arrays[on][1:].diagonal()
    there = run.arrays[f"changed_{on}"]
    return np.asarray((1 - there[..., 1] / there[..., 0]) / (1 - own / usual)[:, None])
