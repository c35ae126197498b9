"""What the best known policy is made of: totals or order; and what it costs to send."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from llbook.optimal.adjoint import gradient_and_losses
from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.methods.method import Settings
from llbook.optimal.methods.mirror import Mirror
from llbook.optimal.process import constant_policy, train
from llbook.tasks.task import Task

__all__ = ["order_alone", "policy_bits", "quantised", "totals_alone"]

_SCALINGS = 30
_STRENGTHS = (0.25, 1.0, 4.0)  # of the prior, over the quanta of a step
_FRESH = (0.02, 0.2)  # share of the prior on all examples alike


def totals_alone(policy: Tensor) -> Tensor:
    """Every example's total weight, spread evenly over the steps: selection without order, (T, N)."""
    return policy.mean(0, keepdim=True).repeat(len(policy), 1)


def order_alone(task: Task, steps: int, evaluations: int, *, inner: Inner = PLAIN) -> Tensor:
    """The best known policy that uses all examples equally much, T/N each: order without selection.

    Mirror descent on J from equal weights, each step followed by the scaling of rows and columns
    to their sums (Sinkhorn): the projection in its own divergence.

    Args:
        task: the learning problem.
        steps: T.
        evaluations: gradient evaluations.
        inner: how it trains.

    Returns:
        The best of the policies met, shape (T, N).
    """
    policy = best = constant_policy(task, steps)
    least = math.inf
    mirror = Mirror(task, Settings(steps, max(1, evaluations - 1)))
    for _ in range(evaluations):
        process = train(task, policy, inner=inner)
        gradient, losses = gradient_and_losses(task, policy, process)
        value = float(losses.double().sum())
        if value < least:
            least, best = value, policy.clone()
        policy = _balanced(mirror.propose(policy, gradient, value))
    return best


def _balanced(policy: Tensor) -> Tensor:
    """Rows of sum one, exactly, and columns of sum T/N, nearly."""
    share = len(policy) / policy.shape[1]
    for _ in range(_SCALINGS):
        policy = policy * (share / policy.sum(0))
        policy = policy / policy.sum(1, keepdim=True)
    return policy


def quantised(policy: Tensor, quanta: int) -> Tensor:
    """Each row as whole numbers of quanta that sum to ``quanta``, by largest remainders, int64 (T, N)."""
    scaled = policy.double() * quanta
    counts = scaled.floor()
    missing = (quanta - counts.sum(1)).round().long()
    order = (scaled - counts).argsort(1, descending=True).argsort(1)
    return (counts + (order < missing[:, None])).long()


def policy_bits(counts: Tensor) -> float:
    """An ideal code length of a policy of quanta (T, N), in bits.

    Row by row, by a Dirichlet-multinomial whose prior is the mean of the row before and of all
    rows so far, and a share of it for all examples alike; the strength of the prior and that share
    are the best of a few, which the code names. A policy with equal rows is sent once.
    """
    rows = counts[:1] if bool((counts == counts[0]).all()) else counts
    steps, size = rows.shape
    quanta = int(rows[0].sum())
    shares = rows.double() / quanta
    before = torch.full_like(shares, 1 / size)
    if steps > 1:
        so_far = shares.cumsum(0) / torch.arange(1, steps + 1).to(shares)[:, None]
        before[1:] = (shares[:-1] + so_far[:-1]) / 2
    lengths = [
        _bits(rows.double(), quanta, strength * quanta, before * (1 - fresh) + fresh / size)
        for strength, fresh in product(_STRENGTHS, _FRESH)
    ]
    return min(lengths) + math.log2(len(lengths))


def _bits(counts: Tensor, quanta: int, strength: float, prior: Tensor) -> float:
    used = counts > 0  # the others' terms vanish
    prior = strength * prior[used]
    of_used = counts[used]
    nats = -(torch.lgamma(of_used + prior) - torch.lgamma(prior) - torch.lgamma(of_used + 1)).sum()
    whole = math.lgamma(strength) + math.lgamma(quanta + 1) - math.lgamma(strength + quanta)
    return (float(nats) - len(counts) * whole) / math.log(2)
