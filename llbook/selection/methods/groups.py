"""Online mixing over groups of examples by multiplicative weights.

    α_g ← α_g exp(ρ W_g / max_h |W_h|) / Σ (…),   W_g = mean of CT_n over the group g,   γ_n = α_g / |g|

Source: Fan, Pagliardini and Jaggi, *DoGE: Domain Reweighting with Generalization Estimation*
(arXiv 2310.15393), its out-of-domain form, whose W_g is the product of a group's mean gradient with the
target's. DoReMi has the same update with another W_g. Both use the *mean* of the α of a proxy's
training for a large model (:mod:`llbook.selection.methods.mean_mixture`); here the weights act as
they come. Cost: one tangent pass and two passes over the desired set a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llbook.selection.selector import Meter, Selector, View, check
from llbook.tasks.task import Task

__all__ = ["Groups", "group_means"]

QUANTILES = 8


def group_means(task: Task, groups: Tensor | None, meter: Meter) -> Tensor:
    """1/|g| for the examples of each group, else 0, shape (G, N).

    Args:
        task: the problem.
        groups: number of the group of each example, from 0, shape (N,); else eighths by the
            loss at θ_0, one pass.
        meter: where costs are added.

    Raises:
        ValueError: another shape, a negative number.
    """
    if groups is None:
        meter.add(1)
        with torch.no_grad():
            order = task.losses(task.initial, task.training).argsort().argsort()
        groups = order * min(QUANTILES, task.size) // task.size
    if groups.shape != (task.size,):
        raise ValueError(f"groups: expected shape ({task.size},), got {tuple(groups.shape)}")
    if bool((groups < 0).any()):
        raise ValueError(f"groups: expected numbers from 0, got {int(groups.min())}")
    members = torch.nn.functional.one_hot(groups.long()).T.to(task.initial)
    members = members[members.sum(1) > 0]
    return members / members.sum(1, keepdim=True)


class Groups(Selector):
    """Multiplicative weights on groups.

    Args:
        rate: ρ > 0.
        groups: see :func:`group_means`.
    """

    def __init__(self, rate: float, groups: Tensor | None = None) -> None:
        check("rate", rate)
        self.rate, self.groups = rate, groups

    def begin(self, task: Task, steps: int, meter: Meter) -> None:
        self.members = group_means(task, self.groups, meter)
        self.mixture = torch.full_like(self.members[:, 0], 1 / len(self.members))

    def worth(self, view: View) -> Tensor:
        """W_g, shape (G,)."""
        return self.members @ view.contributions

    def weigh(self, view: View) -> Tensor:
        worth = self.worth(view)
        widest = worth.abs().max().clamp(min=torch.finfo(worth.dtype).tiny)
        mixture = self.mixture * torch.exp(self.rate * worth / widest)
        self.mixture = (mixture / mixture.sum()).clamp(min=1e-6)
        self.mixture /= self.mixture.sum()
        return self.mixture @ self.members
