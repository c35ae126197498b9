"""Spoilt training examples: the paper's perturbation of half of its stories (App. D)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["edit_distance", "perturb"]


def perturb(
    tokens: NDArray[np.int64], times: int, types: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """So many times one of: replace a token, delete the last one, repeat one.

    The three are equally likely. A replacement is any of ``types`` types; a repeated
    token is followed by its copy, and what then exceeds the example's first length
    is cut; the last token is only deleted while more than two are left.

    Args:
        tokens: one example, shape (L,).
        times: number of edits.
        types: replacements are drawn from [0, types).
        draw: source of randomness.

    Returns:
        The spoilt example, of 2 to L tokens.
    """
    most = len(tokens)
    spoilt = tokens.tolist()
    for kind in draw.integers(3, size=times):
        at = int(draw.integers(len(spoilt)))
        if kind == 0:
            spoilt[at] = int(draw.integers(types))
        elif kind == 1:
            if len(spoilt) > 2:
                spoilt.pop()
        else:
            spoilt.insert(at, spoilt[at])
            del spoilt[most:]
    return np.array(spoilt, dtype=np.int64)


def edit_distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Levenshtein distance: fewest replacements, deletions and insertions from a to b."""
    columns = np.arange(len(b) + 1)
    row = columns.copy()
    for i, token in enumerate(a, 1):
        # the best way here that does not end in an insertion …
        best = np.minimum(row[1:] + 1, row[:-1] + (b != token))
        # … and then insertions: a running minimum of what remains after their cost
        row = np.minimum.accumulate(np.concatenate([[i], best]) - columns) + columns
    return int(row[-1])
