"""∂J/∂γ, the gradient of the area under the desired-loss curve (App. C).

J(γ) = Σ_{t=1..T} L_dsr(θ_t), in nats. Training is a network of T layers that
share nothing but their form, and its backward pass (Eq. 22) carries the costate

    λ_T = ∇L_dsr(θ_T),   λ_t = ∇L_dsr(θ_t) + (I - η H_t) λ_{t+1},

from which ∂J/∂γ_{n,t} = -η λ_{t+1}·∇l(x_n, θ_t). With another optimiser (see
:mod:`llbook.optimal.inner`) it carries σ_t, those of all that a step depends on, s_t, and the
*pull* p_t, which is the costate of the step's gradient over -η, takes the place of λ_{t+1}
in both products:

    λ_t = ∇L_dsr(θ_t) + (∂s_{t+1}/∂θ_t)ᵀ σ_{t+1} - η H_t p_t,   ∂J/∂γ_{n,t} = -η (∂w_n/∂γ_n) p_t·∇l(x_n, θ_t).

Three strategies compute it:

- ``"reverse-over-forward"``: any task; one reverse-over-forward pass a step.
- ``"closed-form"``: of a task that has one, as the perceptron, for Eq. 1: two matrix–vector products a step.
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
        ValueError: an unknown strategy, one that does not fit the task, shapes
            that do not belong together, or batches drawn from γ, of which J has no gradient.
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
    process.inner.check_differentiable()
    policy = policy.detach()
    if strategy == "auto":
        known = task.adjoint(policy, process.trajectory) if process.inner.plain else None
        return known or _reverse_over_forward(task, policy, process)
    if strategy not in STRATEGIES:
        known_names = ", ".join(sorted(STRATEGIES))
        raise ValueError(f"unknown strategy {strategy!r}; expected 'auto' or one of: {known_names}")
    return STRATEGIES[strategy](task, policy, process)


def _reverse_over_forward(task: Task, policy: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    eta, inner, batches = task.learning_rate, process.inner, process.batches
    factors = inner.factors(process.steps)
    gradient = torch.empty_like(policy) if batches is None else torch.zeros_like(policy)
    losses = policy.new_empty(len(policy))
    after = process.state(process.steps)
    losses[-1], costate = task.mean_gradient(after[0], task.desired)
    carried = [torch.zeros_like(costate) for _ in range(inner.update.carried)]
    for t in range(process.steps - 1, -1, -1):
        state = process.state(t)
        (costate, *carried), pull = inner.transpose([costate, *carried], after, eta, factors[t], t)
        if batches is None:
            products, curvature = task.costate_products(state[0], policy[t], pull)
            torch.mul(products, -eta, out=gradient[t])
        else:
            examples, weights = inner.batch_weights(task, policy[t], batches[t])
            products, curvature = task.restricted(examples).costate_products(
                state[0], weights, pull
            )
            products.mul_(-eta * task.total / inner.batch)
            gradient[t].index_copy_(0, examples, products)
        if t > 0:
            losses[t - 1], slope = task.mean_gradient(state[0], task.desired)
            costate = slope.add_(costate).sub_(curvature, alpha=eta)
        after = state
    return gradient, losses


def _closed_form(task: Task, policy: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    known = task.adjoint(policy, process.states) if process.inner.plain else None
    if known is None:
        what = "" if process.inner.plain else " for this optimiser, its rates or its batches"
        raise ValueError(f"a {type(task).__name__} has no closed form of its adjoint{what}")
    return known


def _unrolled(task: Task, policy: Tensor, process: Process) -> tuple[Tensor, Tensor]:
    inner, batches = process.inner, process.batches
    given = policy.clone().requires_grad_(True)
    state = inner.begin(task.initial.detach().clone()).requires_grad_(True)
    losses = []
    for t, factor in enumerate(inner.factors(len(policy))):
        weights = inner.weights(task, given[t], None if batches is None else batches[t])
        theta = state[0]
        slope = torch.autograd.grad(
            weights @ task.losses(theta, task.training), theta, create_graph=True
        )[0]
        state = inner.advance(state, slope, task.learning_rate * factor, t)
        losses.append(task.mean_loss(state[0], task.desired))
    curve = torch.stack(losses)
    return torch.autograd.grad(curve.sum(), given)[0], curve.detach()


STRATEGIES: dict[str, Callable[[Task, Tensor, Process], tuple[Tensor, Tensor]]] = {
    "reverse-over-forward": _reverse_over_forward,
    "closed-form": _closed_form,
    "unrolled": _unrolled,
}
