"""The search for a near-optimal policy: J(γ) = Σ_t L_dsr(θ_t) descended on the simplices (§4.1).

A *gradient evaluation* is a whole training under a policy and its backward sweep: the
unit in which searches are compared. How the next policy is made from what the evaluation
found is a method's affair (:mod:`llbook.optimal.methods`); the paper's is
``"projected-gradient"``.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from llbook.measures.law import first_order_gap, future_contributions
from llbook.measures.objective import acceleration_ratio, compression_ratio, loss_auc
from llbook.optimal.adjoint import gradient_and_losses
from llbook.optimal.checkpoint import digest
from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.keeping import Keeper, Recorder
from llbook.optimal.methods import METHODS, Settings
from llbook.optimal.process import Process, check_policy, train
from llbook.optimal.starts import STARTS, equal
from llbook.parameters import whole_number
from llbook.tasks.task import Task

__all__ = ["Epoch", "Recorder", "Search", "search"]


@dataclass(frozen=True)
class Epoch:
    """One policy met in the search. Handed to callbacks; not kept with its arrays.

    Attributes:
        number: policies met before it; 0 is the policy the search started from.
        policy: γ, shape (T, N). It is overwritten by the next epoch: copy to keep.
        process: the training under it.
        gradient: ∂J/∂γ, shape (T, N).
        desired, test: loss curves L(θ_0) … L(θ_T) in nats, shape (T + 1,).
        measures: the row of :attr:`Search.history` of this epoch.
        final: whether it is the policy that the search returns.
    """

    number: int
    policy: Tensor
    process: Process
    gradient: Tensor
    desired: Tensor
    test: Tensor
    measures: dict[str, float]
    final: bool


@dataclass(frozen=True)
class Search:
    """What :func:`search` returns.

    Attributes:
        policy: the best policy met, or the one that met ``stop_at_gap``, shape (T, N); of a shared task the columns of this process.
        process: the training under it.
        history: one dictionary per measured epoch with the keys ``epoch``, its number;
            ``evaluations``, the gradient evaluations made until then;
            ``objective``, J = Σ_t L_dsr(θ_t) on the desired examples; on the test
            examples ``auc`` (J/T), ``cr`` (one unit) and ``cr_mixed`` (the paper's),
            ``ar``, against the first policy met, which is conventional learning unless ``initial_policy`` was given; on the desired examples
            ``desired_auc``; and ``gap`` and ``relative_gap``, the (lower) medians over t of the
            first-order gap.
    """

    policy: Tensor
    process: Process
    history: list[dict[str, float]]


def search(
    task: Task,
    steps: int,
    *,
    epochs: int,
    method: str = "projected-gradient",
    step_size: float | None = None,
    schedule: str = "constant",
    objective: str = "sum",
    rate: float = 0.3,
    inner: Inner = PLAIN,
    start: str = "auto",
    initial_policy: Tensor | None = None,
    measure_every: int = 1,
    callback: Callable[[Epoch], None] | None = None,
    stop_at_gap: float | None = None,
    progress: bool = False,
    trajectory: str = "memory",
    checkpoint: Path | None = None,
    policy_storage: str = "float32",
) -> Search:
    """Descend J(γ) on the simplices, and return the best policy met.

    The policy is optimised on ``task.desired`` alone; ``task.test`` is reported
    on and influences nothing.

    Args:
        task: the learning problem.
        steps: T, the length of a training.
        epochs: the budget: of ``"projected-gradient"`` the number of updates, each a
            gradient evaluation, one more for the last policy, and another where an earlier one was better; of every other method
            the most gradient evaluations that are made: that of conventional learning, which
            comes first, those of the start and of line searches, and, where the best policy
            is not the last, one to return to it.
        method: a name from :data:`llbook.optimal.methods.METHODS`.
        step_size, schedule, objective: ε of Eq. 6, of ``"projected-gradient"``; see
            :class:`llbook.optimal.methods.Settings`.
        rate: of ``"mirror"`` and ``"two-stage"``, see there.
        inner: how θ is trained: optimiser, rates and batches; gradient descent on the full
            batch unless given. The batches of all evaluations are the same.
        start: a name from :data:`llbook.optimal.starts.STARTS`, or ``"auto"``: 1/N for
            ``"projected-gradient"``, ``"greedy"`` for the others where the budget allows it.
        initial_policy: (T, N), in the place of ``start``.
        measure_every: epochs between measurements; the first policy met and the one
            returned are always measured.
        callback: called with every measured :class:`Epoch`. One that collects
            something across epochs offers it as a :class:`Recorder`, so that a
            checkpoint holds it too.
        stop_at_gap: stop at a measured policy, and return it, whose largest relative
            first-order gap over the steps is at most this; off unless given.
        progress: show a progress bar with J, CR and the time left.
        trajectory: where θ_0 … θ_T are kept, see :func:`llbook.optimal.process.train`.
        checkpoint: a file that holds the search after each epoch. Where it exists
            the search goes on from it, with the same results, bit by bit on the
            same device, as without the interruption.
        policy_storage: what γ is rounded to after each epoch, see
            :mod:`llbook.optimal.checkpoint`; a method's own tensors are kept as they are.

    Raises:
        ValueError: a number out of range or an unknown name; the message says
            which, what was got and what is allowed. A checkpoint of another search.
        FloatingPointError: the first training diverged, one that a start takes or, of the paper's
            method, any; the others go back to the best policy met and on with shorter steps.
    """
    steps = whole_number("steps", steps, 1)
    epochs = whole_number("epochs", epochs, 0)
    measure_every = whole_number("measure_every", measure_every, 1)
    rate, step_size = (
        float(rate),
        None if step_size is None else float(step_size),
    )  # as JSON has them
    if method not in METHODS:
        raise ValueError(f"method must be one of {tuple(METHODS)}, got {method!r}")
    if start not in ("auto", *STARTS):
        raise ValueError(f"start must be one of {('auto', *STARTS)}, got {start!r}")
    if stop_at_gap is not None and not stop_at_gap >= 0:
        raise ValueError(f"stop_at_gap must not be negative, got {stop_at_gap}")
    inner.check(task.total, steps)
    inner.check_differentiable()
    kind = METHODS[method]
    if policy_storage not in kind.forms:
        raise ValueError(
            f"policy_storage of {method} must be one of {kind.forms}, got {policy_storage!r}"
        )
    budget = max(1, epochs + 1 - kind.spare)

    def updates_after(name: str) -> int:
        """What conventional learning, a start, and what the method keeps for the end, leave."""
        return budget - 1 - kind.spare - (0 if name == "equal" else STARTS[name][1] + 1)

    if start == "auto":
        start = kind.start if updates_after(kind.start) >= 1 else "equal"
    if initial_policy is not None:
        start = "equal"
    make, price = STARTS[start]
    moved, updates = start != "equal", updates_after(start)
    if moved and updates < 1:
        needed = price + 2 + 2 * kind.spare
        raise ValueError(f"start {start!r} needs at least {needed} epochs, got {epochs}")
    settings = Settings(steps, max(updates, 0), step_size, schedule, objective, rate)
    descent = kind(task, settings)
    asked = asdict(settings) | {
        "method": method,
        "start": start,
        "epochs": epochs,
        "measure_every": measure_every,
        "stop_at_gap": stop_at_gap,
        "initial_policy": None if initial_policy is None else digest({"policy": initial_policy}),
    }
    if not inner.plain:
        asked["inner"] = inner.identity()
    if initial_policy is None:
        policy = equal(task, steps)
    else:
        policy = task.own(initial_policy).clone()
        check_policy(task, policy)
        if len(policy) != steps:
            raise ValueError(f"initial_policy has {len(policy)} steps, expected {steps}")
    keeper = Keeper(checkpoint, task, asked, policy_storage)
    policy = keeper.restore(descent, callback, otherwise=policy)
    # where every update is a line of its own (a log, a notebook), a few a minute will do
    pause = 0.1 if sys.stderr.isatty() else 15.0
    bar = tqdm(
        total=budget,
        initial=keeper.evaluations,
        disable=not (progress and task.first),
        unit="evaluation",
        mininterval=pause,
    )
    with bar, _deterministic(policy.device):
        while True:
            try:
                followed = (
                    not keeper.returning
                    and keeper.evaluations + 1 < budget - kind.spare
                    and not (moved and keeper.epochs == 0)
                )
                process, gradient, value = _evaluated(
                    task, policy, inner, trajectory, followed=followed
                )
            except FloatingPointError:
                if not keeper.epochs or keeper.returning:
                    raise
                # of a start the steps are not to blame
                if not (moved and keeper.epochs == 1) and not descent.retreat():
                    raise
                keeper.evaluations += 1
                bar.update()
                # the best one, evaluated again, is the last if there is no room for a proposal
                keeper.returning = keeper.evaluations + 1 >= budget - kind.spare
                policy = keeper.best()
                continue
            number = keeper.epochs
            keeper.epochs += 1
            keeper.evaluations += 1
            improved = keeper.improved(policy, value)
            over = keeper.evaluations >= budget - kind.spare
            final = keeper.returning or (over and improved)
            if number % measure_every == 0 or final:
                epoch = _measure(task, keeper, policy, process, gradient, final, stop_at_gap)
                final = epoch.final
                keeper.history.append(epoch.measures)
                bar.set_postfix(
                    J=f"{epoch.measures['objective']:.4g}",
                    CR=f"{epoch.measures['cr']:.3g}",
                    refresh=False,
                )
                if callback is not None:
                    callback(epoch)
                del epoch
            bar.update()
            if final:
                return Search(policy, process, keeper.history)
            # before the next training: two trajectories may be more than there is memory for
            del process
            keeper.returning = over
            if over:
                policy = keeper.best()
            elif moved and number == 0:
                policy = make(task, steps, trajectory=trajectory, inner=inner)
                keeper.evaluations += price
                bar.update(price)
            else:
                policy = descent.propose(policy, gradient, value)
            del gradient
            if not over:
                policy = keeper.rounded(policy)
            keeper.save(policy, descent, callback)


def _evaluated(
    task: Task, policy: Tensor, inner: Inner, trajectory: str, *, followed: bool
) -> tuple[Process, Tensor, float]:
    """The training of a policy, ∂J/∂γ and J; finite, ∂J/∂γ where a proposal follows from it.

    Raises:
        FloatingPointError: one is not.
    """
    process = train(task, policy, inner=inner, trajectory=trajectory)
    gradient, losses = gradient_and_losses(task, policy, process)
    value = float(losses.double().sum())
    # a sum over all entries is finite where each is; they are too many to look at one by one
    whole = float(task.summed(gradient.sum(dtype=torch.float64)[None])[0])
    if not math.isfinite(value) or (followed and not math.isfinite(whole)):
        raise FloatingPointError(
            f"the search left the finite numbers: J = {value:g}, the sum of ∂J/∂γ {whole:g}; "
            f"lower the learning rate ({task.learning_rate:g}) or the steps of the search"
        )
    return process, gradient, value


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU only algorithms that give one result; a CPU's do so by themselves."""
    if device.type != "cuda":
        yield
        return
    # read when cuBLAS starts; PyTorch refuses its products without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # all that is allocated here is written before it is read: no need to fill it
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]


