"""The learning rates of a training as what is searched for, the policy held.

A step of gradient descent is θ_{t+1} = θ_t - η f_t Σ_n γ_{n,t} ∇l(x_n, θ_t): its factor f_t and its
weights enter as a product, so that the derivative of J in the factors follows from that in the policy,

    ∂J/∂f_t = (1/f_t) Σ_n γ_{n,t} ∂J/∂γ_{n,t},

for no more than a sum. A policy whose rows are on the simplex cannot lengthen its steps so; what it
saves beyond the best factors for equal weights is no matter of the rate.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from llbook.optimal.adjoint import gradient_and_losses
from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.process import Process, train
from llbook.tasks.task import Task

__all__ = ["ScheduleSearch", "factor_gradient", "search_schedule"]


@dataclass(frozen=True)
class ScheduleSearch:
    """What :func:`search_schedule` found.

    Attributes:
        inner: the training under the best factors met.
        history: J of every evaluation in nats, nan where the training diverged.
    """

    inner: Inner
    history: tuple[float, ...]


def factor_gradient(
    task: Task, policy: Tensor, gradient: Tensor, process: Process
) -> NDArray[np.float64]:
    """∂J/∂f_t of the factors of η, shape (T,), in nats.

    Args:
        task: the learning problem.
        policy: γ, shape (T, N).
        gradient: ∂J/∂γ, shape (T, N), as :func:`llbook.optimal.adjoint.policy_gradient` gives it.
        process: the training of that policy.

    Raises:
        ValueError: another optimiser than gradient descent without decay, whose steps are not
            proportional to γ; a factor of zero, where ∂J/∂γ says nothing of ∂J/∂f.
    """
    _check(process.inner)
    factors = np.array(process.inner.factors(len(policy)))
    if not (factors > 0).all():
        step = int(np.argmin(factors > 0))
        raise ValueError(f"factors must be above 0, got {factors[step]:g} at step {step}")
    sums = task.summed((policy.double() * gradient.double()).sum(1))
    return np.asarray(sums.cpu().numpy() / factors)


def search_schedule(
    task: Task,
    policy: Tensor,
    *,
    inner: Inner = PLAIN,
    knots: int = 8,
    evaluations: int = 40,
    least: float = 1 / 16,
    most: float = 4.0,
    progress: bool = False,
) -> ScheduleSearch:
    """Factors of η under which a policy has a small J, by L-BFGS-B (Byrd et al., 1995) on their logarithms.

    ln f is linear in t between equally spaced knots; its values there are what is searched for,
    from the factors of ``inner`` at these steps (1 for a constant rate).

    Args:
        task: the learning problem.
        policy: γ, shape (T, N), rows on the simplex; held.
        inner: the training to begin from, gradient descent without decay.
        knots: K, from 2 to T.
        evaluations: the most of J and its derivative.
        least, most: bounds of the factors; the begin is moved to within.
        progress: show a progress bar.

    Raises:
        ValueError: a number out of range, named; an optimiser, see :func:`factor_gradient`.
        FloatingPointError: the first training diverged; later ones are only avoided.
    """
    steps = len(policy)
    if not 2 <= knots <= steps:
        raise ValueError(f"knots must be from 2 to T = {steps}, got {knots}")
    if evaluations < 1:
        raise ValueError(f"evaluations must be at least 1, got {evaluations}")
    if not 0 < least < most < math.inf:
        raise ValueError(f"expected 0 < least < most, finite; got least {least}, most {most}")
    _check(inner)
    places = np.linspace(0, steps - 1, knots)
    hats = np.stack(
        [np.interp(np.arange(steps), places, row) for row in np.eye(knots)], 1
    )  # (T, K)
    begin = np.interp(places, np.arange(steps), inner.factors(steps))
    start = np.log(np.clip(begin, least, most))
    history: list[float] = []
    best, found = math.inf, inner
    bar = tqdm(total=evaluations, disable=not progress, unit="evaluation")

    def evaluate(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal best, found
        if len(history) == evaluations:
            raise _SpentError
        factors = np.exp(hats @ values)
        there = replace(inner, schedule=tuple(map(float, factors)), warmup=0)
        bar.update()
        try:
            process = train(task, policy, inner=there)
            gradient, losses = gradient_and_losses(task, policy, process)
            value = float(losses.double().sum())
            if not math.isfinite(value):  # of a θ that still is
                raise FloatingPointError(f"training diverged: J is {value} nats")
        except FloatingPointError:
            if not history:
                raise
            history.append(math.nan)
            # a wall: the line search steps back from it
            return 2 * max(history[0], 1.0), np.zeros_like(values)
        history.append(value)
        if value < best:
            best, found = value, there
        return value, hats.T @ (factors * factor_gradient(task, policy, gradient, process))

    with bar:
        _minimised(evaluate, start, (math.log(least), math.log(most)))
    return ScheduleSearch(found, tuple(history))


class _SpentError(Exception):
    """No evaluation is left."""


def _minimised(
    evaluate: Callable[[NDArray[np.float64]], Any],
    start: NDArray[np.float64],
    bounds: tuple[float, float],
) -> None:
    from scipy.optimize import minimize  # takes long to import

    with contextlib.suppress(_SpentError):
        minimize(evaluate, start, jac=True, method="L-BFGS-B", bounds=[bounds] * len(start))


def _check(inner: Inner) -> None:
    if inner.optimizer != "gradient-descent" or inner.weight_decay:
        raise ValueError(
            "factors are searched for gradient descent without weight decay, got optimizer "
            f"{inner.optimizer!r}, weight_decay {inner.weight_decay}"
        )
