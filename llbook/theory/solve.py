"""Small instances solved to the first-order conditions.

Accelerated projected gradient finds which weights are zero; Newton's method on
the rest then reaches rounding, where a first-order method would creep: along
an arc on which several examples share the weight J is almost flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numba
import torch
from torch import Tensor

from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import train
from llbook.optimal.simplex import project
from llbook.tasks.task import Task

__all__ = ["Solution", "euler_objective", "first_order_point", "reduced_hessian", "solve"]

Objective = Callable[[Tensor], tuple[float, Tensor]]

ROUNDING = 1e-12  # a weight below is what rounding left, and would pass for one in use


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
        area = task.trajectory_losses(process.states[1:], task.desired).sum()
        return float(area), policy_gradient(task, policy, process)

    return evaluate


def _gap(policy: Tensor, gradient: Tensor) -> float:
    mean = (policy * gradient).sum(1)
    return float(((mean - gradient.amin(1)) / mean.abs()).max())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Arrays here are so small that waking a second thread costs more than it brings."""
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


@_one_thread()
def solve(
    objective: Objective,
    policy: Tensor,
    *,
    tolerance: float = 1e-11,
    iterations: int = 20_000,
    newton_every: int = 250,
    step_size: float = 1.0,
) -> Solution:
    """Descend to a first-order point of J over a product of simplices.

    The accelerated projected gradient method (Beck and Teboulle 2009) with a
    step size that grows by a twentieth at each iteration and is halved where the
    gradient changes faster than it allows; momentum restarts where it points
    uphill (O'Donoghue and Candès 2015). Every ``newton_every`` gradients
    Newton's method, with a Hessian from differences of gradients, takes over on
    the weights that are not zero, and is kept if it lowers the gap.

    J need not be convex: the result is a first-order point, certified by its
    gap, and no more than that.

    Args:
        objective: γ ↦ (J, ∂J/∂γ), defined near the simplices as well as on them.
        policy: where to start, shape (T, N), float64.
        tolerance: stop at this relative first-order gap.
        iterations: gradients to spend at most; Newton's come on top.
        newton_every: gradients between two attempts by Newton's method.
        step_size: first guess of ε.

    Raises:
        TypeError: a policy that is not float64.
        ValueError: tolerance or step size not positive, a count < 1.
    """
    if policy.dtype != torch.float64:
        raise TypeError(f"expected a float64 policy, got {policy.dtype}")
    if not (tolerance > 0 and step_size > 0) or min(iterations, newton_every) < 1:
        raise ValueError(
            "tolerance and step_size must be positive, iterations and newton_every at least 1, "
            f"got {tolerance}, {step_size}, {iterations} and {newton_every}"
        )
    current = project(policy)
    value, gradient = objective(current)
    best = Solution(current, value, gradient, _gap(current, gradient), 1)
    point, slope = current, gradient
    momentum, spent, attempt = 1.0, 1, newton_every
    while spent < iterations and best.gap > tolerance:
        trial = project(point - step_size * slope)
        move = trial - point
        value, gradient = objective(trial)
        spent += 1
        if float((move * (gradient - slope)).sum()) > float(move.square().sum()) / step_size:
            step_size /= 2
            continue
        step_size *= 1.05
        gap = _gap(trial, gradient)
        if gap < best.gap:
            best = Solution(trial, value, gradient, gap, spent)
        if momentum > 1 and float((slope * (trial - current)).sum()) > 0:
            momentum = 1.0
            point, slope = trial, gradient
        else:
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            point = project(trial + (momentum - 1) / following * (trial - current))
            _, slope = objective(point)
            spent += 1
            momentum = following
        current = trial
        if spent >= attempt and best.gap > tolerance:
            attempt = spent + newton_every
            polished = _newton(objective, current, value, tolerance)
            if polished is not None and polished.gap < best.gap:
                best = polished
            if polished is not None and polished.objective <= value:
                current = point = polished.policy
                slope, momentum = polished.gradient, 1.0
    policy = torch.where(best.policy > ROUNDING, best.policy, 0)
    policy /= policy.sum(1, keepdim=True)
    value, gradient = objective(policy)
    return Solution(policy, value, gradient, _gap(policy, gradient), spent + 1)


