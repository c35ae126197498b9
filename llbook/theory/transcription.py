"""Optimal policies in continuous time, by direct transcription.

The policy is constant on M intervals of length h; the gradient flow and the
area are integrated by the classical Runge–Kutta method, and the gradient with
respect to the policy is the exact derivative of that computation. Where
Euler's method rewards a policy for exploiting its O(η) error, here that error
is O(h⁴) and what remains is the continuous problem.

For linear models, whose losses depend on a_n·θ alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from llbook.optimal.process import check_policy
from llbook.tasks.perceptron import Perceptron
from llbook.tasks.task import Task
from llbook.theory.least_squares import LeastSquares

__all__ = ["Transcription", "transcribe"]


class Transcription(NamedTuple):
    """One evaluation of a piecewise constant policy.

    Attributes:
        objective: ∫ L_dsr dt over M·h, nats times time.
        gradient: its derivative with respect to the policy, shape (M, N).
        trajectory: θ at the ends of the intervals, shape (M + 1, P).
        costates: λ there, shape (M + 1, P).
    """

    objective: float
    gradient: Tensor
    trajectory: Tensor
    costates: Tensor


def _linear(task: Task) -> tuple[np.ndarray, ...]:
    if isinstance(task, Perceptron):
        parts = [x.signed.double().numpy() for x in (task.training, task.desired)]
        return parts[0], np.zeros(len(parts[0])), parts[1], np.zeros(len(parts[1])), True
    if isinstance(task, LeastSquares):
        sets = (task.training, task.desired)
        (a, b), (c, d) = ((x.inputs.numpy(), x.targets.numpy()) for x in sets)
        return a, b, c, d, False
    raise TypeError(f"expected a Perceptron or LeastSquares task, got {type(task).__name__}")


def transcribe(task: Task, policy: Tensor, *, interval: float, substeps: int = 1) -> Transcription:
    """Area and exact gradient of a piecewise constant policy.

    Args:
        task: a perceptron or least-squares task in float64.
        policy: γ, shape (M, N), rows on the simplex.
        interval: h, the time for which a row holds.
        substeps: Runge–Kutta steps an interval.

    Raises:
        TypeError: another kind of task, or a dtype other than the task's.
        ValueError: a bad policy, an interval that is not positive, substeps < 1.
    """
    if not interval > 0 or substeps < 1:
        raise ValueError(
            f"interval must be positive and substeps at least 1, got {interval} and {substeps}"
        )
    linear = _linear(task)
    check_policy(task, policy)
    out = _sweep(
        *linear,
        task.initial.double().numpy(),
        policy.contiguous().numpy(),
        interval / substeps,
        substeps,
    )
    return Transcription(float(out[0]), *(torch.from_numpy(part) for part in out[1:]))


@njit(cache=True)
def _slopes(inputs, targets, logistic, theta, first, second):  # pragma: no cover - compiled
    """φ' and φ'' at every a_n·θ into ``first`` and ``second``; returns Σ φ."""
    total = 0.0
    for n in range(len(inputs)):
        margin = 0.0
        for d in range(len(theta)):
            margin += inputs[n, d] * theta[d]
        if logistic:
            small = np.exp(-abs(margin))
            pull = small / (1 + small) if margin > 0 else 1 / (1 + small)
            first[n] = -pull
            second[n] = pull * (1 - pull)
            total += np.log1p(small) + max(-margin, 0.0)
        else:
            rest = margin - targets[n]
            first[n] = rest
            second[n] = 1.0
            total += 0.5 * rest * rest
    return total


@njit(cache=True)
def _sweep(
    inputs, targets, wanted, aims, logistic, start, policy, step, substeps
):  # pragma: no cover - compiled
    intervals, size = policy.shape
    width, wants = len(start), len(wanted)
    steps = intervals * substeps
    stages = np.zeros((steps, 4, width))
    slope, curve = np.empty(size), np.empty(size)
    pull, bend = np.empty(wants), np.empty(wants)
    trajectory = np.empty((intervals + 1, width))
    costates = np.zeros((intervals + 1, width))
    gradient = np.zeros((intervals, size))
    part = np.array([1.0, 2.0, 2.0, 1.0]) * step / 6
    reach = np.array([0.0, step / 2, step / 2, step])
    theta = start.copy()
    trajectory[0] = theta
    area = 0.0
    for i in range(steps):
        weights = policy[i // substeps]
        move = np.zeros(width)
        rate = np.zeros(width)
        for s in range(4):
            point = theta + reach[s] * rate
            stages[i, s] = point
            area += part[s] * _slopes(wanted, aims, logistic, point, pull, bend) / wants
            _slopes(inputs, targets, logistic, point, slope, curve)
            rate[:] = 0
            for n in range(size):
                if weights[n] != 0:
                    for d in range(width):
                        rate[d] -= weights[n] * slope[n] * inputs[n, d]
            move += part[s] * rate
        theta = theta + move
        if (i + 1) % substeps == 0:
            trajectory[(i + 1) // substeps] = theta
    costate = np.zeros(width)
    for i in range(steps - 1, -1, -1):
        weights = policy[i // substeps]
        row = gradient[i // substeps]
        total = costate.copy()
        carried = np.zeros(width)
        for s in range(3, -1, -1):
            after = reach[s + 1] if s < 3 else 0.0
            seed = part[s] * costate + after * carried
            point = stages[i, s]
            _slopes(wanted, aims, logistic, point, pull, bend)
            _slopes(inputs, targets, logistic, point, slope, curve)
            carried = np.zeros(width)
            for k in range(wants):
                for d in range(width):
                    carried[d] += part[s] / wants * pull[k] * wanted[k, d]
            for n in range(size):
                product = 0.0
                for d in range(width):
                    product += inputs[n, d] * seed[d]
                row[n] -= slope[n] * product
                if weights[n] != 0:
                    for d in range(width):
                        carried[d] -= weights[n] * curve[n] * product * inputs[n, d]
            total += carried
        costate = total
        if i % substeps == 0:
            costates[i // substeps] = costate
    return area, gradient, trajectory, costates
