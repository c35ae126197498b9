"""The linear perceptron o = σ(θ·z) of §4.2, with its closed forms.

With the label in {-1, +1} absorbed into the input, a = y·z, the loss depends
on the margin a·θ alone:

    l(x, θ) = -log σ(a·θ),   ∇l = -σ(-a·θ) a,   ∇²l = σ(a·θ) σ(-a·θ) a aᵀ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from llbook.data.teacher import Labelled
from llbook.tasks import closed_form
from llbook.tasks.task import LinearForm, Task, Trajectory

__all__ = ["Perceptron", "SignedInputs", "initial_parameters"]

BLOCK = 256


class SignedInputs:
    """Labelled inputs in the only form the loss needs: a_n = y_n z_n, shape (n, D)."""

    def __init__(self, examples: Labelled) -> None:
        inputs, labels = examples
        if inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
            raise ValueError(
                "expected inputs of shape (n, D) and labels of shape (n,), "
                f"got {tuple(inputs.shape)} and {tuple(labels.shape)}"
            )
        if len(inputs) == 0:
            raise ValueError("expected at least one example, got none")
        if inputs.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected float32 or float64 inputs, got {inputs.dtype}")
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError("inputs must be finite")
        if not bool((labels.abs() == 1).all()):
            raise ValueError("labels must be -1 or +1")
        self.signed = (inputs * labels[:, None]).contiguous()

    def __len__(self) -> int:
        return len(self.signed)

    def __getitem__(self, chosen: Tensor) -> SignedInputs:
        part = object.__new__(SignedInputs)  # checked as a whole
        part.signed = self.signed.index_select(0, chosen)
        return part


class Perceptron(Task):
    """A perceptron without bias, trained on weighted full batches.

    Args:
        training, desired, test: labelled inputs, D columns each.
        initial: θ_0, shape (D,).
        learning_rate: η; 0.1 in the paper.

    Raises:
        ValueError: shapes that do not fit, labels other than ±1, η ≤ 0.
    """

    vocabulary = 2

    def __init__(
        self,
        training: Labelled,
        desired: Labelled,
        test: Labelled,
        *,
        initial: Tensor,
        learning_rate: float = 0.1,
    ) -> None:
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
        self.training = SignedInputs(training)
        self.desired = SignedInputs(desired)
        self.test = SignedInputs(test)
        for name in ("training", "desired", "test"):
            columns = getattr(self, name).signed.shape[1]
            if initial.shape != (columns,):
                raise ValueError(
                    f"θ_0 has shape {tuple(initial.shape)}, "
                    f"but the {name} inputs have {columns} columns"
                )
            signed = getattr(self, name).signed
            if signed.dtype != initial.dtype or signed.device != initial.device:
                raise ValueError(
                    f"θ_0 is {initial.dtype} on {initial.device}, "
                    f"but the {name} inputs are {signed.dtype} on {signed.device}"
                )
        self.initial = initial.detach()
        self.learning_rate = learning_rate

    def losses(self, theta: Tensor, examples: SignedInputs) -> Tensor:
        """-log σ(a_n·θ) in nats, shape (n,)."""
        # PyTorch's softplus is linear from 20 on, and its derivative off by 2e-9 there
        return -logsigmoid(examples.signed @ theta)

    def example_gradients(self, theta: Tensor) -> Tensor:
        signed = self.training.signed
        return -torch.sigmoid(-(signed @ theta))[:, None] * signed

    def gradient(self, theta: Tensor, weights: Tensor) -> Tensor:
        signed = self.training.signed
        return signed.T @ (weights * torch.sigmoid(-(signed @ theta))).neg_()

    def mean_gradient(self, theta: Tensor, examples: SignedInputs) -> tuple[Tensor, Tensor]:
        losses, slopes = self._trajectory_values(theta[None], examples)
        return losses[0], slopes[0]

    def directional_derivatives(self, theta: Tensor, direction: Tensor) -> Tensor:
        signed = self.training.signed
        return -torch.sigmoid(-(signed @ theta)) * (signed @ direction)

    def linear_form(self) -> LinearForm:
        a, c = (examples.signed.double().numpy() for examples in (self.training, self.desired))
        return LinearForm(a, np.zeros(len(a)), c, np.zeros(len(c)), True)

    def costate_products(
        self, theta: Tensor, weights: Tensor, costate: Tensor
    ) -> tuple[Tensor, Tensor]:
        signed = self.training.signed
        pull = torch.sigmoid(-(signed @ theta))
        products = -pull * (signed @ costate)
        return products, signed.T @ (weights * (pull - 1) * products)

    # Rows go through in blocks: the intermediate (rows, n) matrices stay in the
    # cache, and a long trajectory costs no more memory than a short one.

    def descend(self, policy: Tensor) -> Tensor:
        return closed_form.descend(self.training.signed, self.initial, self.learning_rate, policy)

    def adjoint(self, policy: Tensor, trajectory: Any) -> tuple[Tensor, Tensor]:
        losses, slopes = self._trajectory_values(trajectory, self.desired)
        gradient = closed_form.adjoint_sweep(
            self.training.signed, self.learning_rate, policy, trajectory, slopes
        )
        return gradient, losses[1:]

    def contributions(self, trajectory: Any, examples: SignedInputs) -> Tensor:
        if not isinstance(trajectory, Tensor):
            return super().contributions(trajectory, examples)
        states, signed = trajectory[:-1], self.training.signed
        slopes = self.trajectory_gradients(states, examples)
        result = states.new_empty(len(states), self.size)
        for rows, at, along in zip(
            result.split(BLOCK), states.split(BLOCK), slopes.split(BLOCK), strict=True
        ):
            torch.sigmoid_(torch.mm(at, signed.T, out=rows).neg_()).mul_(along @ signed.T).neg_()
        return result

    def trajectory_losses(self, trajectory: Trajectory, examples: SignedInputs) -> Tensor:
        if not isinstance(trajectory, Tensor):
            return super().trajectory_losses(trajectory, examples)
        return torch.cat(
            [-logsigmoid(rows @ examples.signed.T).mean(1) for rows in trajectory.split(BLOCK)]
        )

    def trajectory_gradients(self, trajectory: Trajectory, examples: SignedInputs) -> Tensor:
        if not isinstance(trajectory, Tensor):
            return super().trajectory_gradients(trajectory, examples)
        return self._trajectory_values(trajectory, examples)[1]

    def _trajectory_values(
        self, trajectory: Tensor, examples: SignedInputs
    ) -> tuple[Tensor, Tensor]:
        """Mean losses (S,) and their gradients (S, D), from one product with the inputs."""
        losses, slopes = [], []
        for rows in trajectory.split(BLOCK):
            margins = rows @ examples.signed.T
            losses.append(-logsigmoid(margins).mean(1))
            slopes.append(torch.sigmoid_(margins.neg_()) @ examples.signed)
        return torch.cat(losses), torch.cat(slopes).div_(-len(examples))


def initial_parameters(
    kind: str, dimension: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """θ_0, shape (D,), drawn in float64 from a stream of its own.

    ``"linear"`` is PyTorch's default for a linear layer of D inputs, uniform on
    ±1/√D; ``"normal"`` is N(0, I); ``"zero"`` is zero. The paper does not say.
    """
    generator = torch.Generator().manual_seed(seed + 0x5EED)
    if kind == "linear":
        draw = torch.rand(dimension, generator=generator, dtype=torch.float64)
        return ((2 * draw - 1) / dimension**0.5).to(dtype)
    if kind == "normal":
        return torch.randn(dimension, generator=generator, dtype=torch.float64).to(dtype)
    if kind == "zero":
        return torch.zeros(dimension, dtype=dtype)
    raise ValueError(f"initialisation must be 'linear', 'normal' or 'zero', got {kind!r}")
