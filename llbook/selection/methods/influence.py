"""Influence functions: what a weight of an example would do to the desired loss at a minimum.

    s_n = ∇L_dsr(θ)·(H + δI)⁻¹ ∇l_n(θ) after the conventional training; γ on top-k of s, for all steps

Source: Koh and Liang, *Understanding Black-box Predictions via Influence Functions*
(arXiv 1703.04730), Eq. 2 with conjugate gradients and damping. The training need not have
converged; :mod:`llbook.theory.influence` has the exact form. Where the damped curvature along a
direction is not positive, conjugate gradients end before it. Cost: a training, at most
:data:`ITERATIONS` products with H of four passes each, one tangent pass and two passes over the desired set.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llbook.optimal.process import constant_policy, train
from llbook.selection.selector import Meter, Ranked
from llbook.tasks.task import Task

__all__ = ["Influence"]

DAMPING = 1e-2  # δ, of the curvature along ∇L_dsr
ITERATIONS = 50


class Influence(Ranked):
    """Top share by influence."""

    def rank(self, task: Task, steps: int, meter: Meter) -> Tensor:
        policy = constant_policy(task, steps)
        theta = train(task, policy, inner=self.inner).trajectory[steps]
        slope = task.mean_gradient(theta, task.desired)[1]
        meter.add(2 * steps + 1, desired=2)

        def curved(vector: Tensor) -> Tensor:
            meter.add(4)
            return task.costate_products(theta, policy[0], vector)[1]

        return task.directional_derivatives(theta, solved(curved, slope))


def solved(curved: Callable[[Tensor], Tensor], slope: Tensor) -> Tensor:
    """(H + δI)⁻¹ slope by conjugate gradients (Hestenes and Stiefel, 1952)."""
    square = slope @ slope
    if float(square) == 0:
        return slope
    damping = DAMPING * (slope @ curved(slope)).abs() / square
    solution, residual = torch.zeros_like(slope), slope.clone()
    direction, norm = slope.clone(), square
    for _ in range(ITERATIONS):
        image = curved(direction) + damping * direction
        bend = direction @ image
        if float(bend) <= 0:  # no minimum along it: what was found before (Steihaug, 1983)
            return solution if bool(solution.any()) else slope
        length = norm / bend
        solution += length * direction
        residual -= length * image
        following = residual @ residual
        if float(following) <= 1e-10 * float(square):
            break
        direction = residual + following / norm * direction
        norm = following
    return solution
