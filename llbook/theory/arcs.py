"""Arcs on which examples share the weight: what the second order of J says of them.

On an arc that i and j alone share, the switching function λ·(g_i - g_j) is zero. With
v = g_i - g_j, D = H_i - H_j and θ' = -g_j - γ_i v, λ' = -∇L_dsr + H_j λ + γ_i D λ, its derivative

    F(θ, λ) = -∇L_dsr·v + λ·(H_j g_i - H_i g_j)

does not contain γ (the pair law is F = 0), and F' = a + γ_i A does, so that γ_i = -a/A.
A ≥ 0 is the generalised Legendre–Clebsch condition (Kelley, Kopp and Moyer 1967). Where three
share, Goh (1966) asks that the b's around the triangle add up to zero: what a variation sees
that rotates weight among the three, fast.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llbook.tasks.task import Task
from llbook.theory.flows import brackets, derivatives

__all__ = ["Arc", "pair_law", "rotation", "shared_arc"]


def pair_law(task: Task, theta: np.ndarray, costate: np.ndarray) -> np.ndarray:
    """F for all pairs, -(CT_i - CT_j) + λ·(H_j g_i - H_i g_j), shape (N, N), antisymmetric.

    Args:
        task: a task of few parameters.
        theta: θ, shape (P,).
        costate: the continuous λ, shape (P,).

    Raises:
        ValueError: as :func:`llbook.theory.flows.derivatives`.
    """
    at = derivatives(task, theta)
    contribution = at.gradients @ at.desired_gradient
    return contribution[None, :] - contribution[:, None] + brackets(at, costate)


class Arc(NamedTuple):
    """The second order of J along an arc that two examples share.

    Attributes:
        curvature: A, the rate at which weight on i raises F; not negative at a minimum.
        weight: γ_i = -a/A, the only weight that keeps F at zero.
    """

    curvature: float
    weight: float


def shared_arc(
    task: Task,
    theta: np.ndarray,
    costate: np.ndarray,
    pair: tuple[int, int],
    *,
    width: float = 1e-4,
) -> Arc:
    """A and γ_i at a point of an arc that the examples of ``pair`` share.

    Both derivatives of F are central differences along the Hamiltonian flows concerned.

    Args:
        task: a task of few parameters.
        theta: θ, shape (P,).
        costate: the continuous λ, shape (P,).
        pair: i and j.
        width: of the differences, in time.

    Raises:
        ValueError: as :func:`llbook.theory.flows.derivatives`; a width that is not positive.
    """
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    i, j = pair
    at = derivatives(task, theta)

    def slope(velocity: np.ndarray, change: np.ndarray) -> float:
        ahead, behind = (
            pair_law(task, theta + s * velocity, costate + s * change)[i, j]
            for s in (width, -width)
        )
        return float(ahead - behind) / (2 * width)

    curvature = slope(
        at.gradients[j] - at.gradients[i], (at.hessians[i] - at.hessians[j]) @ costate
    )
    drift = slope(-at.gradients[j], -at.desired_gradient + at.hessians[j] @ costate)
    return Arc(curvature, -drift / curvature)


def rotation(
    edges: np.ndarray, span: tuple[float, float], turns: int, three: tuple[int, int, int], size: int
) -> Tensor:
    """Variation ξ' of a policy that rotates weight among three examples, shape (M, N).

    ξ = sin²(π(t - t_0)/(t_1 - t_0)) (cos ωt, sin ωt) on the first two, its means over the
    intervals being exact; the third makes up for both.

    Args:
        edges: ends of the intervals, shape (M + 1,).
        span: t_0 and t_1, outside of which nothing changes.
        turns: from t_0 to t_1; negative for the other sense.
        three: the examples.
        size: N.

    Raises:
        ValueError: fewer than eight intervals to a turn.
    """
    first, last = span
    inside = np.clip((edges - first) / (last - first), 0, 1)
    if np.count_nonzero((inside > 0) & (inside < 1)) < 8 * abs(turns):
        raise ValueError(f"expected eight intervals to a turn, got too few for {turns} turns")
    angle = 2 * np.pi * turns * inside
    position = np.sin(np.pi * inside)[:, None] ** 2 * np.c_[np.cos(angle), np.sin(angle)]
    rates = np.diff(position, axis=0) / np.diff(edges)[:, None]
    moves = torch.zeros(len(rates), size, dtype=torch.float64)
    moves[:, list(three)] = torch.from_numpy(np.c_[rates, -rates.sum(1)])
    return moves
