"""The learning process that a policy induces: full-batch gradient descent (Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llbook.optimal import closed_form
from llbook.tasks.perceptron import Perceptron
from llbook.tasks.task import Task

__all__ = ["Process", "check_policy", "constant_policy", "train"]


@dataclass(frozen=True)
class Process:
    """What training leaves behind.

    Attributes:
        trajectory: θ_0 … θ_T, shape (T + 1, P).
    """

    trajectory: Tensor

    @property
    def steps(self) -> int:
        """T, the number of gradient steps."""
        return len(self.trajectory) - 1


def constant_policy(task: Task, steps: int) -> Tensor:
    """Conventional learning, γ_{n,t} = 1/N, shape (T, N)."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return task.initial.new_full((steps, task.size), 1 / task.size)


def check_policy(task: Task, policy: Tensor) -> None:
    """Raise unless ``policy`` is a (T, N) matrix of simplex points fit for ``task``.

    Raises:
        TypeError: a dtype or device other than the task's.
        ValueError: a wrong shape, a negative or non-finite weight, or a row whose
            sum is not 1; the message names the row.
    """
    check_form(task, policy)
    lowest, totals = policy.amin(1), policy.sum(1)
    slack = 1e-4 if policy.dtype == torch.float32 else 1e-9
    wrong = ~((lowest >= 0) & ((totals - 1).abs() <= slack))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {row} of the policy is not on the simplex: "
            f"smallest weight {lowest[row]:.3g}, sum {totals[row]:.6g}"
        )


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


def train(task: Task, policy: Tensor) -> Process:
    """Run θ_{t+1} = θ_t - η Σ_n γ_{n,t} ∇l(x_n, θ_t) (Eq. 1) from θ_0.

    Args:
        task: the learning problem.
        policy: γ, shape (T, N), rows on the simplex.

    Raises:
        TypeError, ValueError: see :func:`check_policy`.
        FloatingPointError: the parameters stopped being finite; the message
            names the step.
    """
    check_policy(task, policy)
    policy = policy.detach()
    if isinstance(task, Perceptron):
        trajectory = closed_form.descend(task, policy)
    else:
        trajectory = _descend(task, policy)
    if not bool(torch.isfinite(trajectory[-1]).all()):
        step = int((~torch.isfinite(trajectory).all(1)).nonzero()[0])
        raise FloatingPointError(
            f"training diverged: θ is not finite from step {step} on "
            f"(η = {task.learning_rate}); lower the learning rate"
        )
    return Process(trajectory)


def _descend(task: Task, policy: Tensor) -> Tensor:
    trajectory = task.initial.new_empty(len(policy) + 1, task.initial.numel())
    trajectory[0] = task.initial
    for t, weights in enumerate(policy):
        slope = task.gradient(trajectory[t], weights)
        torch.sub(trajectory[t], slope, alpha=task.learning_rate, out=trajectory[t + 1])
    return trajectory
