"""What a method of data selection is: from what a practitioner sees at step t to weights γ_t.

Costs are counted in *passes* over the N training examples: a forward pass, a backward pass, a
tangent pass (directional derivatives of all losses in one direction, on top of a forward pass) are
one each; a pass over the K desired examples is K/N. A step of training is two passes, and the
losses that its forward pass gives are free. A training and its backward sweep, a *gradient
evaluation*, are :data:`PASSES` passes a step over the training set, the unit in which costs are
shown, and two over the desired set (:func:`evaluation_cost`).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.process import Process, sum_slack
from llbook.parameters import whole_number
from llbook.tasks.task import Task

__all__ = [
    "PASSES",
    "Meter",
    "Ranked",
    "Selection",
    "SelectionError",
    "Selector",
    "Static",
    "View",
    "check",
    "evaluation_cost",
    "select",
    "top",
]

PASSES = 6
"""Of a step of a gradient evaluation: forward and backward of the training; forward, tangent, and back through both, of its adjoint."""


class SelectionError(ValueError):
    """Weights that are none; the message names the method and the step."""


class Meter:
    """Passes over the training set, counted.

    Attributes:
        passes: so far.
    """

    def __init__(self, task: Task) -> None:
        self.passes = 0.0
        self._share = len(task.desired) / task.size

    def add(self, passes: float, *, desired: float = 0.0) -> None:
        """So many passes over the training set, and over the desired set."""
        self.passes += passes + desired * self._share


def evaluation_cost(task: Task, count: float = 1.0) -> float:
    """What so many gradient evaluations of a search cost, with their passes over the desired set."""
    meter = Meter(task)
    meter.add(PASSES * count, desired=2 * count)
    return meter.passes / PASSES


@dataclass
class View:
    """What is seen at step t. What is asked for is computed once, and counted.

    Attributes:
        task: the problem, without its test examples.
        step: t.
        steps: T.
        theta: θ_t, shape (P,).
        past: γ_0 … γ_{t-1}, shape (t, N).
        meter: where costs are added.
    """

    task: Task
    step: int
    steps: int
    theta: Tensor
    past: Tensor
    meter: Meter

    @cached_property
    def losses(self) -> Tensor:
        """l(x_n, θ_t) in nats, shape (N,); the training's own forward pass gives them."""
        with torch.no_grad():
            return self.task.losses(self.theta, self.task.training)

    @cached_property
    def slope(self) -> Tensor:
        """∇L_dsr(θ_t), shape (P,): two passes over the desired set."""
        self.meter.add(0, desired=2)
        return self.task.mean_gradient(self.theta, self.task.desired)[1]

    @cached_property
    def contributions(self) -> Tensor:
        """CT_n = ∇L_dsr(θ_t)·∇l(x_n, θ_t), shape (N,)."""
        return self.products(self.slope)

    @cached_property
    def gradients(self) -> Tensor:
        """∇l(x_n, θ_t), shape (N, P), which must fit into memory: one pass."""
        self.meter.add(1)
        return self.task.example_gradients(self.theta)

    def products(self, direction: Tensor) -> Tensor:
        """direction·∇l(x_n, θ_t), shape (N,): one pass."""
        self.meter.add(1)
        return self.task.directional_derivatives(self.theta, direction)


class Selector(ABC):
    """A method of data selection.

    Attributes:
        scores: one value per example, the higher the better, of a method that ranks examples
            once and for all, shape (N,); else None.
        inner: the training that it selects for, with its rates η_t; :func:`select` sets it
            before the method begins.
    """

    scores: Tensor | None = None
    inner: Inner = PLAIN

    def begin(self, task: Task, steps: int, meter: Meter) -> None:  # noqa: B027  # not every method prepares
        """What is done before the training: a reference model, scores. Nothing, unless overridden.

        Args:
            task: the problem, without its test examples.
            steps: T of the training that follows.
            meter: where costs are added.
        """

    @abstractmethod
    def weigh(self, view: View) -> Tensor:
        """γ_t, shape (N,), on the simplex."""


class Static(Selector):
    """One weight per example for all steps."""

    weights: Tensor

    def begin(self, task: Task, steps: int, meter: Meter) -> None:
        self.weights = self.fixed(task, steps, meter)

    @abstractmethod
    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        """The weights, shape (N,), on the simplex."""

    def weigh(self, view: View) -> Tensor:
        return self.weights


