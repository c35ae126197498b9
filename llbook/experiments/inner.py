"""Does a policy found for one optimiser help another, or another order of batches, θ_0 or data?

For each of some optimisers: the learning rate at which conventional learning ends lowest, searches
at that rate, and the best policy that they found under every other optimiser, each at its own rate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from llbook.experiments import language_model
from llbook.experiments.collecting import (
    Arrays,
    Collector,
    SearchConfig,
    SearchParameters,
    TrainingParameters,
    loss_curves,
)
from llbook.experiments.experiment import Experiment, Recorded
from llbook.experiments.language_model import LanguageModelConfig
from llbook.experiments.perceptron import PERCEPTRON, PerceptronConfig, PerceptronData, build_task
from llbook.measures.law import (
    contributions,
    first_order_gap,
    future_contributions,
    preconditioned_contributions,
    similarity,
    support,
)
from llbook.measures.objective import acceleration_ratio, loss_auc
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import OPTIMIZERS, Inner
from llbook.optimal.process import Process, constant_policy, train
from llbook.optimal.search import search
from llbook.parameters import Section, check_names, listed
from llbook.tasks.task import Task

__all__ = ["CHANGES", "INNER", "KINDS", "LANGUAGE_MODEL", "InnerConfig", "LanguageInnerConfig"]

KINDS = (*OPTIMIZERS, "sgd")
"""The optimisers by name; ``sgd`` is gradient descent on batches."""

CHANGES = ("batches", "θ_0", "data")
"""What is drawn anew of a training that a policy was not found for."""

LENGTHS = (0.1, 0.3)  # of the steps of mirror descent; the better one counts
RATES = tuple(2.0**k for k in range(-10, 5))
OTHER = 1000  # added to a seed
POINTS = 250  # steps that a curve is kept at


class _Study(Section):
    optimizers: str = Field(
        "gradient-descent,sgd,momentum,adam",
        description="those compared, with commas; sgd: gradient descent on batches",
    )
    batches: int = Field(8, ge=2, le=2**20, description="of sgd, how many a shuffle is cut into")


class _Compared(SearchConfig):
    """What the configurations of this file have beside those of their task."""

    study: _Study = _Study()

    @model_validator(mode="after")
    def _known(self) -> Self:
        check_names("optimizers", self.names(), KINDS)
        size = self.data.size  # type: ignore[attr-defined]  # of every subclass
        if size < self.study.batches:
            raise ValueError(f"batches: got {self.study.batches}; expected at most N = {size}")
        cut = size // (size // self.study.batches)
        if cut != self.study.batches:
            raise ValueError(
                f"batches: got {self.study.batches}; N = {size} in batches of "
                f"{size // self.study.batches} makes {cut} of them"
            )
        for part, name in (("training", "learning_rate"), ("search", "rate")):
            got = getattr(getattr(self, part), name)
            usual = getattr(type(self).model_fields[part].default, name)
            if got != usual:
                raise ValueError(
                    f"{name}: got {got}; expected its default, {usual}: both rates are searched for"
                )
        if self.inner.batch or self.inner.optimizer != "gradient-descent":
            raise ValueError(
                f"optimizer: got {self.inner.optimizer!r}, batch: got {self.inner.batch}; expected "
                "their defaults, as optimizers names what is compared"
            )
        return self

    def names(self) -> list[str]:
        """Of the optimisers that are compared."""
        return listed(self.study.optimizers)

    def inner_of(self, name: str) -> Inner:
        """The training of one of them."""
        inner = self.inner.build()
        if name == "sgd":
            size = self.data.size  # type: ignore[attr-defined]
            return replace(inner, batch=size // self.study.batches)
        return replace(inner, optimizer=name)


class InnerConfig(PerceptronConfig, _Compared):
    """Optimisers on the perceptron."""

    data: PerceptronData = PerceptronData(size=1024)
    training: TrainingParameters = TrainingParameters(learning_rate=0.1, steps=500)
    search: SearchParameters = SearchParameters(
        method="two-stage",
        start="equal",
        epochs=60,
        step_size=5e-6,
        schedule="constant",
        objective="sum",
        measure_every=5,
    )


class LanguageInnerConfig(LanguageModelConfig, _Compared):
    """Optimisers on the language model."""

    search: SearchParameters = SearchParameters(
        method="two-stage",
        start="equal",
        epochs=16,
        step_size=8.0,
        schedule="constant",
        objective="sum",
        measure_every=5,
    )


C = TypeVar("C", bound=_Compared)


class _InnerExperiment(Experiment[C]):
    """Its runs compare M optimisers on one task.

    Arrays: ``names`` (M,), text; ``rate_grid`` (G,), ``rate_final`` and ``rate_area`` (M, G): desired loss at the end
    of conventional learning and mean over its steps, nan where it diverged; ``rates`` (M,), where the
    first is least. ``desired``, ``test`` and ``ar`` (M + 1, M): row 0 of conventional learning, row i + 1 of the policy found for optimiser
    i, each under the optimiser of the column: the mean loss over the steps on desired and on test examples,
    and the acceleration against row 0 on the latter. ``changed_desired``, ``changed_test`` (M, 3, 2) and ``changed_ar`` (M, 3): conventional
    learning and the policy found for an optimiser, under it, with other :data:`CHANGES`; nan where there are no batches.
    ``measured_<name>`` (M, 2), of conventional learning and of the policy found: ``similarity`` and ``preconditioned_similarity``
    on test examples, ``future_similarity`` (means over t), ``relative_gap`` (median), ``support_share``,
    and ``length``, Σ_n w_{n,t}, mean over t. ``curves`` (M, 2, S), test losses at ``curve_steps`` (S,);
    ``similarity``, ``preconditioned_similarity``, ``length`` (M, 2, S'), at ``measured_steps`` (S',).
    ``history_desired`` and ``history_evaluations`` (M, E): the course of the search, the last one repeated.
    """

    def compute(
        self, config: C, *, progress: bool = False, checkpoint: Path | None = None
    ) -> Arrays:
        names, steps = config.names(), config.training.steps
        task = self.build(config)
        conventional = constant_policy(task, steps)
        inners = [config.inner_of(name) for name in names]
        scans = [list(_scan(task, conventional, inner)) for inner in inners]
        final, area = (np.array([[row[k] for row in scan] for scan in scans]) for k in (0, 1))
        if bool(np.isnan(final).all(1).any()):
            raise FloatingPointError("every learning rate diverged for one of the optimisers")
        rates = [RATES[i] for i in np.nanargmin(final, 1)]
        tasks = [_at(task, eta) for eta in rates]
        found, courses, left = [], [], []
        for name, inner, own in zip(names, inners, tasks, strict=True):
            searches = []
            for rate in LENGTHS:
                path = checkpoint and checkpoint.with_name(f"{name}-{rate:g}-{checkpoint.name}")
                options = config.search_options() | {"inner": inner, "rate": rate}
                searches.append(search(own, steps, **options, checkpoint=path, progress=progress))
                left += [path] if path else []
            best = min(searches, key=lambda one: one.history[-1]["objective"])
            found.append(best.policy)
            courses.append([(row["desired_auc"], row["evaluations"]) for row in best.history])
        arrays = {
            "names": np.array(names),
            "rate_grid": np.array(RATES),
            "rate_final": final,
            "rate_area": area,
            "rates": np.array(rates),
        }
        other = self.build(config.model_copy(update={"seed": config.seed + OTHER}))
        arrays |= _courses(courses) | _transferred(tasks, inners, [conventional, *found])
        arrays |= _changed(other, tasks, inners, conventional, found)
        arrays |= _measured(tasks, inners, conventional, found)
        for path in left:
            path.unlink(missing_ok=True)
        return arrays


def _at(task: Task, eta: float) -> Task:
    other = copy.copy(task)
    other.learning_rate = eta
    return other


def _scan(task: Task, policy: Tensor, inner: Inner) -> Iterator[tuple[float, float]]:
    """Final and mean desired loss of a policy at each of :data:`RATES`."""
    for eta in RATES:
        try:
            process = train(_at(task, eta), policy, inner=inner)
        except FloatingPointError:
            yield math.nan, math.nan
        else:
            losses = task.trajectory_losses(process.trajectory, task.desired)
            yield float(losses[-1]), loss_auc(losses)


def _courses(courses: list[list[tuple[float, float]]]) -> Arrays:
    longest = max(map(len, courses))
    table = np.array([course + course[-1:] * (longest - len(course)) for course in courses])
    return {"history_desired": table[..., 0], "history_evaluations": table[..., 1]}


def _transferred(tasks: list[Task], inners: list[Inner], policies: list[Tensor]) -> Arrays:
    """Every policy, the first of which is conventional, under every optimiser."""
    shape = len(policies), len(tasks)
    desired, test, ar = np.empty(shape), np.empty(shape), np.empty(shape)
    for j, (task, inner) in enumerate(zip(tasks, inners, strict=True)):
        under = [loss_curves(task, policy, inner) for policy in policies]
        for i, curves in enumerate(under):
            desired[i, j], test[i, j] = map(loss_auc, curves)
            ar[i, j] = acceleration_ratio(curves[1], under[0][1])
    return {"desired": desired, "test": test, "ar": ar}


def _changed(
    other: Task, tasks: list[Task], inners: list[Inner], usual: Tensor, found: list[Tensor]
) -> Arrays:
    """Conventional learning and each policy under its own optimiser, something drawn anew."""
    shape = len(tasks), len(CHANGES)
    desired, test = np.full((*shape, 2), math.nan), np.full((*shape, 2), math.nan)
    ar = np.full(shape, math.nan)
    for i, (task, inner, policy) in enumerate(zip(tasks, inners, found, strict=True)):
        elsewhere, afresh = copy.copy(task), _at(other, task.learning_rate)
        elsewhere.initial, afresh.initial = other.initial, task.initial
        shuffled = replace(inner, seed=inner.seed + OTHER)
        changes = (task, shuffled), (elsewhere, inner), (afresh, inner)
        for c, (there, trained) in enumerate(changes):
            if trained is shuffled and not inner.batch:
                continue
            curves = [loss_curves(there, one, trained) for one in (usual, policy)]
            desired[i, c] = [loss_auc(pair[0]) for pair in curves]
            test[i, c] = [loss_auc(pair[1]) for pair in curves]
            ar[i, c] = acceleration_ratio(curves[1][1], curves[0][1])
    return {"changed_desired": desired, "changed_test": test, "changed_ar": ar}


def _measured(tasks: list[Task], inners: list[Inner], usual: Tensor, found: list[Tensor]) -> Arrays:
    """The law's measures of conventional learning and of each policy, under its own optimiser."""
    each = [
        [_law(task, inner, policy) for policy in (usual, own)]
        for task, inner, own in zip(tasks, inners, found, strict=True)
    ]
    numbers = {name: [[one[0][name] for one in pair] for pair in each] for name in each[0][0][0]}
    curves = {
        name: torch.stack([torch.stack([one[1][name] for one in pair]) for pair in each])
        for name in each[0][0][1]
    }
    arrays: Arrays = {f"measured_{name}": np.array(rows) for name, rows in numbers.items()}
    steps = np.unique(np.linspace(0, len(usual), POINTS + 1).round().astype(int))
    arrays |= {"curve_steps": steps, "measured_steps": steps[steps < len(usual)]}
    for name, curve in curves.items():
        arrays[name] = curve.float().cpu().numpy()[..., steps[steps < curve.shape[-1]]]
    return arrays