def first_order_point(
    objective: Objective, policy: Tensor, *, iterations: int = 20_000, required: float = 1e-10
) -> Solution:
    """What :func:`solve` finds from ``policy``, if its relative gap is below ``required``.

    Raises:
        RuntimeError: it is not; the message says after how many gradients.
        TypeError, ValueError: as :func:`solve`.
    """
    result = solve(objective, policy, iterations=iterations)
    if not result.gap < required:
        raise RuntimeError(
            f"relative first-order gap {result.gap:.1e} after {result.iterations} gradients, "
            f"expected < {required:g}: raise 'iterations' ({iterations}) or change 'seed'"
        )
    return result


def _newton(
    objective: Objective, policy: Tensor, value: float, tolerance: float, *, rounds: int = 12
) -> Solution | None:
    """Newton's method on the weights in use, within the simplices; None if it leads uphill."""
    policy = policy.clone()
    best: Solution | None = None
    for _ in range(rounds):
        _, gradient = objective(policy)
        rows, columns, heads = _free(policy)
        if len(rows) == 0:
            break
        reduced = gradient[rows, columns] - gradient[rows, heads]
        values, vectors = torch.linalg.eigh(reduced_hessian(objective, policy, gradient=gradient))
        # absolute values: downhill also along directions of negative curvature
        values = values.abs().clamp_(min=1e-13 * float(values.abs().max()))
        step = -vectors @ ((vectors.T @ reduced) / values)
        move = torch.zeros_like(policy)
        move[rows, columns] = step
        move.index_put_((rows, heads), -step, accumulate=True)
        shrinking = move < 0
        limits = torch.where(shrinking, -policy / move, torch.inf)
        length = min(1.0, float(limits.min()))
        policy = project(policy + length * move)
        policy[shrinking & (limits <= length * (1 + 1e-12))] = 0
        policy = policy / policy.sum(1, keepdim=True)
        now, gradient = objective(policy)
        gap = _gap(policy, gradient)
        if best is None or gap < best.gap:
            best = Solution(policy, now, gradient, gap, 0)
        if gap <= tolerance or (length == 1.0 and float(step.abs().max()) < 1e-13):
            break
    if best is None or best.objective > value + 1e-9 * abs(value):
        return None
    return best


def reduced_hessian(
    objective: Objective, policy: Tensor, *, gradient: Tensor | None = None, width: float = 1e-6
) -> Tensor:
    """The Hessian of J on all moves of weight among the examples in use, all steps together.

    That is, on the d with Σ_n d_{n,t} = 0 for every t and d_{n,t} = 0 where γ_{n,t} = 0. Its
    coordinates: in each row with two or more weights in use, each of them but the largest;
    the largest makes up for their moves, so that the row stays on the simplex. (The signs of
    the eigenvalues do not depend on this choice, their sizes do.) From differences of gradients.

    Args:
        objective: γ ↦ (J, ∂J/∂γ), defined near the simplices as well as on them.
        policy: γ, shape (T, N), float64.
        gradient: ∂J/∂γ there, for one-sided differences at half the price; central
            ones unless given.
        width: of the differences.

    Returns:
        A symmetric matrix, shape (F, F); F is zero if each step uses one example.
    """
    rows, columns, heads = _free(policy)

    def slope(at: Tensor) -> Tensor:
        return at[rows, columns] - at[rows, heads]

    def moved(i: int, by: float) -> Tensor:
        beside = policy.clone()
        beside[rows[i], columns[i]] += by
        beside[rows[i], heads[i]] -= by
        return slope(objective(beside)[1])

    hessian = torch.empty(len(rows), len(rows), dtype=policy.dtype)
    for i in range(len(rows)):
        if gradient is None:
            hessian[i] = (moved(i, width) - moved(i, -width)) / (2 * width)
        else:
            hessian[i] = (moved(i, width) - slope(gradient)) / width
    return (hessian + hessian.T) / 2


def _free(policy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights that may move, and in each one's row the largest, which makes up for it."""
    used = policy > ROUNDING
    used[used.sum(1) < 2] = False
    rows, columns = used.nonzero(as_tuple=True)
    heads = policy.argmax(1)[rows]
    keep = columns != heads
    return rows[keep], columns[keep], heads[keep]
