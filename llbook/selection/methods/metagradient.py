"""Metagradient descent: counts of the examples, changed by the sign of the metagradient.

    c ← max(c - sign(∂L_dsr(θ_T)/∂c) ∘ m, 0),   γ = c / Σ c for all steps

Source: Engstrom et al., *Optimizing ML Training with Metagradient Descent* (arXiv 2503.13751), where it
selects data. It descends the final loss, not the area under the curve. Deviation: m marks the share with the
largest metagradients, where theirs is drawn at random; the gradient is exact to rounding, as the
trajectory is kept, not replayed. Cost: a gradient evaluation an outer step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llbook.optimal.process import train
from llbook.selection.selector import PASSES, Meter, Static, check
from llbook.tasks.task import Task
from llbook.theory.influence import final_loss_gradient

__all__ = ["Metagradient"]


class Metagradient(Static):
    """A few outer steps on counts, from one of each.

    Args:
        changed: share of the counts that change in an outer step, in (0, 1].
        outer: outer steps.
    """

    def __init__(self, changed: float, outer: int = 5) -> None:
        check("changed", changed, most=1)
        check("outer", outer, whole=True)
        self.changed, self.outer = changed, outer

    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        counts = task.initial.new_ones(task.size)
        marked = max(1, round(self.changed * task.size))
        for _ in range(self.outer):
            weights = counts / counts.sum()
            policy = weights.repeat(steps, 1)
            process = train(task, policy, inner=self.inner)
            slope = final_loss_gradient(task, policy, process).sum(0)
            meter.add(PASSES * steps, desired=2)
            slope = slope - weights @ slope  # along the simplex
            where = slope.abs().topk(marked).indices
            following = counts.clone()
            following[where] -= torch.sign(slope[where])
            following.clamp_(min=0)
            counts = following if bool(following.any()) else counts
        self.scores = counts
        return counts / counts.sum()
