"""TracIn: the contributions of an example, summed over a training.

    s_n = Σ_t η_t ∇L_dsr(θ_t)·∇l_n(θ_t) over the conventional training; γ on top-k of s, for all steps

Source: Pruthi et al., *Estimating Training Data Influence by Tracing Gradient Descent*
(arXiv 2002.08484), TracInCP with every step as a checkpoint. Cost: a training first, with one tangent
pass and two passes over the desired set at each of its steps; then none beside the training's own.
"""

from __future__ import annotations

from torch import Tensor

from llbook.optimal.process import constant_policy, train
from llbook.selection.selector import Meter, Ranked
from llbook.tasks.task import Task

__all__ = ["TracIn"]


class TracIn(Ranked):
    """Top share by summed contribution."""

    def rank(self, task: Task, steps: int, meter: Meter) -> Tensor:
        process = train(task, constant_policy(task, steps), inner=self.inner)
        instant = task.contributions(process.trajectory, task.desired)
        meter.add(3 * steps, desired=2 * steps)
        return task.learning_rate * (instant.new_tensor(self.inner.factors(steps)) @ instant)
