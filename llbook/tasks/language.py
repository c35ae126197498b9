"""The Transformer as a task: a language model trained on weighted windows of tokens (§4.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llbook.tasks.micro_batches import MicroBatches
from llbook.tasks.task import Task, Trajectory
from llbook.tasks.transformer import (
    PAD,
    Architecture,
    logits,
    parameter_count,
    token_losses,
)
from llbook.tasks.window import Windows

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
            products alone; ``"operators"``, by PyTorch's operators on micro-batches
            (:mod:`llbook.tasks.micro_batches`); ``"graphs"``, those captured once and replayed,
            on a GPU; ``"fused"``, first made into fewer kernels by ``torch.compile``; ``"auto"``,
            ``"graphs"`` on a GPU and ``"window"`` wherever it can be. They agree to rounding.

    Raises:
        TypeError: tokens that are not int64, a θ_0 in another dtype than float32 or float64.
        ValueError: shapes or devices that do not fit, tokens outside the vocabulary, padding
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
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
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
        if initial.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"expected θ_0 in float32 or float64, got {initial.dtype}")
        for name, tokens in (("training", training), ("desired", desired), ("test", test)):
            _check_windows(name, tokens, architecture)
            if tokens.device != initial.device:
                raise ValueError(
                    f"θ_0 is on {initial.device}, but the {name} tokens are on {tokens.device}"
                )
        self.architecture = architecture
        self.training, self.desired, self.test = training, desired, test
        self.initial = initial.detach()
        self.learning_rate = learning_rate
        self.vocabulary = architecture.vocabulary
        if initial.device.type == "cpu":
            micro_batch = min(micro_batch, max(1, _CPU_TOKENS // (training.shape[1] - 1)))
        self.micro_batch = micro_batch
        self.products = products
        self.kernel = kernel
        self._passes = self._chosen_passes(kernel)

    def _chosen_passes(self, kernel: str) -> Windows | MicroBatches:
        device = self.initial.device.type
        if kernel == "auto" and device == "cuda":
            kernel = "graphs"
        if kernel in ("auto", "window") and _windows_serve(self.products, self.initial):
            return Windows(self.architecture)
        most = self.micro_batch
        if kernel in ("graphs", "fused"):
            # as many numbers at once as of windows of 64 tokens at width 128
            numbers = (self.training.shape[1] - 1) * self.architecture.hidden
            most *= max(1, 64 * 128 // numbers)
        return MicroBatches(
            self.architecture,
            self.products,
            most,
            fixed=kernel == "graphs",
            fused=kernel == "fused",
        )

    @property
    def by_window(self) -> bool:
        """Whether derivatives are the compiled kernel's."""
        return isinstance(self._passes, Windows)

    def losses(self, theta: Tensor, examples: Tensor) -> Tensor:
        """Mean next-token loss over each example's predicted positions, in nats, shape (n,).

        For ``torch.func`` to differentiate: the whole set at once, in full precision.
        """
        inputs, targets = examples[:, :-1].clamp(min=0), examples[:, 1:]
        each = token_losses(logits(self.architecture, theta, inputs), targets)
        return each.sum(1) / (targets != PAD).sum(1)

    def trajectory_losses(self, trajectory: Trajectory, examples: Tensor) -> Tensor:
        """Mean loss in nats at each θ of ``trajectory``, S of them, shape (S,)."""
        return torch.stack([self._passes.losses(theta, examples).mean() for theta in trajectory])

    def gradient(self, theta: Tensor, weights: Tensor) -> Tensor:
        """Σ_n w_n ∇l(x_n, θ) over the training examples with w_n ≠ 0, shape (P,)."""
        return self._passes.gradient(theta, self.training, weights)[1]

    def mean_gradient(self, theta: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over ``examples`` in nats and its gradient, shape (P,)."""
        weights = theta.new_full((len(examples),), 1 / len(examples))
        return self._passes.gradient(theta, examples, weights)

    def example_gradients(self, theta: Tensor) -> Tensor:
        """∇l(x_n, θ) of every training example, shape (N, P): for small N."""
        whole = theta.new_ones(1)
        return torch.stack(
            [self._passes.gradient(theta, window, whole)[1] for window in self.training.split(1)]
        )

    def directional_derivatives(self, theta: Tensor, direction: Tensor) -> Tensor:
        """direction·∇l(x_n, θ) for every training example, shape (N,)."""
        return self._passes.tangents(theta, direction, self.training)

    def costate_products(
        self, theta: Tensor, weights: Tensor, costate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """λ·∇l(x_n, θ) for every training example, shape (N,), and Hλ, shape (P,).

        Reverse over forward as in :meth:`Task.costate_products`; of the examples
        with w_n = 0, which H does not contain, only the tangents are taken.
        """
        return self._passes.costate_products(theta, costate, self.training, weights)


def _windows_serve(products: str, initial: Tensor) -> bool:
    return products == "full" and initial.device.type == "cpu"


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
