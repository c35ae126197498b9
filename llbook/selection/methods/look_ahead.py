"""Greedy with a costate that sees h steps: from CT (h = 1) to λ·g (h = T).

    γ on top-k of λ·∇l_n(θ_t),   λ_{t+h} = ∇L_dsr(θ_{t+h}),   λ_s = ∇L_dsr(θ_s) + (I - η_s H_s) λ_{s+1}

The states ahead are those of a training that goes on greedily, by CT on the top
:data:`BASE_SHARE`; a new one is made after a fifth of the steps that the last one saw. The method
is rollout, with greedy for its base policy: it improves on a costate that does not know what it
will choose itself, where the maximum principle has the costate of the policy that is chosen. Source: Bertsekas,
*Dynamic Programming and Optimal Control*, vol. I, on rollout. Cost: one
tangent pass a step, and for every look ahead of h steps 7h - 5 passes and 2h + 2 over the desired
set: about 6 gradient evaluations in all, whatever h ≥ 5 is, where K is small beside N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from llbook.selection.selector import Meter, Selector, View, check, top
from llbook.tasks.task import Task

__all__ = ["LookAhead", "costates"]

BASE_SHARE = 0.2  # wider than is best for greedy alone: the future is hedged
USED = 5  # a fifth of a look ahead is used before the next


class LookAhead(Selector):
    """Top share by the product with a truncated costate.

    Args:
        share: of the examples, in (0, 1].
        horizon: h ≥ 1 in steps; None: to the end.
    """

    def __init__(self, share: float, horizon: int | None = None) -> None:
        check("share", share, most=1)
        if horizon is not None:
            check("horizon", horizon, whole=True)
        self.share, self.horizon = share, horizon

    def begin(self, task: Task, steps: int, meter: Meter) -> None:
        self.ahead: list[Tensor] = []

    def weigh(self, view: View) -> Tensor:
        if not self.ahead:
            left = view.steps - view.step
            length = left if self.horizon is None else min(self.horizon, left)
            factors = self.inner.factors(view.steps)[view.step :][:length]
            found = costates(view.task, view.theta, factors)
            # the first forward pass is the training's own; the first state needs no curvature
            view.meter.add(3 * length - 1 + 4 * (length - 1), desired=2 * (length + 1))
            used = view.steps if self.horizon is None else self.horizon
            self.ahead = found[: math.ceil(used / USED)]
        return top(view.products(self.ahead.pop(0)), self.share)


def costates(task: Task, theta: Tensor, factors: Sequence[float]) -> list[Tensor]:
    """λ_1 … λ_h of a greedy training from θ, each of shape (P,), whose h steps have the rates η f_s."""
    states, rows, slopes = [theta], [], []
    for factor in factors:
        slopes.append(task.mean_gradient(states[-1], task.desired)[1])
        rows.append(top(task.directional_derivatives(states[-1], slopes[-1]), BASE_SHARE))
        pull = task.gradient(states[-1], rows[-1])
        states.append(states[-1] - task.learning_rate * factor * pull)
    found = [task.mean_gradient(states[-1], task.desired)[1]]
    for s in range(len(factors) - 1, 0, -1):
        curvature = task.costate_products(states[s], rows[s], found[-1])[1]
        found.append(slopes[s] + found[-1] - task.learning_rate * factors[s] * curvature)
    return found[::-1]
