"""∂J/∂γ, the gradient of the area under the desired-loss curve (App. C).

J(γ) = Σ_{t=1..T} L_dsr(θ_t), in nats. Training is a network of T layers that
share nothing but their form, and its backward pass (Eq. 22) carries the costate

    λ_T = ∇L_dsr(θ_T),   λ_t = ∇L_dsr(θ_t) + (I - η H_t) λ_{t+1},

from which ∂J/∂γ_{n,t} = -η λ_{t+1}·∇l(x_n, θ_t). Three strategies compute it:

- ``"reverse-over-forward"``: any task; one reverse-over-forward pass a step.
- ``"closed-form"``: of a task that has one, as the perceptron: two matrix–vector products a step.
- ``"unrolled"``: automatic differentiation through the whole loop. It needs
  memory for every step's graph and exists to be obviously right.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llbook.optimal.process import Process, check_form
from llbook.tasks.task import Task

__all__ = ["STRATEGIES", "gradient_and_losses", "policy_gradient"]


def policy_gradient(
    task: Task, policy: Tensor, process: Process, *, strategy: str = "auto"
) -> Tensor:
    """The gradient of J = Σ_{t=1..T} L_dsr(θ_t) with respect to the policy.

    Args:
        task: the learning problem.
        policy: γ, shape (T, N).
        process: what :func:`llbook.optimal.process.train` made of that policy.
        strategy: a name from :data:`STRATEGIES`, or ``"auto"``: the closed form
            where there is one.

    Returns:
        ∂J/∂γ, shape (T, N), in nats.

    Raises:
        ValueError: an unknown strategy, one that does not fit the task, or shapes
            that do not belong together.
        TypeError: a policy of another dtype or device than the task's.
    """
    return gradient_and_losses(task, policy, process, strategy=strategy)[0]


def gradient_and_losses(
    task: Task, policy: Tensor, process: Process, *, strategy: str = "auto"
) -> tuple[Tensor, Tensor]:
    """:func:`policy_gradient`, and what its backward sweep knows anyway: L_dsr(θ_1) … L_dsr(θ_T).

    Returns:
        ∂J/∂γ, shape (T, N), and losses in nats, shape (T,), whose sum is J.
    """
    if len(policy) != process.steps:
        raise ValueError(f"the policy has {len(policy)} steps, the process {process.steps}")
    check_form(task, policy)
    if process.trajectory[0].shape != task.initial.shape:
        raise ValueError(
            f"the task has {task.initial.numel()} parameters, "
            f"the trajectory's states are {tuple(process.trajectory[0].shape)}"
        )
    policy = policy.detach()
    if strategy == "auto":
        known = task.adjoint(policy, process.trajectory)
        return known or _reverse_over_forward(task, policy, process)
    if strategy not in STRATEGIES:
        known_names = ", ".join(sorted(STRATEGIES))
        raise ValueError(f"unknown strategy {strategy!r}; expected 'auto' or one of: {known_names}")
    return STRATEGIES[strategy](task, policy, process)


def _reverse_over_forward(task: Task, policy: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    eta = task.learning_rate
    gradient = torch.empty_like(policy)
    losses = policy.new_empty(len(policy))
    losses[-1], costate = task.mean_gradient(process.trajectory[process.steps], task.desired)
    for t in range(process.steps - 1, -1, -1):
        theta = process.trajectory[t]
        products, curvature = task.costate_products(theta, policy[t], costate)
        torch.mul(products, -eta, out=gradient[t])
        if t > 0:
            losses[t - 1], slope = task.mean_gradient(theta, task.desired)
            costate = slope.add_(costate).sub_(curvature, alpha=eta)
    return gradient, losses


def _closed_form(task: Task, policy: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    known = task.adjoint(policy, process.states)
    if known is None:
        raise ValueError(f"a {type(task).__name__} has no closed form of its adjoint")
    return known


def _unrolled(task: Task, policy: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    weights = policy.clone().requires_grad_(True)
    theta = task.initial.detach().clone().requires_grad_(True)
    losses = []
    for row in weights:
        slope = torch.autograd.grad(
            row @ task.losses(theta, task.training), theta, create_graph=True
        )[0]
        theta = theta - task.learning_rate * slope
        losses.append(task.mean_loss(theta, task.desired))
    curve = torch.stack(losses)
    return torch.autograd.grad(curve.sum(), weights)[0], curve.detach()


STRATEGIES: dict[str, Callable[[Task, Tensor, Process], tuple[Tensor, Tensor]]] = {
    "reverse-over-forward": _reverse_over_forward,
    "closed-form": _closed_form,
    "unrolled": _unrolled,
}
