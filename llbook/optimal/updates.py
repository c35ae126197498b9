"""One step of each optimiser, and its transpose.

With g_t the gradient of a step and η_t = η f_t its rate, an optimiser keeps rows of
numbers, one a parameter, beside θ:

- gradient descent: none; θ ← θ - η_t g_t.
- momentum: v ← μ v + g_t; θ ← θ - η_t v; Nesterov's: θ ← θ - η_t (g_t + μ v), with the new v.
- Adam: m ← β₁ m + (1 - β₁) g_t; u ← β₂ u + (1 - β₂) g_t²; θ ← θ - η_t m̂ / (√û + ε), with
  m̂ = m / (1 - β₁^{t+1}) and û = u / (1 - β₂^{t+1}). The gradient is kept with the state that
  it led to, for the way back.

All of them work elementwise. The transpose takes the costates of what a step leaves to the costates of
what it was given. Those of θ are λ; those of all else are divided by -η, so that what
belongs to g_t, the *pull*, is λ_{t+1} itself for gradient descent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Adam", "Descent", "Momentum", "Update"]

Rows = tuple[Tensor, ...]


class Update(ABC):
    """An optimiser's step.

    Attributes:
        kept: rows beside θ in a state.
        carried: how many of them, the first ones, the next step depends on.
    """

    kept = 0
    carried = 0

    @abstractmethod
    def step(self, theta: Tensor, kept: Tensor, gradient: Tensor, rate: float, t: int) -> Rows:
        """θ_{t+1} and the rows kept with it, from those of step t, g_t and η_t."""

    @abstractmethod
    def transpose(
        self, costate: Tensor, carried: Sequence[Tensor], after: Tensor, f: float, t: int
    ) -> tuple[Rows, Tensor]:
        """The costates of the rows carried into step t, and its pull.

        Args:
            costate: λ_{t+1}, shape (P,).
            carried: those of the rows carried out of it.
            after: the rows kept with θ_{t+1}.
            f: η_t/η.
            t: the step.
        """

    def preconditioner(self, theta: Tensor, after: Tensor, t: int) -> Tensor:
        """The diagonal M_t with θ_{t+1} - θ_t = -η_t M_t g_t and terms of the past, shape (P,)."""
        return torch.ones_like(theta)


def _scaled(row: Tensor, f: float) -> Tensor:
    return row if f == 1 else row * f


class Descent(Update):
    """Gradient descent (Eq. 1)."""

    def step(self, theta: Tensor, kept: Tensor, gradient: Tensor, rate: float, t: int) -> Rows:
        return (torch.sub(theta, gradient, alpha=rate),)

    def transpose(
        self, costate: Tensor, carried: Sequence[Tensor], after: Tensor, f: float, t: int
    ) -> tuple[Rows, Tensor]:
        return (), _scaled(costate, f)


@dataclass(frozen=True)
class Momentum(Update):
    """Heavy-ball momentum in PyTorch's form, or Nesterov's."""

    mu: float
    nesterov: bool
    kept = carried = 1

    def step(self, theta: Tensor, kept: Tensor, gradient: Tensor, rate: float, t: int) -> Rows:
        velocity = torch.add(gradient, kept[0], alpha=self.mu)
        along = torch.add(gradient, velocity, alpha=self.mu) if self.nesterov else velocity
        return torch.sub(theta, along, alpha=rate), velocity

    def transpose(
        self, costate: Tensor, carried: Sequence[Tensor], after: Tensor, f: float, t: int
    ) -> tuple[Rows, Tensor]:
        of_velocity = torch.add(carried[0], costate, alpha=f * (self.mu if self.nesterov else 1))
        pull = torch.add(of_velocity, costate, alpha=f) if self.nesterov else of_velocity
        return (of_velocity * self.mu,), pull

    def preconditioner(self, theta: Tensor, after: Tensor, t: int) -> Tensor:
        return torch.full_like(theta, 1 + self.mu if self.nesterov else 1)


@dataclass(frozen=True)
class Adam(Update):
    """Adam (Kingma & Ba), ε outside the root.

    Where û = 0, no gradient so far was other than zero, and m is zero as well. The root has no
    derivative there; it is taken as 0, and the derivative of the step is what it should be,
    η_t / ε a unit of m̂: the step is a smooth function of g_t on the scale of ε alone.
    """

    beta1: float
    beta2: float
    epsilon: float
    kept = 3
    carried = 2

    def _bias(self, t: int) -> tuple[float, float]:
        return 1 - self.beta1 ** (t + 1), 1 - self.beta2 ** (t + 1)

    def step(self, theta: Tensor, kept: Tensor, gradient: Tensor, rate: float, t: int) -> Rows:
        bias1, bias2 = self._bias(t)
        first = torch.add(kept[0] * self.beta1, gradient, alpha=1 - self.beta1)
        second = torch.addcmul(kept[1] * self.beta2, gradient, gradient, value=1 - self.beta2)
        below = (second / bias2).sqrt() + self.epsilon
        return torch.addcdiv(theta, first, below, value=-rate / bias1), first, second, gradient

    def transpose(
        self, costate: Tensor, carried: Sequence[Tensor], after: Tensor, f: float, t: int
    ) -> tuple[Rows, Tensor]:
        bias1, bias2 = self._bias(t)
        first, second, gradient = after
        root = (second / bias2).sqrt_()
        along = torch.mul(costate, f / bias1).div_(root + self.epsilon)
        bend = along * first / (root * (root + self.epsilon)).mul_(2 * bias2)
        of_first = carried[0] + along
        of_second = carried[1] - bend.masked_fill_(root == 0, 0)
        pull = of_first * (1 - self.beta1)
        pull.addcmul_(gradient, of_second, value=2 * (1 - self.beta2))
        return (of_first.mul_(self.beta1), of_second.mul_(self.beta2)), pull

    def preconditioner(self, theta: Tensor, after: Tensor, t: int) -> Tensor:
        bias1, bias2 = self._bias(t)
        below = (after[1] / bias2).sqrt_().add_(self.epsilon)
        return (1 - self.beta1) / bias1 / below
