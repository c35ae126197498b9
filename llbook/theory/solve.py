"""Small instances solved to the first-order conditions, by accelerated projected gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import train
from llbook.optimal.simplex import project
from llbook.tasks.task import Task

__all__ = ["Solution", "euler_objective", "solve"]

Objective = Callable[[Tensor], tuple[float, Tensor]]


class Solution(NamedTuple):
    """A policy and its certificate.

    Attributes:
        policy: γ, shape (T, N).
        objective: J.
        gradient: ∂J/∂γ there, shape (T, N).
        gap: largest over t of (max_m c_m - Σ γ_n c_n) / |Σ γ_n c_n|, where c is
            minus the gradient: the relative first-order gap.
        iterations: gradients computed.
    """

    policy: Tensor
    objective: float
    gradient: Tensor
    gap: float
    iterations: int


def euler_objective(task: Task) -> Objective:
    """J = Σ_{t=1..T} L_dsr(θ_t) and its gradient, by Euler's method (Eq. 1)."""

    def evaluate(policy: Tensor) -> tuple[float, Tensor]:
        process = train(task, policy)
        area = task.trajectory_losses(process.trajectory[1:], task.desired).sum()
        return float(area), policy_gradient(task, policy, process)

    return evaluate


def _gap(policy: Tensor, gradient: Tensor) -> float:
    mean = (policy * gradient).sum(1)
    return float(((mean - gradient.amin(1)) / mean.abs()).max())


def solve(
    objective: Objective,
    policy: Tensor,
    *,
    tolerance: float = 1e-11,
    iterations: int = 20_000,
    step_size: float = 1.0,
) -> Solution:
    """Descend to a first-order point of J over a product of simplices.

    Accelerated projected gradient (Beck and Teboulle 2009) whose step size
    grows by a tenth at each iteration and is cut by backtracking on the
    quadratic upper bound; momentum restarts where it points uphill
    (O'Donoghue and Candès 2015). J need not be convex: the result is a
    first-order point, certified by its gap, and not more.

    Args:
        objective: γ ↦ (J, ∂J/∂γ).
        policy: where to start, shape (T, N), float64.
        tolerance: stop at this relative first-order gap.
        iterations: gradients to spend at most.
        step_size: first guess of ε.

    Raises:
        TypeError: a policy that is not float64.
        ValueError: tolerance or step size not positive, iterations < 1.
    """
    if policy.dtype != torch.float64:
        raise TypeError(f"expected a float64 policy, got {policy.dtype}")
    if not (tolerance > 0 and step_size > 0) or iterations < 1:
        raise ValueError(
            "tolerance and step_size must be positive and iterations at least 1, "
            f"got {tolerance}, {step_size} and {iterations}"
        )
    current = project(policy)
    value, gradient = objective(current)
    best = Solution(current, value, gradient, _gap(current, gradient), 1)
    point, at, slope = current, value, gradient
    momentum, spent = 1.0, 1
    while spent < iterations and best.gap > tolerance:
        while True:
            trial = project(point - step_size * slope)
            move = trial - point
            new_value, new_gradient = objective(trial)
            spent += 1
            # the gradients' form of the bound: values differ by rounding near the end
            square = float(move.square().sum())
            bend = float((move * (new_gradient - slope)).sum())
            if bend <= square / step_size or square == 0 or spent >= iterations:
                break
            step_size /= 2
        gap = _gap(trial, new_gradient)
        if gap < best.gap:
            best = Solution(trial, new_value, new_gradient, gap, spent)
        if float((slope * (trial - current)).sum()) > 0 and momentum > 1:
            momentum = 1.0
            point, at, slope = current, value, gradient
            continue
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = (momentum - 1) / following
        point = project(trial + ahead * (trial - current)) if ahead else trial
        current, value, gradient = trial, new_value, new_gradient
        momentum = following
        if ahead:
            at, slope = objective(point)
            spent += 1
        else:
            at, slope = value, gradient
        step_size *= 1.1
    return best._replace(iterations=spent)
