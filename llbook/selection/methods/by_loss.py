"""The hardest or the easiest examples of each step: equal weight on a share by their loss.

    hardest: γ on top-k of l_n(θ_t)        easiest: γ on top-k of -l_n(θ_t)

Sources: the q largest losses, Kawaguchi and Lu, *Ordered SGD* (arXiv 1907.04371); the smallest,
Shah, Wu and Sanghavi, *Choosing the Sample with Lowest Loss makes SGD Robust* (arXiv 2001.03316),
which takes one of a few drawn at random. Both choose within mini-batches; here within all examples.
Cost: no pass beside the training's own, whose losses are used.
"""

from __future__ import annotations

from torch import Tensor

from llbook.selection.selector import Selector, View, check, top

__all__ = ["ByLoss"]


class ByLoss(Selector):
    """Top or bottom share by loss.

    Args:
        share: of the examples, in (0, 1].
        sign: 1, hardest first; -1, easiest first.
    """

    def __init__(self, share: float, sign: int = 1) -> None:
        check("share", share, most=1)
        self.share, self.sign = share, sign

    def weigh(self, view: View) -> Tensor:
        return top(self.sign * view.losses, self.share)
