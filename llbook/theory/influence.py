"""Influence functions, and the sums over a training of which they are the limit.

For the final loss of gradient descent, ∂L_dsr(θ_T)/∂γ_{n,t} = -η λ_{t+1}·g_n(θ_t), where
λ_T = ∇L_dsr(θ_T) and λ_t = (I - ηH_t) λ_{t+1}. If the training converges to a point with
a positive definite H, the sum over t tends to the influence function -∇L_dsr·H⁻¹g_n
(Koh and Liang 2017).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llbook.optimal.process import Process
from llbook.tasks.task import Task
from llbook.theory.flows import derivatives

__all__ = ["final_loss_gradient", "influence"]


def final_loss_gradient(task: Task, policy: Tensor, process: Process) -> Tensor:
    """∂L_dsr(θ_T)/∂γ in nats, shape (T, N), for a training that is already made.

    Args:
        task: the learning problem.
        policy: γ, shape (T, N).
        process: what :func:`llbook.optimal.process.train` made of that policy.

    Raises:
        ValueError: lengths that differ; another training than gradient descent on the full batch
            without weight decay, at any rates.
    """
    if not process.inner.descends:
        raise ValueError(
            "expected gradient descent on the full batch without weight decay, got "
            f"{process.inner.identity()}"
        )
    if len(policy) != process.steps:
        raise ValueError(f"the policy has {len(policy)} steps, the process {process.steps}")
    gradient, factors = torch.empty_like(policy), process.inner.factors(process.steps)
    costate = task.mean_gradient(process.trajectory[process.steps], task.desired)[1]
    for t in range(process.steps - 1, -1, -1):
        products, curvature = task.costate_products(process.trajectory[t], policy[t], costate)
        rate = task.learning_rate * factors[t]
        gradient[t] = -rate * products
        costate = costate - rate * curvature
    return gradient


def influence(task: Task, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """-∇L_dsr·H⁻¹g_n at θ, in nats per unit of weight, shape (N,), with H = Σ_n w_n H_n.

    Args:
        task: a task of few parameters.
        theta: a minimum of the weighted loss, shape (P,).
        weights: w, shape (N,).

    Raises:
        ValueError: as :func:`llbook.theory.flows.derivatives`; an H that is not
            positive definite: there is then no isolated minimum to speak of.
    """
    at = derivatives(task, theta)
    curvature = np.tensordot(weights, at.hessians, 1)
    least, *_, largest = np.linalg.eigvalsh(curvature)
    if not least > 1e-12 * largest:
        raise ValueError(
            f"expected a positive definite H, got eigenvalues from {least:.3g} to {largest:.3g}"
        )
    return -at.gradients @ np.linalg.solve(curvature, at.desired_gradient)
