"""The paper's method (§4.1, Eq. 6): projected gradient with one step size.

    γ_t ← Proj[γ_t - ε ∂J/∂γ_t],  for every t at once.

The gradient of early rows is larger than that of late ones by powers of ten, and one
ε serves all of them: see the book's chapter on how near its policies come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llbook.optimal.methods.method import Method, Settings, projected
from llbook.tasks.task import Task

__all__ = ["ProjectedGradient"]


class ProjectedGradient(Method):
    """Eq. 6 with ε = ``step_size``, constant or falling linearly to zero."""

    spare = 0
    start = "equal"
    forms = ("float32", "uint16", "uint8")

    def __init__(self, task: Task, settings: Settings) -> None:
        super().__init__(task, settings)
        if settings.step_size is None:
            raise ValueError("projected-gradient needs a step_size, got none")
        mean = settings.objective == "mean"
        self._step = settings.step_size / settings.steps if mean else settings.step_size
        self._updates = 0

    def propose(self, policy: Tensor, gradient: Tensor, value: float) -> Tensor:
        falls = self.settings.schedule == "linear"
        step = self._step * (1 - self._updates / self.settings.updates) if falls else self._step
        self._updates += 1
        return projected(self.task, policy.add_(gradient, alpha=-step))

    def facts(self) -> dict[str, Any]:
        return {"updates": self._updates}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._updates = facts["updates"]
