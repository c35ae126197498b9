"""Policies to start a search from.

The problem is not convex, and where a search ends depends on where it began. Besides
conventional learning there are two starts that cost few evaluations:

- *greedy*: at each step equal weight on the few examples with the largest instant
  contribution ∇L_dsr(θ_t)·∇l(x_n, θ_t): the best single one is the steepest vertex of the
  linearised next loss, more are a hedge; one training, no look ahead.
- *static*: one weight per example for all steps (as in data selection), found by mirror
  descent on ∂J/∂γ summed over the steps.

Both are mixed with equal weights, so that no example is out of reach. They train as the
search does; the greedy one, which would see who is in a batch, on the full batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.methods.method import Settings
from llbook.optimal.methods.mirror import Mirror
from llbook.optimal.process import constant_policy, train
from llbook.tasks.task import Task

__all__ = ["STARTS", "equal", "greedy", "static"]

CHOSEN = 8  # examples a step of the greedy start
EQUAL_SHARE = 0.5  # of the weight of the greedy and the static start
SWEEPS = 20  # of the static start


def equal(task: Task, steps: int, *, trajectory: str = "memory", inner: Inner = PLAIN) -> Tensor:
    """Conventional learning, γ_{n,t} = 1/N, shape (T, N)."""
    return constant_policy(task, steps)


def greedy(
    task: Task,
    steps: int,
    *,
    chosen: int = CHOSEN,
    equal_share: float = EQUAL_SHARE,
    trajectory: str = "memory",
    inner: Inner = PLAIN,
) -> Tensor:
    """Equal weight on the examples that contribute most at their step, shape (T, N).

    Args:
        task: the learning problem.
        steps: T.
        chosen: how many examples share a step's weight; all where there are fewer.
        equal_share: of each step's weight, how much all examples share. The greedy
            training itself is that of the chosen ones alone.
        inner: how it trains.

    Raises:
        ValueError: ``chosen`` below 1, or a share outside [0, 1].
        FloatingPointError: the training of the chosen ones diverged; the message names the step.
    """
    if chosen < 1:
        raise ValueError(f"chosen must be at least 1, got {chosen}")
    _check_share(equal_share)
    policy = torch.zeros_like(constant_policy(task, steps))
    state, factors = inner.begin(task.initial), inner.factors(steps)
    for t, weights in enumerate(policy):
        theta = state[0]
        loss, slope = task.mean_gradient(theta, task.desired)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"the greedy training diverged: the desired loss is {float(loss)} at step {t} "
                f"(η = {task.learning_rate}); lower the learning rate"
            )
        everywhere = task.gather(task.directional_derivatives(theta, slope)[None])[0]
        best = everywhere.topk(min(chosen, task.total)).indices
        whole = torch.zeros_like(everywhere)
        whole[best] = 1 / len(best)
        weights.copy_(task.own(whole[None])[0])
        gradient = task.gradient(theta, weights)
        if inner.plain:  # rounded as ever: records begin here
            state = (theta - task.learning_rate * gradient)[None]
        else:
            rate = task.learning_rate * factors[t]
            state = inner.advance(state, gradient, rate, t)
    return policy.mul_(1 - equal_share).add_(equal_share / task.total)


def static(
    task: Task,
    steps: int,
    *,
    sweeps: int = SWEEPS,
    equal_share: float = EQUAL_SHARE,
    trajectory: str = "memory",
    inner: Inner = PLAIN,
) -> Tensor:
    """One weight per example for all steps, shape (T, N) with equal rows.

    Args:
        task: the learning problem.
        steps: T.
        sweeps: gradient evaluations.
        equal_share: see :func:`greedy`.
        inner: how it trains.

    Raises:
        ValueError: a negative number of sweeps, or a share outside [0, 1].
    """
    if sweeps < 0:
        raise ValueError(f"sweeps must not be negative, got {sweeps}")
    _check_share(equal_share)
    row = constant_policy(task, 1)
    mirror = Mirror(task, Settings(steps=1, updates=sweeps))
    for _ in range(sweeps):
        policy = row.expand(steps, -1).contiguous()
        process = train(task, policy, inner=inner, trajectory=trajectory)
        gradient = policy_gradient(task, policy, process).sum(0, keepdim=True)
        row = mirror.propose(row, gradient, 0.0)
    return row.mul_(1 - equal_share).add_(equal_share / task.total).repeat(steps, 1)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"equal_share must be from 0 to 1, got {share}")


STARTS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "equal": (equal, 0),
    "greedy": (greedy, 1),
    "static": (static, SWEEPS),
}
"""Name → the start, and its price in gradient evaluations. Each takes ``trajectory``, where its
trainings keep their states (see :func:`llbook.optimal.process.train`; only the last trains whole), and
``inner``, how they train."""
