"""Areas of piecewise constant policies and their exact gradients, for small linear models.

The policy is constant on M intervals of length h. Two schemes integrate the
gradient flow and the area under the desired loss:

- ``"euler"``: Eq. 1 with η = h; the area is ηJ, J = Σ_{t=1..T} L_dsr(θ_t).
- ``"runge-kutta"``: the classical method of order four, for which the optimum is
  that of the continuous problem. Where Euler's method lets a policy exploit
  its O(η) error, here that error is O(h⁴).

Either way the gradient is the exact derivative of the computation, so that
the optimum over policies is an ordinary finite-dimensional one (direct
transcription). A linear model is one whose losses depend on a_n·θ alone; the
loops are compiled and serial, for instances small enough to be solved exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from llbook.optimal.process import check_policy
from llbook.tasks.task import Task
from llbook.theory.flows import brackets, derivatives

__all__ = ["SCHEMES", "Midpoints", "Transcription", "midpoints", "objective", "transcribe"]

# weights of the stages in the step, and how far each reaches along the slope before it
SCHEMES = {
    "euler": ((1.0,), (0.0,)),
    "runge-kutta": ((1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0)),
}


class Transcription(NamedTuple):
    """One evaluation of a piecewise constant policy.

    Attributes:
        area: ∫ L_dsr dt over the M intervals, nats times time.
        gradient: its derivative with respect to the policy, shape (M, N); over
            -h it is the future contribution λ·g_n, averaged over the interval.
        trajectory: θ at the ends of the intervals, shape (M + 1, P).
        costates: the continuous λ there, shape (M + 1, P), λ(T) = 0; Euler's
            last one is η∇L_dsr(θ_T), since its area counts that point in full.
    """

    area: float
    gradient: Tensor
    trajectory: Tensor
    costates: Tensor


def _evaluator(task: Task, interval: float, scheme: str, substeps: int) -> Callable[[Tensor], Any]:
    if not interval > 0 or substeps < 1:
        raise ValueError(
            f"interval must be positive and substeps at least 1, got {interval} and {substeps}"
        )
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    if (linear := task.linear_form()) is None:
        raise TypeError(f"expected a perceptron or least squares, got a {type(task).__name__}")
    start = task.initial.double().numpy()
    step = interval / substeps
    part, reach = (step * np.array(x) for x in SCHEMES[scheme])
    tail = step if scheme == "euler" else 0.0
    return lambda policy: _sweep(
        *linear, start, policy.contiguous().numpy(), part, reach, tail, substeps
    )


def transcribe(
    task: Task,
    policy: Tensor,
    *,
    interval: float,
    scheme: str = "runge-kutta",
    substeps: int = 1,
) -> Transcription:
    """Area, exact gradient, states and costates of a piecewise constant policy.

    Args:
        task: a perceptron or least-squares task in float64.
        policy: γ, shape (M, N), rows on the simplex.
        interval: h, the time for which a row holds.
        scheme: a name from :data:`SCHEMES`.
        substeps: steps of the scheme in an interval.

    Raises:
        TypeError: another kind of task, or a dtype other than the task's.
        ValueError: a bad policy, an unknown scheme, an interval that is not
            positive, substeps < 1.
    """
    evaluate = _evaluator(task, interval, scheme, substeps)
    check_policy(task, policy)
    area, *arrays = evaluate(policy)
    return Transcription(float(area), *(torch.from_numpy(array) for array in arrays))


def objective(
    task: Task, *, interval: float, scheme: str = "runge-kutta", substeps: int = 1
) -> Callable[[Tensor], tuple[float, Tensor]]:
    """γ ↦ (area, gradient), for :func:`llbook.theory.solve.solve`.

    Unlike :func:`transcribe` it takes weights off the simplex too, as finite
    differences need them. Arguments and errors are those of :func:`transcribe`.
    """
    evaluate = _evaluator(task, interval, scheme, substeps)

    def value(policy: Tensor) -> tuple[float, Tensor]:
        area, gradient, _, _ = evaluate(policy)
        return float(area), torch.from_numpy(gradient)

    return value


class Midpoints(NamedTuple):
    """What the maximum principle speaks of, in the middle of each interval.

    Attributes:
        times: shape (M,).
        losses: L_dsr, shape (M,).
        contribution: CT_n, shape (M, N).
        future: λ·g_n, shape (M, N).
        bracket: Σ_m γ_m λ·(H_m g_n - H_n g_m), shape (M, N).
        mean: Σ_n γ_n CT_n = -dL_dsr/dt, shape (M,).
    """

    times: np.ndarray
    losses: np.ndarray
    contribution: np.ndarray
    future: np.ndarray
    bracket: np.ndarray
    mean: np.ndarray


def midpoints(task: Task, policy: Tensor, *, interval: float) -> Midpoints:
    """Contributions and bracket sums along the flow of a piecewise constant policy.

    Arguments and errors are those of :func:`transcribe`.
    """
    halves = transcribe(task, policy.repeat_interleave(2, 0), interval=interval / 2)
    states, costates = halves.trajectory[1::2].numpy(), halves.costates[1::2].numpy()
    weights = policy.numpy()
    rows = []
    for theta, costate, weight in zip(states, costates, weights, strict=True):
        at = derivatives(task, theta)
        contribution = at.gradients @ at.desired_gradient
        rows.append(
            (
                at.desired_loss,
                contribution,
                at.gradients @ costate,
                brackets(at, costate) @ weight,
                weight @ contribution,
            )
        )
    times = interval * (np.arange(len(policy)) + 0.5)
    return Midpoints(times, *(np.stack(part) for part in zip(*rows, strict=True)))


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
    inputs, targets, wanted, aims, logistic, start, policy, part, reach, tail, substeps
):  # pragma: no cover - compiled
    intervals, size = policy.shape
    width, wants, stages = len(start), len(wanted), len(part)
    steps = intervals * substeps
    slope = np.empty((steps, stages, size))
    curve = np.empty((steps, stages, size))
    pull, bend = np.empty(wants), np.empty(wants)
    desired = np.zeros((steps, stages, width))  # ∇L_dsr
    trajectory = np.empty((intervals + 1, width))
    costates = np.zeros((intervals + 1, width))
    gradient = np.zeros((intervals, size))
    theta = start.copy()
    trajectory[0] = theta
    area = 0.0
    for i in range(steps):
        weights = policy[i // substeps]
        move = np.zeros(width)
        rate = np.zeros(width)
        for s in range(stages):
            point = theta + reach[s] * rate
            loss = _slopes(wanted, aims, logistic, point, pull, bend) / wants
            area += part[s] * loss
            if i == 0 and s == 0:
                area -= tail * loss
            for k in range(wants):
                for d in range(width):
                    desired[i, s, d] += pull[k] * wanted[k, d] / wants
            _slopes(inputs, targets, logistic, point, slope[i, s], curve[i, s])
            rate[:] = 0
            for n in range(size):
                if weights[n] != 0:
                    for d in range(width):
                        rate[d] -= weights[n] * slope[i, s, n] * inputs[n, d]
            move += part[s] * rate
        theta = theta + move
        if (i + 1) % substeps == 0:
            trajectory[(i + 1) // substeps] = theta
    costate = np.zeros(width)
    if tail > 0:
        area += tail * _slopes(wanted, aims, logistic, theta, pull, bend) / wants
        for k in range(wants):
            costate += tail / wants * pull[k] * wanted[k]
    costates[intervals] = costate
    for i in range(steps - 1, -1, -1):
        weights = policy[i // substeps]
        row = gradient[i // substeps]
        total = costate.copy()
        carried = np.zeros(width)
        for s in range(stages - 1, -1, -1):
            after = reach[s + 1] if s + 1 < stages else 0.0
            seed = part[s] * costate + after * carried
            # Euler's area leaves out θ_0, on which no policy has an influence
            carried = part[s] * desired[i, s]
            for n in range(size):
                product = 0.0
                for d in range(width):
                    product += inputs[n, d] * seed[d]
                row[n] -= slope[i, s, n] * product
                if weights[n] != 0:
                    bent = weights[n] * curve[i, s, n] * product
                    for d in range(width):
                        carried[d] -= bent * inputs[n, d]
            total += carried
        costate = total
        if i % substeps == 0:
            costates[i // substeps] = costate
    return area, gradient, trajectory, costates
