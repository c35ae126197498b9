"""The best fixed mixture of groups: exactly, by ∂J/∂γ, and as a mixing law predicts it.

    γ_n = α_g / |g| at all steps,   ∂J/∂α_g = Σ_t mean over g of ∂J/∂γ_{n,t}
    mixing law:  J(α) = c + exp(τ·α), fitted to a few trainings

Source of the law: Ye et al., *Data Mixing Laws* (arXiv 2403.16952), which fits the losses of several
validation sets, from small models and short trainings. Of one desired loss it is monotone along every line, so
that its best mixture is always a single group. Cost: a gradient evaluation a sweep, and a training
with each of the G groups alone; 2G + 1 trainings for the law: each group alone, half-way to it, and
all alike.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from llbook.optimal.adjoint import gradient_and_losses
from llbook.optimal.inner import Inner
from llbook.optimal.methods.method import Settings
from llbook.optimal.methods.mirror import Mirror
from llbook.optimal.process import train
from llbook.selection.methods.groups import group_means
from llbook.selection.selector import PASSES, Meter, Static, check
from llbook.tasks.task import Task

__all__ = ["BestMixture", "MixingLaw"]


class BestMixture(Static):
    """Mirror descent on the weights of the groups, and each group alone; the best mixture met.

    Args:
        sweeps: gradient evaluations, at least 1.
        groups: see :func:`~llbook.selection.methods.groups.group_means`.
    """

    def __init__(self, sweeps: int, groups: Tensor | None = None) -> None:
        check("sweeps", sweeps, whole=True)
        self.sweeps, self.groups = sweeps, groups

    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        members = group_means(task, self.groups, meter)
        # the corners, which mirror descent only nears
        areas = [_area_or_inf(task, group, steps, self.inner, meter) for group in members]
        least = min(areas)
        best = torch.eye(len(members)).to(members)[areas.index(least)][None]
        row = torch.full_like(best, 1 / len(members))
        mirror = Mirror(task, Settings(steps=1, updates=self.sweeps))
        for _ in range(self.sweeps):
            policy = (row @ members).expand(steps, -1).contiguous()
            process = train(task, policy, inner=self.inner)
            gradient, losses = gradient_and_losses(task, policy, process)
            if (value := float(losses.double().sum())) < least:
                least, best = value, row.clone()
            row = mirror.propose(row, (members @ gradient.sum(0))[None], value)
        meter.add(self.sweeps * PASSES * steps, desired=2 * self.sweeps * steps)
        return (best @ members)[0]


def _area(task: Task, weights: Tensor, steps: int, inner: Inner, meter: Meter) -> float:
    """J of a training with the same weights at all steps."""
    process = train(task, weights.expand(steps, -1).contiguous(), inner=inner)
    losses = task.trajectory_losses(process.trajectory, task.desired)
    meter.add(2 * steps, desired=steps)
    return float(losses[1:].double().sum())


def _area_or_inf(task: Task, weights: Tensor, steps: int, inner: Inner, meter: Meter) -> float:
    """The same; infinite where the training diverges."""
    try:
        return _area(task, weights, steps, inner, meter)
    except FloatingPointError:
        return math.inf


class MixingLaw(Static):
    """The group that a fitted law prefers.

    Args:
        groups: see :func:`~llbook.selection.methods.groups.group_means`.
    """

    LEVELS = np.linspace(0, 0.999, 200)  # of c, as a share of the least J

    def __init__(self, groups: Tensor | None = None) -> None:
        self.groups = groups

    def fixed(self, task: Task, steps: int, meter: Meter) -> Tensor:
        members = group_means(task, self.groups, meter)
        alone = torch.eye(len(members), dtype=members.dtype)
        alike = torch.full_like(alone[:1], 1 / len(members))
        mixtures = torch.cat([alone, (alone + alike) / 2, alike]).to(members)
        areas = [_area(task, one @ members, steps, self.inner, meter) for one in mixtures]
        exponents = self._fit(mixtures.cpu().double().numpy(), np.array(areas))
        return members[int(np.argmin(exponents))]

    def _fit(self, mixtures: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """τ, shape (G,), by least squares in ln(J - c), at the c that misses J least."""
        found = []
        for level in self.LEVELS * areas.min():
            exponents = np.linalg.lstsq(mixtures, np.log(areas - level), rcond=None)[0]
            missed = level + np.exp(mixtures @ exponents) - areas
            found.append((float(missed @ missed), exponents))
        return min(found, key=lambda one: one[0])[1]
