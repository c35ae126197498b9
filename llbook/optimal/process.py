"""The learning process that a policy induces: full-batch gradient descent (Eq. 1).

Other optimisers, rates and batches are those of :mod:`llbook.optimal.inner`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llbook.optimal.distributed import SharedTrajectory
from llbook.optimal.inner import PLAIN, Inner
from llbook.tasks.task import Task

__all__ = [
    "TRAJECTORIES",
    "HostTrajectory",
    "Process",
    "Replayed",
    "check_policy",
    "constant_policy",
    "sum_slack",
    "train",
]

TRAJECTORIES = ("memory", "host", "checkpoints")


@dataclass(frozen=True)
class Process:
    """What training leaves behind.

    Attributes:
        trajectory: θ_0 … θ_T, shape (T + 1, P); or, for long trainings of large
            models, a sequence of them, each of shape (P,), that is held elsewhere:
            see :func:`train`.
        inner: how it was trained.
        held: θ_t and, after it, what the optimiser keeps with it, each of shape
            (P + B·P,), as ``trajectory`` holds θ_t alone; None where that is all.
        batches: which examples the batches have, shape (T, B); None for full ones.
    """

    trajectory: Tensor | HostTrajectory | Replayed | SharedTrajectory | Part
    inner: Inner = PLAIN
    held: Any = None
    batches: Tensor | None = None

    @property
    def steps(self) -> int:
        """T, the number of gradient steps."""
        return len(self.trajectory) - 1

    @property
    def states(self) -> Tensor:
        """θ_0 … θ_T as one tensor, shape (T + 1, P).

        Raises:
            TypeError: they are held elsewhere.
        """
        if not isinstance(self.trajectory, Tensor):
            held = type(self.trajectory).__name__
            raise TypeError(
                f"expected θ_0 … θ_T in one tensor, as trajectory='memory' has them, got a {held}"
            )
        return self.trajectory

    @property
    def buffers(self) -> Tensor | Part | None:
        """What the optimiser keeps with θ_0 … θ_T, each of shape (B·P,); None where that is nothing.

        Of momentum v; of Adam m, u and the gradient that led there.
        """
        if self.held is None:
            return None
        return _part(self.held, slice(self.held[0].numel() // (1 + self.inner.update.kept), None))

    def state(self, t: int) -> Tensor:
        """θ_t and the rows that the optimiser keeps with it, shape (1 + B, P)."""
        held = self.trajectory if self.held is None else self.held
        return held[t].view(1 + self.inner.update.kept, -1)


class Part(Sequence[Tensor]):
    """Some of the numbers of each state that is held elsewhere."""

    def __init__(self, held: Sequence[Tensor], part: slice) -> None:
        self._held, self._part = held, part

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]  # no slices
        return self._held[t][self._part]


def _part(held: Any, part: slice) -> Any:
    return held[:, part] if isinstance(held, Tensor) else Part(held, part)


class HostTrajectory(Sequence[Tensor]):
    """States s_0 … s_T in the CPU's memory, each brought to the device where it is asked for."""

    def __init__(self, task: Task, steps: int, width: int) -> None:
        device = task.initial.device
        self._device = device
        self._states = torch.empty(
            steps + 1,
            width,
            dtype=task.initial.dtype,
            pin_memory=device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]  # no slices
        return self._states[t].to(self._device)

    def put(self, t: int, state: Tensor) -> None:
        self._states[t].copy_(state)


class _Training:
    """What takes a state of a task to the next under a policy."""

    def __init__(self, task: Task, policy: Tensor, inner: Inner) -> None:
        self.task, self.policy, self.inner = task, policy, inner
        self.batches = inner.batch_examples(task, policy)
        self.width = task.initial.numel() * (1 + inner.update.kept)
        self._rates = [task.learning_rate * f for f in inner.factors(len(policy))]

    def run(
        self, state: Tensor, keep: Callable[[int, Tensor], object], first: int = 0, last: int = -1
    ) -> None:
        """``keep`` s_first … s_last, the first of which is ``state``, by their number from there."""
        keep(0, state)
        inner, rows = self.inner, state.view(1 + self.inner.update.kept, -1)
        for t in range(first, len(self.policy) if last < 0 else last):
            task, weights = self.task, self.policy[t]
            if self.batches is not None:
                examples, weights = inner.batch_weights(task, weights, self.batches[t])
                task = task.restricted(examples)
            gradient = task.gradient(rows[0], weights)
            rows = inner.advance(rows, gradient, self._rates[t], t)
            keep(t + 1 - first, rows.view(-1))


