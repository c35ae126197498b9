"""The last layer of a language model and its loss as one operation, derivatives included.

With z = xW the scores of a position, y its target and p = softmax(z), the loss
is l = log Σ exp z - z_y. Its tangent along (ẋ, Ẇ), with ż = ẋW + xẆ, is

    l̇ = p·ż - ż_y,

and the derivatives of l̇ are p∘(ż - p·ż) in z and p - e_y in ż. Scores are as
many as positions times V, which no memory should be asked to hold for a whole
batch: everything here walks over blocks of positions, and takes the gradients
while a block is still in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from numba import njit, prange
from torch import Tensor

__all__ = ["head_losses", "head_tangents", "weighted_loss", "weighted_tangent"]

BLOCK_SCORES = 2**18  # scores in a block on a CPU: one block's buffers stay in its cache
BLOCK_SCORES_DEVICE = 2**27


def _blocks(x: Tensor, vocabulary: int) -> list[slice]:
    most = BLOCK_SCORES if x.device.type == "cpu" else BLOCK_SCORES_DEVICE
    rows = max(1, most // vocabulary)
    return [slice(at, min(at + rows, len(x))) for at in range(0, len(x), rows)]


def product(a: Tensor, b: Tensor, low: torch.dtype | None) -> Tensor:
    """a @ b, with the factors rounded to ``low`` (sums stay wider) and the result as wide as a."""
    return a @ b if low is None else (a.to(low) @ b.to(low)).to(a.dtype)


def head_losses(x: Tensor, out: Tensor, targets: Tensor, low: torch.dtype | None = None) -> Tensor:
    """-ln p of each target in nats, without derivatives.

    Args:
        x: what the last layer reads, shape (m, hidden).
        out: W, shape (hidden, V).
        targets: shape (m,), in [0, V).
        low: dtype that factors of matrix products are rounded to; none by default.

    Returns:
        shape (m,).
    """
    losses = x.new_empty(len(x))
    for rows in _blocks(x, out.shape[1]):
        scores = product(x[rows], out, low)
        picked = scores.gather(1, targets[rows, None])[:, 0]
        losses[rows] = scores.logsumexp(1) - picked
    return losses


def head_tangents(
    x: Tensor,
    dx: Tensor,
    out: Tensor,
    dout: Tensor,
    targets: Tensor,
    low: torch.dtype | None = None,
) -> Tensor:
    """l̇ of each position along (ẋ, Ẇ), shape (m,), without derivatives."""
    tangents = x.new_empty(len(x))
    for rows in _blocks(x, out.shape[1]):
        p = product(x[rows], out, low).softmax(1)
        dz = product(dx[rows], out, low).add_(product(x[rows], dout, low))
        picked = dz.gather(1, targets[rows, None])[:, 0]
        tangents[rows] = torch.linalg.vecdot(p, dz) - picked
    return tangents


def weighted_loss(
    x: Tensor, out: Tensor, targets: Tensor, weights: Tensor, low: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Σ_i w_i l_i, differentiable in ``x`` and ``out``, and the l_i themselves, which are not.

    Args:
        x, out, targets, low: as :func:`head_losses`.
        weights: shape (m,).
    """
    return _WeightedLoss.apply(x, out, targets, weights, low)


def weighted_tangent(
    x: Tensor,
    dx: Tensor,
    out: Tensor,
    dout: Tensor,
    targets: Tensor,
    weights: Tensor,
    low: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ_i w_i l̇_i, differentiable in ``x``, ``dx`` and ``out``, and the l̇_i, which are not.

    ``dout``, the direction, is a constant.
    """
    return _WeightedTangent.apply(x, dx, out, dout, targets, weights, low)


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, out: Tensor, targets: Tensor, weights: Tensor, low: torch.dtype | None
    ) -> tuple[Tensor, Tensor]:
        losses, x_bar, out_bar = x.new_empty(len(x)), torch.empty_like(x), torch.zeros_like(out)
        for rows in _blocks(x, out.shape[1]):
            at, target, weight = x[rows], targets[rows, None], weights[rows, None]
            scores = product(at, out, low)
            total = scores.logsumexp(1, keepdim=True)
            losses[rows] = (total - scores.gather(1, target))[:, 0]
            slope = scores.sub_(total).exp_().mul_(weight)
            slope.scatter_add_(1, target, -weight)
            x_bar[rows] = product(slope, out.T, low)
            _accumulate(out_bar, at, slope, low)
        ctx.save_for_backward(x_bar, out_bar)
        ctx.mark_non_differentiable(losses)
        ctx.set_materialize_grads(False)
        return weights @ losses, losses

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x_bar, out_bar = ctx.saved_tensors
        return x_bar * scale, out_bar * scale, None, None, None


class _WeightedTangent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dx: Tensor,
        out: Tensor,
        dout: Tensor,
        targets: Tensor,
        weights: Tensor,
        low: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        tangents, out_bar = x.new_empty(len(x)), torch.zeros_like(out)
        x_bar, dx_bar = torch.empty_like(x), torch.empty_like(dx)
        for rows in _blocks(x, out.shape[1]):
            p = product(x[rows], out, low).softmax(1)
            dz = product(dx[rows], out, low).add_(product(x[rows], dout, low))
            _second_order(p, dz, targets[rows], weights[rows], tangents[rows])
            # now p holds the derivatives in ż and dz those in z
            dx_bar[rows] = product(p, out.T, low)
            x_bar[rows] = product(dz, out.T, low).add_(product(p, dout.T, low))
            _accumulate(out_bar, x[rows], dz, low)
            _accumulate(out_bar, dx[rows], p, low)
        ctx.save_for_backward(x_bar, dx_bar, out_bar)
        ctx.mark_non_differentiable(tangents)
        ctx.set_materialize_grads(False)
        return weights @ tangents, tangents

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x_bar, dx_bar, out_bar = ctx.saved_tensors
        return x_bar * scale, dx_bar * scale, out_bar * scale, None, None, None, None


def _accumulate(total: Tensor, a: Tensor, b: Tensor, low: torch.dtype | None) -> None:
    """total += aᵀ b."""
    if low is None:
        total.addmm_(a.T, b)
    else:
        total.add_(product(a.T, b, low))


def _second_order(
    p: Tensor, dz: Tensor, targets: Tensor, weights: Tensor, tangents: Tensor
) -> None:
    """l̇ into ``tangents``; w (p - e) over ``p`` and w p∘(ż - p·ż) over ``dz``."""
    if p.device.type == "cpu":
        _second_order_rows(
            p.numpy(), dz.numpy(), targets.numpy(), weights.numpy(), tangents.numpy()
        )
        return
    mean = torch.linalg.vecdot(p, dz)[:, None]
    target, weight = targets[:, None], weights[:, None]
    tangents.copy_((mean - dz.gather(1, target))[:, 0])
    p.mul_(weight)
    dz.sub_(mean).mul_(p)
    p.scatter_add_(1, target, -weight)


@njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _second_order_rows(p, dz, targets, weights, tangents):  # pragma: no cover - compiled
    rows, width = p.shape
    for i in prange(rows):
        mean = p.dtype.type(0)
        for v in range(width):
            mean += p[i, v] * dz[i, v]
        target, weight = targets[i], weights[i]
        tangents[i] = mean - dz[i, target]
        for v in range(width):
            share = weight * p[i, v]
            dz[i, v] = share * (dz[i, v] - mean)
            p[i, v] = share
        p[i, target] -= weight
