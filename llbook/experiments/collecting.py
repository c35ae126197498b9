"""A search as an experiment makes it: its parameters, what is collected of it, its arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from llbook.measures.law import (
    contributions,
    first_order_gap,
    future_contributions,
    permuted_similarity,
    preconditioned_contributions,
    similarity,
    support,
    zero_weight_share,
)
from llbook.optimal.inner import Inner
from llbook.optimal.process import train
from llbook.optimal.search import Epoch, search
from llbook.parameters import Parameters, Section
from llbook.tasks.task import Task

__all__ = [
    "Collector",
    "InnerParameters",
    "LawMeasures",
    "SearchConfig",
    "SearchParameters",
    "TrainingParameters",
    "collected",
    "condense",
    "loss_curves",
]

Arrays = dict[str, NDArray[Any]]


class TrainingParameters(Section):
    """Gradient descent of Eq. 1."""

    learning_rate: float = Field(gt=0, le=1e3, description="η of Eq. 1")
    steps: int = Field(ge=1, le=10**6, description="T, gradient steps of a training")


class InnerParameters(Section):
    """How θ is trained, see :class:`llbook.optimal.inner.Inner`; as in Eq. 1 unless changed."""

    optimizer: Literal["gradient-descent", "momentum", "nesterov", "adam", "adamw"] = Field(
        "gradient-descent", description="how θ is trained; the first is the paper's"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="μ of momentum and Nesterov's")
    beta1: float = Field(0.9, ge=0, lt=1, description="β₁ of Adam and AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="β₂ of Adam and AdamW")
    adam_epsilon: float = Field(
        1e-8, gt=0, le=1, description="ε of Adam and AdamW, outside the root"
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1e3, description="w; decoupled in AdamW, else w θ is added to the gradient"
    )
    rate_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="η over the steps, after the warm-up"
    )
    warmup: int = Field(0, ge=0, le=10**6, description="steps of linear warm-up, at most T")
    batch: int = Field(0, ge=0, le=2**20, description="examples of a batch, at most N; 0: all")
    batch_seed: int = Field(0, ge=0, lt=2**31, description="seed of the batches")

    def build(self) -> Inner:
        """The training of these parameters."""
        rest = self.model_dump(exclude={"adam_epsilon", "rate_schedule", "batch_seed"})
        return Inner(
            **rest, epsilon=self.adam_epsilon, schedule=self.rate_schedule, seed=self.batch_seed
        )


class SearchParameters(Section):
    """The search for a policy, by the names that :func:`llbook.optimal.search.search` has for them."""

    method: Literal["projected-gradient", "spectral", "mirror", "two-stage"] = Field(
        "projected-gradient", description="how J is descended; the first is the paper's"
    )
    start: Literal["auto", "equal", "greedy", "static"] = Field(
        "auto", description="the first policy; auto: 1/N for the paper's method, else greedy"
    )
    epochs: int = Field(
        ge=0, le=10**6, description="updates of the policy; of other methods, gradient evaluations"
    )
    step_size: float = Field(
        ge=0, le=1e9, description="ε of Eq. 6, for `objective`; of the paper's method"
    )
    rate: float = Field(
        0.3, gt=0, le=10, description="length of the steps of mirror descent, in ln γ"
    )
    schedule: Literal["constant", "linear"] = Field(
        description="ε over the epochs: constant, or linear decay to zero"
    )
    objective: Literal["sum", "mean"] = Field(
        description="the J that ε belongs to: Σ_t L_dsr(θ_t), or that over T"
    )
    measure_every: int = Field(ge=1, le=10**6, description="epochs between measurements")


class SearchConfig(Parameters):
    """What the configuration of every experiment with a search has."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0")
    training: TrainingParameters
    inner: InnerParameters = InnerParameters()
    search: SearchParameters
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )

    @model_validator(mode="after")
    def _inner_fits(self) -> Self:
        size = getattr(getattr(self, "data", None), "size", self.inner.batch)
        self.inner.build().check(size, self.training.steps)
        return self

    def settings(self) -> dict[str, Any]:
        """What a run knows of it: all, but for ``inner`` where that is the paper's.

        So runs have the keys that they had before there was a choice.
        """
        usual = self.inner == InnerParameters()
        return self.model_dump(exclude={"inner"} if usual else None)

    def torch_device(self) -> str:
        """``"cpu"`` or ``"cuda"``.

        Raises:
            RuntimeError: ``device`` is ``"cuda"`` and there is none.
        """
        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise RuntimeError(
                "device: got 'cuda', but PyTorch sees no CUDA device; use 'auto' or 'cpu'"
            )
        return "cuda" if there and self.device != "cpu" else "cpu"

    def search_options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`llbook.optimal.search.search`."""
        return self.search.model_dump() | {"inner": self.inner.build()}


class Collector:
    """Scalars and curves of every measured policy, and tensors of single ones.

    A :class:`llbook.optimal.search.Recorder`: offered to a search as its callback, by a
    subclass that says what to collect, it is stored with each checkpoint and restored
    from it, exactly.

    Attributes:
        task: what is searched for.
        rows: one dictionary of scalars per measured policy.
        curves: name → one tensor per measured policy, all of one shape.
        last: name → a tensor.
    """

    def __init__(self, task: Task, config: SearchConfig) -> None:
        self.task = task
        self.rows: list[dict[str, float]] = []
        self.curves: dict[str, list[Tensor]] = {}
        self.last: dict[str, Tensor] = {}

    def __call__(self, epoch: Epoch) -> None:
        """Collect what is wanted of a policy; here its measures alone."""
        self.append(epoch.measures)

    def append(self, row: dict[str, float], **curves: Tensor) -> None:
        """Take in what was measured of one policy; curves are kept in float32, on the CPU."""
        self.rows.append(row)
        for name, curve in curves.items():
            self.curves.setdefault(name, []).append(curve.float().cpu())

    def tensors(self) -> dict[str, Tensor]:
        table = {
            f"rows.{name}": torch.tensor([row[name] for row in self.rows], dtype=torch.float64)
            for name in self.rows[0]
        }
        table |= {f"curves.{name}": torch.stack(list_) for name, list_ in self.curves.items()}
        return table | {f"last.{name}": tensor.cpu() for name, tensor in self.last.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        columns: dict[str, list[float]] = {}
        for key, tensor in tensors.items():
            kind, name = key.split(".", 1)
            if kind == "rows":
                whole = int if name in ("epoch", "evaluations") else float
                columns[name] = [whole(value) for value in tensor.tolist()]
            elif kind == "curves":
                self.curves[name] = list(tensor)
            else:
                self.last[name] = tensor
        self.rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def arrays(self) -> Arrays:
        """``history_<name>`` (E,) of the rows' scalars, the curves (E, …), the last tensors."""
        arrays = {
            f"history_{name}": np.array([row[name] for row in self.rows]) for name in self.rows[0]
        }
        arrays |= {name: torch.stack(list_).numpy() for name, list_ in self.curves.items()}
        return arrays | {name: tensor.cpu().numpy() for name, tensor in self.last.items()}

    @classmethod
    def condense(cls, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """The arrays as a record keeps them."""
        return dict(arrays)


class LawMeasures(Collector):
    """How well policies obey the Learning Law (Eq. 7): what the figures of every experiment show.

    Contributions, SIM_t and the shares of zero weights are taken on the test examples, as
    the paper takes all its measures. A subclass adds measures of its own to each policy
    (:meth:`of_each`) or to the last one (:meth:`of_last`), and says which of them a record
    thins.

    Arrays, beside ``history_*`` (E,), the keys of :attr:`llbook.optimal.search.Search.history`
    and ``similarity``, ``future_similarity``, ``undefined_share``, ``zero_weight_share``,
    ``support_share``: ``test_curves``, ``similarity``, ``future_similarity`` (E, T + 1 or T), a row
    per measured epoch; ``first_desired``, ``last_desired`` (T + 1,); and of the last policy
    ``gap``, ``relative_gap``, ``future_mean``, ``support`` (T,), ``idle`` and
    ``idle_without_weight`` (T,): how many examples have CT ≤ 0, and how many of them γ = 0;
    ``permuted_similarity`` (draws,): the largest SIM_t of its weights dealt to other examples.
    With another training than Eq. 1 also ``preconditioned_similarity``, in the history and (E, T):
    SIM_t in the product of the optimiser's own step (:func:`~llbook.measures.law.preconditioned_contributions`).
    """

    CURVES: ClassVar[tuple[str, ...]] = (
        *("test_curves", "similarity", "future_similarity", "preconditioned_similarity"),
    )
    """Arrays (E, T + 1) or (E, T), where there are such."""
    STEPS: ClassVar[tuple[str, ...]] = (
        *("first_desired", "last_desired", "gap", "relative_gap", "future_mean", "support"),
        *("idle", "idle_without_weight"),
    )
    """Arrays (…, T + 1) or (…, T)."""
    DROPPED: ClassVar[tuple[str, ...]] = ()
    """Arrays that a record does not keep."""

    def __call__(self, epoch: Epoch) -> None:
        policy = epoch.policy
        instant = contributions(self.task, epoch.process, examples=self.task.test)
        future = future_contributions(self.task, epoch.gradient)
        sim, future_sim = similarity(instant, policy), similarity(future, policy)
        row, curves = self.of_each(epoch)
        if not epoch.process.inner.plain:
            own = preconditioned_contributions(self.task, epoch.process, examples=self.task.test)
            curves["preconditioned_similarity"] = own_sim = similarity(own, policy)
            row["preconditioned_similarity"] = float(own_sim.nanmean())
        self.append(
            epoch.measures
            | {
                "similarity": float(sim.nanmean()),
                "future_similarity": float(future_sim.nanmean()),
                "undefined_share": float(sim.isnan().double().mean()),
                "zero_weight_share": zero_weight_share(instant, policy),
                "support_share": int(support(policy).count_nonzero()) / policy.numel(),
            }
            | row,
            test_curves=epoch.test,
            similarity=sim,
            future_similarity=future_sim,
            **curves,
        )
        if epoch.number == 0:
            self.last["first_desired"] = epoch.desired
        if epoch.final:
            gap = first_order_gap(future, policy)
            idle = instant <= 0
            self.last |= {
                "last_desired": epoch.desired,
                "gap": gap.absolute,
                "relative_gap": gap.relative,
                "future_mean": gap.mean,
                "support": support(policy).sum(1),
                "idle": idle.sum(1),
                "idle_without_weight": (idle & ~support(policy)).sum(1),
                "permuted_similarity": permuted_similarity(instant, policy),
            } | self.of_last(epoch, instant)

    def of_each(self, epoch: Epoch) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Further scalars and curves of a policy."""
        return {}, {}

    def of_last(self, epoch: Epoch, instant: Tensor) -> dict[str, Tensor]:
        """Further tensors of the last policy, whose contributions CT (T, N) are ``instant``."""
        return {}

    @classmethod
    def condense(cls, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        kept = {name: array for name, array in arrays.items() if name not in cls.DROPPED}
        curves = tuple(name for name in cls.CURVES if name in kept)
        return condense(kept, curves=curves, steps=cls.STEPS)


def loss_curves(task: Task, policy: Tensor, inner: Inner) -> tuple[Tensor, Tensor]:
    """Desired and test losses of a training, shape (T + 1,) each; nan where it diverged."""
    try:
        states = train(task, policy, inner=inner).trajectory
    except FloatingPointError:
        lost = policy.new_full((len(policy) + 1,), math.nan)
        return lost, lost
    return task.trajectory_losses(states, task.desired), task.trajectory_losses(states, task.test)


def collected(
    task: Task,
    config: SearchConfig,
    collector: Collector,
    *,
    progress: bool = False,
    checkpoint: Path | None = None,
) -> Arrays:
    """Search, and what was collected of it.

    Args:
        task: the learning problem.
        config: length of the training and the search.
        collector: called with each measured policy.
        progress, checkpoint: see :func:`llbook.optimal.search.search`.

    Returns:
        The collector's arrays; and ``curve_epochs`` (E,) and ``curve_steps`` (T + 1,), the
        epochs and steps of its curves.
    """
    search(
        task,
        config.training.steps,
        **config.search_options(),
        callback=collector,
        progress=progress,
        checkpoint=checkpoint,
    )
    arrays = collector.arrays()
    return arrays | {
        "curve_epochs": arrays["history_epoch"],
        "curve_steps": np.arange(config.training.steps + 1),
    }


def condense(
    arrays: Mapping[str, NDArray[Any]],
    *,
    curves: tuple[str, ...],
    steps: tuple[str, ...],
    policies: int = 11,
    points: int = 500,
) -> Arrays:
    """The arrays of a run with fewer curves and fewer steps.

    Args:
        arrays: what :func:`collected` returned.
        curves: names of those with an entry per measured epoch, then one per step.
        steps: names of those whose last axis is steps.
        policies: how many measured epochs keep their curves, first and last among them.
        points: into how many equal stretches the steps of a curve are cut.
    """
    kept, last = dict(arrays), arrays["curve_steps"][-1]
    columns = np.unique(np.linspace(0, last, points + 1).round().astype(int))
    rows = np.unique(np.linspace(0, len(arrays["curve_epochs"]) - 1, policies).round().astype(int))
    for name in ("curve_steps", *curves, *steps):
        kept[name] = arrays[name][..., columns[columns < arrays[name].shape[-1]]]
    for name in ("curve_epochs", *curves):
        kept[name] = kept[name][rows]
    return kept