class Replayed(Sequence[Tensor]):
    """States kept at every √T-th step; the rest is trained anew, a stretch at a time.

    Walking through it in either direction costs one further training in all, and
    the states are those of the first one, bit by bit. The next stretch takes the place of the
    one before: clone a state to keep it.
    """

    def __init__(self, training: _Training) -> None:
        self._training = training
        self._steps, width = len(training.policy), training.width
        self._stride = math.isqrt(self._steps - 1) + 1
        kept = self._steps // self._stride + 1
        self._kept = training.task.initial.new_empty(kept, width)
        self._stretch = torch.empty_like(self._kept[:0])
        self._number = -1

    def __len__(self) -> int:
        return self._steps + 1

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]  # no slices
        t = range(len(self))[t]
        number, offset = divmod(t, self._stride)
        if offset == 0:
            return self._kept[number]
        if number != self._number:
            start = number * self._stride
            if len(self._stretch) == 0:
                self._stretch = self._kept.new_empty(self._stride, self._kept.shape[1])
            last = min(start + self._stride - 1, self._steps)
            self._training.run(self._kept[number], self._put_in_stretch, start, last)
            self._number = number
        return self._stretch[offset]

    def put(self, t: int, state: Tensor) -> None:
        if t % self._stride == 0:
            self._kept[t // self._stride].copy_(state)

    def _put_in_stretch(self, offset: int, state: Tensor) -> None:
        self._stretch[offset].copy_(state)


def constant_policy(task: Task, steps: int) -> Tensor:
    """Conventional learning, γ_{n,t} = 1/N, shape (T, N); of a shared task its own columns."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return task.initial.new_full((steps, task.size), 1 / task.total)


def check_policy(task: Task, policy: Tensor) -> None:
    """Raise unless ``policy`` is a (T, N) matrix of simplex points fit for ``task``.

    Raises:
        TypeError: a dtype or device other than the task's.
        ValueError: a wrong shape, a negative or non-finite weight, or a row whose
            sum is not 1; the message names the row.
    """
    check_form(task, policy)
    lowest, totals = policy.amin(1), task.summed(policy.sum(1))
    wrong = ~((lowest >= 0) & ((totals - 1).abs() <= sum_slack(policy.dtype)))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {row} of the policy is not on the simplex: "
            f"smallest weight {lowest[row]:.3g}, sum {totals[row]:.6g}"
        )


def sum_slack(dtype: torch.dtype) -> float:
    """How far from 1 the weights of a step may sum."""
    return 1e-4 if dtype == torch.float32 else 1e-9


def check_form(task: Task, policy: Tensor) -> None:
    """Raise unless ``policy`` is a (T, N) matrix of the task's dtype, on its device.

    Raises:
        TypeError, ValueError: as :func:`check_policy`, but for the weights themselves.
    """
    if policy.dtype != task.initial.dtype or policy.device != task.initial.device:
        raise TypeError(
            f"the task computes in {task.initial.dtype} on {task.initial.device}, "
            f"the policy is {policy.dtype} on {policy.device}"
        )
    if policy.ndim != 2 or policy.shape[1] != task.size or len(policy) < 1:
        raise ValueError(
            f"expected a policy of shape (T, {task.size}) with T ≥ 1, got {tuple(policy.shape)}"
        )


def train(
    task: Task, policy: Tensor, *, inner: Inner = PLAIN, trajectory: str = "memory"
) -> Process:
    """Run θ_{t+1} = θ_t - η Σ_n γ_{n,t} ∇l(x_n, θ_t) (Eq. 1) from θ_0, or another training.

    Args:
        task: the learning problem.
        policy: γ, shape (T, N), rows on the simplex.
        inner: optimiser, rates and batches; Eq. 1 unless given.
        trajectory: where θ_0 … θ_T are kept: ``"memory"``, of the task's device;
            ``"host"``, the CPU's memory; ``"checkpoints"``, √T of them on the
            device, the others to be replayed. The last needs the policy as it is
            for as long as the process is used. A shared task keeps each state of
            the first two in one process only. A task that trains by a closed form (the
            perceptron, under Eq. 1) has its states in memory whatever is asked for. What an optimiser keeps (P numbers a step
            for momentum, 3P for Adam) is kept with θ_t.

    Raises:
        TypeError, ValueError: see :func:`check_policy`; an unknown ``trajectory``; an
            ``inner`` that does not fit T and N.
        FloatingPointError: the parameters stopped being finite; the message
            names the step.
    """
    check_policy(task, policy)
    inner.check(task.total, len(policy))
    if trajectory not in TRAJECTORIES:
        raise ValueError(f"trajectory must be one of {TRAJECTORIES}, got {trajectory!r}")
    policy = policy.detach()
    training = _Training(task, policy, inner)
    states: Any
    if inner.plain and (known := task.descend(policy)) is not None:
        states = known
    else:
        begin, width = inner.begin(task.initial).view(-1), training.width
        if make := task.trajectories.get(trajectory):
            states = make(len(policy), width)
        elif trajectory == "memory":
            states = task.initial.new_empty(len(policy) + 1, width)
        else:
            host = trajectory == "host"
            states = HostTrajectory(task, len(policy), width) if host else Replayed(training)
        put = _copy_to(states) if isinstance(states, Tensor) else states.put
        training.run(begin, put)
    if not bool(torch.isfinite(states[-1]).all()):
        step = next(t for t, state in enumerate(states) if not bool(torch.isfinite(state).all()))
        raise FloatingPointError(
            f"training diverged: θ is not finite from step {step} on "
            f"(η = {task.learning_rate}); lower the learning rate"
        )
    if not inner.update.kept:
        return Process(states, inner, None, training.batches)
    theta = _part(states, slice(task.initial.numel()))
    return Process(theta, inner, states, training.batches)


def _copy_to(states: Tensor) -> Callable[[int, Tensor], object]:
    return lambda t, state: states[t].copy_(state)
