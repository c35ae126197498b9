"""Group weights of one training, averaged and held fixed in another: DoGE and DoReMi as they are used.

    α = mean over t of α_t,   γ_n = α_g / |g|

with α_t of :class:`~llbook.selection.methods.groups.Groups` (DoGE: Fan, Pagliardini and Jaggi, arXiv
2310.15393) or of :class:`ExcessLoss` (DoReMi: Xie et al., arXiv 2305.10429):

    W_g = mean over g of max(0, l_n(θ_t) - l_n(θ_ref)),   θ_ref trained on γ = 1/N

DoReMi guards the group with the largest excess over a reference model and knows no desired examples. Deviations: the
proxy is as large as the model and as long as its training. Cost: the proxy's training, with
2 passes a step for DoReMi's reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llbook.optimal.process import constant_policy, train
from llbook.selection.methods.groups import Groups
from llbook.selection.selector import Meter, Static, View, select
from llbook.tasks.task import Task

__all__ = ["ExcessLoss", "MeanMixture"]


class ExcessLoss(Groups):
    """Multiplicative weights on groups by their excess loss."""

    def begin(self, task: Task, steps: int, meter: Meter) -> None:
        super().begin(task, steps, meter)
        usual = constant_policy(task, steps)
        reference = train(task, usual, inner=self.inner).trajectory[steps]
        with torch.no_grad():
            self.irreducible = task.losses(reference, task.training)
        meter.add(2 * steps + 1)

    def worth(self, view: View) -> Tensor:
        return self.members @ (view.losses - self.irreducible).clamp(min=0)


class MeanMixture(Static):
    """The mean weights of an online rule.

    Args:
        rate: ρ > 0 of the rule.
        groups: as :class:`~llbook.selection.methods.groups.Groups` has it.
        online: the rule.
    """

    def __init__(
        self, rate: float, groups: Tensor | None = None, online: Callable[..., Groups] = Groups
    ) -> None:
        self.proxy = online(rate, groups)

    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        made = select(task, self.proxy, steps, inner=self.inner)
        meter.add(made.passes)
        return made.policy.mean(0)
