"""PDS: one weight per example for all steps, by the maximum principle.

    fixed point: γ_n minimises J among policies with equal rows, by ∂J/∂γ_n = Σ_t ∂J/∂γ_{n,t}
    one sweep:   s_n = -Σ_t ∂J/∂γ_{n,t} at γ = 1/N; γ on top-k of s

Source: Gu et al., *Data Selection via Optimal Control for Language Models* (arXiv 2410.07064),
Algorithm 1: its γ is static, and its outer loop runs once. Its scores come from a small proxy
model and a scorer trained on them; here from the model itself. Deviations of the fixed point: mirror
descent for projected gradient (the start ``"static"`` of the searches). Cost: a gradient
evaluation a sweep; then none beside the training's own.
"""

from __future__ import annotations

from torch import Tensor

from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.optimal.starts import static
from llbook.selection.selector import PASSES, Meter, Ranked, Static, check
from llbook.tasks.task import Task

__all__ = ["PDS", "OneSweep"]


class PDS(Static):
    """The fixed point.

    Args:
        sweeps: gradient evaluations, at least 1.
    """

    def __init__(self, sweeps: int) -> None:
        check("sweeps", sweeps, whole=True)
        self.sweeps = sweeps

    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        meter.add(self.sweeps * PASSES * steps, desired=2 * self.sweeps * steps)
        found = static(task, steps, sweeps=self.sweeps, equal_share=0.0, inner=self.inner)
        self.scores = found[0]
        return self.scores


class OneSweep(Ranked):
    """Top share by the scores of one sweep."""

    def rank(self, task: Task, steps: int, meter: Meter) -> Tensor:
        policy = constant_policy(task, steps)
        meter.add(PASSES * steps, desired=2 * steps)
        process = train(task, policy, inner=self.inner)
        return -policy_gradient(task, policy, process).sum(0)
