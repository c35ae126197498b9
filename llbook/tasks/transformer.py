"""The paper's Transformer language model (App. D), in one file and one flat vector θ.

A decoder with learned positions, pre-norm RMSNorm with bias, ReLU feed-forward
layers of four times the hidden size, and an output matrix of its own:

    x_i = E[token_i] + P[i]
    x  ← x + Attention(RMSNorm(x)),   x ← x + W₂ relu(W₁ RMSNorm(x))   (each layer)
    logits = W_out RMSNorm(x).

The paper gives the parts and "about 1.7 M" parameters. With V = 5,000, a
position table of 64 rows, no biases in the linear layers and a gain and a bias
in each of the five norms the count is 1,682,688 (:func:`parameter_count`).

Everything is a function of θ, shape (P,), so that ``torch.func`` can take
gradients, Jacobian–vector and vector–Jacobian products through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from llbook.data.tokens import PAD
from llbook.tasks.head import (
    head_losses,
    head_tangents,
    product,
    weighted_loss,
    weighted_tangent,
)
from llbook.tasks.task import Task, Trajectory

__all__ = [
    "PAD",
    "PRODUCTS",
    "Architecture",
    "Prefix",
    "Transformer",
    "initial_parameters",
    "logits",
    "parameter_count",
    "token_losses",
]

PRODUCTS = ("full", "bfloat16", "tf32")
_NORM_EPSILON = 1e-6
# Tokens at once on a CPU: the buffers of more are given back to the system after each
# use, and its clearing of their pages takes longer than what is computed in them.
_CPU_TOKENS = 2048


@dataclass(frozen=True)
class Architecture:
    """The shape of the model; the defaults are the paper's.

    Attributes:
        vocabulary: V, number of token types.
        context: rows of the position table, the most tokens the model can read.
        layers: number of blocks.
        hidden: width of the residual stream.
        heads: attention heads; they divide ``hidden``.
        expansion: width of the feed-forward layer over ``hidden``.
        attention_scale: ``"head"`` divides the attention scores by √(head size),
            the usual choice; ``"hidden"`` by √(hidden size), as the authors'
            published code does.
        initial_scale: standard deviation of the matrices of θ_0.

    Raises:
        TypeError: a size that is not an integer.
        ValueError: a size below 1, V < 2, heads that do not divide the hidden
            size, an unknown attention scale, a scale that is not positive.
    """

    vocabulary: int = 5000
    context: int = 64
    layers: int = 2
    hidden: int = 128
    heads: int = 8
    expansion: int = 4
    attention_scale: str = "head"
    initial_scale: float = 0.02

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "hidden", "heads", "expansion"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            least = 2 if name == "vocabulary" else 1
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.hidden % self.heads:
            raise ValueError(
                f"heads must divide the hidden size, got {self.heads} heads for {self.hidden}"
            )
        if self.attention_scale not in ("head", "hidden"):
            raise ValueError(
                f"attention_scale must be 'head' or 'hidden', got {self.attention_scale!r}"
            )
        if not (self.initial_scale > 0 and math.isfinite(self.initial_scale)):
            raise ValueError(f"initial_scale must be positive, got {self.initial_scale}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every array in θ, in their order there."""
        hidden, wide = self.hidden, self.expansion * self.hidden
        shapes: dict[str, tuple[int, ...]] = {
            "tokens": (self.vocabulary, hidden),
            "positions": (self.context, hidden),
        }
        for layer in range(self.layers):
            shapes |= {
                f"{layer}.attention.norm": (2, hidden),  # gain and bias
                f"{layer}.attention.in": (hidden, 3 * hidden),  # queries, keys, values
                f"{layer}.attention.out": (hidden, hidden),
                f"{layer}.feedforward.norm": (2, hidden),
                f"{layer}.feedforward.in": (hidden, wide),
                f"{layer}.feedforward.out": (wide, hidden),
            }
        return shapes | {"norm": (2, hidden), "out": (hidden, self.vocabulary)}


@lru_cache
def parameter_count(architecture: Architecture) -> int:
    """P, the length of θ; 1,682,688 for the defaults."""
    return sum(math.prod(shape) for shape in architecture.shapes().values())


