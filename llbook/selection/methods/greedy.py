"""Greedy contribution: the optimum of one step.

    γ on top-k of CT_n = ∇L_dsr(θ_t)·∇l_n(θ_t)

The next L_dsr is, to first order in η, least where all weight is on the largest CT; k > 1 hedges.
Source: Wang et al., *GREATS: Online Selection of High-Quality Data for LLM Training in Every
Iteration* (NeurIPS 2024), without its second-order term, which keeps a batch from being too alike.
The start ``"greedy"`` of the searches (:mod:`llbook.optimal.starts`) is this, mixed with equal
weights. Cost: one tangent pass and two passes over the desired set a step.
"""

from __future__ import annotations

from torch import Tensor

from llbook.selection.selector import Selector, View, check, top

__all__ = ["Greedy"]


class Greedy(Selector):
    """Top share by contribution.

    Args:
        share: of the examples, in (0, 1].
    """

    def __init__(self, share: float) -> None:
        check("share", share, most=1)
        self.share = share

    def weigh(self, view: View) -> Tensor:
        return top(view.contributions, self.share)