def _law(task: Task, inner: Inner, policy: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
    process = train(task, policy, inner=inner)
    future = future_contributions(task, policy_gradient(task, policy, process))
    instant = contributions(task, process, examples=task.test)
    own = preconditioned_contributions(task, process, examples=task.test)
    curves = {
        "similarity": similarity(instant, policy),
        "preconditioned_similarity": similarity(own, policy),
        "length": _lengths(task, process, policy),
    }
    numbers = {name: float(curve.nanmean()) for name, curve in curves.items()} | {
        "future_similarity": float(similarity(future, policy).nanmean()),
        "relative_gap": float(first_order_gap(future, policy).relative.median()),
        "support_share": float(support(policy).double().mean()),
    }
    return numbers, curves | {"curves": task.trajectory_losses(process.trajectory, task.test)}


def _lengths(task: Task, process: Process, policy: Tensor) -> Tensor:
    """Σ_n w_{n,t}, shape (T,)."""
    if process.batches is None:
        return policy.sum(1)
    rows = zip(policy, process.batches, strict=True)
    return torch.stack([process.inner.weights(task, row, batch).sum() for row, batch in rows])


_CODE = ("llbook.experiments.inner", "llbook.experiments.perceptron")

INNER = _InnerExperiment(
    name="inner",
    config=InnerConfig,
    build=build_task,
    measure=Collector,
    libraries=PERCEPTRON.libraries,
    code=(*PERCEPTRON.code, *_CODE),
    recorded={"perceptron": Recorded()},
)

LANGUAGE_MODEL = _InnerExperiment(
    name="language-inner",
    config=LanguageInnerConfig,
    build=language_model.build_task,
    measure=Collector,
    facts=language_model.LANGUAGE_MODEL.facts,
    known_by_facts=language_model.LANGUAGE_MODEL.known_by_facts,
    libraries=language_model.LANGUAGE_MODEL.libraries,
    code=(*language_model.LANGUAGE_MODEL.code, *_CODE),
    recorded={
        "laptop": Recorded(
            {"corpus": "tinystories", "epochs": 10, "measure_every": 3},
            seeds=(0, 1, 2),
            optional=True,  # forty minutes of one core each
        ),
        "long": Recorded(
            language_model.LONG | {"corpus": "tinystories", "epochs": 10, "measure_every": 3},
            seeds=(0, 1, 2),
            optional=True,  # an hour and more of one core
        ),
    },
)
