"""The perceptron experiment of §4.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from llbook.data.teacher import teacher_data
from llbook.experiments.collecting import (
    Arrays,
    LawMeasures,
    SearchConfig,
    SearchParameters,
    TrainingParameters,
)
from llbook.experiments.experiment import Experiment, Recorded
from llbook.measures.law import contributions, similarity, support
from llbook.optimal.search import Epoch
from llbook.optimal.sparsify import OBJECTIVES, sparsify
from llbook.parameters import Section
from llbook.tasks.perceptron import Perceptron, initial_parameters

__all__ = [
    "PERCEPTRON",
    "PerceptronConfig",
    "PerceptronData",
    "PerceptronMeasures",
    "build_task",
    "perceptron_run",
]

EARLY_STEPS = 50
HEAT_MAP_ROWS = 2048
LEARNED = 1e-6
BINS = 100


class PerceptronData(Section):
    """A teacher's examples (App. D.1)."""

    size: int = Field(4096, ge=1, le=2**20, description="N, training examples")
    desired_size: int = Field(
        4096, ge=1, le=2**20, description="K, desired and, again, test examples"
    )
    dimension: int = Field(128, ge=1, le=2**14, description="D, inputs of the perceptron")
    label_noise: float = Field(0.0, ge=0, le=0.5, description="share of training labels flipped")


class _Model(Section):
    initialisation: Literal["linear", "normal", "zero"] = Field(
        "normal", description="θ_0: PyTorch's default for a linear layer, N(0, I), or zero"
    )


class PerceptronConfig(SearchConfig):
    """The perceptron experiment; defaults are the headline setting at the paper's scale."""

    data: PerceptronData = PerceptronData()
    model: _Model = _Model()
    training: TrainingParameters = TrainingParameters(learning_rate=0.1, steps=2000)
    search: SearchParameters = SearchParameters(
        epochs=500, step_size=5e-6, schedule="constant", objective="sum", measure_every=10
    )
    precision: Literal["float32", "float64"] = Field("float32", description="of the search")
    sparse_every: int = Field(
        0,
        ge=0,
        le=10**6,
        description="steps between those whose weights are also made few; 0: none",
    )

    @model_validator(mode="after")
    def _made_few_of_full_batches(self) -> Self:
        if self.sparse_every and self.inner.batch:
            raise ValueError(
                "sparse_every: policies of few weights have the same process on full batches alone; "
                f"expected 0 with batch = {self.inner.batch}, got {self.sparse_every}"
            )
        return self


def build_task(config: PerceptronConfig) -> Perceptron:
    """Data, model and θ_0 of a configuration, on its device.

    Raises:
        RuntimeError: ``device`` is ``"cuda"`` and there is none.
        TypeError: another configuration.
    """
    PerceptronConfig.require(config)
    device = config.torch_device()
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.precision]
    data = teacher_data(
        size=config.data.size,
        desired_size=config.data.desired_size,
        dimension=config.data.dimension,
        label_noise=config.data.label_noise,
        seed=config.seed,
        dtype=dtype,
    )
    initial = initial_parameters(
        config.model.initialisation, config.data.dimension, seed=config.seed, dtype=dtype
    )
    sets = [
        type(examples)(*(part.to(device) for part in examples))
        for examples in (data.training, data.desired, data.test)
    ]
    return Perceptron(
        *sets, initial=initial.to(device), learning_rate=config.training.learning_rate
    )


