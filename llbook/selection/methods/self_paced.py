"""Self-paced learning: the easiest examples first, then more and more of them.

    γ_n ∝ 1[l_n(θ_t) < τ_t],   τ_t rising

Source: Kumar, Packer and Koller, *Self-Paced Learning for Latent Variable Models* (NeurIPS 2010),
with its v in closed form. Deviation: τ_t is that quantile of the losses of step t that rises
linearly from a tenth to all examples, in the place of a factor on τ a round. Cost: no pass beside
the training's own.
"""

from __future__ import annotations

from torch import Tensor

from llbook.selection.selector import Selector, View, check, top

__all__ = ["SelfPaced"]

FIRST = 0.1  # share of the examples at the first step


class SelfPaced(Selector):
    """A growing share of the easiest.

    Args:
        until: share of the steps after which all examples are in, in (0, 1].
    """

    def __init__(self, until: float) -> None:
        check("until", until, most=1)
        self.until = until

    def weigh(self, view: View) -> Tensor:
        progress = min(1.0, view.step / (self.until * view.steps))
        return top(-view.losses, FIRST + (1 - FIRST) * progress)
