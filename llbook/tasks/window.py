"""The Transformer's derivatives, one window at a time through the whole model and back.

On a CPU a small model costs more in memory traffic and in calls of operators than
in arithmetic. The kernel here takes one example forward and back while all of it is
in the cache. Its arrays are (features, positions): every sum over features runs
over rows, all positions beside each other, and the heads are blocks of rows.

With a direction, tangents stand at the right of the values, [x | ẋ], so that a linear
layer and its reverse are the same products as without:

    y = Wᵀx, ẏ = Wᵀẋ + Ẇᵀx;   [x̄ | ẋ̄] = W [ȳ | ẏ̄] + [Ẇẏ̄ | 0],   W̄ = [x | ẋ] [ȳ | ẏ̄]ᵀ.

Threads take blocks of examples, as many blocks as there are for any number of
threads, and the blocks are added in a fixed order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from llbook.data.tokens import PAD
from llbook.tasks.lanes import COLUMNS, FLAGS, padded, transpose
from llbook.tasks.transformer import Architecture, parameter_count, unpack
from llbook.tasks.window_parts import (
    activate,
    activate_back,
    attend,
    attend_back,
    head,
    norm,
    norm_back,
    outer,
    pull,
    push,
)

__all__ = ["Windows", "windows"]

BLOCKS = 8
_SCORES = 2**18  # bytes of scores in the head at once
_NORM_ROWS = 2


class _Sizes(NamedTuple):
    vocabulary: int
    context: int
    layers: int
    hidden: int
    heads: int
    wide: int
    columns: int  # positions, rounded up
    gelu: bool
    scale: float


class Windows:
    """The passes of the search over sets of token windows, one window at a time, on the CPU."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture

    def losses(self, theta: Tensor, examples: Tensor) -> Tensor:
        """l(x_n, θ) of every window in nats, shape (n,)."""
        return windows(self._architecture, theta, None, examples, torch.arange(len(examples)))[0]

    def tangents(self, theta: Tensor, direction: Tensor, examples: Tensor) -> Tensor:
        """direction·∇l(x_n, θ) of every window, shape (n,)."""
        everything = torch.arange(len(examples))
        return windows(self._architecture, theta, direction, examples, everything)[0]

    def gradient(self, theta: Tensor, examples: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n w_n l(x_n, θ) and its gradient, shape (P,)."""
        used = weights.nonzero()[:, 0]
        each, total = windows(self._architecture, theta, None, examples, used, weights[used])
        return weights[used] @ each, total

    def costate_products(
        self, theta: Tensor, direction: Tensor, examples: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """direction·∇l(x_n, θ) of every window, shape (n,), and Σ_n w_n ∇²l(x_n, θ) direction, shape (P,)."""
        if weights.shape != (len(examples),):
            raise ValueError(f"expected {len(examples)} weights, got {tuple(weights.shape)}")
        used = weights != 0
        rows = used.nonzero()[:, 0]
        order = torch.cat([rows, (~used).nonzero()[:, 0]])
        slopes = theta.new_empty(len(examples))
        slopes[order], total = windows(
            self._architecture, theta, direction, examples, order, weights[rows]
        )
        return slopes, total


def windows(
    architecture: Architecture,
    theta: Tensor,
    direction: Tensor | None,
    examples: Tensor,
    order: Tensor,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of each example, or its tangent, and the gradient of their weighted sum.

    Args:
        architecture: the shape of the model.
        theta: θ, shape (P,), on the CPU.
        direction: θ̇, shape (P,): losses l become tangents l̇ = θ̇·∇l.
        examples: tokens, shape (n, L).
        order: int64 rows of ``examples``, shape (m,): those with a weight first.
        weights: w, of the first of ``order``, shape (k ≤ m,); none by default. The
            others cost no derivative.

    Returns:
        l or l̇ of the examples of ``order``, shape (m,), and Σ w ∇l or Σ w ∇l̇ = Hθ̇, shape (P,).

    Raises:
        ValueError: a direction of another shape than θ, a weight of an example that is not
            there, a θ of another model, examples that are too long for it, tokens that it does not
            know: the compiled kernel would read beyond its arrays.
    """
    if direction is not None and direction.shape != theta.shape:
        raise ValueError(f"θ̇ must have shape {tuple(theta.shape)}, got {tuple(direction.shape)}")
    if len(order) and int(order.max()) >= len(examples):
        raise ValueError(
            f"expected weights of {len(examples)} examples, got one of number {int(order.max())}"
        )
    _check(architecture, theta, examples)
    hidden, heads = architecture.hidden, architecture.heads
    sizes = _Sizes(
        architecture.vocabulary,
        architecture.context,
        architecture.layers,
        hidden,
        heads,
        architecture.expansion * hidden,
        padded(examples.shape[1] - 1),
        architecture.activation == "gelu",
        (hidden // heads if architecture.attention_scale == "head" else hidden) ** -0.5,
    )
    weights = theta.new_zeros(0) if weights is None else weights.detach().contiguous()
    values = theta.new_empty(len(order))
    blocks = max(1, min(BLOCKS, len(order)))
    rows = parameter_count(architecture) // sizes.hidden if len(weights) else 0
    totals = theta.new_empty(blocks, rows, padded(sizes.hidden))
    theta = theta.detach().contiguous()
    arguments = (
        theta.numpy(),
        (theta if direction is None else direction.detach().contiguous()).numpy(),
        direction is not None,
        examples.contiguous().numpy(),
        order.numpy(),
        weights.numpy(),
        sizes,
        values.numpy(),
        totals.numpy(),
    )
    threads = min(torch.get_num_threads(), blocks)
    if threads == 1:
        _blocks(*arguments, 0, 1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda thread: _blocks(*arguments, thread, threads), range(threads)))
    gradient = torch.zeros_like(theta)
    if rows:
        at, total = 0, totals[0]
        for part in totals[1:]:
            total += part
        for name, piece in unpack(architecture, gradient).items():
            # the kernel has a row of the hidden size for each of the other index
            turned = piece.T if name.endswith(".in") or name == "out" else piece
            piece_rows = total[at : at + len(turned), : sizes.hidden]
            turned.copy_(piece_rows)
            at += len(turned)
    return values, gradient


def _check(architecture: Architecture, theta: Tensor, examples: Tensor) -> None:
    count, longest = parameter_count(architecture), architecture.context + 1
    if theta.shape != (count,):
        raise ValueError(f"θ must have shape ({count},), got {tuple(theta.shape)}")
    if examples.ndim != 2 or not 2 <= examples.shape[1] <= longest:
        raise ValueError(
            f"expected tokens of shape (n, L) with 2 ≤ L ≤ {longest}, got {tuple(examples.shape)}"
        )
    if len(examples):
        low, high = (int(value) for value in examples.aminmax())
        if low < PAD or high >= architecture.vocabulary:
            raise ValueError(
                f"tokens must lie in [0, {architecture.vocabulary}) or be PAD ({PAD}), "
                f"got {low}..{high}"
            )


@njit(cache=True, nogil=True)
def _blocks(
    theta, direction, dual, examples, order, weights, sizes, values, totals, first, step
):  # pragma: no cover - compiled
    """Every ``step``-th block from ``first``, the sum of each in its own of ``totals``."""
    blocks = len(totals)
    used, rest = len(weights), len(order) - len(weights)
    buffers = _buffers(theta, sizes, dual)
    for block in range(first, blocks, step):
        total = totals[block]
        total[:] = 0
        low, high = block * used // blocks, (block + 1) * used // blocks
        skipped = used + block * rest // blocks - high  # of those with a weight, and before
        for i in range(low, high + (block + 1) * rest // blocks - block * rest // blocks):
            reverse = i < high
            n = i if reverse else i + skipped
            values[n] = _window(
                theta, direction, dual, examples[order[n]], reverse,
                weights[n] if reverse else theta[0], sizes, buffers, total,
            )  # fmt: skip


class _Buffers(NamedTuple):
    x: np.ndarray  # before each norm, (norms, hidden, m)
    unit: np.ndarray
    normed: np.ndarray
    rate: np.ndarray  # (norms, n)
    mean: np.ndarray
    qkv: np.ndarray  # (layers, 3 hidden, m)
    share: np.ndarray  # (layers, heads, n, n)
    slope: np.ndarray  # tangents of scores
    mixed: np.ndarray  # (layers, hidden, m)
    wide: np.ndarray  # (layers, wide, m)
    active: np.ndarray
    bend: np.ndarray  # slopes of the activation, (layers, wide, n)
    x_bar: np.ndarray  # (hidden, m)
    y_bar: np.ndarray
    wide_bar: np.ndarray  # (wide, m)
    qkv_bar: np.ndarray  # (3 hidden, m)
    scores: np.ndarray  # (V, m of a chunk)
    turned: np.ndarray  # (m, hidden)
    square: np.ndarray  # (m, n)
    square_turned: np.ndarray
    sums: np.ndarray  # (4, n)


@njit(cache=True)
def _room(like, layers, rows, columns):  # pragma: no cover - compiled
    """An array (layers, rows, columns), its rows on cache lines."""
    size = layers * rows * columns
    flat = np.zeros(size + 64 // like.itemsize, dtype=like.dtype)
    start = (-flat.ctypes.data) % 64 // like.itemsize
    return flat[start : start + size].reshape(layers, rows, columns)


@njit(cache=True)
def _chunk(sizes, m, itemsize):  # pragma: no cover - compiled
    """Positions at once in the head, a part of all: as many as keep its scores in the cache."""
    pieces = 1
    while sizes.columns % (pieces * COLUMNS) or (
        sizes.vocabulary * itemsize * m // pieces > _SCORES and pieces * COLUMNS < sizes.columns
    ):
        pieces += 1
    return sizes.columns // pieces


@njit(cache=True)
def _buffers(like, sizes, dual):  # pragma: no cover - compiled
    n, layers, hidden, wide = sizes.columns, sizes.layers, sizes.hidden, sizes.wide
    m, norms = (2 * n if dual else n), 2 * layers + 1
    return _Buffers(
        _room(like, norms, hidden, m),
        _room(like, norms, hidden, m),
        _room(like, norms, hidden, m),
        _room(like, 1, norms, n)[0],
        _room(like, 1, norms, n)[0],
        _room(like, layers, 3 * hidden, m),
        _room(like, layers, sizes.heads * n, n),
        _room(like, layers, sizes.heads * n, n),
        _room(like, layers, hidden, m),
        _room(like, layers, wide, m),
        _room(like, layers, wide, m),
        _room(like, layers, wide, n),
        _room(like, 1, hidden, m)[0],
        _room(like, 1, hidden, m)[0],
        _room(like, 1, wide, m)[0],
        _room(like, 1, 3 * hidden, m)[0],
        _room(like, 1, sizes.vocabulary, m // n * _chunk(sizes, m, like.itemsize))[0],
        _room(like, 1, m, -(-hidden // COLUMNS) * COLUMNS)[0],
        _room(like, 1, m, n)[0],
        _room(like, 1, m, n)[0],
        _room(like, 1, 4, n)[0],
    )


@njit(cache=True)
def _arrays(flat, layer, sizes):  # pragma: no cover - compiled
    """The six arrays of a layer, in their order in θ."""
    hidden, wide = sizes.hidden, sizes.wide
    a = (_layer_row(layer, sizes) + _NORM_ROWS) * hidden
    b = a + 3 * hidden * hidden
    c = b + hidden * hidden
    d = c + _NORM_ROWS * hidden
    e = d + wide * hidden
    return (
        flat[a - _NORM_ROWS * hidden : a].reshape(_NORM_ROWS, hidden),
        flat[a:b].reshape(hidden, 3 * hidden),
        flat[b:c].reshape(hidden, hidden),
        flat[c:d].reshape(_NORM_ROWS, hidden),
        flat[d:e].reshape(hidden, wide),
        flat[e : e + wide * hidden].reshape(wide, hidden),
    )


@njit(cache=True)
def _last_arrays(flat, sizes):  # pragma: no cover - compiled
    """The last norm and the output matrix."""
    hidden = sizes.hidden
    a = _layer_row(sizes.layers, sizes) * hidden
    b = a + _NORM_ROWS * hidden
    last = flat[b : b + hidden * sizes.vocabulary]
    return flat[a:b].reshape(_NORM_ROWS, hidden), last.reshape(hidden, sizes.vocabulary)


@njit(cache=True)
def _layer_row(layer, sizes):  # pragma: no cover - compiled
    """Rows of the hidden size before a layer in θ."""
    each = 2 * _NORM_ROWS + 4 * sizes.hidden + 2 * sizes.wide
    return sizes.vocabulary + sizes.context + layer * each


@njit(cache=True)
def _targets(tokens):  # pragma: no cover - compiled
    """How many tokens there are to predict."""
    count = len(tokens) - 1
    while tokens[count] == PAD:
        count -= 1
    return count


@njit(cache=True, fastmath=FLAGS)
def _embed(x, flat, tokens, count, offset, sizes):  # pragma: no cover - compiled
    hidden = sizes.hidden
    for i in range(count):
        token, place = tokens[i] * hidden, (sizes.vocabulary + i) * hidden
        for a in range(hidden):
            x[a, offset + i] = flat[token + a] + flat[place + a]
    x[:, offset + count : offset + sizes.columns] = 0


@njit(cache=True)
def _copy(y, x):  # pragma: no cover - compiled
    for a in range(len(x)):
        for i in range(x.shape[1]):
            y[a, i] = x[a, i]


@njit(cache=True, fastmath=FLAGS)
def _window(
    theta, direction, dual, tokens, reverse, weight, sizes, room, total
):  # pragma: no cover - compiled
    """l or l̇ of one example; where ``reverse``, ``weight`` times its derivative goes to ``total``."""
    n, heads, gelu = sizes.columns, sizes.heads, sizes.gelu
    scale = theta.dtype.type(sizes.scale)
    count = _targets(tokens)
    _embed(room.x[0], theta, tokens, count, 0, sizes)
    if dual:
        _embed(room.x[0], direction, tokens, count, n, sizes)
    for layer in range(sizes.layers):
        w, d = _arrays(theta, layer, sizes), _arrays(direction, layer, sizes)
        k, x, y = 2 * layer, room.x[2 * layer], room.x[2 * layer + 1]
        norm(x, w[0], d[0], room.unit[k], room.normed[k], room.rate[k], room.mean[k], n, dual)
        push(room.qkv[layer], w[1], d[1], room.normed[k], n, dual, True)
        mixed, share, slope = room.mixed[layer], room.share[layer], room.slope[layer]
        attend(mixed, room.qkv[layer], share, slope, room.square, room.sums, heads, scale, n, dual)
        _copy(y, x)
        push(y, w[2], d[2], mixed, n, dual, False)
        k, x, y = k + 1, y, room.x[2 * layer + 2]
        norm(x, w[3], d[3], room.unit[k], room.normed[k], room.rate[k], room.mean[k], n, dual)
        push(room.wide[layer], w[4], d[4], room.normed[k], n, dual, True)
        activate(room.active[layer], room.bend[layer], room.wide[layer], gelu, n, dual)
        _copy(y, x)
        push(y, w[5], d[5], room.active[layer], n, dual, False)
    k = 2 * sizes.layers
    x, unit, y, rate, mean = room.x[k], room.unit[k], room.normed[k], room.rate[k], room.mean[k]
    w_norm, w_out = _last_arrays(theta, sizes)
    d_norm, d_out = _last_arrays(direction, sizes)
    norm(x, w_norm, d_norm, unit, y, rate, mean, n, dual)
    at = _layer_row(sizes.layers, sizes)
    x_bar, y_bar, turned, sums = room.x_bar, room.y_bar, room.turned, room.sums
    out, share = total[at + _NORM_ROWS :], weight / theta.dtype.type(count)
    value = head(
        y_bar, y, w_out, d_out, tokens[1:], count, room.scores, turned,
        out, sums, share, reverse, n, dual,
    )  # fmt: skip
    if not reverse:
        return value
    x_bar[:] = 0
    norm_back(x_bar, y_bar, x, w_norm, d_norm, unit, rate, mean, total[at:], sums, n, dual)
    for layer in range(sizes.layers - 1, -1, -1):
        w, d = _arrays(theta, layer, sizes), _arrays(direction, layer, sizes)
        hidden, wide = sizes.hidden, sizes.wide
        a = _layer_row(layer, sizes)
        b = a + _NORM_ROWS + 3 * hidden
        c = b + hidden
        e = c + _NORM_ROWS + wide
        k = 2 * layer + 1
        outer(total[e : e + wide], room.active[layer], x_bar, turned)
        pull(room.wide_bar, w[5], d[5], x_bar, n, dual)
        activate_back(room.wide_bar, room.bend[layer], room.wide[layer], gelu, n, dual)
        outer(total[c + _NORM_ROWS : e], room.wide_bar, room.normed[k], turned)
        pull(y_bar, w[4], d[4], room.wide_bar, n, dual)
        norm_back(
            x_bar, y_bar, room.x[k], w[3], d[3], room.unit[k], room.rate[k], room.mean[k],
            total[c:], sums, n, dual,
        )  # fmt: skip
        k -= 1
        outer(total[b:c], room.mixed[layer], x_bar, turned)
        pull(y_bar, w[2], d[2], x_bar, n, dual)
        attend_back(
            room.qkv_bar, y_bar, room.qkv[layer], room.share[layer], room.slope[layer],
            room.square, room.square_turned, sums, heads, scale, n, dual,
        )  # fmt: skip
        outer(total[a + _NORM_ROWS : b], room.qkv_bar, room.normed[k], turned)
        pull(y_bar, w[1], d[1], room.qkv_bar, n, dual)
        norm_back(
            x_bar, y_bar, room.x[k], w[0], d[0], room.unit[k], room.rate[k], room.mean[k],
            total[a:], sums, n, dual,
        )  # fmt: skip
    transpose(x_bar[:, :n], turned)
    for i in range(count):
        token, place, row = total[tokens[i]], total[sizes.vocabulary + i], turned[i]
        for a in range(sizes.hidden):
            token[a] += row[a]
        for a in range(sizes.hidden):
            place[a] += row[a]
    return value
