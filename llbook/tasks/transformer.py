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
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import embedding

from llbook.tasks.task import Task

__all__ = [
    "PAD",
    "Architecture",
    "Prefix",
    "Transformer",
    "initial_parameters",
    "logits",
    "parameter_count",
    "token_losses",
]

PAD = -1  # outside the vocabulary, so that V counts only what can be predicted
_NORM_EPSILON = 1e-6


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


def token_losses(scores: Tensor, targets: Tensor) -> Tensor:
    """-ln p of each target in nats, shape (n, L); 0 where the target is :data:`PAD`."""
    log_p = scores.log_softmax(-1)
    picked = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -torch.where(targets == PAD, torch.zeros_like(picked), picked)


class Transformer(Task):
    """The Transformer trained on weighted full batches of token windows.

    Args:
        architecture: the shape of the model.
        training, desired, test: int64 tokens, shape (n, L) with
            2 ≤ L ≤ context + 1: each token but the first is predicted from those
            before it. Short examples end in :data:`PAD`.
        initial: θ_0, shape (P,).
        learning_rate: η; 0.1 in the paper.

    Raises:
        TypeError: tokens that are not int64.
        ValueError: shapes that do not fit, tokens outside the vocabulary, padding
            before a token, an example with nothing to predict, η ≤ 0.
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
    ) -> None:
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
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

    def losses(self, theta: Tensor, examples: Tensor) -> Tensor:
        """Mean next-token loss over each example's predicted positions, in nats, shape (n,)."""
        inputs, targets = examples[:, :-1].clamp(min=0), examples[:, 1:]
        each = token_losses(logits(self.architecture, theta, inputs), targets)
        return each.sum(1) / (targets != PAD).sum(1)


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
