"""The Learning Law as a controller: move weight until all contributions in use are equal.

    γ_n ← γ_n exp(ρ (CT_n - c̄) / max_m |CT_m - c̄|) / Σ (…),   c̄ = Σ_n γ_n CT_n

Source: the Learning Law, Gu et al. (arXiv 2402.17759), Theorem 3.1: under an optimal policy of the
flow CT_n is the same for all examples in use. An example above the mean gets more weight, is
learned, and its CT falls; one below gets less. The step is an exponentiated gradient step on CT,
whose only fixed points are those of the law. Its own invention is nothing: it is here to see what
the law alone gives as a rule. Cost: one tangent pass and two passes over the desired set a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llbook.selection.selector import Selector, View, check

__all__ = ["Controller"]

LEAST = 1e-6  # times 1/N: a weight of zero could never return


class Controller(Selector):
    """Exponentiated gradient on contributions.

    Args:
        gain: ρ > 0, the most by which ln γ is moved before normalisation.
    """

    def __init__(self, gain: float) -> None:
        check("gain", gain)
        self.gain = gain

    def weigh(self, view: View) -> Tensor:
        instant = view.contributions
        size = len(instant)
        weights = view.past[-1] if view.step else torch.full_like(instant, 1 / size)
        error = instant - weights @ instant
        widest = error.abs().max().clamp(min=torch.finfo(error.dtype).tiny)
        weights = (weights * torch.exp(self.gain * error / widest)).clamp(min=LEAST / size)
        return weights / weights.sum()
