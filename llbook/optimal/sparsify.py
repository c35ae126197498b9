"""Policies with few weights that have the same process.

A step of training knows its weights only through Σ_n γ_n ∇l_n, a point of the convex hull
of N gradients in P dimensions. By Carathéodory's theorem P + 1 of them suffice to make it:
where N is larger, γ is one of many representatives of its process, and what is said of its
zero weights is said of that one. A vertex of the linear program

    min Σ_n c_n w_n   over   w ≥ 0,  Σ_n w_n = 1,  Σ_n w_n ∇l_n = Σ_n γ_n ∇l_n

has at most P + 1 positive weights; c chooses among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from llbook.measures.law import contributions, support
from llbook.optimal.process import Process, check_policy
from llbook.tasks.task import Task

__all__ = ["OBJECTIVES", "sparsify"]

OBJECTIVES = ("fewest", "idle")
TOLERANCES = (1e-10, 1e-9, 1e-8, 1e-7)
ROUNDS = 2  # of re-weighting, towards fewer weights
EXACT = 1e-9  # of a step's gradient, relative to the largest one there is


def sparsify(
    task: Task,
    policy: Tensor,
    process: Process,
    *,
    objective: str = "fewest",
    examples: Any = None,
    steps: Any = None,
) -> Tensor:
    """The same process from at most P + 1 weights a step.

    Args:
        task: the learning problem; per-example gradients, N · P numbers, are formed.
        policy: γ, shape (T, N).
        process: the training under it.
        objective: ``"fewest"``: as few weights as a re-weighted linear program finds;
            ``"idle"``: the least weight where CT_{n,t} ≤ 0, which for an optimal policy of
            the discrete problem need not be none.
        examples: the set whose mean loss CT is about, for ``"idle"``; the desired set
            unless given.
        steps: which rows to make sparse, as indices; all unless given.

    Returns:
        Shape (T, N) (or the rows asked for): the gradient of each step is that of ``policy``
        to 1e-9 of the largest example's, in float64 mostly to rounding. In float64 the states of its training are those of
        ``process`` to rounding; in float32 to that of the policy's storage.

    Raises:
        ValueError: an unknown objective, a policy that is none, or a process of batches: of
            these the weights of a step are others.
        ArithmeticError: a linear program without a solution to that accuracy.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")
    check_policy(task, policy)
    if len(policy) != process.steps:
        raise ValueError(f"the policy has {len(policy)} steps, the process {process.steps}")
    if process.batches is not None:
        raise ValueError(
            "policies of few weights have the same process on full batches alone; "
            f"got one of batches of {process.inner.batch}"
        )
    if task.size != task.total:
        raise ValueError("a task shared by several processes has no example's gradient but its own")
    chosen = range(len(policy)) if steps is None else [int(t) for t in steps]
    for t in chosen:
        if not 0 <= t < len(policy):
            raise ValueError(f"steps must be from 0 to {len(policy) - 1}, got {t}")
    idle = contributions(task, process, examples=examples) <= 0 if objective == "idle" else None
    result = policy.new_zeros(len(chosen), policy.shape[1])
    for row, t in zip(result, chosen, strict=True):
        gradients = task.example_gradients(process.trajectory[t]).double().cpu().numpy()
        weights = policy[t].double().cpu().numpy()
        # those in use are enough for fewer; less idle weight may need others
        members = (
            np.flatnonzero(support(policy[t]).cpu().numpy())
            if idle is None
            else np.arange(len(weights))
        )
        price = np.zeros(len(weights)) if idle is None else idle[t].cpu().numpy().astype(float)
        found = _vertex(gradients, weights, members, price, fewest=idle is None, step=t)
        row.copy_(row.new_tensor(found))
    return result


def _vertex(
    gradients: NDArray[np.float64],
    weights: NDArray[np.float64],
    members: NDArray[np.intp],
    price: NDArray[np.float64],
    *,
    fewest: bool,
    step: int,
) -> NDArray[np.float64]:
    """Weights (N,) on at most P + 1 of the ``members`` with the gradient of ``weights``."""
    # of the members alone: what is only rounding need not lie in their hull
    current = weights[members] / weights[members].sum()
    target = current @ gradients[members]
    scale = np.abs(gradients[members]).max() or 1.0
    # one column an example: its gradient, and a one for the sum
    columns = np.vstack([gradients[members].T / scale, np.ones(len(members))])
    right = np.append(target / scale, 1.0)
    cost = price[members]
    for _ in range(ROUNDS if fewest else 1):
        if fewest:
            # the tangent of Σ log(w + δ): small weights are dear
            cost = 1 / (current + 1e-3 * current.max())
        current = _solved(cost / max(cost.max(), 1e-300), columns, right, step)
    exact = _polished(columns, right, current)
    found = np.zeros(len(weights))
    found[members] = exact
    error = np.abs(found @ gradients - target).max() / scale
    if not error <= EXACT:
        raise ArithmeticError(
            f"step {step}: expected the gradient to {EXACT:g} of the largest, got {error:.1e}"
        )
    return found


def _solved(
    cost: NDArray[np.float64], columns: NDArray[np.float64], right: NDArray[np.float64], step: int
) -> NDArray[np.float64]:
    """A vertex, to the least tolerance at which one is found: it is polished afterwards."""
    for tolerance in TOLERANCES:
        options = {f"{side}_feasibility_tolerance": tolerance for side in ("primal", "dual")}
        solved = linprog(
            cost, A_eq=columns, b_eq=right, bounds=(0, None), method="highs-ds", options=options
        )
        if solved.x is not None:
            return np.maximum(solved.x, 0)
    raise ArithmeticError(f"step {step}: no weights were found ({solved.message})")


def _polished(
    columns: NDArray[np.float64], right: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weights of a vertex to rounding, by least squares on its support."""
    result = weights.copy()
    while True:
        used = np.flatnonzero(result > 1e-14)
        exact = np.linalg.lstsq(columns[:, used], right, rcond=None)[0]
        result = np.zeros_like(weights)
        result[used] = exact
        if (exact >= 0).all():
            return result
        result[result < 0] = 0  # a vertex at the border of another: without that example
