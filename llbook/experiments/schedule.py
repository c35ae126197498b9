"""What policies save where equal weights have the learning rates that suit them.

The rate of a training, constant or falling, is tuned for equal weights, and searched step by step by the
exact derivative; policies are then searched under the same rates. All are trained again from θ_0 that
differ by millionths, since at large rates an area depends on them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from llbook.experiments import language_model
from llbook.experiments.collecting import (
    Arrays,
    Collector,
    SearchParameters,
    TrainingParameters,
    loss_curves,
)
from llbook.experiments.experiment import Experiment, Recorded
from llbook.experiments.language_model import LanguageModelConfig, load_examples
from llbook.measures.objective import loss_auc
from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.process import constant_policy, train
from llbook.optimal.schedules import search_schedule
from llbook.optimal.search import search
from llbook.parameters import Section
from llbook.tasks.task import Task

__all__ = ["KINDS", "LANGUAGE_MODEL", "PEAKS", "WEIGHTS", "LanguageScheduleConfig"]

KINDS = ("constant", "linear", "searched")
"""Rates: that of the configuration; falling linearly to zero; searched for equal weights."""

WEIGHTS = ("equal", "policy", "length", "direction", "intact")
"""What is trained under each: equal weights; the policy found there; equal weights whose steps are as much longer
as the policy's; the policy whose steps are no longer than those of equal weights; equal weights on the
unperturbed examples alone."""

PEAKS = (0.25, 0.35, 0.5, 0.7, 1.0)  # rates from which the linear schedule may fall
MILLIONTH = 1e-6


class _Rates(Section):
    knots: int = Field(8, ge=2, le=10**4, description="of the searched rates, at most T")
    evaluations: int = Field(40, ge=1, le=10**6, description="of J, of a search for rates")
    draws: int = Field(5, ge=1, le=1000, description="trainings with θ_0 that differ by millionths")


class LanguageScheduleConfig(LanguageModelConfig):
    """Learning rates of the language model."""

    training: TrainingParameters = TrainingParameters(learning_rate=0.25, steps=80)
    rates: _Rates = _Rates()
    search: SearchParameters = SearchParameters(
        method="two-stage",
        start="equal",
        epochs=40,
        step_size=8.0,
        schedule="constant",
        objective="sum",
        measure_every=40,
    )

    @model_validator(mode="after")
    def _plain(self) -> Self:
        if self.rates.knots > self.training.steps:
            raise ValueError(
                f"knots: got {self.rates.knots}; expected at most T = {self.training.steps}"
            )
        if not self.inner.build().plain:
            raise ValueError(
                "optimizer, rates and batches: got "
                f"{self.inner.build().identity()}; expected the paper's gradient descent"
            )
        return self


@dataclass(frozen=True)
class _ScheduleExperiment(Experiment[LanguageScheduleConfig]):
    """Arrays of a run, with M = 3 :data:`KINDS` and D draws, the first of which the searches saw:

    ``kinds`` (M,), text; ``schedules`` (M, T): η_t. ``peaks`` and ``peak_area`` (G,): desired area
    of equal weights whose rate falls linearly from there, nan where it diverged. ``desired`` and
    ``test`` (M, W, D): areas over T, in nats, of the W = 5 :data:`WEIGHTS`; ``moved_desired`` and
    ``moved_test`` (M, M, D): of the policy found under the rates of the row, under those of the column;
    nan where diverged. ``policies`` (M, T, N), float32; ``clean_weight`` (M,): on unperturbed examples,
    mean over t; ``lengths`` (M, T): |Σ_n γ_{n,t} ∇l_n| / |Σ_n ∇l_n / N| along the policy's training.
    ``history_rates`` (2, E): J/T of the searches for rates, from those of the two other
    kinds, nan where diverged and once they had ended.
    ``history_policy`` (M, 2): J/T where the search for a policy began and ended.
    """

    def compute(
        self,
        config: LanguageScheduleConfig,
        *,
        progress: bool = False,
        checkpoint: Path | None = None,
    ) -> Arrays:
        task, steps, own = self.build(config), config.training.steps, config.rates
        equal = constant_policy(task, steps)
        falling = [_falling(peak / task.learning_rate, steps) for peak in PEAKS]
        areas = np.array([_areas(task, equal, inner)[0] for inner in falling])
        if bool(np.isnan(areas).all()):
            raise FloatingPointError(f"equal weights diverged at all rates that fall from {PEAKS}")
        best_falling = falling[int(np.nanargmin(areas))]
        searches = [
            search_schedule(
                task,
                equal,
                inner=begin,
                knots=own.knots,
                evaluations=own.evaluations,
                progress=progress,
            )
            for begin in (PLAIN, best_falling)
        ]
        courses = [np.array(one.history) / steps for one in searches]
        searched = searches[int(np.argmin([np.nanmin(one) for one in courses]))]
        inners = [PLAIN, best_falling, searched.inner]
        perturbed = torch.from_numpy(load_examples(config)[1].perturbed)
        intact = (~perturbed).to(equal.device).to(equal.dtype)
        found, left = [], []
        course = np.empty((len(KINDS), 2))
        for i, (kind, inner) in enumerate(zip(KINDS, inners, strict=True)):
            path = checkpoint and checkpoint.with_name(f"{kind}-{checkpoint.name}")
            options = config.search_options() | {"inner": inner}
            one = search(task, steps, **options, checkpoint=path, progress=progress)
            left += [path] if path else []
            course[i] = [one.history[k]["desired_auc"] for k in (0, -1)]
            found.append(one.policy)
        lengths = [_lengths(task, *pair) for pair in zip(found, inners, strict=True)]
        draws = [_drawn(task, number) for number in range(own.draws)]

        def drawn(policy: Tensor, inner: Inner) -> list[tuple[float, float]]:
            return [_areas(draw, policy, inner) for draw in draws]

        alone = (intact / intact.sum()).expand_as(equal).contiguous()
        moved = np.array([[drawn(policy, inner) for inner in inners] for policy in found])
        each = np.array(
            [
                [
                    drawn(equal, inner),
                    moved[i, i],
                    drawn(equal, _scaled(inner, lengths[i])),
                    drawn(found[i], _scaled(inner, 1 / lengths[i])),
                    drawn(alone, inner),
                ]
                for i, inner in enumerate(inners)
            ]
        )
        for path in left:
            path.unlink(missing_ok=True)
        return {
            "kinds": np.array(KINDS),
            "schedules": task.learning_rate * np.array([one.factors(steps) for one in inners]),
            "peaks": np.array(PEAKS),
            "peak_area": areas,
            "desired": each[..., 0],
            "test": each[..., 1],
            "moved_desired": moved[..., 0],
            "moved_test": moved[..., 1],
            "policies": np.stack([policy.float().cpu().numpy() for policy in found]),
            "clean_weight": np.array([float((one @ intact).mean()) for one in found]),
            "lengths": np.array(lengths),
            "history_rates": np.stack(
                [np.append(one, np.full(own.evaluations - len(one), np.nan)) for one in courses]
            ),
            "history_policy": course,
        }


def _falling(peak: float, steps: int) -> Inner:
    """Factors that fall linearly from ``peak`` to zero after the last step."""
    return Inner(schedule=tuple(peak * f for f in Inner(schedule="linear").factors(steps)))


def _lengths(task: Task, policy: Tensor, inner: Inner) -> NDArray[np.float64]:
    """How much longer the steps of a policy are than those of equal weights, at the same θ_t, shape (T,)."""
    states = train(task, policy, inner=inner).trajectory
    equal = constant_policy(task, 1)[0]
    norms = [
        [float(task.gradient(states[t], weights).norm()) for weights in (row, equal)]
        for t, row in enumerate(policy)
    ]
    return np.divide(*np.array(norms).T)


def _scaled(inner: Inner, factors: NDArray[np.float64]) -> Inner:
    """Rates multiplied by a factor at every step."""
    rates = np.array(inner.factors(len(factors))) * factors
    return Inner(schedule=tuple(map(float, rates)))


def _drawn(task: Task, number: int) -> Task:
    """The task with another scale of θ_0."""
    other = copy.copy(task)
    other.initial = task.initial * (1 + number * MILLIONTH)
    return other


def _areas(task: Task, policy: Tensor, inner: Inner) -> tuple[float, float]:
    """On desired and test examples; nan where the training diverged."""
    desired, test = loss_curves(task, policy, inner)
    return loss_auc(desired), loss_auc(test)


_MODEL = language_model.LANGUAGE_MODEL

LANGUAGE_MODEL = _ScheduleExperiment(
    name="language-schedule",
    config=LanguageScheduleConfig,
    build=language_model.build_task,
    measure=Collector,
    facts=_MODEL.facts,
    known_by_facts=_MODEL.known_by_facts,
    libraries=(*_MODEL.libraries, "scipy"),
    code=(*_MODEL.code, "llbook.experiments.schedule"),
    # half an hour of one core each
    recorded={"laptop": Recorded({"corpus": "tinystories"}, optional=True)},
)
