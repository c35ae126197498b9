"""One step of each optimiser, and its transpose.

With g_t the gradient of a step and η_t = η f_t its rate, an optimiser keeps rows of
numbers, one a parameter, beside θ:

- gradient descent: none; θ ← θ - η_t g_t.
- momentum: v ← μ v + g_t; θ ← θ - η_t v; Nesterov's: θ ← θ - η_t (g_t + μ v), with the new v.
- Adam: m ← β₁ m + (1 - β₁) g_t; u ← β₂ u + (1 - β₂) g_t²; θ ← θ - η_t m̂ / (√û + ε), with
  m̂ = m / (1 - β₁^{t+1}) and û = u / (1 - β₂^{t+1}). The gradient is kept with the state that
  it led to, for the way back.

All of them work elementwise. The transpose goes back from λ_{t+1}, the costate of θ_{t+1}, to the costates
of the rows that the step left, through which g_t acts, and from there to that of g_t. Those of
all but θ are divided by -η, so that what belongs to g_t, the *pull*, is λ_{t+1} itself for gradient descent.
"""

from __future__ import annotations

import math
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
        """The costates of the carried rows that step t left, and its pull.

        Args:
            costate: λ_{t+1}, shape (P,).
            carried: the costates of those that step t + 1 left; zeros for the last step.
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
        of_velocity = torch.add(
            _scaled(costate, f * (self.mu if self.nesterov else 1)), carried[0], alpha=self.mu
        )
        pull = torch.add(of_velocity, costate, alpha=f) if self.nesterov else of_velocity
        return (of_velocity,), pull

    def preconditioner(self, theta: Tensor, after: Tensor, t: int) -> Tensor:
        return torch.full_like(theta, 1 + self.mu if self.nesterov else 1.0)


@dataclass(frozen=True)
class Adam(Update):
    """Adam (Kingma & Ba), ε outside the root.

    Where û = 0 and β₂ > 0, no gradient so far was other than zero, and m is zero as well. The root has no
    derivative there; it is taken as 0, and the derivative of the step is what it should be,
    η_t / ε a unit of m̂: the step is a smooth function of g_t on the scale of ε alone.
    """

    beta1: float
    beta2: float
    epsilon: float
    kept = 3
    carried = 2

    def _scales(self, t: int) -> tuple[float, float]:
        """a and b with m̂/(√û + ε) = a m/(√u + b): the corrections of the bias, on numbers."""
        root = math.sqrt(1 - self.beta2 ** (t + 1))
        return root / (1 - self.beta1 ** (t + 1)), self.epsilon * root

    def step(self, theta: Tensor, kept: Tensor, gradient: Tensor, rate: float, t: int) -> Rows:
        a, b = self._scales(t)
        first = torch.lerp(kept[0], gradient, 1 - self.beta1)
        second = torch.addcmul(kept[1] * self.beta2, gradient, gradient, value=1 - self.beta2)
        below = second.sqrt() + b
        return torch.addcdiv(theta, first, below, value=-rate * a), first, second, gradient

    def transpose(
        self, costate: Tensor, carried: Sequence[Tensor], after: Tensor, f: float, t: int
    ) -> tuple[Rows, Tensor]:
        a, b = self._scales(t)
        first, second, gradient = after
        root = second.sqrt()
        below = root + b
        along = torch.mul(costate, f * a).div_(below)
        bend = (along * first).div_(below).div_(root).masked_fill_(root == 0, 0)
        of_first = along.add_(carried[0], alpha=self.beta1)
        of_second = bend.mul_(-0.5).add_(carried[1], alpha=self.beta2)
        pull = torch.mul(of_first, 1 - self.beta1)
        pull.addcmul_(gradient, of_second, value=2 * (1 - self.beta2))
        return (of_first, of_second), pull

    def preconditioner(self, theta: Tensor, after: Tensor, t: int) -> Tensor:
        a, b = self._scales(t)
        return (1 - self.beta1) * a / (after[1].sqrt() + b)
