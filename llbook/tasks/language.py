"""The Transformer as a task: a language model trained on weighted windows of tokens (§4.3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from llbook.tasks.head import head_losses, head_tangents, weighted_loss, weighted_tangent
from llbook.tasks.replay import Replays
from llbook.tasks.task import Task, Trajectory
from llbook.tasks.transformer import (
    PAD,
    Architecture,
    dual_body,
    logits,
    parameter_count,
    token_losses,
    unpack,
)
from llbook.tasks.window import windows

__all__ = ["KERNELS", "PRODUCTS", "Transformer"]

PRODUCTS = ("full", "bfloat16", "tf32")
KERNELS = ("auto", "window", "graphs", "fused", "operators")
# Tokens at once on a CPU: the buffers of more are given back to the system after each
# use, and its clearing of their pages takes longer than what is computed in them.
_CPU_TOKENS = 2048


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
        micro_batch: the most examples computed at once; a CPU takes fewer of long ones, a GPU
            more where L times the width is below 64 · 128. Results differ by rounding alone.
        products: ``"full"``, matrix products in the dtype of ``initial``;
            ``"bfloat16"``, with their factors rounded to it; ``"tf32"``, with the
            tensor cores of an NVIDIA GPU. Parameters, costate, norms, softmax and
            sums keep the dtype of ``initial`` in each.
        kernel: ``"window"``, derivatives by the compiled kernel of
            :mod:`llbook.tasks.window`, an example at a time, on the CPU and in full
            products alone; ``"operators"``, by PyTorch's operators on micro-batches;
            ``"graphs"``, those captured once and replayed (:mod:`llbook.tasks.replay`), on a
            GPU; ``"fused"``, first made into fewer kernels by ``torch.compile``; ``"auto"``,
            ``"graphs"`` on a GPU and ``"window"`` wherever it can be. They agree to rounding.

    Raises:
        TypeError: tokens that are not int64.
        ValueError: shapes that do not fit, tokens outside the vocabulary, padding
            before a token, an example with nothing to predict, η ≤ 0, a micro-batch
            below 1, an unknown name for the products or the kernel, ``"tf32"`` away
            from CUDA, ``"window"`` where it cannot be.
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
        kernel: str = "auto",
    ) -> None:
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}")
        if micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
        if products not in PRODUCTS:
            raise ValueError(f"products must be one of {', '.join(PRODUCTS)}, got {products!r}")
        if products == "tf32" and initial.device.type != "cuda":
            raise ValueError(f"'tf32' products need a CUDA device, θ_0 is on {initial.device}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if kernel == "window" and not _windows_serve(products, initial):
            raise ValueError(
                "the 'window' kernel needs a CPU and 'full' products, "
                f"got {initial.device} and {products!r}"
            )
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
        self.kernel = kernel
        self._low = torch.bfloat16 if products == "bfloat16" else None
        self._replays = None
        if kernel in ("graphs", "fused") or (kernel == "auto" and initial.device.type == "cuda"):
            # as many numbers at once as of windows of 64 tokens at width 128
            room = 64 * 128 // ((training.shape[1] - 1) * architecture.hidden)
            self._replays = Replays(
                architecture, self._low, micro_batch * max(1, room), fused=kernel == "fused"
            )

    @property
    def by_window(self) -> bool:
        """Whether derivatives are the compiled kernel's."""
        return (
            self._replays is None
            and self.kernel != "operators"
            and _windows_serve(self.products, self.initial)
        )

    def losses(self, theta: Tensor, examples: Tensor) -> Tensor:
        """Mean next-token loss over each example's predicted positions, in nats, shape (n,).

        For ``torch.func`` to differentiate: the whole set at once, in full precision.
        """
        inputs, targets = examples[:, :-1].clamp(min=0), examples[:, 1:]
        each = token_losses(logits(self.architecture, theta, inputs), targets)
        return each.sum(1) / (targets != PAD).sum(1)

    def trajectory_losses(self, trajectory: Trajectory, examples: Tensor) -> Tensor:
        """Mean loss in nats at each θ of ``trajectory``, S of them, shape (S,)."""
        if self.by_window:
            everything = torch.arange(len(examples))
            each = [
                windows(self.architecture, theta, None, examples, everything)[0].mean()
                for theta in trajectory
            ]
            return torch.stack(each)
        if self._replays is not None:
            with self._precision():
                each = [self._replays.losses(theta, examples).mean() for theta in trajectory]
            return torch.stack(each)
        batches = [
            _Batch(part, None, self.initial.dtype) for part in examples.split(self.micro_batch)
        ]
        values = self.initial.new_zeros(len(trajectory))
        with torch.no_grad(), self._precision():
            for value, theta in zip(values, trajectory, strict=True):
                out = unpack(self.architecture, theta)["out"]
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
        if self._replays is not None:
            with self._precision():
                return self._replays.gradient(theta, examples, weights)
        used = weights.nonzero()[:, 0]
        if self.by_window:
            each, total = windows(self.architecture, theta, None, examples, used, weights[used])
            return weights[used] @ each, total
        value, total = theta.new_zeros(()), torch.zeros_like(theta)
        with self._precision():
            for rows in used.split(self.micro_batch):
                batch = _Batch(examples[rows], weights[rows], theta.dtype)
                at = theta.detach().requires_grad_(True)
                with torch.enable_grad():
                    x, _ = self._read(at, None, batch)
                    out = unpack(self.architecture, at)["out"]
                    part, _ = weighted_loss(x, out, batch.targets, batch.weights, self._low)
                total += torch.autograd.grad(part, at)[0]
                value += part.detach()
        return value, total

    def directional_derivatives(self, theta: Tensor, direction: Tensor) -> Tensor:
        """direction·∇l(x_n, θ) for every training example, shape (N,)."""
        if self._replays is not None:
            with self._precision():
                return self._replays.tangents(theta, direction, self.training)
        everything = torch.arange(self.size, device=theta.device)
        if self.by_window:
            return windows(self.architecture, theta, direction, self.training, everything)[0]
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
        if self._replays is not None:
            with self._precision():
                return self._replays.costate_products(theta, costate, self.training, weights)
        slopes, used = theta.new_empty(self.size), weights != 0
        if self.by_window:
            rows = used.nonzero()[:, 0]
            order = torch.cat([rows, (~used).nonzero()[:, 0]])
            slopes[order], total = windows(
                self.architecture, theta, costate, self.training, order, weights[rows]
            )
            return slopes, total
        total = torch.zeros_like(theta)
        with self._precision():
            for rows in used.nonzero()[:, 0].split(self.micro_batch):
                batch = _Batch(self.training[rows], weights[rows], theta.dtype)
                at = theta.detach().requires_grad_(True)
                with torch.enable_grad():
                    x, dx = self._read(at, costate, batch)
                    assert dx is not None
                    out = unpack(self.architecture, at)["out"]
                    dout = unpack(self.architecture, costate)["out"]
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
                out = unpack(self.architecture, theta)["out"]
                dout = unpack(self.architecture, direction)["out"]
                each = head_tangents(x, dx, out, dout, batch.targets, self._low)
                slopes[rows] = batch.mean(each)

    def _read(
        self, theta: Tensor, direction: Tensor | None, batch: _Batch
    ) -> tuple[Tensor, Tensor | None]:
        """What the output layer reads at the predicted positions, and its tangent."""
        x, dx = dual_body(self.architecture, theta, direction, batch.inputs, self._low)
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


def _windows_serve(products: str, initial: Tensor) -> bool:
    return products == "full" and initial.device.type == "cpu"


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
