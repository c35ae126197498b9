"""Projected-gradient search for a near-optimal policy (§4.1, Eq. 6).

    γ_t ← Proj[γ_t - ε ∂J/∂γ_t],  for every t at once, from γ = 1/N.

One *epoch* is one such update: a whole training, its backward sweep and T
projections.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from tqdm import tqdm

from llbook.measures.law import first_order_gap, future_contributions
from llbook.measures.objective import acceleration_ratio, compression_ratio, loss_auc
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.checkpoint import (
    FORMS,
    DamagedCheckpoint,
    decode_policy,
    digest,
    encode_policy,
    load_checkpoint,
    save_checkpoint,
)
from llbook.optimal.distributed import Shared
from llbook.optimal.process import Process, check_policy, constant_policy, train
from llbook.optimal.simplex import project
from llbook.runs.files import set_aside
from llbook.tasks.task import Task

__all__ = ["Epoch", "Recorder", "Search", "search"]

SCHEDULES = ("constant", "linear")
OBJECTIVES = ("sum", "mean")
_RECORDED = "recorded."


@dataclass(frozen=True)
class Epoch:
    """One policy met in the search. Handed to callbacks; not kept with its arrays.

    Attributes:
        number: updates made so far; 0 is the policy the search started from.
        policy: γ, shape (T, N). It is overwritten by the next epoch: copy to keep.
        process: the training under it.
        gradient: ∂J/∂γ, shape (T, N).
        desired, test: loss curves L(θ_0) … L(θ_T) in nats, shape (T + 1,).
        measures: the row of :attr:`Search.history` of this epoch.
    """

    number: int
    policy: Tensor
    process: Process
    gradient: Tensor
    desired: Tensor
    test: Tensor
    measures: dict[str, float]


@dataclass(frozen=True)
class Search:
    """What :func:`search` returns.

    Attributes:
        policy: the last policy, shape (T, N); of a shared task the columns of this process.
        process: the training under it.
        history: one dictionary per measured epoch with the keys ``epoch``;
            ``objective``, J = Σ_t L_dsr(θ_t) on the desired examples; on the test
            examples ``auc`` (J/T), ``cr`` (one unit) and ``cr_mixed`` (the paper's),
            ``ar``; on the desired examples ``desired_auc``; and ``gap`` and
            ``relative_gap``, the medians over t of the first-order gap.
    """

    policy: Tensor
    process: Process
    history: list[dict[str, float]]


@runtime_checkable
class Recorder(Protocol):
    """A callback whose memory can be put aside and taken up again."""

    def __call__(self, epoch: Epoch) -> None: ...

    def tensors(self) -> dict[str, Tensor]:
        """All that was collected so far, by name."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""


def search(
    task: Task,
    steps: int,
    *,
    epochs: int,
    step_size: float,
    schedule: str = "constant",
    objective: str = "sum",
    initial_policy: Tensor | None = None,
    measure_every: int = 1,
    callback: Callable[[Epoch], None] | None = None,
    stop_at_gap: float | None = None,
    progress: bool = False,
    trajectory: str = "memory",
    checkpoint: Path | None = None,
    policy_storage: str = "float32",
) -> Search:
    """Descend J(γ) on the simplices, one projected-gradient update an epoch.

    The policy is optimised on ``task.desired`` alone; ``task.test`` is reported
    on and influences nothing.

    Args:
        task: the learning problem.
        steps: T, the length of a training.
        epochs: number of updates.
        step_size: ε of Eq. 6, for the objective named by ``objective``.
        schedule: ``"constant"``, or ``"linear"``: ε falls linearly, to reach zero
            after the last update.
        objective: ``"sum"``, J = Σ_t L_dsr(θ_t), or ``"mean"``, J/T. An ε on the
            mean is T times an ε on the sum.
        initial_policy: (T, N); conventional learning, 1/N, unless given.
        measure_every: epochs between measurements; the first and the last policy
            are always measured.
        callback: called with every measured :class:`Epoch`. One that collects
            something across epochs offers it as a :class:`Recorder`, so that a
            checkpoint holds it too.
        stop_at_gap: stop once the largest relative first-order gap over the steps
            of a measured epoch is at most this; off unless given.
        progress: show a progress bar with J, CR and the time left.
        trajectory: where θ_0 … θ_T are kept, see :func:`llbook.optimal.process.train`.
        checkpoint: a file that holds the search after each update. Where it exists
            the search goes on from it, with the same results, bit by bit on the
            same device, as without the interruption.
        policy_storage: what γ is rounded to after each update, see
            :mod:`llbook.optimal.checkpoint`.

    Raises:
        ValueError: a number out of range or an unknown name; the message says
            which, what was got and what is allowed. A checkpoint of another search.
        FloatingPointError: the training diverged.
    """
    for name, value, least in (
        ("steps", steps, 1),
        ("epochs", epochs, 0),
        ("measure_every", measure_every, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not step_size >= 0:
        raise ValueError(f"step_size must not be negative, got {step_size}")
    if stop_at_gap is not None and not stop_at_gap >= 0:
        raise ValueError(f"stop_at_gap must not be negative, got {stop_at_gap}")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {SCHEDULES}, got {schedule!r}")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {OBJECTIVES}, got {objective!r}")
    if policy_storage not in FORMS:
        raise ValueError(f"policy_storage must be one of {FORMS}, got {policy_storage!r}")
    scale = step_size / steps if objective == "mean" else step_size

    if initial_policy is None:
        policy = constant_policy(task, steps)
    else:
        policy = task.own(initial_policy).clone()
        check_policy(task, policy)
        if len(policy) != steps:
            raise ValueError(f"initial_policy has {len(policy)} steps, expected {steps}")

    history: list[dict[str, float]] = []
    began = time.perf_counter()
    first_test: Tensor | None = None
    start = 0
    # what must not change between the two halves of an interrupted search
    identity = {
        "steps": steps,
        "epochs": epochs,
        "step_size": step_size,
        "schedule": schedule,
        "objective": objective,
        "measure_every": measure_every,
        "policy_storage": policy_storage,
        "dtype": str(policy.dtype),
        "size": task.total,
        "parameters": task.initial.numel(),
        "learning_rate": float(task.learning_rate),
        "stop_at_gap": stop_at_gap,
        "initial": digest({"initial": task.initial}),
        "initial_policy": None if initial_policy is None else digest({"policy": initial_policy}),
    }
    tensors, facts = _resumed(checkpoint, first=task.first)
    earlier = facts.get("seconds", 0.0)
    if facts:
        if facts.get("identity") != identity:
            raise ValueError(
                f"{checkpoint} is of another search: it has {facts.get('identity')}, "
                f"asked for is {identity}"
            )
        policy = task.own(decode_policy(tensors, policy))
        start, history = facts["updates"], facts["history"]
        first_test = tensors["first_test"].to(policy.device)
        if isinstance(callback, Recorder):
            recorded = {name: t for name, t in tensors.items() if name.startswith(_RECORDED)}
            callback.restore({name.removeprefix(_RECORDED): t for name, t in recorded.items()})
    # where every update is a line of its own (a log, a notebook), a few a minute will do
    pause = 0.1 if sys.stderr.isatty() else 15.0
    bar = tqdm(
        total=epochs,
        initial=start,
        disable=not (progress and task.first),
        unit="epoch",
        mininterval=pause,
    )
    with bar, _deterministic(policy.device):
        for number in range(start, epochs + 1):
            process = train(task, policy, trajectory=trajectory)
            gradient = policy_gradient(task, policy, process)
            last = number == epochs
            if number % measure_every == 0 or last:
                epoch, worst = _measure(task, number, policy, process, gradient, first_test)
                if first_test is None:
                    first_test = epoch.test
                history.append(epoch.measures)
                bar.set_postfix(
                    J=f"{epoch.measures['objective']:.4g}",
                    CR=f"{epoch.measures['cr']:.3g}",
                    refresh=False,
                )
                if callback is not None:
                    callback(epoch)
                del epoch
                last = last or (stop_at_gap is not None and worst <= stop_at_gap)
            if last:
                final = process
                break
            rate = scale * (1 - number / epochs) if schedule == "linear" else scale
            policy.add_(gradient, alpha=-rate)
            # before the next training: two trajectories may be more than there is memory for
            del process, gradient
            policy = task.project(policy) if isinstance(task, Shared) else project(policy)
            if checkpoint is not None or policy_storage != "float32":
                stored = encode_policy(task.gather(policy), policy_storage)
                if policy_storage != "float32":
                    policy = task.own(decode_policy(stored, policy))
            if checkpoint is not None and task.first:
                kept = callback.tensors() if isinstance(callback, Recorder) else {}
                stored |= {f"{_RECORDED}{name}": tensor for name, tensor in kept.items()}
                assert first_test is not None  # measured before the first update
                stored["first_test"] = first_test
                facts = {
                    "identity": identity,
                    "updates": number + 1,
                    "history": history,
                    "seconds": earlier + time.perf_counter() - began,
                }
                save_checkpoint(checkpoint, stored, facts)
            bar.update()
    return Search(policy, final, history)


def _resumed(checkpoint: Path | None, *, first: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of the checkpoint; none where there is no checkpoint or a damaged one."""
    if checkpoint is None or not checkpoint.exists():
        return {}, {}
    try:
        return load_checkpoint(checkpoint)
    except DamagedCheckpoint as error:
        if first:
            aside = set_aside(checkpoint)
            print(f"{error}; moved to {aside.name}, the search starts over", flush=True)
        return {}, {}


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU only algorithms that give one result; a CPU's do so by themselves."""
    if device.type != "cuda":
        yield
        return
    # read when cuBLAS starts; PyTorch refuses its products without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _measure(
    task: Task,
    number: int,
    policy: Tensor,
    process: Process,
    gradient: Tensor,
    first_test: Tensor | None,
) -> tuple[Epoch, float]:
    desired = task.trajectory_losses(process.trajectory, task.desired)
    test = task.trajectory_losses(process.trajectory, task.test)
    policy, gradient = task.gather(policy), task.gather(gradient)
    gap = first_order_gap(future_contributions(task, gradient), policy)
    measures = {
        "epoch": number,
        "objective": loss_auc(desired) * process.steps,
        "desired_auc": loss_auc(desired),
        "auc": loss_auc(test),
        "cr": compression_ratio(test, task.vocabulary),
        "cr_mixed": compression_ratio(test, task.vocabulary, unit="mixed"),
        "ar": acceleration_ratio(test, test if first_test is None else first_test),
        "gap": float(torch.median(gap.absolute)),
        "relative_gap": float(torch.median(gap.relative)),
    }
    epoch = Epoch(number, policy, process, gradient, desired, test, measures)
    return epoch, float(gap.relative.max())