def initial_parameters(
    architecture: Architecture, seed: int = 0, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """θ_0, shape (P,): N(0, initial_scale²) matrices, norms with gain 1 and bias 0.

    Drawn on the CPU in float64 from a stream of its own, so that one seed is one
    θ_0 in every precision.
    """
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for name, shape in architecture.shapes().items():
        if name.endswith("norm"):
            gain_and_bias = torch.zeros(shape, dtype=torch.float64)
            gain_and_bias[0] = 1
            pieces.append(gain_and_bias.flatten())
        else:
            draw = torch.randn(math.prod(shape), generator=generator, dtype=torch.float64)
            pieces.append(draw * architecture.initial_scale)
    return torch.cat(pieces).to(dtype)


@dataclass
class Prefix:
    """Keys and values of the tokens read so far, one (n, heads, length, size) pair a layer."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0


def logits(
    architecture: Architecture, theta: Tensor, tokens: Tensor, prefix: Prefix | None = None
) -> Tensor:
    """Scores of the token that follows each position.

    Args:
        theta: θ, shape (P,).
        tokens: int64, shape (n, L), values in [0, V).
        prefix: what was read before ``tokens``; it is extended in place, so that a
            window can be read in pieces, down to one token at a time.

    Returns:
        shape (n, L, V); row i depends on tokens 0..i (and the prefix) alone.

    Raises:
        ValueError: a θ of the wrong length, tokens of the wrong shape, or more of
            them than the position table has rows.
    """
    if theta.shape != (parameter_count(architecture),):
        raise ValueError(
            f"θ must have shape ({parameter_count(architecture)},), got {tuple(theta.shape)}"
        )
    start = prefix.length if prefix is not None else 0
    if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= architecture.context - start:
        raise ValueError(
            f"expected tokens of shape (n, L) with 1 ≤ L ≤ {architecture.context - start} "
            f"(context {architecture.context}, {start} read before), got {tuple(tokens.shape)}"
        )
    weights = _unpack(architecture, theta)
    count, length = tokens.shape
    x = embedding(tokens, weights["tokens"]) + weights["positions"][start : start + length]
    # a single token sees all that was read: no mask needed
    later = None
    if length > 1:
        mask = torch.ones(length, start + length, dtype=torch.bool, device=theta.device)
        later = mask.triu(start + 1)
    size = architecture.hidden // architecture.heads
    scale = (size if architecture.attention_scale == "head" else architecture.hidden) ** -0.5
    for layer in range(architecture.layers):
        y = _rms_norm(x, weights[f"{layer}.attention.norm"]) @ weights[f"{layer}.attention.in"]
        queries, keys, values = y.view(count, length, 3, architecture.heads, size).unbind(2)
        queries, keys, values = (a.transpose(1, 2) for a in (queries, keys, values))  # (n, h, L, s)
        if prefix is not None:
            if start:
                keys = torch.cat([prefix.layers[layer][0], keys], 2)
                values = torch.cat([prefix.layers[layer][1], values], 2)
            prefix.layers[layer : layer + 1] = [(keys, values)]
        scores = queries @ keys.transpose(2, 3) * scale
        if later is not None:
            scores = scores.masked_fill(later, -torch.inf)
        mixed = scores.softmax(-1) @ values  # (n, h, L, s)
        x = x + mixed.transpose(1, 2).reshape(x.shape) @ weights[f"{layer}.attention.out"]
        y = _rms_norm(x, weights[f"{layer}.feedforward.norm"]) @ weights[f"{layer}.feedforward.in"]
        x = x + y.relu() @ weights[f"{layer}.feedforward.out"]
    return _rms_norm(x, weights["norm"]) @ weights["out"]


@lru_cache
def _layout(architecture: Architecture) -> tuple[dict[str, tuple[int, ...]], list[int]]:
    shapes = architecture.shapes()
    return shapes, [math.prod(shape) for shape in shapes.values()]


def _unpack(architecture: Architecture, theta: Tensor) -> dict[str, Tensor]:
    shapes, sizes = _layout(architecture)
    pieces = theta.split(sizes)
    return {
        name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def _rms_norm(x: Tensor, gain_and_bias: Tensor) -> Tensor:
    return (
        x * (x.square().mean(-1, keepdim=True) + _NORM_EPSILON).rsqrt() * gain_and_bias[0]
        + gain_and_bias[1]
    )


def _dual_body(
    architecture: Architecture,
    theta: Tensor,
    direction: Tensor | None,
    tokens: Tensor,
    low: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """What the output matrix reads, shape (n, L, hidden), and its tangent along ``direction``.

    The layers of :func:`logits` on pairs (value, tangent), written out: reverse
    mode can then run through both. Without a direction the tangents are None and
    attention is PyTorch's fused one, whose second derivatives do not exist.
    """
    w = _unpack(architecture, theta)
    d = None if direction is None else _unpack(architecture, direction)
    count, length = tokens.shape
    size = architecture.hidden // architecture.heads
    scale = (size if architecture.attention_scale == "head" else architecture.hidden) ** -0.5

    def linear(x: Tensor, dx: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
        y = product(x, w[name], low)
        if d is None or dx is None:
            return y, None
        return y, product(dx, w[name], low) + product(x, d[name], low)

    def norm(x: Tensor, dx: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
        rate = (x.square().mean(-1, keepdim=True) + _NORM_EPSILON).rsqrt()
        unit = x * rate
        y = unit * w[name][0] + w[name][1]
        if d is None or dx is None:
            return y, None
        dunit = (dx - unit * (unit * dx).mean(-1, keepdim=True)) * rate
        return y, dunit * w[name][0] + unit * d[name][0] + d[name][1]

    def split(y: Tensor) -> tuple[Tensor, ...]:
        return y.view(count, length, 3, architecture.heads, size).permute(2, 0, 3, 1, 4).unbind(0)

    x = embedding(tokens, w["tokens"]) + w["positions"][:length]
    dx = None if d is None else embedding(tokens, d["tokens"]) + d["positions"][:length]
    later = torch.ones(length, length, dtype=torch.bool, device=theta.device).triu(1)
    for layer in range(architecture.layers):
        y, dy = linear(*norm(x, dx, f"{layer}.attention.norm"), f"{layer}.attention.in")
        q, k, v = split(y)  # (n, heads, L, size)
        if d is None:
            if low is not None:
                q, k, v = q.to(low), k.to(low), v.to(low)
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).to(x.dtype)
            dmixed = None
        else:
            assert dy is not None
            dq, dk, dv = split(dy)
            scores = product(q, k.mT, low) * scale
            share = scores.masked_fill(later, -torch.inf).softmax(-1)
            dscores = (product(dq, k.mT, low) + product(q, dk.mT, low)) * scale
            # later positions have no share, and so no part in either sum
            dshare = share * (dscores - (share * dscores).sum(-1, keepdim=True))
            mixed = product(share, v, low)
            dmixed = product(dshare, v, low) + product(share, dv, low)
            dmixed = dmixed.transpose(1, 2).reshape(x.shape)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        y, dy = linear(mixed, dmixed, f"{layer}.attention.out")
        x, dx = x + y, None if dx is None or dy is None else dx + dy
        y, dy = linear(*norm(x, dx, f"{layer}.feedforward.norm"), f"{layer}.feedforward.in")
        dy = None if dy is None else dy * (y > 0)
        y, dy = linear(y.relu(), dy, f"{layer}.feedforward.out")
        x, dx = x + y, None if dx is None or dy is None else dx + dy
    return norm(x, dx, "norm")


def token_losses(scores: Tensor, targets: Tensor) -> Tensor:
    """-ln p of each target in nats, shape (n, L); 0 where the target is :data:`PAD`."""
    log_p = scores.log_softmax(-1)
    picked = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -torch.where(targets == PAD, torch.zeros_like(picked), picked)


class Transformer(Task):
    """The Transformer trained on weighted full batches of token windows.

    Derivatives are taken a micro-batch at a time, so that memory does not grow with
    the number of examples; examples of weight zero are left out of them.

    Args:
        architecture: the shape of the model.
        training, desired, test: int64 tokens, shape (n, L) with
            2 ≤ L ≤ context + 1: each token but the first is predicted from those
            before it. Short examples end in :data:`PAD`.
        initial: θ_0, shape (P,).
        learning_rate: η; 0.1 in the paper.
        micro_batch: the most examples computed at once; a CPU takes fewer of long ones.
            Results differ by rounding alone.
        products: ``"full"``, matrix products in the dtype of ``initial``;
            ``"bfloat16"``, with their factors rounded to it; ``"tf32"``, with the
            tensor cores of an NVIDIA GPU. Parameters, costate, norms, softmax and
            sums keep the dtype of ``initial`` in each.

    Raises:
        TypeError: tokens that are not int64.
        ValueError: shapes that do not fit, tokens outside the vocabulary, padding
            before a token, an example with nothing to predict, η ≤ 0, a micro-batch
            below 1, an unknown name for the products, ``"tf32"`` away from CUDA.
    """

    def __init__(
        self,
        architecture: Architecture,
        training: Tensor,
        desired: Tensor,
        test: Tensor,
        *,
        initial: Tensor,
        learning_rate: float = 0.1,
        micro_batch: int = 256,
        products: str = "full",
    ) -> None:
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
        if micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
        if products not in PRODUCTS:
            raise ValueError(f"products must be one of {', '.join(PRODUCTS)}, got {products!r}")
        if products == "tf32" and initial.device.type != "cuda":
            raise ValueError(f"'tf32' products need a CUDA device, θ_0 is on {initial.device}")
        count = parameter_count(architecture)
        if initial.shape != (count,):
            raise ValueError(f"θ_0 must have shape ({count},), got {tuple(initial.shape)}")
        for name, tokens in (("training", training), ("desired", desired), ("test", test)):
            _check_windows(name, tokens, architecture)
        self.architecture = architecture
        self.training, self.desired, self.test = training, desired, test
        self.initial = initial
        self.learning_rate = learning_rate
        self.vocabulary = architecture.vocabulary
        if initial.device.type == "cpu":
            micro_batch = min(micro_batch, max(1, _CPU_TOKENS // (training.shape[1] - 1)))
        self.micro_batch = micro_batch
        self.products = products
        self._low = torch.bfloat16 if products == "bfloat16" else None

    def losses(self, theta: Tensor, examples: Tensor) -> Tensor:
        """Mean next-token loss over each example's predicted positions, in nats, shape (n,).

        For ``torch.func`` to differentiate: the whole set at once, in full precision.
        """
        inputs, targets = examples[:, :-1].clamp(min=0), examples[:, 1:]
        each = token_losses(logits(self.architecture, theta, inputs), targets)
        return each.sum(1) / (targets != PAD).sum(1)

    def trajectory_losses(self, trajectory: Trajectory, examples: Tensor) -> Tensor:
        """Mean loss in nats at each θ of ``trajectory``, S of them, shape (S,)."""
        batches = [
            _Batch(part, None, self.initial.dtype) for part in examples.split(self.micro_batch)
        ]
        values = self.initial.new_zeros(len(trajectory))
        with torch.no_grad(), self._precision():
            for value, theta in zip(values, trajectory, strict=True):
                out = _unpack(self.architecture, theta)["out"]
                for batch in batches:
                    x, _ = self._read(theta, None, batch)
                    value += batch.weights @ head_losses(x, out, batch.targets, self._low)
        return values / len(examples)

    def gradient(self, theta: Tensor, weights: Tensor) -> Tensor:
        """Σ_n w_n ∇l(x_n, θ) over the training examples with w_n ≠ 0, shape (P,)."""
        return self._weighted_gradient(theta, self.training, weights)[1]

    def mean_gradient(self, theta: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over ``examples`` in nats and its gradient, shape (P,)."""
        weights = theta.new_full((len(examples),), 1 / len(examples))
        return self._weighted_gradient(theta, examples, weights)

    def _weighted_gradient(
        self, theta: Tensor, examples: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        value, total = theta.new_zeros(()), torch.zeros_like(theta)
        used = weights.nonzero()[:, 0]
        with self._precision():
            for rows in used.split(self.micro_batch):
                batch = _Batch(examples[rows], weights[rows], theta.dtype)
                at = theta.detach().requires_grad_(True)
                with torch.enable_grad():
                    x, _ = self._read(at, None, batch)
                    out = _unpack(self.architecture, at)["out"]
                    part, _ = weighted_loss(x, out, batch.targets, batch.weights, self._low)
                total += torch.autograd.grad(part, at)[0]
                value += part.detach()
        return value, total

    def directional_derivatives(self, theta: Tensor, direction: Tensor) -> Tensor:
        """direction·∇l(x_n, θ) for every training example, shape (N,)."""
        everything = torch.arange(self.size, device=theta.device)
        slopes = theta.new_empty(self.size)
        with self._precision():
            self._tangents(theta, direction, everything, slopes)
        return slopes

    def costate_products(
        self, theta: Tensor, weights: Tensor, costate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """λ·∇l(x_n, θ) for every training example, shape (N,), and Hλ, shape (P,).

        Reverse over forward as in :meth:`Task.costate_products`; of the examples
        with w_n = 0, which H does not contain, only the tangents are taken.
        """
        slopes, total = theta.new_empty(self.size), torch.zeros_like(theta)
        used = weights != 0
        with self._precision():
            for rows in used.nonzero()[:, 0].split(self.micro_batch):
                batch = _Batch(self.training[rows], weights[rows], theta.dtype)
                at = theta.detach().requires_grad_(True)
                with torch.enable_grad():
                    x, dx = self._read(at, costate, batch)
                    assert dx is not None
                    out = _unpack(self.architecture, at)["out"]
                    dout = _unpack(self.architecture, costate)["out"]
                    part, each = weighted_tangent(
                        x, dx, out, dout, batch.targets, batch.weights, self._low
                    )
                total += torch.autograd.grad(part, at)[0]
                slopes[rows] = batch.mean(each)
            self._tangents(theta, costate, (~used).nonzero()[:, 0], slopes)
        return slopes, total

    def _tangents(self, theta: Tensor, direction: Tensor, chosen: Tensor, slopes: Tensor) -> None:
        with torch.no_grad():
            for rows in chosen.split(self.micro_batch):
                batch = _Batch(self.training[rows], None, theta.dtype)
                x, dx = self._read(theta, direction, batch)
                assert dx is not None
                out = _unpack(self.architecture, theta)["out"]
                dout = _unpack(self.architecture, direction)["out"]
                each = head_tangents(x, dx, out, dout, batch.targets, self._low)
                slopes[rows] = batch.mean(each)

    def _read(
        self, theta: Tensor, direction: Tensor | None, batch: _Batch
    ) -> tuple[Tensor, Tensor | None]:
        """What the output layer reads at the predicted positions, and its tangent."""
        x, dx = _dual_body(self.architecture, theta, direction, batch.inputs, self._low)
        x, dx = x.flatten(0, 1), None if dx is None else dx.flatten(0, 1)
        if batch.kept is None:
            return x, dx
        return x[batch.kept], None if dx is None else dx[batch.kept]

    @contextmanager
    def _precision(self) -> Iterator[None]:
        if self.products != "tf32":
            yield
            return
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


class _Batch:
    """A micro-batch as the passes above want it: its predicted positions in one row."""

    def __init__(self, examples: Tensor, weights: Tensor | None, dtype: torch.dtype) -> None:
        self.inputs, targets = examples[:, :-1].clamp(min=0), examples[:, 1:]
        real = targets != PAD
        counts = real.sum(1)
        self.shape = targets.shape
        # None where nothing is padded: no copies then
        self.kept = None if bool(real.all()) else real.flatten().nonzero()[:, 0]
        each = (1 / counts.to(dtype)) if weights is None else weights / counts
        spread = each[:, None].expand(self.shape).flatten()
        flat = targets.flatten()
        self.targets = flat if self.kept is None else flat[self.kept]
        self.weights = spread if self.kept is None else spread[self.kept]
        self.share = (1 / counts.to(dtype))[:, None]

    def mean(self, each: Tensor) -> Tensor:
        """Mean over each example's predicted positions, shape (n,)."""
        if self.kept is not None:
            full = each.new_zeros(self.shape[0] * self.shape[1])
            full[self.kept] = each
            each = full
        return (each.view(self.shape) * self.share).sum(1)


def _check_windows(name: str, tokens: Tensor, architecture: Architecture) -> None:
    if tokens.dtype != torch.int64:
        raise TypeError(f"the {name} tokens must be int64, got {tokens.dtype}")
    longest = architecture.context + 1
    if tokens.ndim != 2 or len(tokens) < 1 or not 2 <= tokens.shape[1] <= longest:
        raise ValueError(
            f"expected {name} tokens of shape (n, L) with n ≥ 1 and 2 ≤ L ≤ {longest}, "
            f"got {tuple(tokens.shape)}"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < PAD or high >= architecture.vocabulary:
        raise ValueError(
            f"the {name} tokens must lie in [0, {architecture.vocabulary}) or be PAD ({PAD}), "
            f"got {low}..{high}"
        )
    padded = tokens == PAD
    if bool((padded[:, :-1] & ~padded[:, 1:]).any()):
        raise ValueError(f"a {name} example has padding before a token; pad at the end only")
    if bool(padded[:, 1].any()):
        row = int(padded[:, 1].nonzero()[0])
        raise ValueError(f"{name} example {row} has fewer than two tokens: nothing to predict")
