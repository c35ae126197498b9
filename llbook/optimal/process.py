"""The learning process that a policy induces: full-batch gradient descent (Eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llbook.optimal.distributed import SharedTrajectory
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
    """

    trajectory: Tensor | HostTrajectory | Replayed | SharedTrajectory

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


class HostTrajectory(Sequence[Tensor]):
    """θ_0 … θ_T in the CPU's memory, each brought to the device where it is asked for."""

    def __init__(self, task: Task, steps: int) -> None:
        device = task.initial.device
        self._device = device
        self._states = torch.empty(
            steps + 1,
            task.initial.numel(),
            dtype=task.initial.dtype,
            pin_memory=device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]  # no slices
        return self._states[t].to(self._device)

    def put(self, t: int, theta: Tensor) -> None:
        self._states[t].copy_(theta)


class Replayed(Sequence[Tensor]):
    """θ_0 … θ_T kept at every √T-th step; the rest is trained anew, a stretch at a time.

    Walking through it in either direction costs one further training in all, and
    the states are those of the first one, bit by bit.
    """

    def __init__(self, task: Task, policy: Tensor) -> None:
        self._task, self._policy = task, policy
        self._stride = math.isqrt(len(policy) - 1) + 1
        kept = len(policy) // self._stride + 1
        self._kept = task.initial.new_empty(kept, task.initial.numel())
        self._stretch = torch.empty_like(self._kept[:0])
        self._number = -1

    def __len__(self) -> int:
        return len(self._policy) + 1

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]  # no slices
        t = range(len(self))[t]
        number, offset = divmod(t, self._stride)
        if offset == 0:
            return self._kept[number]
        if number != self._number:
            start = number * self._stride
            rows = self._policy[start : start + self._stride - 1]
            if len(self._stretch) == 0:
                self._stretch = self._kept.new_empty(self._stride, self._kept.shape[1])
            _descend(self._task, self._kept[number], rows, self._put_in_stretch)
            self._number = number
        return self._stretch[offset]

    def put(self, t: int, theta: Tensor) -> None:
        if t % self._stride == 0:
            self._kept[t // self._stride].copy_(theta)

    def _put_in_stretch(self, offset: int, theta: Tensor) -> None:
        self._stretch[offset].copy_(theta)


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


def train(task: Task, policy: Tensor, *, trajectory: str = "memory") -> Process:
    """Run θ_{t+1} = θ_t - η Σ_n γ_{n,t} ∇l(x_n, θ_t) (Eq. 1) from θ_0.

    Args:
        task: the learning problem.
        policy: γ, shape (T, N), rows on the simplex.
        trajectory: where θ_0 … θ_T are kept: ``"memory"``, of the task's device;
            ``"host"``, the CPU's memory; ``"checkpoints"``, √T of them on the
            device, the others to be replayed. The last needs the policy as it is
            for as long as the process is used. A shared task keeps each state of
            the first two in one process only.

    Raises:
        TypeError, ValueError: see :func:`check_policy`; an unknown ``trajectory``.
        FloatingPointError: the parameters stopped being finite; the message
            names the step.
    """
    check_policy(task, policy)
    if trajectory not in TRAJECTORIES:
        raise ValueError(f"trajectory must be one of {TRAJECTORIES}, got {trajectory!r}")
    policy = policy.detach()
    states: Any
    if (known := task.descend(policy)) is not None:
        states = known
    elif make := task.trajectories.get(trajectory):
        states = make(len(policy))
        _descend(task, task.initial, policy, states.put)
    elif trajectory == "memory":
        states = task.initial.new_empty(len(policy) + 1, task.initial.numel())
        _descend(task, task.initial, policy, lambda t, theta: states[t].copy_(theta))
    else:
        host = trajectory == "host"
        states = HostTrajectory(task, len(policy)) if host else Replayed(task, policy)
        _descend(task, task.initial, policy, states.put)
    if not bool(torch.isfinite(states[-1]).all()):
        step = next(t for t, theta in enumerate(states) if not bool(torch.isfinite(theta).all()))
        raise FloatingPointError(
            f"training diverged: θ is not finite from step {step} on "
            f"(η = {task.learning_rate}); lower the learning rate"
        )
    return Process(states)


def _descend(
    task: Task, theta: Tensor, policy: Tensor, keep: Callable[[int, Tensor], object]
) -> None:
    keep(0, theta)
    for t, weights in enumerate(policy):
        theta = torch.sub(theta, task.gradient(theta, weights), alpha=task.learning_rate)
        keep(t + 1, theta)
