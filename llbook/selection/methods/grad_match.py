"""Gradient matching: few examples whose weighted gradient is that of the desired set.

    min_{w ≥ 0} ‖Σ_n w_n ∇l_n(θ_t) - ∇L_dsr(θ_t)‖² + λ‖w‖²,   γ = w / Σ w

Source: Killamsetty et al., *GRAD-MATCH* (arXiv 2103.00123), by orthogonal matching pursuit, with the gradient of held-out examples for its target, anew every
:data:`EVERY` steps. Deviations: weights are not negative within the pursuit, by non-negative least squares; all
parameters take part, not the last layer; the scale of w is lost, as Σ γ = 1. Cost: each time one
backward pass without a sum, and two passes over the desired set.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from llbook.selection.selector import Selector, View, check

__all__ = ["GradMatch", "pursuit"]

EVERY = 20
RIDGE = 1e-4  # λ, of the largest squared gradient


class GradMatch(Selector):
    """Weights of a matching pursuit, held between its calls.

    Args:
        atoms: most examples chosen, at least 1.
    """

    def __init__(self, atoms: int) -> None:
        check("atoms", atoms, whole=True)
        self.atoms = atoms

    def weigh(self, view: View) -> Tensor:
        if view.step % EVERY == 0:
            found = pursuit(
                view.gradients.double().cpu().numpy(), view.slope.double().cpu().numpy(), self.atoms
            )
            self.weights = torch.from_numpy(found).to(view.theta)
        return self.weights


def pursuit(gradients: np.ndarray, target: np.ndarray, atoms: int) -> np.ndarray:
    """Weights of sum one, shape (N,), of at most so many rows of (N, P) that add up to the target (P,).

    Equal weights where no row points its way.
    """
    ridge = np.sqrt(RIDGE * (gradients**2).sum(1).max())
    chosen: list[int] = []
    residual, weights = target, np.zeros(0)
    for _ in range(min(atoms, len(gradients))):
        gains = gradients @ residual
        gains[chosen] = -np.inf
        if gains.max() <= 0:
            break
        chosen.append(int(gains.argmax()))
        matrix = np.concatenate([gradients[chosen].T, ridge * np.eye(len(chosen))])
        weights = nnls(matrix, np.concatenate([target, np.zeros(len(chosen))]))[0]
        residual = target - gradients[chosen].T @ weights
    result = np.zeros(len(gradients))
    if weights.sum() > 0:
        result[chosen] = weights / weights.sum()
    else:
        result += 1 / len(gradients)
    return result
