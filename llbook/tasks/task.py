"""What the search knows of a learning problem.

A :class:`Task` holds initial parameters, a learning rate and three sets of
examples, and can evaluate per-example losses. Everything else here follows
from those losses by automatic differentiation; a task with closed forms
overrides what it can do faster.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, grad_and_value, jacfwd, jvp, vjp

from llbook.tasks.identity import example_checksums, facts

__all__ = ["LinearForm", "Task", "Trajectory"]


class Trajectory(Protocol):
    """θ_0 … θ_T: one tensor, or states that are held elsewhere."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


class LinearForm(NamedTuple):
    """The examples of a task whose losses are functions of a·θ - b alone, in float64.

    Attributes:
        inputs, targets: a_n, shape (N, P), and b_n, shape (N,), of the training examples.
        wanted, aims: those of the desired examples.
        logistic: the loss is log(1 + exp(b - a·θ)); else (a·θ - b)²/2.
    """

    inputs: np.ndarray
    targets: np.ndarray
    wanted: np.ndarray
    aims: np.ndarray
    logistic: bool


class Task(ABC):
    """A learning problem as the policy search sees it.

    Attributes:
        initial: θ_0, shape (P,); its dtype and device are those of the search.
        learning_rate: η of Eq. 1, per step.
        training: the N examples that a policy weighs; indexed by a tensor of numbers where
            trainings have batches.
        desired: the K examples whose mean loss is L_dsr (Eq. 2).
        test: K further examples of the desired distribution; only reported on.
        vocabulary: V, the number of outcomes a loss in nats is spread over
            (2 for a binary label).
    """

    initial: Tensor
    learning_rate: float
    training: Any
    desired: Any
    test: Any
    vocabulary: int

    @abstractmethod
    def losses(self, theta: Tensor, examples: Any) -> Tensor:
        """Per-example losses l(x_n, θ) in nats, shape (n,), differentiable in θ."""

    @property
    def size(self) -> int:
        """N, the number of training examples."""
        return len(self.training)

    @property
    def total(self) -> int:
        """N over all processes, where several share a search; else :attr:`size`."""
        return self.size

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return True

    def summed(self, own: Tensor) -> Tensor:
        """The sum of a tensor over all processes; it may be written into ``own``."""
        return own

    def gather(self, columns: Tensor) -> Tensor:
        """The columns of all processes, (T, size) → (T, N)."""
        return columns

    def own(self, whole: Tensor) -> Tensor:
        """The columns of this process, (T, N) → (T, size)."""
        return whole

    def mean_loss(self, theta: Tensor, examples: Any) -> Tensor:
        """The mean loss over ``examples`` in nats (Eq. 2 for the desired set)."""
        return self.losses(theta, examples).mean()

    def gradient(self, theta: Tensor, weights: Tensor) -> Tensor:
        """Σ_n w_n ∇l(x_n, θ) over the training examples, shape (P,)."""
        return grad(lambda p: weights @ self.losses(p, self.training))(theta)

    def mean_gradient(self, theta: Tensor, examples: Any) -> tuple[Tensor, Tensor]:
        """The mean loss over ``examples`` in nats, and its gradient, shape (P,)."""
        slope, value = grad_and_value(lambda p: self.mean_loss(p, examples))(theta)
        return value, slope

    def directional_derivatives(self, theta: Tensor, direction: Tensor) -> Tensor:
        """direction·∇l(x_n, θ) for every training example, shape (N,)."""
        return jvp(lambda p: self.losses(p, self.training), (theta,), (direction,))[1]

    def example_gradients(self, theta: Tensor) -> Tensor:
        """∇l(x_n, θ) of every training example, shape (N, P): here for small P."""
        return jacfwd(lambda p: self.losses(p, self.training))(theta)

    def costate_products(
        self, theta: Tensor, weights: Tensor, costate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two products that a backward step needs, in one pass.

        The tangent of the loss vector in direction λ gives λ·∇l_n for every n;
        the reverse pass through the weighted sum of those tangents gives Hλ,
        with H = Σ_n w_n ∇²l(x_n, θ). No per-example gradient is ever formed.

        Returns:
            λ·∇l(x_n, θ), shape (N,), and Hλ, shape (P,).
        """

        def directional(p: Tensor) -> Tensor:
            return jvp(lambda q: self.losses(q, self.training), (p,), (costate,))[1]

        slopes, pull = vjp(directional, theta)  # type: ignore[misc]  # three only with an aux
        return slopes, pull(weights)[0]

    def identity(self, checksums: Callable[[Any], list[bytes]] = example_checksums) -> str:
        """SHA-256 over all that makes the task what it is: its examples, θ_0, η, its settings.

        Args:
            checksums: one per example of a whole set; a shared task gathers them.
        """
        sets = {name: checksums(getattr(self, name)) for name in ("training", "desired", "test")}
        rest = {k: v for k, v in vars(self).items() if k not in sets and not k.startswith("_")}
        known = json.dumps([type(self).__qualname__, facts(rest)], sort_keys=True).encode()
        digests = (hashlib.sha256(b"".join(digests)).digest() for digests in sets.values())
        return hashlib.sha256(b"".join([known, *digests])).hexdigest()

    def local(self, examples: Tensor) -> Tensor:
        """Which of these examples, of all N, this process has, as it counts its own."""
        return examples

    def restricted(self, examples: Tensor) -> Self:
        """The task with these of its training examples alone, shape (n,), for derivatives at a step."""
        part = copy.copy(self)
        part.training = self.training[examples]
        return part

    def by_rows(self, function: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
        """``function`` of the whole rows, given and returned as the columns of this process."""
        return function(columns)

    @property
    def trajectories(self) -> Mapping[str, Callable[[int, int], Any]]:
        """Places of states that the task has instead of the usual ones: name → (T, width of a state) → states."""
        return {}

    def linear_form(self) -> LinearForm | None:
        """Its examples, where a loss depends on a·θ - b alone; else None."""
        return None

    def descend(self, policy: Tensor) -> Tensor | None:
        """θ_0 … θ_T under a policy (T, N), shape (T + 1, P); None without a faster way than by steps."""
        return None

    def adjoint(self, policy: Tensor, trajectory: Any) -> tuple[Tensor, Tensor] | None:
        """∂J/∂γ, shape (T, N), and L_dsr(θ_1) … L_dsr(θ_T); None without a closed form."""
        return None

    def contributions(self, trajectory: Any, examples: Any) -> Tensor:
        """CT_{n,t} of Eq. 5 with L the mean loss over ``examples``, for t = 0..T-1, shape (T, size)."""
        result = self.initial.new_empty(len(trajectory) - 1, self.size)
        for t, row in enumerate(result):
            theta = trajectory[t]
            row.copy_(self.directional_derivatives(theta, self.mean_gradient(theta, examples)[1]))
        return result

    def trajectory_losses(self, trajectory: Trajectory, examples: Any) -> Tensor:
        """Mean loss in nats at each θ of ``trajectory``, S of them, shape (S,)."""
        with torch.no_grad():
            return torch.stack([self.mean_loss(theta, examples) for theta in trajectory])

    def trajectory_gradients(self, trajectory: Trajectory, examples: Any) -> Tensor:
        """∇ of the mean loss at each θ of ``trajectory``, S of them, shape (S, P)."""
        return torch.stack([self.mean_gradient(theta, examples)[1] for theta in trajectory])
