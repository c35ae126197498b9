"""The perceptron experiment of §4.2."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from llbook.data.teacher import teacher_data
from llbook.experiments.collecting import (
    LawMeasures,
    SearchConfig,
    SearchParameters,
    TrainingParameters,
)
from llbook.experiments.experiment import Experiment, Recorded
from llbook.measures.law import contributions, similarity
from llbook.optimal.search import Epoch
from llbook.parameters import Section
from llbook.tasks.perceptron import Perceptron, initial_parameters

__all__ = [
    "PERCEPTRON",
    "PerceptronConfig",
    "PerceptronMeasures",
    "build_task",
    "load_records",
    "perceptron_run",
]

EARLY_STEPS = 50
HEAT_MAP_ROWS = 2048
LEARNED = 1e-6
BINS = 100


class _Data(Section):
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

    data: _Data = _Data()
    model: _Model = _Model()
    training: TrainingParameters = TrainingParameters(learning_rate=0.1, steps=2000)
    search: SearchParameters = SearchParameters(
        epochs=500, step_size=5e-6, schedule="constant", objective="sum", measure_every=10
    )
    precision: Literal["float32", "float64"] = Field("float32", description="of the search")


def build_task(config: PerceptronConfig) -> Perceptron:
    """Data, model and θ_0 of a configuration, on its device.

    Raises:
        RuntimeError: ``device`` is ``"cuda"`` and there is none.
    """
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
    ``heat_map_examples``, which they are.
    """

    DROPPED = (*LawMeasures.DROPPED, "heat_map", "heat_map_examples")

    def of_each(self, epoch: Epoch) -> tuple[dict[str, float], dict[str, Tensor]]:
        desired = similarity(contributions(self.task, epoch.process), epoch.policy)
        return {"desired_similarity": float(desired.nanmean())}, {}

    def of_last(self, epoch: Epoch, instant: Tensor) -> dict[str, Tensor]:
        positive = (instant[:EARLY_STEPS] > 0).all(0)
        contributors = positive.nonzero()[:HEAT_MAP_ROWS, 0]
        return {
            "learned_counts": self._learned_weights(epoch),
            "heat_map_examples": contributors,
            "heat_map": epoch.policy[:EARLY_STEPS, contributors].T.contiguous(),
        }

    def _learned_weights(self, epoch: Epoch) -> Tensor:
        """Counts over bins of γ_{n,t}/max_n γ_{n,t} for the (n, t) with loss < 1e-6 (Fig. 9)."""
        counts = torch.zeros(BINS, dtype=torch.int64)
        # a loss below this is a margin above -log(expm1(LEARNED))
        margin = -float(np.log(np.expm1(LEARNED)))
        for weights, theta in zip(epoch.policy, epoch.process.states[:-1], strict=True):
            learned = self.task.training.signed @ theta > margin
            share = (weights[learned] / weights.max()).cpu().double()
            counts += torch.histc(share, bins=BINS, min=0, max=1).long()
        return counts


_PRINTED = {"initialisation": "linear", "desired_size": 512}
_DECAY = {"objective": "mean", "schedule": "linear", "step_size": 1e-3}

PERCEPTRON = Experiment(
    name="perceptron",
    config=PerceptronConfig,
    build=build_task,
    measure=PerceptronMeasures,
    code=("llbook.data.teacher", "llbook.tasks.perceptron", "llbook.experiments.perceptron"),
    recorded={
        "headline": Recorded(),
        "as-printed": Recorded(_PRINTED),
        "normal-512": Recorded({"desired_size": 512}),
        "linear-4096": Recorded({"initialisation": "linear"}),
        "noise-3-linear-512": Recorded(_PRINTED | {"label_noise": 0.03}),
        "noise-20-linear-512": Recorded(_PRINTED | {"label_noise": 0.2}),
        "large-step-headline": Recorded({"step_size": 2e-5}),
        "decay-headline": Recorded(_DECAY),
        "decay-as-printed": Recorded(_PRINTED | _DECAY),
    },
)
perceptron_run = PERCEPTRON.run
load_records = PERCEPTRON.load_records
