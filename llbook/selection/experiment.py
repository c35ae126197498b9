"""The experiment: every method on one perceptron, beside the best known policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

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
)
from llbook.experiments.experiment import Experiment
from llbook.experiments.language_model import LanguageModelConfig, load_examples
from llbook.experiments.perceptron import PERCEPTRON, PerceptronConfig, PerceptronData, build_task
from llbook.measures.law import contributions, future_contributions, support
from llbook.measures.objective import acceleration_ratio, loss_auc
from llbook.measures.ranking import agreement, auroc
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.methods import METHODS as SEARCHES
from llbook.optimal.process import Process, train
from llbook.optimal.search import search
from llbook.optimal.starts import STARTS as PRICES
from llbook.parameters import Section, check_names
from llbook.selection.methods import GROUPED, METHODS, method_names
from llbook.selection.selector import PASSES, evaluation_cost
from llbook.selection.studies import order_alone, policy_bits, quantised, totals_alone
from llbook.selection.tuning import tuned
from llbook.tasks.task import Task

__all__ = [
    "BEST",
    "LANGUAGE_MODEL",
    "ORDER",
    "SELECTION",
    "TOTALS",
    "SelectionConfig",
    "spoilt",
]

BEST, TOTALS, ORDER = "best known", "best, totals alone", "best, order alone"
STARTS = ("greedy", "static", "equal")
QUANTA = (4, 16, 64, 256)
EXAMPLES, STEPS = 64, 100  # groups of examples and of steps in a map of weights


class _Selection(Section):
    methods: str = Field("all", description="names of methods, with commas; all: every one")
    best_starts: int = Field(
        1, ge=1, le=3, description="searches for the best policy: from greedy, static, equal"
    )
    studies: bool = Field(
        False, description="order against selection, and the bits that a policy costs"
    )


class _Methods(SearchConfig):
    """What the configurations of this room have beside those of their task."""

    selection: _Selection = _Selection()

    @model_validator(mode="after")
    def _known(self) -> Self:
        check_names("methods", self.names(), METHODS)
        if not self.inner.build().descends:
            raise ValueError(
                "optimizer, batch, weight_decay: methods of selection are compared under gradient "
                f"descent on the full batch, at any rates, got {self.inner.build().identity()}"
            )
        if self.search.start != "auto":
            raise ValueError(
                f"start: got {self.search.start!r}; expected its default, auto: best_starts says "
                "from where the best policy is searched"
            )
        if self.selection.studies and self.search.epochs == 0:
            raise ValueError("studies: got true with epochs = 0; they need the best known policy")
        return self

    def names(self) -> list[str]:
        """Of the methods that are compared; uniform is always the first."""
        return method_names(self.selection.methods)


class SelectionConfig(PerceptronConfig, _Methods):
    """Methods of data selection on the perceptron; defaults are those of `laptop`."""

    data: PerceptronData = PerceptronData(size=1024)
    training: TrainingParameters = TrainingParameters(learning_rate=0.1, steps=500)
    search: SearchParameters = SearchParameters(
        method="two-stage",
        epochs=200,
        step_size=5e-6,
        schedule="constant",
        objective="sum",
        measure_every=200,
    )


class LanguageSelectionConfig(LanguageModelConfig, _Methods):
    """Methods of data selection on the language model."""


@dataclass(frozen=True)
class _Row:
    """A policy and what it took to find it."""

    name: str
    policy: Tensor
    process: Process
    evaluations: float
    trials: float
    value: float = math.nan
    scores: Tensor | None = None


C = TypeVar("C", bound=_Methods)


class _SelectionExperiment(Experiment[C]):
    """Its runs have a row per policy: uniform, the methods, the best known and its studies.

    Arrays: ``names`` (R,), text; ``history_*`` (R,), a number of each policy: ``objective``, J in nats;
    ``desired_auc``, ``auc`` (test), in nats a step; ``ar``; ``evaluations``, its cost, and
    ``trials``, that of its whole tuning, in gradient evaluations; ``value``, of its knob; ``support_share``;
    ``idle_weight``, mean weight on test CT ≤ 0; ``spoilt_weight``, on spoilt examples; ``agreement``; ``overlap``, Σ_n min(γ, γ*) with the
    best known, mean over the steps; ``auroc`` of its scores, or else of its totals; ``bits``, ``quanta`` and
    ``symbols``: code length, its quanta a step and the test symbols a step from which it is less
    than what the policy saves. ``curves`` (R, S), test losses at ``curve_steps`` (S,); ``maps`` (R, 64, 100): N times the
    mean weight of groups of examples, in the order of use of the best known policy, and of steps.
    """

    def compute(
        self, config: C, *, progress: bool = False, checkpoint: Path | None = None
    ) -> Arrays:
        task, steps = self.build(config), config.training.steps
        inner = config.inner.build()
        flipped = spoilt(config)
        best = _best(task, config, progress, checkpoint) if config.search.epochs else None
        table = _Table(task, config, best, flipped)
        for name in config.names():
            fixed: dict[str, Any] = {}
            if name in GROUPED and bool(flipped.any()):
                fixed["groups"] = flipped.long()
            found = tuned(task, METHODS[name], steps, inner=inner, **fixed)
            made = found.selection
            value = math.nan if found.value is None else found.value
            costs = made.evaluations, found.evaluations
            table.add(_Row(name, made.policy, made.process, *costs, value, found.selector.scores))
        if best is not None:
            table.add(best)
        if best is not None and config.selection.studies:
            budget = config.search.epochs
            again = best.evaluations + 2 / PASSES  # with the training under its totals
            for name, policy, cost in (
                (TOTALS, totals_alone(best.policy), again),
                (
                    ORDER,
                    order_alone(task, steps, budget, inner=inner),
                    evaluation_cost(task, budget),
                ),
            ):
                table.add(_Row(name, policy, train(task, policy, inner=inner), cost, cost))
        return table.arrays()


class _Table:
    """Measures of one policy after another."""

    def __init__(self, task: Task, config: _Methods, best: _Row | None, flipped: Tensor) -> None:
        self.task, self.best, self.flipped = task, best, flipped
        self.coded, self.inner = config.selection.studies, config.inner.build()
        self.names: list[str] = []
        self.rows: list[dict[str, float]] = []
        self.tests: list[Tensor] = []
        self.maps: list[np.ndarray] = []
        if best is not None:
            at = torch.arange(len(best.policy), dtype=best.policy.dtype)
            middle = at @ best.policy.cpu() / best.policy.sum(0).cpu().clamp(min=1e-30)
            self.order = middle.argsort()

    def add(self, row: _Row) -> None:
        task, policy, states = self.task, row.policy, row.process.states
        desired = task.trajectory_losses(states, task.desired)
        test = task.trajectory_losses(states, task.test)
        idle = contributions(task, row.process, examples=task.test) <= 0
        future = future_contributions(task, policy_gradient(task, policy, row.process))
        ranked = policy.sum(0) if row.scores is None else row.scores
        measures = {
            "objective": loss_auc(desired) * row.process.steps,
            "desired_auc": loss_auc(desired),
            "auc": loss_auc(test),
            "ar": acceleration_ratio(test, self.tests[0] if self.tests else test),
            "evaluations": row.evaluations,
            "trials": row.trials,
            "value": row.value,
            "support_share": float(support(policy).double().mean()),
            "idle_weight": float((policy * idle).sum(1).mean()),
            "spoilt_weight": float(policy[:, self.flipped].sum(1).mean()),
            "agreement": agreement(policy, future),
            "overlap": math.nan,
            "auroc": auroc(ranked, ~self.flipped),
            "bits": math.nan,
            "quanta": math.nan,
            "symbols": math.nan,
        }
        if self.best is not None:
            measures["overlap"] = float(torch.minimum(policy, self.best.policy).sum(1).mean())
            self.maps.append(_map(policy[:, self.order.to(policy.device)].cpu()))
        if self.coded and self.rows:
            measures |= self._postage(policy)
        self.names.append(row.name)
        self.rows.append(measures)
        self.tests.append(test)

    def _postage(self, policy: Tensor) -> dict[str, float]:
        """Of a few numbers of quanta, the one that pays first on the desired examples.

        The policy has been fitted to these: what it saves is counted on the test examples.
        """
        found = []
        for quanta in QUANTA:
            counts = quantised(policy, quanta)
            coded = counts.to(policy) / quanta
            states = train(self.task, coded, inner=self.inner).states
            bits = policy_bits(counts)
            pays = []
            for name, examples in (("desired_auc", self.task.desired), ("auc", self.task.test)):
                area = loss_auc(self.task.trajectory_losses(states, examples))
                saved = (self.rows[0][name] - area) * len(policy)
                pays.append(bits * math.log(2) / saved if saved > 0 else math.inf)
            found.append((pays[0], pays[1], bits, quanta))
        _, symbols, bits, quanta = min(found)
        return {"symbols": symbols, "bits": bits, "quanta": quanta}

    def arrays(self) -> Arrays:
        tests = torch.stack(self.tests).float().cpu().numpy()
        steps = np.unique(np.linspace(0, tests.shape[1] - 1, 501).round().astype(int))
        arrays = {
            f"history_{name}": np.array([row[name] for row in self.rows]) for name in self.rows[0]
        }
        arrays |= {"names": np.array(self.names), "curves": tests[:, steps], "curve_steps": steps}
        return arrays | ({"maps": np.stack(self.maps)} if self.maps else {})


def _best(task: Task, config: _Methods, progress: bool, checkpoint: Path | None) -> _Row:
    """The best policy that the searches from several starts find; each goes on where it was."""
    found, left = [], []
    budget = config.search.epochs
    # the dearest first: where the budget is too small for one, nothing has been searched yet
    for start in sorted(STARTS[: config.selection.best_starts], key=lambda name: -PRICES[name][1]):
        options = config.search_options() | {"start": start, "measure_every": budget}
        if SEARCHES[config.search.method].start == start:
            options["start"] = "auto"  # this one, where the budget allows it
        path = checkpoint and checkpoint.with_name(f"{start}-{checkpoint.name}")
        left += [path] if path else []
        steps = config.training.steps
        found.append(search(task, steps, **options, checkpoint=path, progress=progress))
    for path in left:
        path.unlink(missing_ok=True)
    best = min(found, key=lambda one: one.history[-1]["objective"])
    own = evaluation_cost(task, best.history[-1]["evaluations"])
    spent = evaluation_cost(task, sum(one.history[-1]["evaluations"] for one in found))
    return _Row(BEST, best.policy, best.process, own, spent)


def spoilt(config: SearchConfig) -> Tensor:
    """Which training examples are spoilt, shape (N,), boolean: flipped labels, perturbed stories.

    Raises:
        TypeError: a configuration of another task.
    """
    if isinstance(config, LanguageModelConfig):
        perturbed = torch.from_numpy(load_examples(config)[1].perturbed)
        return perturbed.to(config.torch_device())
    if not isinstance(config, PerceptronConfig):
        raise TypeError(f"expected a perceptron or a language model, got {type(config).__name__}")
    noisy = build_task(config).training.signed
    data = config.data.model_copy(update={"label_noise": 0.0})
    clean = build_task(config.model_copy(update={"data": data})).training.signed
    # the same draws: a flipped label turns the sign of its input
    return (noisy != clean).any(1)


def _map(policy: Tensor) -> np.ndarray:
    """N times the mean weight of groups of steps and of examples, (examples, steps), float32."""
    size = policy.shape[1]
    pieces = [
        torch.stack([part.mean(1) for part in rows.tensor_split(min(EXAMPLES, size), 1)])
        for rows in (policy * size).tensor_split(min(STEPS, len(policy)), 0)
    ]
    return torch.stack([piece.mean(1) for piece in pieces], 1).float().numpy()


_SEEDS = (0, 1, 2)
_STATIC = "tracin,influence,pds-one-sweep,pds"
_LOSSES = "hardest,easiest,self-paced,rho"
_STORIES = f"{_LOSSES},greedy,controller,groups,tracin,pds-one-sweep"
_ONLINE = "hardest,rho,grad-match,greedy,controller,groups,look-ahead-5"
# at the paper's scale; the best known policies are records of the perceptron
_FULL = {"size": 4096, "steps": 2000, "epochs": 0}
_MIXTURES = "groups,doge,doremi,mixing-law,mixture"
_OUTER = "influence,metagradient,doge,doremi,mixing-law,mixture"
_AHEAD = "grad-match,look-ahead-5,look-ahead-25"
_DEAR = "greedy,grad-match,look-ahead-1,look-ahead-5,look-ahead-25,pds-one-sweep,pds"
_CODE = (
    *("llbook.selection", "llbook.theory.influence", "llbook.theory.flows"),
    *("llbook.tasks.least_squares", "llbook.experiments.perceptron"),
)

SELECTION = _SelectionExperiment(
    name="selection",
    config=SelectionConfig,
    build=build_task,
    measure=Collector,
    libraries=("scipy",),  # least squares of gradient matching, ranks
    sweeps={
        "seeds": [
            {
                "methods": f"{_ONLINE},{_STATIC}",
                "studies": True,
                "label_noise": noise,
                "seed": seed,
            }
            for seed in _SEEDS
            for noise in (0.0, 0.2)
        ],
        "greed": [
            {"methods": "greedy", "label_noise": noise, "seed": seed}
            for seed in _SEEDS
            for noise in (0.03, 0.1, 0.3)
        ],
        "few-desired": [
            {"methods": _STATIC, "label_noise": 0.2, "desired_size": 512, "seed": seed}
            for seed in _SEEDS
        ],
        "paper": [
            _FULL
            | {
                "methods": f"{_LOSSES},grad-match,greedy,controller,{_STATIC},metagradient,groups,look-ahead-5",
                "seed": seed,
            }
            for seed in _SEEDS
        ],
        # where equal weights do best
        "paper-tuned": [
            _FULL
            | {"learning_rate": 32.0, "seed": seed}
            | {"methods": "hardest,rho,greedy,controller,tracin,pds-one-sweep,pds"}
            for seed in _SEEDS
        ],
        "paper-noise": [
            _FULL
            | {"initialisation": "linear", "desired_size": 512, "label_noise": noise}
            | {"methods": "hardest,rho,greedy,controller,tracin,pds-one-sweep", "seed": seed}
            for seed in _SEEDS
            for noise in (0.03, 0.2)
        ],
    },
    code=(*PERCEPTRON.code, *_CODE),
)

LANGUAGE_MODEL = _SelectionExperiment(
    name="language-selection",
    config=LanguageSelectionConfig,
    build=language_model.build_task,
    measure=Collector,
    facts=language_model.LANGUAGE_MODEL.facts,
    known_by_facts=language_model.LANGUAGE_MODEL.known_by_facts,
    libraries=(*language_model.LANGUAGE_MODEL.libraries, "scipy"),
    sweeps={
        # of the language model's settings of this name, whose records have the best known
        "laptop": [{"methods": _STORIES, "epochs": 0, "seed": seed} for seed in _SEEDS],
        # at a rate at which equal weights do not gain by a larger one as well
        "laptop-quarter": [
            language_model.QUARTER | {"methods": _STORIES, "epochs": 0, "seed": seed}
            for seed in _SEEDS
        ],
        "laptop-falling": [
            language_model.FALLING | {"methods": _STORIES, "epochs": 0, "seed": seed}
            for seed in _SEEDS
        ],
        "long": [
            language_model.LONG
            | {
                "methods": "hardest,rho,greedy,controller,groups,tracin,pds-one-sweep",
                "epochs": 0,
                "seed": seed,
            }
            for seed in _SEEDS
        ],
        # 251 evaluations of its tuning: half an hour of one core a seed
        "laptop-pds": [{"methods": "pds", "epochs": 0, "seed": seed} for seed in _SEEDS],
        "laptop-static": [{"methods": _OUTER, "epochs": 0, "seed": seed} for seed in _SEEDS],
        "laptop-ahead": [{"methods": _AHEAD, "epochs": 0, "seed": seed} for seed in _SEEDS],
        "groups": [
            language_model.SHORT | {"methods": _MIXTURES, "epochs": 0, "seed": seed}
            for seed in _SEEDS
        ],
        # methods that cost as many evaluations as a search
        "short": [
            language_model.SHORT | {"methods": _DEAR, "epochs": 0, "seed": seed} for seed in _SEEDS
        ],
        # greed against depth and width
        "greed": [
            language_model.SHORT
            | {"methods": "greedy", "layers": layers, "hidden": hidden, "seed": seed}
            for layers, hidden in ((1, 32), (2, 16), (2, 32), (2, 64), (4, 32))
            for seed in _SEEDS
        ],
    },
    code=(*language_model.LANGUAGE_MODEL.code, *_CODE),
)
