"""The perceptron experiment of §4.2: from a configuration to the arrays that figures read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from llbook.data.teacher import teacher_data
from llbook.experiments.collecting import Collector
from llbook.measures.law import (
    contributions,
    first_order_gap,
    future_contributions,
    similarity,
    zero_weight_share,
)
from llbook.optimal.search import Epoch, search
from llbook.parameters import Parameters, Section
from llbook.runs.records import load_record, record_path, save_record
from llbook.runs.run import Run
from llbook.runs.store import default_store
from llbook.tasks.perceptron import Perceptron, initial_parameters

__all__ = [
    "CODE",
    "RECORDED",
    "PerceptronConfig",
    "build_task",
    "compute",
    "condense",
    "load_records",
    "recorded_configs",
]


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


class _Training(Section):
    learning_rate: float = Field(0.1, gt=0, le=1e3, description="η of Eq. 1")
    steps: int = Field(2000, ge=1, le=10**6, description="T, gradient steps of a training")


class _Search(Section):
    epochs: int = Field(500, ge=0, le=10**6, description="updates of the policy")
    step_size: float = Field(5e-6, ge=0, le=1e6, description="ε of Eq. 6, for `objective`")
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="ε over the epochs: constant, or linear decay to zero"
    )
    objective: Literal["sum", "mean"] = Field(
        "sum", description="the J that ε belongs to: Σ_t L_dsr(θ_t), or that over T"
    )
    measure_every: int = Field(10, ge=1, le=10**6, description="epochs between measurements")


class PerceptronConfig(Parameters):
    """The perceptron experiment; defaults are the headline setting at the paper's scale."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0")
    data: _Data = _Data()
    model: _Model = _Model()
    training: _Training = _Training()
    search: _Search = _Search()
    precision: Literal["float32", "float64"] = Field("float32", description="of the search")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )


# The modules whose source decides what a run contains; the run store hashes them.
CODE = (
    "llbook.data.teacher",
    "llbook.tasks.task",
    "llbook.tasks.perceptron",
    "llbook.optimal",
    "llbook.measures",
    "llbook.experiments.collecting",
    "llbook.experiments.perceptron",
)

# Settings whose runs are kept as records, as changes to the defaults of PerceptronConfig.
RECORDED: dict[str, dict[str, Any]] = {
    "headline": {},
    "as-printed": {"initialisation": "linear", "desired_size": 512},
    "normal-512": {"desired_size": 512},
    "linear-4096": {"initialisation": "linear"},
    "noise-3-linear-512": {"initialisation": "linear", "desired_size": 512, "label_noise": 0.03},
    "noise-20-linear-512": {"initialisation": "linear", "desired_size": 512, "label_noise": 0.2},
    "large-step-headline": {"step_size": 2e-5},
    "decay-headline": {"objective": "mean", "schedule": "linear", "step_size": 1e-3},
    "decay-as-printed": {
        "initialisation": "linear",
        "desired_size": 512,
        "objective": "mean",
        "schedule": "linear",
        "step_size": 1e-3,
    },
}
SEEDS = (0, 1, 2)

EARLY_STEPS = 50
HEAT_MAP_ROWS = 2048
LEARNED = 1e-6
BINS = 100


def build_task(config: PerceptronConfig) -> Perceptron:
    """Data, model and θ_0 of a configuration, on its device.

    Raises:
        RuntimeError: ``device`` is ``"cuda"`` and there is none.
    """
    device = config.device
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device: got 'cuda', but PyTorch sees no CUDA device; use 'auto' or 'cpu'"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
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


class _Measure(Collector):
    """What figures need of each measured policy."""

    def __init__(self, task: Perceptron, config: PerceptronConfig) -> None:
        super().__init__()
        self.task, self.last_epoch = task, config.search.epochs

    def __call__(self, epoch: Epoch) -> None:
        task, policy = self.task, epoch.policy
        instant = contributions(task, epoch.process, examples=task.test)
        future = future_contributions(task, epoch.gradient)
        sim, future_sim = similarity(instant, policy), similarity(future, policy)
        on_desired = similarity(contributions(task, epoch.process), policy)
        self.append(
            epoch.measures
            | {
                "similarity": float(sim.nanmean()),
                "desired_similarity": float(on_desired.nanmean()),
                "future_similarity": float(future_sim.nanmean()),
                "undefined_share": float(sim.isnan().double().mean()),
                "zero_weight_share": zero_weight_share(instant, policy),
                "support_share": float((policy != 0).double().mean()),
            },
            test_curves=epoch.test,
            similarity=sim,
            future_similarity=future_sim,
        )
        if epoch.number == 0:
            self.last["first_desired"] = epoch.desired
        if epoch.number == self.last_epoch:
            gap = first_order_gap(future, policy)
            contributors = _early_contributors(instant)
            self.last |= {
                "last_desired": epoch.desired,
                "gap": gap.absolute,
                "relative_gap": gap.relative,
                "future_mean": gap.mean,
                "support": (policy != 0).sum(1),
                "idle": (instant <= 0).sum(1),
                "idle_without_weight": ((instant <= 0) & (policy == 0)).sum(1),
                "learned_counts": _learned_weights(task, epoch),
                "heat_map_examples": contributors,
                "heat_map": policy[:EARLY_STEPS, contributors].T.contiguous(),
            }


