"""How close a policy is to the Learning Law, and to the conditions of an optimum.

Two quantities per example and step, both of shape (T, N):

- the *instant* contribution CT_{n,t} = ∇L_dsr(θ_t)·∇l(x_n, θ_t) (Theorem 3.1):
  how fast the desired loss falls if n is learned now;
- the *future* contribution λ_{t+1}·∇l(x_n, θ_t) = -(1/η) ∂J/∂γ_{n,t}: how much
  less area the rest of the curve has if n weighs more now.

The Learning Law equates the first over the support of an optimal policy; the
first-order conditions of the discrete problem equate the second, exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from llbook.tasks.task import Task

__all__ = [
    "FirstOrderGap",
    "contributions",
    "first_order_gap",
    "future_contributions",
    "permuted_similarity",
    "preconditioned_contributions",
    "similarity",
    "support",
    "zero_weight_share",
]

BLOCK = 256  # steps a block: intermediate matrices stay small


def contributions(task: Task, process: Any, *, examples: Any = None) -> Tensor:
    """CT_{n,t} = ∇L(θ_t)·∇l(x_n, θ_t) for t = 0..T-1, shape (T, N) (Eq. 5).

    Args:
        task: the learning problem.
        process: the process whose θ_t are used.
        examples: the set whose mean loss is L; the desired set unless given.
    """
    examples = task.desired if examples is None else examples
    return task.gather(task.contributions(process.trajectory, examples))


def preconditioned_contributions(task: Task, process: Any, *, examples: Any = None) -> Tensor:
    """∇L(θ_t)·M_t ∇l(x_n, θ_t) for t = 0..T-1, shape (T, N), with M_t the optimiser's preconditioner.

    How fast the loss falls if n is learned now by the optimiser's own step, its M_t held: up to
    a common factor the contribution CT for gradient descent, momentum and Nesterov's.

    Args:
        task, examples: as for :func:`contributions`.
        process: the process whose θ_t and M_t are used.
    """
    examples = task.desired if examples is None else examples
    result = task.initial.new_empty(process.steps, task.size)
    for t, row in enumerate(result):
        theta = process.trajectory[t]
        slope = task.mean_gradient(theta, examples)[1]
        along = slope * process.inner.preconditioner(process, t)
        row.copy_(task.directional_derivatives(theta, along))
    return task.gather(result)


def future_contributions(task: Task, gradient: Tensor) -> Tensor:
    """λ_{t+1}·∇l(x_n, θ_t), shape (T, N), from ∂J/∂γ as ``policy_gradient`` gives it.

    Of another optimiser or of batches (∂w_n/∂γ_n) p_t·∇l(x_n, θ_t), with p_t in the place of λ_{t+1}: see
    :mod:`llbook.optimal.adjoint`. The first-order conditions are the same.
    """
    return gradient / -task.learning_rate


def _check(contribution: Tensor, policy: Tensor) -> None:
    if contribution.shape != policy.shape or policy.ndim != 2:
        raise ValueError(
            "expected contributions and a policy of one shape (T, N), "
            f"got {tuple(contribution.shape)} and {tuple(policy.shape)}"
        )


def support(policy: Tensor) -> Tensor:
    """Which weights are more than rounding: γ_{n,t} > ε max_m γ_{m,t}, shape (T, N), boolean.

    ε is the relative spacing of the policy's dtype (1.2e-7 in float32, 2.2e-16 in float64):
    added to the largest weight it is lost; its part of Σ γ_n ∇l_n need not be. A policy of a mirror method has no
    exact zeros. What is called *zero* in this book is a weight outside the support.

    Several policies can have one process (see :func:`llbook.optimal.sparsify.sparsify`): the
    support is the policy's, not the process's.
    """
    return policy > torch.finfo(policy.dtype).eps * policy.amax(-1, keepdim=True)


def similarity(contribution: Tensor, policy: Tensor) -> Tensor:
    """SIM_t, how alike the contributions of the examples in use are (Eq. 7).

    The γ-weighted mean of the contributions over their standard deviation on
    the support (:func:`support`), deviations being taken about that mean. It
    grows without bound as the contributions become equal.

    Args:
        contribution: instant or future contributions, shape (T, N).
        policy: γ, shape (T, N).

    Returns:
        Shape (T,); nan where the support has fewer than two examples, since a
        single example satisfies the law trivially.

    Raises:
        ValueError: shapes that differ.
    """
    _check(contribution, policy)
    result = [
        _similarity(*rows)
        for rows in zip(contribution.split(BLOCK), policy.split(BLOCK), strict=True)
    ]
    return torch.cat(result)


def _similarity(contribution: Tensor, policy: Tensor) -> Tensor:
    used = support(policy)
    members = used.sum(1)
    mean = (policy * contribution).sum(1)
    apart = (contribution - mean[:, None]) * used
    # learned examples contribute so little that the squares of their deviations would underflow
    scale = apart.abs().amax(1)
    apart /= torch.where(scale > 0, scale, 1)[:, None]
    spread = scale * (apart.square_().sum(1) / members).sqrt()
    return torch.where(members >= 2, mean / spread, torch.nan)


def permuted_similarity(
    contribution: Tensor, policy: Tensor, *, draws: int = 20, seed: int = 0
) -> Tensor:
    """The largest SIM_t of policies whose weights are dealt to other examples at random.

    Each draw hands the columns of the policy to the examples in a new order: every step
    keeps its weights, and what remains is how large SIM_t gets on so few examples by chance.

    Args:
        contribution: instant or future contributions, shape (T, N).
        policy: γ, shape (T, N).
        draws: how many orders, at least 1.
        seed: of the orders.

    Returns:
        max_t SIM_t of each draw, shape (draws,); nan where no step has two weights.

    Raises:
        ValueError: shapes that differ, or draws below 1.
    """
    _check(contribution, policy)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(policy.shape[1], generator=generator) for _ in range(draws)]
    largest = [
        similarity(contribution, policy[:, order.to(policy.device)])
        .nan_to_num(-torch.inf, posinf=torch.inf)
        .max()
        for order in orders
    ]
    return torch.stack(largest).nan_to_num(posinf=torch.inf, neginf=torch.nan)


class FirstOrderGap(NamedTuple):
    """How far each step is from the first-order conditions; each of shape (T,).

    Attributes:
        absolute: max_m c_m - Σ_n γ_n c_n ≥ 0, with c the future contributions.
        relative: the same over |Σ_n γ_n c_n|.
        mean: Σ_n γ_n c_n; where it is not positive the relative gap says little.
    """

    absolute: Tensor
    relative: Tensor
    mean: Tensor


def first_order_gap(future: Tensor, policy: Tensor) -> FirstOrderGap:
    """The certificate of first-order optimality of a policy, step by step.

    A local minimiser of J puts weight only on examples with the largest future
    contribution, so both gaps vanish there. Summed over t and multiplied by η,
    the absolute gap is the Frank–Wolfe gap of J at γ.

    Args:
        future: λ_{t+1}·∇l(x_n, θ_t), shape (T, N).
        policy: γ, shape (T, N).

    Raises:
        ValueError: shapes that differ.
    """
    _check(future, policy)
    mean = torch.linalg.vecdot(policy, future)
    absolute = (future.amax(1) - mean).clamp_(min=0)
    # a row of which nothing depends is stationary
    return FirstOrderGap(absolute, torch.where(absolute == 0, 0, absolute / mean.abs()), mean)


def zero_weight_share(contribution: Tensor, policy: Tensor) -> float:
    """Of the (n, t) with CT_{n,t} ≤ 0, the share outside the support (property 4.1, Fig. 8).

    Returns:
        A share in [0, 1]; nan where no contribution is ≤ 0.
    """
    _check(contribution, policy)
    idle = contribution <= 0
    count = int(idle.sum())
    return int((idle & ~support(policy)).sum()) / count if count else float("nan")
