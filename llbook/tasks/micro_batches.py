"""The Transformer's derivatives by PyTorch's operators, a micro-batch of windows at a time.

Memory does not grow with the number of windows then. Four passes serve the search: losses, tangents,
gradient, costate products.

Of a narrow model a GPU computes each operator in less time than PyTorch needs to ask for it: a step
of the search is a thousand of them. There a micro-batch has a fixed shape, and the operators of each
pass are captured as one CUDA graph, which is asked for at once. Nothing in it depends on the data but
through tensors: padded positions and the places that a micro-batch leaves free have weight zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from llbook.tasks.head import (
    head_losses,
    head_tangents,
    product,
    weighted_loss,
    weighted_tangent,
)
from llbook.tasks.transformer import PAD, Architecture, dual_body, unpack

__all__ = ["MicroBatches"]

SHAPES = 64  # the most for which ``torch.compile`` makes kernels of their own
WARM_UPS = 2  # runs before a capture: libraries choose their algorithms and allocate in them

_Function = Callable[..., Any]


def _precise(method: _Function) -> _Function:
    """With the tensor cores of an NVIDIA GPU, where that is wanted."""

    @wraps(method)
    def inside(self: MicroBatches, *given: Any) -> Any:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = before or self._tf32
        try:
            return method(self, *given)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return inside


class MicroBatches:
    """Passes over sets of token windows, for one architecture on one device.

    Args:
        architecture: the shape of the model.
        products: ``"full"``, ``"bfloat16"`` or ``"tf32"``, see :class:`llbook.tasks.language.Transformer`.
        most: the most windows of a micro-batch.
        fixed: micro-batches of one shape, and, on a GPU, graphs of them: captured once and
            replayed. Else they have the windows that there are, and operators run as they come.
        fused: of one shape, and ``torch.compile`` makes kernels of several operators each; it
            takes a minute or two, and needs a C compiler.
    """

    def __init__(
        self,
        architecture: Architecture,
        products: str,
        most: int,
        *,
        fixed: bool = False,
        fused: bool = False,
    ) -> None:
        low = torch.bfloat16 if products == "bfloat16" else None
        self._most, self._fixed, self._tf32 = most, fixed or fused, products == "tf32"
        self.read_losses: _Function = partial(_read_losses, architecture, low, fused)
        self.read_tangents: _Function = partial(_read_tangents, architecture, low, fused)
        if fused:
            self.read_losses = torch.compile(self.read_losses, dynamic=False)
            self.read_tangents = torch.compile(self.read_tangents, dynamic=False)
        self._passes: dict[tuple[Any, ...], _Pass] = {}
        self._pool: Any = None

    @_precise
    def losses(self, theta: Tensor, examples: Tensor) -> Tensor:
        """l(x_n, θ) of every window in nats, shape (n,)."""
        each = theta.new_empty(len(examples))
        for part in self._parts(_losses, theta, examples, self._all(examples)):
            each[part.rows] = part.run(theta, part.tokens)[: part.count]
        return each

    @_precise
    def tangents(self, theta: Tensor, direction: Tensor, examples: Tensor) -> Tensor:
        """direction·∇l(x_n, θ) of every window, shape (n,)."""
        slopes = theta.new_empty(len(examples))
        self._tangents(theta, direction, examples, self._all(examples), slopes)
        return slopes

    @_precise
    def gradient(self, theta: Tensor, examples: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_n w_n l(x_n, θ) and its gradient, shape (P,)."""
        used = self._where(weights != 0)
        value, total = theta.new_zeros(()), torch.zeros_like(theta)
        for part in self._parts(_gradient, theta, examples, used, weights):
            loss, slope = part.run(theta, part.weights, part.tokens)
            value += loss
            total += slope
        return value, total

    @_precise
    def costate_products(
        self, theta: Tensor, direction: Tensor, examples: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """direction·∇l(x_n, θ) of every window, shape (n,), and Σ_n w_n ∇²l(x_n, θ) direction, shape (P,)."""
        used = self._where(weights != 0)
        slopes, total = theta.new_empty(len(examples)), torch.zeros_like(theta)
        for part in self._parts(_products, theta, examples, used, weights):
            each, curvature = part.run(theta, direction, part.weights, part.tokens)
            slopes[part.rows] = each[: part.count]
            total += curvature
        if used is not None and len(used) < len(examples):
            self._tangents(theta, direction, examples, self._where(weights == 0), slopes)
        return slopes, total

    def _tangents(
        self,
        theta: Tensor,
        direction: Tensor,
        examples: Tensor,
        chosen: Tensor | None,
        slopes: Tensor,
    ) -> None:
        for part in self._parts(_tangents, theta, examples, chosen):
            slopes[part.rows] = part.run(theta, direction, part.tokens)[: part.count]

    def _width(self, examples: Tensor) -> int:
        """Windows of a micro-batch; of a fixed one, as many in each as the fewest need."""
        if not self._fixed or not len(examples):  # a share may have none of a batch
            return self._most
        return -(-len(examples) // -(-len(examples) // self._most))

    def _all(self, examples: Tensor) -> Tensor | None:
        """Every window; None where they are one micro-batch of a fixed shape."""
        if self._fixed and self._width(examples) == len(examples):
            return None
        return torch.arange(len(examples), device=examples.device)

    def _where(self, chosen: Tensor) -> Tensor | None:
        """The windows that are chosen; None, all of them, where they are one micro-batch of a fixed shape.

        To ask a GPU how many there are is to wait for it.
        """
        return None if self._all(chosen) is None else chosen.nonzero()[:, 0]

    def _parts(
        self,
        function: _Function,
        theta: Tensor,
        examples: Tensor,
        chosen: Tensor | None,
        weights: Tensor | None = None,
    ) -> Iterator[_Part]:
        """The micro-batches of the chosen windows; a fixed one is filled up with the first."""
        if chosen is None:
            run, everything = self._pass(function, theta, examples), slice(len(examples))
            yield _Part(run, everything, len(examples), weights, examples)
            return
        width = self._width(examples)
        for rows in chosen.split(width) if len(chosen) else ():
            free = (0, width - len(rows) if self._fixed else 0)
            tokens = examples[pad(rows, free)]
            filled = None if weights is None else pad(weights[rows], free)
            yield _Part(self._pass(function, theta, tokens), rows, len(rows), filled, tokens)

    def _pass(self, function: _Function, theta: Tensor, tokens: Tensor) -> _Function:
        if not self._fixed or theta.device.type != "cuda":
            return partial(function, self)
        key = (function, tokens.shape, theta.dtype, torch.backends.cuda.matmul.allow_tf32)
        if key not in self._passes:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._passes[key] = _Pass(partial(function, self), self._pool)
        return self._passes[key]


@dataclass(frozen=True)
class _Part:
    """A micro-batch: its pass, which windows it has and how many, their weights and tokens."""

    run: _Function
    rows: Tensor | slice
    count: int
    weights: Any
    tokens: Tensor


class _Pass:
    """A function of tensors of fixed shapes on a GPU, captured at its first call.

    What it returns is overwritten by its next call.
    """

    def __init__(self, function: _Function, pool: Any) -> None:
        self._function, self._pool = function, pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        if self._graph is None:
            self._capture(inputs)
        assert self._graph is not None
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [given.detach().clone() for given in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch._dynamo.config.patch(recompile_limit=SHAPES):
            for _ in range(WARM_UPS):
                self._function(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=self._pool):
            self._outputs = self._function(*self._inputs)


class _Windows:
    """A micro-batch: its inputs, and for each position target and weight."""

    def __init__(self, tokens: Tensor, weights: Tensor | None, dtype: torch.dtype) -> None:
        self.inputs, targets = tokens[:, :-1].clamp(min=0), tokens[:, 1:]
        real = targets != PAD
        share = real / real.sum(1, keepdim=True).to(dtype)  # of each position in its window's mean
        self.share = share
        self.targets = targets.clamp(min=0).flatten()
        self.weights = None if weights is None else (share * weights[:, None]).flatten()

    def total(self, each: Tensor) -> Tensor:
        """Σ over all positions, by weight where they have one."""
        return each.sum() if self.weights is None else self.weights @ each

    def mean(self, each: Tensor) -> Tensor:
        """The mean of each window, over its real positions."""
        return (each.view_as(self.share) * self.share).sum(1)


def _losses(of: MicroBatches, theta: Tensor, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return of.read_losses(theta, None, tokens)[1]


def _tangents(of: MicroBatches, theta: Tensor, direction: Tensor, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return of.read_tangents(theta, direction, None, tokens)[1]


def _gradient(
    of: MicroBatches, theta: Tensor, weights: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    at = theta.detach().requires_grad_(True)
    with torch.enable_grad():
        part, _ = of.read_losses(at, weights, tokens)
    return part.detach(), torch.autograd.grad(part, at)[0]


def _products(
    of: MicroBatches, theta: Tensor, direction: Tensor, weights: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    at = theta.detach().requires_grad_(True)
    with torch.enable_grad():
        part, each = of.read_tangents(at, direction, weights, tokens)
    return each.detach(), torch.autograd.grad(part, at)[0]


def _read_losses(
    architecture: Architecture,
    low: torch.dtype | None,
    fused: bool,
    theta: Tensor,
    weights: Tensor | None,
    tokens: Tensor,
) -> tuple[Tensor, Tensor]:
    """Σ_n w_n l_n, where there are weights, and the l_n."""
    windows = _Windows(tokens, weights, theta.dtype)
    x, _ = dual_body(architecture, theta, None, windows.inputs, low, fused=fused)
    x, out = x.flatten(0, 1), unpack(architecture, theta)["out"]
    if fused:
        scores = product(x, out, low)
        each = scores.logsumexp(1) - _picked(scores, windows.targets)
    elif windows.weights is None:
        each = head_losses(x, out, windows.targets, low)
    else:
        part, each = weighted_loss(x, out, windows.targets, windows.weights, low)
        return part, windows.mean(each)
    return windows.total(each), windows.mean(each)


def _read_tangents(
    architecture: Architecture,
    low: torch.dtype | None,
    fused: bool,
    theta: Tensor,
    direction: Tensor,
    weights: Tensor | None,
    tokens: Tensor,
) -> tuple[Tensor, Tensor]:
    """Σ_n w_n l̇_n along ``direction``, where there are weights, and the l̇_n."""
    windows = _Windows(tokens, weights, theta.dtype)
    x, dx = dual_body(architecture, theta, direction, windows.inputs, low, fused=fused)
    assert dx is not None
    x, dx = x.flatten(0, 1), dx.flatten(0, 1)
    out, dout = (unpack(architecture, given)["out"] for given in (theta, direction))
    if fused:
        p = product(x, out, low).softmax(1)
        dz = product(dx, out, low) + product(x, dout, low)
        each = (p * dz).sum(1) - _picked(dz, windows.targets)
    elif windows.weights is None:
        each = head_tangents(x, dx, out, dout, windows.targets, low)
    else:
        part, each = weighted_tangent(x, dx, out, dout, windows.targets, windows.weights, low)
        return part, windows.mean(each)
    return windows.total(each), windows.mean(each)


def _picked(scores: Tensor, targets: Tensor) -> Tensor:
    """The score of each target: a comparison and a sum, which can be fused with others."""
    types = torch.arange(scores.shape[1], device=scores.device)
    return torch.where(types == targets[:, None], scores, 0).sum(1)
