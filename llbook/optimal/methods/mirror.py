"""Mirror descent on the simplices, every coordinate scaled by what its gradient was.

With z = ln γ, up to a constant in each row, γ = softmax(z) and

    ∂J/∂z_n = γ_n (∂J/∂γ_n - Σ_m γ_m ∂J/∂γ_m).

The first two moments of that gradient, m̂ and v̂, are those of Adam (Kingma and Ba, 2015):

    z ← z - ρ_k m̂/√v̂,   that is   γ ← γ ∘ exp(-ρ_k m̂/√v̂) / Σ_n (…),

in form an exponentiated-gradient update (mirror descent with the entropy: Beck and
Teboulle, 2003), in substance Adam on the logits z, with shorter memories than the usual: its
steps do not know how large a gradient is, and change no ln γ by more than 2.7 ρ_k. That
matters here: from row to row, and within a row from example to example, the size of
∂J/∂γ differs by powers of ten. ρ_k falls as a half cosine from ``rate`` to zero.

Weights stay positive; those that are only rounding are no support
(:func:`llbook.measures.law.support`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llbook.optimal.methods.method import Method, Settings
from llbook.tasks.task import Task

__all__ = ["Mirror"]

# short memories: measured best over 100 to 500 evaluations, see benchmarks/NOTES.md
FIRST, SECOND = 0.5, 0.8
# a weight of zero could never return; products with much smaller ones are subnormal. Below what
# is support in either dtype
LEAST = {torch.float32: 1e-12, torch.float64: 1e-24}


class Mirror(Method):
    """Scaled mirror descent; keeps the two moments, each (T, N)."""

    def __init__(self, task: Task, settings: Settings) -> None:
        super().__init__(task, settings)
        self._updates, self._since = 0, 0
        self._shortened = 1.0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def propose(self, policy: Tensor, gradient: Tensor, value: float) -> Tensor:
        mean = self.task.summed(torch.linalg.vecdot(policy, gradient))
        # where the square of one overflowed, its weight would never move again
        largest = torch.finfo(policy.dtype).max ** 0.5 / 2
        slope = gradient.sub_(mean[:, None]).mul_(policy).clamp_(-largest, largest)
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(policy), torch.zeros_like(policy)
        self._first.lerp_(slope, 1 - FIRST)
        self._second.mul_(SECOND).addcmul_(slope, slope, value=1 - SECOND)
        rate = (
            self.settings.rate * (1 + math.cos(math.pi * self._updates / self.settings.updates)) / 2
        )
        rate *= self._shortened
        self._updates, self._since = self._updates + 1, self._since + 1
        scale = (1 - SECOND**self._since) ** 0.5 / (1 - FIRST**self._since)
        # a row far from anything that matters has gradients whose squares are zero
        least = torch.finfo(policy.dtype).tiny ** 0.5
        root = torch.sqrt(self._second, out=slope).add_(least)
        change = torch.div(self._first, root, out=root).mul_(-rate * scale)
        policy.mul_(change.exp_())
        policy.div_(self.task.summed(policy.sum(1))[:, None])
        return policy.clamp_(min=LEAST[policy.dtype])

    def retreat(self) -> bool:
        self._first = self._second = None
        self._since = 0
        self._shortened /= 2
        return True

    def tensors(self) -> dict[str, Tensor]:
        if self._first is None or self._second is None:
            return {}
        return {"first": self._first, "second": self._second}

    def facts(self) -> dict[str, Any]:
        return {
            "updates": self._updates,
            "since": self._since,
            "shortened": self._shortened,
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._updates = facts["updates"]
        self._since = facts.get("since", self._updates)  # of a checkpoint from before retreats
        self._shortened = facts.get("shortened", 1.0)
        self._first, self._second = tensors.get("first"), tensors.get("second")