class PerceptronMeasures(LawMeasures):
    """Beside those of every experiment, what Fig. 4 and Fig. 9 show.

    ``history_desired_similarity`` (E,), SIM on the desired examples that the policy was
    optimised on; ``learned_counts`` (BINS,): how many (n, t) with loss < 1e-6 have
    γ_{n,t}/max_n γ_{n,t} in each of equal bins of [0, 1]; ``heat_map`` (rows, steps): γ of the
    examples whose contribution is positive throughout the early steps, and
    ``heat_map_examples``, which they are. Where ``sparse_every`` asks for it, of two other policies
    with the process of the last one, the objectives of :func:`llbook.optimal.sparsify.sparsify`,
    ``fewest_*`` and ``idle_*``: ``support``, ``similarity``, ``idle_without_weight`` (S,) at ``sparse_steps``,
    where ``sparse_idle`` examples have CT ≤ 0, and ``learned_counts``.
    """

    RECORDED_ROWS = 256
    """Examples of a heat map that a record keeps."""

    @classmethod
    def condense(cls, arrays: Mapping[str, np.ndarray]) -> Arrays:
        maps = ("heat_map", "heat_map_examples")
        few = {name: arrays[name][: cls.RECORDED_ROWS] for name in maps if name in arrays}
        return super().condense({**arrays, **few})

    def __init__(self, task: Perceptron, config: PerceptronConfig) -> None:
        super().__init__(task, config)
        self.sparse_every = config.sparse_every

    def of_each(self, epoch: Epoch) -> tuple[dict[str, float], dict[str, Tensor]]:
        desired = similarity(contributions(self.task, epoch.process), epoch.policy)
        return {"desired_similarity": float(desired.nanmean())}, {}

    def of_last(self, epoch: Epoch, instant: Tensor) -> dict[str, Tensor]:
        positive = (instant[:EARLY_STEPS] > 0).all(0)
        contributors = positive.nonzero()[:HEAT_MAP_ROWS, 0]
        return {
            "learned_counts": self._learned_weights(epoch.policy, epoch.process.states[:-1]),
            "heat_map_examples": contributors,
            "heat_map": epoch.policy[:EARLY_STEPS, contributors].T.contiguous(),
        } | self._sparse(epoch, instant)

    def _sparse(self, epoch: Epoch, instant: Tensor) -> dict[str, Tensor]:
        """Measures of other policies with the same process, at some of the steps."""
        if self.sparse_every == 0:
            return {}
        steps = torch.arange(0, len(instant), self.sparse_every)
        here, states = instant[steps], epoch.process.states[steps]
        found = {"sparse_steps": steps, "sparse_idle": (here <= 0).sum(1)}
        for objective in OBJECTIVES:
            policy = sparsify(
                self.task,
                epoch.policy,
                epoch.process,
                objective=objective,
                examples=self.task.test,
                steps=steps,
            )
            found |= {
                f"{objective}_support": support(policy).sum(1),
                f"{objective}_similarity": similarity(here, policy),
                f"{objective}_idle_without_weight": ((here <= 0) & ~support(policy)).sum(1),
                f"{objective}_learned_counts": self._learned_weights(policy, states),
            }
        return found

    def _learned_weights(self, policy: Tensor, states: Tensor) -> Tensor:
        """Counts over bins of γ_{n,t}/max_n γ_{n,t} for the (n, t) with loss < 1e-6 (Fig. 9)."""
        counts = torch.zeros(BINS, dtype=torch.int64)
        # a loss below this is a margin above -log(expm1(LEARNED))
        margin = -float(np.log(np.expm1(LEARNED)))
        for weights, theta in zip(policy, states, strict=True):
            learned = self.task.training.signed @ theta > margin
            share = (weights[learned] / weights.max()).cpu().double()
            counts += torch.histc(share, bins=BINS, min=0, max=1).long()
        return counts


_PRINTED = {"initialisation": "linear", "desired_size": 512}
_NOISE = {percent: _PRINTED | {"label_noise": percent / 100} for percent in (3, 20)}
_SMALL = {"steps": 500, "size": 1024}
_OPTIMUM = {"method": "two-stage", "epochs": 300, "measure_every": 10, "sparse_every": 100}
_DECAY = {"objective": "mean", "schedule": "linear", "step_size": 1e-3}

PERCEPTRON = Experiment(
    name="perceptron",
    config=PerceptronConfig,
    build=build_task,
    measure=PerceptronMeasures,
    libraries=("scipy",),  # its linear programs choose among representatives
    code=(
        *("llbook.data.teacher", "llbook.tasks.perceptron", "llbook.tasks.closed_form"),
        "llbook.experiments.perceptron",
    ),
    recorded={
        "headline": Recorded(),
        "as-printed": Recorded(_PRINTED),
        "normal-512": Recorded({"desired_size": 512}),
        "linear-4096": Recorded({"initialisation": "linear"}),
        "noise-3-linear-512": Recorded(_NOISE[3]),
        "noise-20-linear-512": Recorded(_NOISE[20]),
        "large-step-headline": Recorded({"step_size": 2e-5}),
        "decay-headline": Recorded(_DECAY),
        "decay-as-printed": Recorded(_PRINTED | _DECAY),
        "optimum-headline": Recorded(_OPTIMUM | {"epochs": 600, "measure_every": 20}),
        "optimum-as-printed": Recorded(_OPTIMUM | _PRINTED),
        "optimum-noise-3-linear-512": Recorded(_OPTIMUM | _NOISE[3]),
        "optimum-noise-20-linear-512": Recorded(_OPTIMUM | _NOISE[20]),
        # at the rate of the least area of equal weights, see the sweep "rates"
        "tuned-headline": Recorded(
            {"learning_rate": 32.0, "start": "equal", "sparse_every": 0}
            | {"method": "two-stage", "epochs": 100, "measure_every": 20}
        ),
        **{
            f"{method}-headline": Recorded(
                {"method": method, "epochs": 300, "measure_every": 10}, seeds=(0,)
            )
            for method in ("spectral", "mirror")
        },
        "mirror-equal-headline": Recorded(
            {"method": "mirror", "start": "equal", "epochs": 300, "measure_every": 10}, seeds=(0,)
        ),
    },
    sweeps={
        "starts": [
            _SMALL | _OPTIMUM | {"epochs": 600, "start": start, "rate": rate, "sparse_every": 0}
            for start in ("equal", "greedy", "static")
            for rate in (0.15, 0.2, 0.3, 0.5)
        ],
        # equal weights alone
        "rates": [
            {"epochs": 0, "learning_rate": rate, "seed": seed}
            for rate in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
            for seed in (0, 1, 2)
        ],
        "desired": [
            _SMALL | _OPTIMUM | {"desired_size": size, "seed": seed, "sparse_every": 0}
            for size in (128, 256, 512, 1024, 2048, 4096, 8192)
            for seed in (0, 1, 2)
        ],
    },
)
perceptron_run = PERCEPTRON.run
load_records = PERCEPTRON.load_records