def _measure(
    task: Task,
    keeper: Keeper,
    policy: Tensor,
    process: Process,
    gradient: Tensor,
    final: bool,
    stop_at_gap: float | None,
) -> Epoch:
    desired = task.trajectory_losses(process.trajectory, task.desired)
    test = task.trajectory_losses(process.trajectory, task.test)
    if keeper.first_test is None:
        keeper.first_test = test
    policy, gradient = task.gather(policy), task.gather(gradient)
    gap = first_order_gap(future_contributions(task, gradient), policy)
    measures = {
        "epoch": keeper.epochs - 1,
        "evaluations": keeper.evaluations,
        "objective": loss_auc(desired) * process.steps,
        "desired_auc": loss_auc(desired),
        "auc": loss_auc(test),
        "cr": compression_ratio(test, task.vocabulary),
        "cr_mixed": compression_ratio(test, task.vocabulary, unit="mixed"),
        "ar": acceleration_ratio(test, keeper.first_test),
        "gap": float(torch.median(gap.absolute)),
        "relative_gap": float(torch.median(gap.relative)),
    }
    met = stop_at_gap is not None and float(gap.relative.max()) <= stop_at_gap
    number = keeper.epochs - 1
    return Epoch(number, policy, process, gradient, desired, test, measures, final or met)
