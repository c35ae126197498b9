"""RHO-loss, or learnability: what is not yet learned, but can be.

    γ on top-k of l_n(θ_t) - l_n(θ_ref),   θ_ref trained on held-out examples

Source: Mindermann et al., *Prioritized Training on Points that are Learnable, Worth Learning, and
Not Yet Learnt* (arXiv 2206.07137). The held-out examples are the desired ones: the reference
is trained on them for as many steps, from the same θ_0 at the same rates. Deviations: it chooses within
all examples, not within a large batch; the reference is as large as the model. Cost: 2K/N passes a
step for the reference, one forward pass in all, and none beside the training's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llbook.selection.selector import Meter, Selector, View, check, top
from llbook.tasks.task import Task

__all__ = ["Rho"]


class Rho(Selector):
    """Top share by reducible loss.

    Args:
        share: of the examples, in (0, 1].
    """

    def __init__(self, share: float) -> None:
        check("share", share, most=1)
        self.share = share

    def begin(self, task: Task, steps: int, meter: Meter) -> None:
        theta = task.initial
        for factor in self.inner.factors(steps):
            theta = theta - task.learning_rate * factor * task.mean_gradient(theta, task.desired)[1]
        if not bool(torch.isfinite(theta).all()):
            raise FloatingPointError(
                f"the reference diverged: θ is not finite after {steps} steps (η = {task.learning_rate})"
            )
        with torch.no_grad():
            self.irreducible = task.losses(theta, task.training)
        meter.add(1, desired=2 * steps)

    def weigh(self, view: View) -> Tensor:
        return top(view.losses - self.irreducible, self.share)
