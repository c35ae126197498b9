"""The paper's Transformer language model (App. D), in one file and one flat vector θ.

A decoder with learned positions, pre-norm RMSNorm with bias, feed-forward
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
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, scaled_dot_product_attention

from llbook.data.tokens import PAD
from llbook.tasks.head import (
    product,
)

__all__ = [
    "ACTIVATIONS",
    "PAD",
    "Architecture",
    "Prefix",
    "dual_body",
    "initial_parameters",
    "logits",
    "parameter_count",
    "token_losses",
    "unpack",
]

_NORM_EPSILON = 1e-6


class _Relu:
    @staticmethod
    def value(y: Tensor) -> Tensor:
        return y.relu()

    @staticmethod
    def slope(y: Tensor) -> Tensor:
        return (y > 0).to(y.dtype)


class _Gelu:
    @staticmethod
    def value(y: Tensor) -> Tensor:
        return gelu(y)

    @staticmethod
    def slope(y: Tensor) -> Tensor:
        density = (y.square() / -2).exp() / math.sqrt(2 * math.pi)
        return torch.special.ndtr(y) + y * density


ACTIVATIONS: dict[str, type[_Relu | _Gelu]] = {"relu": _Relu, "gelu": _Gelu}


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
        activation: of the feed-forward layers: ``"relu"``, the paper's, whose slope jumps, so
            that J is not differentiable everywhere and ∂J/∂γ is of one piece only;
            ``"gelu"``, y Φ(y) with the normal distribution function, smooth.
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
    activation: str = "relu"
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
        if self.activation not in ACTIVATIONS:
            known = " or ".join(map(repr, ACTIVATIONS))
            raise ValueError(f"activation must be {known}, got {self.activation!r}")
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
    activation = ACTIVATIONS[architecture.activation]
    weights = unpack(architecture, theta)
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
        x = x + activation.value(y) @ weights[f"{layer}.feedforward.out"]
    return _rms_norm(x, weights["norm"]) @ weights["out"]


@lru_cache
def _layout(architecture: Architecture) -> tuple[dict[str, tuple[int, ...]], list[int]]:
    shapes = architecture.shapes()
    return shapes, [math.prod(shape) for shape in shapes.values()]


def unpack(architecture: Architecture, theta: Tensor) -> dict[str, Tensor]:
    """The arrays of θ by name, as views."""
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


def dual_body(
    architecture: Architecture,
    theta: Tensor,
    direction: Tensor | None,
    tokens: Tensor,
    low: torch.dtype | None,
    *,
    fused: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What the output matrix reads, shape (n, L, hidden), and its tangent along ``direction``.

    The layers of :func:`logits` on pairs (value, tangent), written out: reverse
    mode can then run through both. Without a direction the tangents are None and
    attention is PyTorch's fused one, whose second derivatives do not exist; unless all is
    ``fused`` by ``torch.compile``, which is faster for windows as short as here.
    """
    activation = ACTIVATIONS[architecture.activation]
    w = unpack(architecture, theta)
    d = None if direction is None else unpack(architecture, direction)
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
        if d is None and not fused:
            if low is not None:
                q, k, v = q.to(low), k.to(low), v.to(low)
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).to(x.dtype)
        else:
            scores = product(q, k.mT, low) * scale
            share = scores.masked_fill(later, -torch.inf).softmax(-1)
            mixed = product(share, v, low)
        dmixed = None
        if dy is not None:
            dq, dk, dv = split(dy)
            dscores = (product(dq, k.mT, low) + product(q, dk.mT, low)) * scale
            # later positions have no share, and so no part in either sum
            dshare = share * (dscores - (share * dscores).sum(-1, keepdim=True))
            dmixed = product(dshare, v, low) + product(share, dv, low)
            dmixed = dmixed.transpose(1, 2).reshape(x.shape)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        y, dy = linear(mixed, dmixed, f"{layer}.attention.out")
        x, dx = x + y, None if dx is None or dy is None else dx + dy
        y, dy = linear(*norm(x, dx, f"{layer}.feedforward.norm"), f"{layer}.feedforward.in")
        dy = None if dy is None else dy * activation.slope(y)
        y, dy = linear(activation.value(y), dy, f"{layer}.feedforward.out")
        x, dx = x + y, None if dx is None or dy is None else dx + dy
    return norm(x, dx, "norm")


def token_losses(scores: Tensor, targets: Tensor) -> Tensor:
    """-ln p of each target in nats, shape (n, L); 0 where the target is :data:`PAD`."""
    log_p = scores.log_softmax(-1)
    picked = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -torch.where(targets == PAD, torch.zeros_like(picked), picked)
