"""Spectral projected gradient (Birgin, Martínez and Raydan, 2000, their SPG2).

From γ with gradient g a line is searched towards a projected point,

    d = Proj[γ - α g] - γ,   γ⁺ = γ + β d,   α⁺ = ⟨s, s⟩/⟨s, y⟩,   s = γ⁺ - γ,  y = g⁺ - g,

with the step length of Barzilai and Borwein (1988), and β = 1 unless J⁺ exceeds the
largest of the last :data:`MEMORY` values by more than the non-monotone rule of Grippo,
Lampariello and Lucidi (1986) allows: J⁺ ≤ max J + 1e-4 β⟨g, d⟩.

A trial point costs a training and, as most are taken, its gradient is computed with it:
each counts as one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llbook.optimal.methods.method import Method, Settings, inner, projected
from llbook.tasks.task import Task

__all__ = ["Spectral"]

MEMORY = 10
ENOUGH = 1e-4
SHORTEST, LONGEST = 0.1, 0.5  # of β, from one trial to the next
LIMITS = (1e-12, 1e12)  # of α
CAUTION = 0.01  # the most that a weight moves in the first step


class Spectral(Method):
    """SPG2; keeps the last accepted policy and its gradient, each (T, N)."""

    def __init__(self, task: Task, settings: Settings) -> None:
        super().__init__(task, settings)
        self._policy: Tensor | None = None
        self._gradient: Tensor | None = None
        self._values: list[float] = []
        self._length, self._part, self._slope = 0.0, 1.0, 0.0
        self._most = 1.0  # that a weight moves in a step
        self._precision = task.initial.dtype

    def propose(self, policy: Tensor, gradient: Tensor, value: float) -> Tensor:
        if self._policy is None or self._gradient is None:
            # nothing is known of the curvature yet: a step in which no weight moves far
            slopes = self.task.gather(gradient)
            spread = float((slopes.amax(1) - slopes.amin(1)).max())
            self._length = CAUTION / max(spread, 1e-30)
        elif not self._enough(value):
            self._part = self._shorter(value)
            return self._trial()
        else:
            change = policy - self._policy
            moved = inner(self.task, change, change)
            bent = inner(self.task, change, gradient - self._gradient)
            length = moved / bent if bent > 0 else LIMITS[1]
            self._length = min(max(length, LIMITS[0]), LIMITS[1])
        self._policy, self._gradient = policy, gradient
        self._values = [*self._values, value][-MEMORY:]
        self._part = 1.0
        if self._most < 1:
            self._part = min(1.0, self._most / max(self._reach(), 1e-30))
        return self._trial()

    def retreat(self) -> bool:
        if self._policy is not None:
            self._most = min(self._most, self._part * self._reach()) / 2
        self._policy = self._gradient = None
        self._values = []
        return True

    def _reach(self) -> float:
        """The most that a weight moves along the whole direction."""
        return float(self.task.gather(self._direction()).abs().max())

    def _direction(self) -> Tensor:
        assert self._policy is not None and self._gradient is not None
        point = torch.add(self._policy, self._gradient, alpha=-self._length)
        return projected(self.task, point).sub_(self._policy)

    def _trial(self) -> Tensor:
        assert self._policy is not None and self._gradient is not None
        direction = self._direction()
        self._slope = inner(self.task, self._gradient, direction)
        # rounding must not leave a weight below zero
        return torch.add(self._policy, direction, alpha=self._part).clamp_(min=0)

    def _enough(self, value: float) -> bool:
        slack = 8 * torch.finfo(self._precision).eps * abs(self._values[-1])  # rounding of J
        return value <= max(self._values) + ENOUGH * self._part * self._slope + slack

    def _shorter(self, value: float) -> float:
        """The minimum of the parabola through what is known, within safe limits."""
        rise = value - self._values[-1] - self._part * self._slope
        best = -0.5 * self._part**2 * self._slope / rise if rise > 0 else 0.0
        return min(max(best, SHORTEST * self._part), LONGEST * self._part)

    def tensors(self) -> dict[str, Tensor]:
        if self._policy is None or self._gradient is None:
            return {}
        return {"policy": self._policy, "gradient": self._gradient}

    def facts(self) -> dict[str, Any]:
        return {
            "values": self._values,
            "length": self._length,
            "part": self._part,
            "slope": self._slope,
            "most": self._most,
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._policy, self._gradient = tensors.get("policy"), tensors.get("gradient")
        self._values = list(facts["values"])
        self._length, self._part, self._slope = facts["length"], facts["part"], facts["slope"]
        self._most = facts.get("most", 1.0)  # of a checkpoint from before retreats