class Ranked(Static):
    """Equal weights, for all steps, on the share of examples that rank highest.

    Args:
        share: of the examples, in (0, 1].
    """

    def __init__(self, share: float) -> None:
        check("share", share, most=1)
        self.share = share

    @abstractmethod
    def rank(self, task: Task, steps: int, meter: Meter) -> Tensor:
        """The scores, shape (N,), the higher the better."""

    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        self.scores = self.rank(task, steps, meter)
        return top(self.scores, self.share)


@dataclass(frozen=True)
class Selection:
    """What :func:`select` returns.

    Attributes:
        policy: shape (T, N).
        process: the training under it.
        passes: over the training set, the training's own among them.
    """

    policy: Tensor
    process: Process
    passes: float

    @property
    def evaluations(self) -> float:
        """The cost in gradient evaluations; of a training alone a third."""
        return self.passes / (PASSES * len(self.policy))


def check(name: str, value: float, *, most: float = math.inf, whole: bool = False) -> None:
    """Refuse an argument of a selector that is not above 0, at most ``most``, or not whole where it has to be.

    Raises:
        ValueError: with its name, what it may be and what it is.
    """
    if whole:
        whole_number(name, value, 1)
    elif not (0 < value <= most and math.isfinite(value)):
        limit = f"at most {most:g}" if math.isfinite(most) else "finite"
        raise ValueError(f"{name} must be above 0 and {limit}, got {value}")


def top(scores: Tensor, share: float) -> Tensor:
    """Equal weights on the share of examples with the largest scores, at least one, shape (N,).

    Raises:
        ValueError: a share outside (0, 1].
        FloatingPointError: a score that is no number, which would rank first.
    """
    check("share", share, most=1)
    if bool((lost := scores.isnan()).any()):
        raise FloatingPointError(
            f"expected numbers as scores, got nan for example {int(lost.nonzero()[0])}"
        )
    count = max(1, round(share * len(scores)))
    weights = torch.zeros_like(scores)
    weights[scores.topk(count).indices] = 1 / count
    return weights


def select(task: Task, selector: Selector, steps: int, *, inner: Inner = PLAIN) -> Selection:
    """Train under the weights that a method gives, step by step.

    Args:
        task: the learning problem.
        selector: the method.
        steps: T.
        inner: the training: gradient descent on the full batch without weight decay, at any rates.

    Raises:
        ValueError: fewer than one step, another training, a schedule that does not fit T.
        SelectionError: weights of a wrong shape or type, not finite, or off the simplex.
        FloatingPointError: the training diverged.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not inner.descends:
        raise ValueError(
            "methods select for gradient descent on the full batch without weight decay, at any "
            f"rates, got {inner.identity()}"
        )
    inner.check(task.size, steps)
    selector.inner = inner
    seen = copy.copy(task)
    vars(seen).pop("test", None)  # whoever asks for it is stopped
    meter = Meter(task)
    selector.begin(seen, steps, meter)
    policy = task.initial.new_empty(steps, task.size)
    states = task.initial.new_empty(steps + 1, task.initial.numel())
    states[0] = task.initial
    for t, factor in enumerate(inner.factors(steps)):
        view = View(seen, t, steps, states[t], policy[:t], meter)
        policy[t] = _checked(selector, t, selector.weigh(view), states[t], task.size)
        states[t + 1] = states[t] - task.learning_rate * factor * task.gradient(
            states[t], policy[t]
        )
        meter.add(2)
        if not bool(torch.isfinite(states[t + 1]).all()):
            raise FloatingPointError(
                f"training diverged: θ is not finite from step {t + 1} on (η = {task.learning_rate})"
            )
    return Selection(policy, Process(states, inner), meter.passes)


def _checked(selector: Selector, step: int, weights: Tensor, like: Tensor, size: int) -> Tensor:
    who = f"step {step}: {type(selector).__name__} returned"
    if not isinstance(weights, Tensor) or weights.shape != (size,):
        got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise SelectionError(f"{who} weights of shape {got}, expected ({size},)")
    if weights.dtype != like.dtype or weights.device != like.device:
        raise SelectionError(
            f"{who} {weights.dtype} on {weights.device}, expected {like.dtype} on {like.device}"
        )
    if not bool(torch.isfinite(weights).all()):
        first = int((~torch.isfinite(weights)).nonzero()[0])
        raise SelectionError(f"{who} weight {float(weights[first])} of example {first}")
    least, total = float(weights.min()), float(weights.double().sum())
    if least < 0 or abs(total - 1) > sum_slack(weights.dtype):
        raise SelectionError(
            f"{who} weights off the simplex: smallest {least:.3g}, sum {total:.6g}; expected none "
            "below 0 and a sum of 1"
        )
    return weights
