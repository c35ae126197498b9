"""Least squares with one output: the smallest task with closed forms for everything.

    l_n(θ) = (a_n·θ - b_n)²/2,   ∇l_n = (a_n·θ - b_n) a_n,   ∇²l_n = a_n a_nᵀ.

Two gradient flows commute exactly where a_n·a_m = 0, so the angle between the
rows of A turns the hidden assumption of the Learning Law on and off.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llbook.tasks.task import LinearForm, Task

__all__ = ["LeastSquares", "Rows", "WaterFilling", "tilted", "water_filling"]


class Rows:
    """Linear examples: inputs a_n, shape (n, P), and targets b_n, shape (n,)."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if inputs.ndim != 2 or targets.shape != inputs.shape[:1]:
            raise ValueError(
                "expected inputs of shape (n, P) and targets of shape (n,), "
                f"got {tuple(inputs.shape)} and {tuple(targets.shape)}"
            )
        if inputs.dtype != torch.float64 or targets.dtype != torch.float64:
            raise TypeError(f"expected float64, got {inputs.dtype} and {targets.dtype}")
        self.inputs = inputs.contiguous()
        self.targets = targets.contiguous()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Tensor) -> Rows:
        return Rows(self.inputs[chosen], self.targets[chosen])


class LeastSquares(Task):
    """Linear regression trained on weighted full batches, in float64.

    Args:
        training, desired: examples with P columns each.
        initial: θ_0, shape (P,).
        learning_rate: η, only used by Euler's method.

    Raises:
        ValueError: shapes that do not fit, η ≤ 0.
        TypeError: a dtype other than float64.
    """

    vocabulary = 2  # has no meaning for a squared error; the search needs a number

    def __init__(
        self, training: Rows, desired: Rows, *, initial: Tensor, learning_rate: float = 0.1
    ) -> None:
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
        for name, rows in (("training", training), ("desired", desired)):
            if initial.shape != rows.inputs.shape[1:]:
                raise ValueError(
                    f"θ_0 has shape {tuple(initial.shape)}, "
                    f"but the {name} inputs have {rows.inputs.shape[1]} columns"
                )
        if initial.dtype != torch.float64:
            raise TypeError(f"expected θ_0 in float64, got {initial.dtype}")
        self.training, self.desired, self.test = training, desired, desired
        self.initial = initial
        self.learning_rate = learning_rate

    def losses(self, theta: Tensor, examples: Rows) -> Tensor:
        """(a_n·θ - b_n)²/2, shape (n,)."""
        return (examples.inputs @ theta - examples.targets).square() / 2

    def linear_form(self) -> LinearForm:
        sets = (self.training, self.desired)
        (a, b), (c, d) = ((rows.inputs.numpy(), rows.targets.numpy()) for rows in sets)
        return LinearForm(a, b, c, d, False)


def tilted(
    rates: np.ndarray,
    starts: np.ndarray,
    importance: np.ndarray,
    *,
    coupling: float = 0.0,
    learning_rate: float = 0.1,
) -> LeastSquares:
    """A task whose flows commute at coupling 0, and the less the larger it is.

    The rows a_n are those of the unit matrix with κ above the diagonal, scaled
    to squared lengths r_n; all targets are 0. The desired loss is Σ_n w_n θ_n²/2, and θ_0 is such that at κ = 0 the
    contributions at time 0 are c_n: r_n w_n θ_n² = c_n.

    Args:
        rates: r_n > 0, shape (N,).
        starts: c_n > 0, shape (N,).
        importance: w_n > 0, shape (N,).
        coupling: κ in [0, 1).
        learning_rate: η, only used by Euler's method.

    Raises:
        ValueError: shapes that differ, numbers out of range.
    """
    rates, starts, importance = _positive(rates=rates, starts=starts, importance=importance)
    if not 0 <= coupling < 1:
        raise ValueError(f"coupling must lie in [0, 1), got {coupling}")
    size = len(rates)
    rows = np.eye(size) + coupling * np.triu(np.ones((size, size)), 1)
    rows *= np.sqrt(rates / (rows**2).sum(1))[:, None]
    zeros = torch.zeros(size, dtype=torch.float64)
    return LeastSquares(
        Rows(torch.from_numpy(rows), zeros),
        Rows(torch.from_numpy(np.diag(np.sqrt(size * importance))), zeros),
        initial=torch.from_numpy(np.sqrt(starts / (rates * importance))),
        learning_rate=learning_rate,
    )


def _positive(**values: np.ndarray) -> list[np.ndarray]:
    arrays = {name: np.asarray(value, dtype=float) for name, value in values.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"expected arrays of one shape (N,), got {shapes}")
    for name, array in arrays.items():
        if not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(f"{name} must be positive and finite, got {array}")
    return list(arrays.values())


class WaterFilling(NamedTuple):
    """The optimal policy of a task whose examples own one coordinate each.

    Attributes:
        entries: time at which each example enters the support, shape (N,); beyond the last of
            the times for one that stays outside.
        policy: γ(t) in the middle of each interval, shape (M, N).
        totals: Γ(t) at the interval's ends, shape (M + 1, N).
        level: ν(t), the common contribution of the support, shape (M + 1,).
    """

    entries: np.ndarray
    policy: np.ndarray
    totals: np.ndarray
    level: np.ndarray


def water_filling(rates: np.ndarray, starts: np.ndarray, times: np.ndarray) -> WaterFilling:
    """The exact optimum in continuous time when example n lowers its own coordinate.

    With contributions CT_n(Γ_n) = c_n exp(-2 r_n Γ_n) that depend on their own
    total alone, the total at time t is spread so that all contributions in use
    share one level ν(t), and the rest have c_n ≤ ν(t).

    Args:
        rates: r_n > 0, shape (N,).
        starts: c_n > 0, contributions at time 0, shape (N,).
        times: increasing times from 0, shape (M + 1,).

    Raises:
        ValueError: shapes that differ, or rates and starts that are not positive.
    """
    rates, starts = _positive(rates=rates, starts=starts)
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or not (np.diff(times) > 0).all():
        raise ValueError("times must increase from 0 and be at least two")

    def needed(level: float) -> np.ndarray:
        return np.maximum(np.log(starts / level), 0) / (2 * rates)

    entries = np.array([needed(start).sum() for start in starts])
    order = np.sort(entries)
    levels = np.empty(len(times))
    for i, t in enumerate(times):
        inside = entries <= order[order <= t][-1]
        half = 1 / (2 * rates[inside])
        levels[i] = np.exp((half @ np.log(starts[inside]) - t) / half.sum())
    totals = np.stack([needed(level) for level in levels])
    return WaterFilling(entries, np.diff(totals, axis=0) / np.diff(times)[:, None], totals, levels)
