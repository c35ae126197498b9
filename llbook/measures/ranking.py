"""How scores and weights rank examples: beside future contributions, and beside what is known of them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

__all__ = ["agreement", "auroc"]

ROWS = 50  # steps at which ranks are compared


def agreement(policy: Tensor, future: Tensor) -> float:
    """Rank correlation (Spearman) of γ_t with λ_{t+1}·∇l_n, mean over at most :data:`ROWS` steps.

    λ is the costate of the policy's own process. Steps whose weights are all equal have no ranks;
    nan where that is every one.

    Args:
        policy: shape (T, N).
        future: λ_{t+1}·∇l(x_n, θ_t), shape (T, N).
    """
    rows = np.unique(np.linspace(0, len(policy) - 1, ROWS).round().astype(int))
    found = [
        float(np.corrcoef(_ranks(weights), _ranks(along))[0, 1])
        for weights, along in zip(policy[rows], future[rows], strict=True)
        if bool((weights != weights[0]).any()) and bool((along != along[0]).any())
    ]
    return float(np.mean(found)) if found else math.nan


def auroc(scores: Tensor, positive: Tensor) -> float:
    """The chance that a positive example has a larger score than another, ties counted half.

    Args:
        scores: shape (N,).
        positive: shape (N,), boolean; nan where all or none are.
    """
    inside = positive.cpu().numpy()
    count, others = int(inside.sum()), int((~inside).sum())
    if not count or not others:
        return math.nan
    total = float(_ranks(scores)[inside].sum())
    return (total - count * (count + 1) / 2) / (count * others)


def _ranks(values: Tensor) -> np.ndarray:
    from scipy.stats import rankdata  # takes long to import

    return np.asarray(rankdata(values.cpu().numpy()))