def compute(
    config: PerceptronConfig, *, progress: bool = False, checkpoint: Path | None = None
) -> dict[str, np.ndarray]:
    """Run the search and measure it.

    Contributions, SIM_t and the shares of zero weights are taken on the test
    examples, as the paper takes all its measures; those whose name begins with
    ``desired_`` on the desired examples that the policy was optimised on.

    Args:
        config: the experiment.
        progress: show a progress bar.
        checkpoint: see :func:`llbook.optimal.search.search`.

    Returns:
        ``curve_epochs`` (E,) and ``curve_steps`` (T + 1,), the epochs and steps of the
        curves; ``history_*`` (E,): a column per key of :attr:`llbook.optimal.search.Search.history`
        and of the measures here; ``test_curves``, ``similarity``,
        ``future_similarity`` (E, T + 1 or T): one row per measured epoch;
        ``first_desired``, ``last_desired`` (T + 1,); ``gap``, ``relative_gap``,
        ``future_mean``, ``support`` (T,) of the last policy; ``idle`` and
        ``idle_without_weight`` (T,): how many examples have CT ≤ 0, and how many of
        them γ = 0; ``learned_counts``
        (BINS,): how many (n, t) with loss < 1e-6 have γ_{n,t}/max_n γ_{n,t} in
        each of equal bins of [0, 1]; ``heat_map`` (rows, steps): γ of the
        examples whose contribution is positive throughout the early steps, and
        ``heat_map_examples``, which they are.
    """
    task = build_task(config)
    measure = _Measure(task, config)
    search(
        task,
        config.training.steps,
        epochs=config.search.epochs,
        step_size=config.search.step_size,
        schedule=config.search.schedule,
        objective=config.search.objective,
        measure_every=config.search.measure_every,
        callback=measure,
        progress=progress,
        checkpoint=checkpoint,
    )
    arrays = measure.arrays()
    return arrays | {
        "curve_epochs": arrays["history_epoch"],
        "curve_steps": np.arange(config.training.steps + 1),
    }


def recorded_configs() -> dict[str, PerceptronConfig]:
    """Record name → configuration, every recorded setting at every seed."""
    return {
        f"perceptron-{name}-seed{seed}": PerceptronConfig.from_flat(changes | {"seed": seed})
        for name, changes in RECORDED.items()
        for seed in SEEDS
    }


def perceptron_run(config: PerceptronConfig, *, progress: bool = False) -> Run:
    """The run of a configuration, from the run store where it is already there.

    An interrupted search goes on from its last epoch.
    """
    return default_store().load_or_compute(
        "perceptron",
        config.model_dump(),
        lambda path: compute(config, progress=progress, checkpoint=path),
        CODE,
        resumable=True,
    )


def write_records(names: Iterable[str] | None = None, *, progress: bool = True) -> None:
    """Make records anew: all of :func:`recorded_configs`, or those named.

    Each takes minutes; those already in the run store are only written out.
    """
    configs = recorded_configs()
    for name in configs if names is None else names:
        run = perceptron_run(configs[name], progress=progress)
        save_record(replace(run, arrays=condense(run.arrays)), record_path(name))


def load_records(*, recompute: bool = False) -> dict[str, list[Run]]:
    """The recorded runs of every setting, in the order of their seeds.

    Args:
        recompute: run each of them anew (or take it from the run store) instead of
            reading ``book/records``; hours on a CPU.
    """
    configs = recorded_configs()

    def one(name: str) -> Run:
        if not recompute:
            return load_record(record_path(name))
        run = perceptron_run(configs[name], progress=True)
        return replace(run, arrays=condense(run.arrays))

    return {
        setting: [one(f"perceptron-{setting}-seed{seed}") for seed in SEEDS] for setting in RECORDED
    }


def condense(
    arrays: dict[str, np.ndarray], *, policies: int = 11, points: int = 500
) -> dict[str, np.ndarray]:
    """The arrays of a run as a record keeps them: fewer curves, fewer steps, no policy.

    Args:
        arrays: what :func:`compute` returned.
        policies: how many measured epochs keep their curves, first and last among them.
        points: into how many equal stretches the steps of a curve are cut.
    """
    kept = {
        name: array for name, array in arrays.items() if not name.startswith(("heat_map", "idle"))
    }
    steps = arrays["curve_steps"]
    columns = np.unique(np.linspace(0, len(steps) - 1, points + 1).round().astype(int))
    rows = np.unique(np.linspace(0, len(arrays["curve_epochs"]) - 1, policies).round().astype(int))
    kept["curve_epochs"] = arrays["curve_epochs"][rows]
    kept["curve_steps"] = steps[columns]
    kept["test_curves"] = arrays["test_curves"][np.ix_(rows, columns)]
    for name in ("similarity", "future_similarity"):
        kept[name] = arrays[name][np.ix_(rows, columns[:-1])]
    for name in ("first_desired", "last_desired"):
        kept[name] = arrays[name][columns]
    for name in ("gap", "relative_gap", "future_mean", "support"):
        kept[name] = arrays[name][columns[:-1]]
    return kept


def _learned_weights(task: Perceptron, epoch: Epoch) -> Tensor:
    """Counts over bins of γ_{n,t}/max_n γ_{n,t} for the (n, t) with loss < 1e-6 (Fig. 9)."""
    counts = torch.zeros(BINS, dtype=torch.int64)
    # a loss below this is a margin above -log(expm1(LEARNED))
    margin = -float(np.log(np.expm1(LEARNED)))
    for weights, theta in zip(epoch.policy, epoch.process.states[:-1], strict=True):
        learned = task.training.signed @ theta > margin
        share = (weights[learned] / weights.max()).cpu().double()
        counts += torch.histc(share, bins=BINS, min=0, max=1).long()
    return counts


def _early_contributors(instant: Tensor) -> Tensor:
    """Examples whose contribution is positive at each of the first steps, at most 2048."""
    positive = (instant[:EARLY_STEPS] > 0).all(0)
    return positive.nonzero()[:HEAT_MAP_ROWS, 0]
