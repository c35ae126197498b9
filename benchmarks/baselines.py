"""What the engine is compared with: the search as the paper's Appendix C describes it.

Three baselines in good faith: batched, with the engine's threads and dtype, and of the
ways to write what was described each the fastest that was found (see NOTES.md).

(a) :class:`AsDescribed`: gradients of single examples, their products with the
    costate, a Hessian–vector product by forward over reverse, and one quadratic
    program a step for the projection;
(b) :func:`unrolled`: automatic differentiation through the whole training;
(c) :func:`project_by_sorting`: the projection by sorting every row.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import cvxpy
import numpy as np
import osqp
import torch
from scipy import sparse
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn.functional import logsigmoid

from benchmarks.floors import wait
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import Process
from llbook.tasks.language import Transformer
from llbook.tasks.perceptron import Perceptron
from llbook.tasks.task import Task

__all__ = [
    "PHASES",
    "AsDescribed",
    "BareProgram",
    "QuadraticProgram",
    "project_by_sorting",
    "unrolled",
]

PHASES = ("training", "contributions", "curvature", "desired", "projection")


class AsDescribed:
    """Baseline (a) for a perceptron or a Transformer; counts the seconds of each phase.

    Args:
        task: the learning problem.
        micro_batch: the most examples at once; all of them by default.

    Attributes:
        seconds: phase → seconds spent in it so far: the ``training`` step;
            ``contributions``, λ·∇l_n through all ∇l_n; ``curvature``, Hλ;
            ``desired``, ∇L_dsr; ``projection``.
    """

    def __init__(self, task: Task, *, micro_batch: int | None = None) -> None:
        if isinstance(task, Perceptron):
            self._examples = task.training.signed
            self._loss: Callable[[Tensor, Tensor], Tensor] = lambda theta, signed: (
                -logsigmoid(signed @ theta)
            )
        elif isinstance(task, Transformer):
            self._examples = task.training
            self._loss = lambda theta, window: task.losses(theta, window[None])[0]
        else:
            raise TypeError(f"expected a Perceptron or a Transformer, got {type(task).__name__}")
        self.task, self._micro_batch = task, micro_batch
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        wait(self.task.initial.device)
        began = time.perf_counter()
        yield
        wait(self.task.initial.device)
        self.seconds[phase] += time.perf_counter() - began

    def _weighted(self, weights: Tensor, examples: Any) -> Iterator[Callable[[Tensor], Tensor]]:
        """Σ_n γ_n l_n of each micro-batch of the examples with weight."""
        if isinstance(examples, Tensor) and not bool((weights != 0).all()):
            weights, examples = weights[weights != 0], examples[weights != 0]
        if self._micro_batch is None:
            yield lambda theta: weights @ self.task.losses(theta, examples)
            return
        pairs = zip(
            weights.split(self._micro_batch), examples.split(self._micro_batch), strict=True
        )
        for some, windows in pairs:
            yield lambda theta, some=some, windows=windows: some @ self.task.losses(theta, windows)

    def _gradient(self, theta: Tensor, weights: Tensor, examples: Any) -> Tensor:
        total = torch.zeros_like(theta)
        for part in self._weighted(weights, examples):
            at = theta.detach().requires_grad_(True)
            total += torch.autograd.grad(part(at), at)[0]  # with less ado than torch.func's
        return total

    def training_step(self, theta: Tensor, weights: Tensor) -> Tensor:
        """θ_{t+1} of Eq. 1, shape (P,)."""
        with self._timed("training"):
            gradient = self._gradient(theta, weights, self.task.training)
            return theta - self.task.learning_rate * gradient

    def contributions(self, theta: Tensor, costate: Tensor) -> Tensor:
        """λ·∇l_n for each n, shape (N,), from the matrix of all ∇l_n, shape (N, P)."""
        with self._timed("contributions"):
            each = vmap(grad(self._loss), in_dims=(None, 0))
            parts = self._examples.split(self._micro_batch or len(self._examples))
            return torch.cat([each(theta, part) @ costate for part in parts])

    def curvature(self, theta: Tensor, weights: Tensor, costate: Tensor) -> Tensor:
        """Hλ, shape (P,), forward over reverse."""
        with self._timed("curvature"):
            parts = self._weighted(weights, self.task.training)
            return sum(jvp(grad(part), (theta,), (costate,))[1] for part in parts)

    def desired_gradient(self, theta: Tensor) -> Tensor:
        """∇L_dsr, shape (P,)."""
        with self._timed("desired"):
            return self._gradient(theta, self._equal, self.task.desired)

    @cached_property
    def _equal(self) -> Tensor:
        losses = self.task.losses(self.task.initial, self.task.desired)
        return torch.full_like(losses, 1 / len(losses))

    @cached_property
    def _program(self) -> QuadraticProgram:
        return QuadraticProgram(self.task.size)

    def project(self, row: Tensor) -> Tensor:
        """One row of γ - ε ∂J/∂γ onto the simplex, shape (N,)."""
        with self._timed("projection"):
            return torch.from_numpy(self._program(row.double().cpu().numpy())).to(row)

    def states(self, policy: Tensor) -> Iterator[Tensor]:
        """θ_0 … θ_T."""
        theta = self.task.initial
        yield theta
        for weights in policy:
            theta = self.training_step(theta, weights)
            yield theta

    def backward(self, policy: Tensor, states: Any, *, until: int = 0) -> Iterator[Tensor]:
        """Rows T - 1 … ``until`` of ∂J/∂γ (Eq. 22), each of shape (N,)."""
        eta = self.task.learning_rate
        costate = self.desired_gradient(states[len(policy)])
        for t in range(len(policy) - 1, until - 1, -1):
            yield -eta * self.contributions(states[t], costate)
            curved = self.curvature(states[t], policy[t], costate)
            costate = costate + self.desired_gradient(states[t]) - eta * curved


class QuadraticProgram:
    """min ‖w‖² - 2 v·w over the simplex, compiled once and solved for one v after another.

    Multiplied out, the program has half the variables that ‖w - v‖² makes in CVXPY. OSQP, started from the last
    solution, was the fastest of the solvers that come with CVXPY on these problems; where it gives up, Clarabel goes on.
    """

    def __init__(self, size: int, **options: Any) -> None:
        self._point = cvxpy.Parameter(size)
        self._weights = cvxpy.Variable(size)
        self._problem = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.sum_squares(self._weights) - 2 * self._point @ self._weights),
            [self._weights >= 0, cvxpy.sum(self._weights) == 1],
        )
        self._options = {"solver": cvxpy.OSQP} | options

    def __call__(self, point: np.ndarray) -> np.ndarray:
        self._point.value = point
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate")
            self._problem.solve(**self._options)
        if self._problem.status != cvxpy.OPTIMAL:
            self._problem.solve(solver=cvxpy.CLARABEL)
        if self._problem.status != cvxpy.OPTIMAL:
            raise RuntimeError(f"the solvers ended with status {self._problem.status!r}")
        return self._weights.value


class BareProgram:
    """:class:`QuadraticProgram` without CVXPY around it: OSQP, given a new linear term each time."""

    def __init__(self, size: int) -> None:
        every = sparse.eye(size, format="csc")
        rows = sparse.vstack([np.ones((1, size)), every], format="csc")
        lower = np.concatenate([[1.0], np.zeros(size)])
        upper = np.concatenate([[1.0], np.full(size, np.inf)])
        self._solver = osqp.OSQP()
        # CVXPY's own settings
        settings = {"eps_abs": 1e-5, "eps_rel": 1e-5, "max_iter": 10000, "polishing": True}
        linear = np.zeros(size)
        self._solver.setup(every, linear, rows, lower, upper, verbose=False, **settings)

    def __call__(self, point: np.ndarray) -> np.ndarray:
        self._solver.update(q=-point)
        return self._solver.solve(raise_error=True).x


def unrolled(task: Task, policy: Tensor, process: Process) -> Tensor:
    """Baseline (b): ∂J/∂γ, shape (T, N), by differentiating through all T steps at once."""
    return policy_gradient(task, policy, process, strategy="unrolled")


def project_by_sorting(v: Tensor) -> Tensor:
    """Baseline (c): the rows of v, shape (T, N), onto the simplex, by sorting them.

    With u the sorted row, τ = max_k (Σ_{i≤k} u_i - 1) / k (Held, Wolfe and Crowder, 1974). On a CPU
    NumPy sorts, which has vector instructions for it, a share of the rows on each thread.
    """
    if v.device.type != "cpu":
        return _by_sorting(v, (-v).sort(1).values)

    def share(rows: Tensor) -> Tensor:
        opposite = -rows
        opposite.numpy().sort(axis=1)
        return _by_sorting(rows, opposite)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return torch.cat(list(threads.map(share, v.chunk(torch.get_num_threads()))))


def _by_sorting(v: Tensor, opposite: Tensor) -> Tensor:
    """Given the rows of -v in ascending order."""
    ranks = torch.arange(1, v.shape[1] + 1, dtype=v.dtype, device=v.device)
    threshold = opposite.cumsum_(1).add_(1).div_(ranks).amin(1, keepdim=True)
    return (v + threshold).clamp_(min=0)
