"""How far a training is from the edge at which two neighbouring ones part.

A small change δ_t of θ_t becomes (1 - η H_t) δ_t at the next step of gradient descent, with
H_t = Σ_n γ_{n,t} ∇²l(x_n, θ_t): it grows along eigenvectors whose eigenvalue is above 2/η (or below
zero). Cohen et al. (2021) call the largest one sharpness, and the training at ηλ ≈ 2 that at the
edge of stability.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llbook.optimal.process import Process, constant_policy, train
from llbook.tasks.task import Task

__all__ = ["parting", "sharpness", "sharpness_over_steps"]

TOLERANCE = 1e-3  # of an eigenvalue, relative


def sharpness(task: Task, theta: Tensor, weights: Tensor) -> float:
    """The largest eigenvalue of Σ_n w_n ∇²l(x_n, θ), by Lanczos' method to a relative 1e-3; 0 of a zero matrix.

    Args:
        task: a whole one, not shared out to processes.
        theta: shape (P,), P at least 2.
        weights: shape (N,).

    Raises:
        FloatingPointError: second derivatives that are not finite.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh  # takes long to import

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        direction = torch.from_numpy(vector.reshape(-1)).to(theta)
        along = task.costate_products(theta, weights, direction)[1]
        return along.double().cpu().numpy()

    size = theta.numel()
    hessian = LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    first = product(start)
    if not np.isfinite(first).all():
        raise FloatingPointError("the second derivatives are not finite at this θ")
    if not first.any():
        return 0.0
    largest = eigsh(hessian, k=1, which="LA", v0=start, tol=TOLERANCE, return_eigenvectors=False)
    return float(largest[0])


def sharpness_over_steps(
    task: Task, policy: Tensor, process: Process, steps: Sequence[int]
) -> NDArray[np.float64]:
    """:func:`sharpness` of θ_t under the weights of step t, at some steps, shape (S,)."""
    states = process.trajectory
    return np.array([sharpness(task, states[t], policy[t]) for t in steps])


def parting(task: Task, steps: int, *, change: float = 1e-6, seed: int = 0) -> NDArray[np.float64]:
    """Distance of two conventional trainings over that at their start, shape (T + 1,).

    Args:
        task: the learning problem.
        steps: T.
        change: by what each parameter of θ_0 is changed, relative, standard deviation.
        seed: of the change.

    Raises:
        ValueError: a change of nothing, one that rounds to nothing, or θ_0 = 0.
        FloatingPointError: a training diverged.
    """
    if not 0 < change < math.inf:
        raise ValueError(f"change must be above 0 and finite, got {change}")
    if not bool(task.initial.any()):
        raise ValueError("θ_0 is 0: there is nothing to change relative to it")
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(task.initial.shape, generator=generator, dtype=torch.float64)
    beginning = task.initial
    moved = beginning * (1 + change * draw.to(beginning))
    policy = constant_policy(task, steps)
    usual = train(task, policy).trajectory
    other = copy.copy(task)
    other.initial = moved
    there = train(other, policy).trajectory
    distances = torch.stack([(b - a).double().norm() for a, b in zip(usual, there, strict=True)])
    if not float(distances[0]) > 0:
        least = torch.finfo(beginning.dtype).eps
        raise ValueError(
            f"change: got {change}, which is lost in {beginning.dtype}; expected at least {least:.0e}"
        )
    return (distances / distances[0]).cpu().numpy()
