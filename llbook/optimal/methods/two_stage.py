"""Mirror descent first, then spectral projected gradient.

The first stage lowers J fast but leaves every weight positive; before the second, weights that
are nothing are dropped (but where just that step diverges); it moves along the faces of the simplices
and can lower the first-order gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llbook.optimal.methods.method import Method, Settings
from llbook.optimal.methods.mirror import Mirror
from llbook.optimal.methods.spectral import Spectral
from llbook.tasks.task import Task

__all__ = ["TwoStage"]

FIRST_PART = 0.85
PRUNED = 1e-6  # of the largest weight of a row


class TwoStage(Method):
    """:class:`Mirror` for the first part of the budget, :class:`Spectral` for the rest."""

    def __init__(self, task: Task, settings: Settings) -> None:
        super().__init__(task, settings)
        self._turn = max(1, round(FIRST_PART * settings.updates))
        self._updates = 0
        self._stage: Method = Mirror(task, replace(settings, updates=self._turn))

    def propose(self, policy: Tensor, gradient: Tensor, value: float) -> Tensor:
        self._updates += 1
        if self._updates == self._turn + 1:
            self._stage = Spectral(self.task, self.settings)
        following = self._stage.propose(policy, gradient, value)
        if self._updates == self._turn:
            following = self.task.by_rows(_pruned, following)
        return following

    def retreat(self) -> bool:
        return self._stage.retreat()

    def tensors(self) -> dict[str, Tensor]:
        return self._stage.tensors()

    def facts(self) -> dict[str, Any]:
        return {"updates": self._updates, "stage": self._stage.facts()}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._updates = facts["updates"]
        if self._updates > self._turn:
            self._stage = Spectral(self.task, self.settings)
        self._stage.restore(tensors, facts["stage"])


def _pruned(rows: Tensor) -> Tensor:
    """Whole rows of a policy without their smallest weights."""
    rows = torch.where(rows > PRUNED * rows.amax(1, keepdim=True), rows, 0)
    return rows.div_(rows.sum(1, keepdim=True))
