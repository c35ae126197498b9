"""One search over several processes: each has its share of the examples and of the columns of γ.

Started by ``torchrun``, every process runs the same search on a :class:`Shared` task and
meets the others in sums: a gradient and a Hessian-vector product are sums over
examples. What is per example, the columns of γ and of ∂J/∂γ, stays where its examples
are, but for two moments. A projection needs whole rows: the processes exchange columns
for rows, project T/R steps each and exchange them back, so that it is exact. A
measurement, and a checkpoint, gather what they need. The states θ_t are kept by one
process each, in stretches of time, and broadcast where they are used.

All processes take every step, in one order: whatever ends one of them ends the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from llbook.tasks.identity import example_checksums
from llbook.tasks.task import Task, Trajectory

__all__ = ["Shared", "SharedTrajectory", "process_count", "share", "start", "stop", "told"]


# The first process may wait for a run that another computes; torchrun ends all when one dies.
_PATIENCE = timedelta(days=7)


def start(device: str = "auto") -> bool:
    """Join the processes that ``torchrun`` started; False where it did not start this one.

    gloo on CPUs, nccl on GPUs, one GPU for each process of a machine.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: GPUs where there are some.

    Raises:
        RuntimeError: more processes on this machine than GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        return dist.is_initialized()
    if device == "cpu" or not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=_PATIENCE)
        return True
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise RuntimeError(
            f"process {local} of this machine has no GPU of its own: there are {there}; "
            "lower --nproc-per-node, or compute on CPUs with device=cpu"
        )
    torch.cuda.set_device(local)
    own = torch.device("cuda", local)
    dist.init_process_group("nccl", device_id=own, timeout=_PATIENCE)
    return True


def stop() -> None:
    """Leave the others, all having come to their end."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def process_count() -> int:
    """How many processes compute together; 1 without :func:`start`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def told(word: str | None = None) -> str | None:
    """What the first process says, on all of them; ``word`` is read on the first one alone."""
    words = [word]
    dist.broadcast_object_list(words, src=0)
    return words[0]


def share(count: int, *, what: str, rank: int | None = None) -> slice:
    """Which of ``count`` things belong to this process (or to that of ``rank``): a stretch of them.

    Raises:
        ValueError: fewer of ``what`` than processes.
    """
    processes = process_count()
    if count < processes:
        raise ValueError(
            f"expected at least one of the {what} for each process, "
            f"got {count} for {processes} processes"
        )
    return _stretch(count, dist.get_rank() if rank is None else rank, processes)


def _stretch(count: int, rank: int, processes: int) -> slice:
    return slice(count * rank // processes, count * (rank + 1) // processes)


class Shared(Task):
    """A task over all processes, made of the task that each has over its own examples.

    ``size`` is the number of examples of this process, ``total`` of all. Policies are the
    columns of its own examples.

    Args:
        own: the task of this process: its training, desired and test examples are
            :func:`share` s of the whole sets; all else is the same everywhere.
        total: N, the number of training examples of all processes.
    """

    def __init__(self, own: Task, total: int) -> None:
        self._own = own
        self._total = total
        self.initial, self.learning_rate = own.initial, own.learning_rate
        self.training, self.desired, self.test = own.training, own.desired, own.test
        self.vocabulary = own.vocabulary
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self._columns = [_stretch(total, rank, self.processes) for rank in range(self.processes)]
        if self._width(self.rank) != own.size:
            raise ValueError(
                f"process {self.rank} of {self.processes} has {own.size} training examples, "
                f"its share of {total} is {self._width(self.rank)}"
            )

    def _width(self, rank: int) -> int:
        columns = self._columns[rank]
        return columns.stop - columns.start

    @property
    def total(self) -> int:
        return self._total

    @property
    def first(self) -> bool:
        return self.rank == 0

    def losses(self, theta: Tensor, examples: Any) -> Tensor:
        """Of the examples given, which are this process's own."""
        return self._own.losses(theta, examples)

    def mean_loss(self, theta: Tensor, examples: Any) -> Tensor:
        """Not here: a sum over processes has no automatic derivative."""
        raise NotImplementedError("a search over several processes has the adjoint gradient alone")

    def gradient(self, theta: Tensor, weights: Tensor) -> Tensor:
        return self.summed(self._own.gradient(theta, weights))

    def mean_gradient(self, theta: Tensor, examples: Any) -> tuple[Tensor, Tensor]:
        value, slope = self._own.mean_gradient(theta, examples)
        count = len(examples)
        sums = self.summed(
            torch.cat([slope, value.reshape(1), value.new_ones(1)]).mul_(count)  # one message
        )
        return sums[-2] / sums[-1], sums[:-2] / sums[-1]

    def directional_derivatives(self, theta: Tensor, direction: Tensor) -> Tensor:
        """Of this process's own training examples."""
        return self._own.directional_derivatives(theta, direction)

    def costate_products(
        self, theta: Tensor, weights: Tensor, costate: Tensor
    ) -> tuple[Tensor, Tensor]:
        """λ·∇l of this process's own training examples, and Hλ of all."""
        products, curvature = self._own.costate_products(theta, weights, costate)
        return products, self.summed(curvature)

    def trajectory_losses(self, trajectory: Trajectory, examples: Any) -> Tensor:
        losses = self._own.trajectory_losses(trajectory, examples)
        sums = self.summed(torch.cat([losses, losses.new_ones(1)]).mul_(len(examples)))
        return sums[:-1] / sums[-1]

    def summed(self, own: Tensor) -> Tensor:
        """The sum over processes, the same bits on each."""
        own = own.contiguous()
        dist.all_reduce(own)
        return own

    def gather(self, columns: Tensor) -> Tensor:
        """The columns of all processes side by side: (T, own) → (T, N), on each of them."""
        widest = max(map(self._width, range(self.processes)))
        padded = columns.new_zeros(len(columns), widest)
        padded[:, : columns.shape[1]] = columns
        parts = [torch.empty_like(padded) for _ in range(self.processes)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:, : self._width(rank)] for rank, part in enumerate(parts)], 1)

    def own(self, whole: Tensor) -> Tensor:
        """The columns of this process: (T, N) → (T, own)."""
        return whole[:, self._columns[self.rank]].contiguous()

    def local(self, examples: Tensor) -> Tensor:
        columns = self._columns[self.rank]
        return examples[(examples >= columns.start) & (examples < columns.stop)] - columns.start

    def restricted(self, examples: Tensor) -> Self:
        """With these of this process's own."""
        part = super().restricted(examples)
        part._own = self._own.restricted(examples)
        return part

    def identity(self, checksums: Callable[[Any], list[bytes]] = example_checksums) -> str:
        """That of the whole task, however many processes share it."""

        def whole(examples: Any) -> list[bytes]:
            parts: list[Any] = [None] * self.processes
            dist.all_gather_object(parts, checksums(examples))
            return [checksum for part in parts for checksum in part]

        return self._own.identity(whole)

    @property
    def trajectories(self) -> Mapping[str, Callable[[int, int], SharedTrajectory]]:
        return {
            place: partial(SharedTrajectory, self, host=place == "host")
            for place in ("memory", "host")
        }

    def by_rows(self, function: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
        """Each process has T/R whole rows for a moment: (T, own) → (T, own)."""
        rows = [_stretch(len(columns), rank, self.processes) for rank in range(self.processes)]
        heights = [part.stop - part.start for part in rows]
        widths = [self._width(rank) for rank in range(self.processes)]
        height, width = heights[self.rank], widths[self.rank]
        # own columns of everybody's rows out, everybody's columns of own rows in
        received = columns.new_empty(height * self.total)
        sizes_in, sizes_out = [height * w for w in widths], [h * width for h in heights]
        dist.all_to_all_single(received, columns.flatten(), sizes_in, sizes_out)
        blocks = received.split(sizes_in)
        whole = torch.cat([b.view(height, w) for b, w in zip(blocks, widths, strict=True)], 1)
        if height:
            whole = function(whole)
        back = torch.cat([whole[:, part].flatten() for part in self._columns])
        result = torch.empty_like(columns)
        dist.all_to_all_single(result.view(-1), back, sizes_out, sizes_in)
        return result


class SharedTrajectory(Sequence[Tensor]):
    """θ_0 … θ_T, each kept by one process; reading one is a step that all take together.

    Args:
        task: the shared task.
        steps: T.
        width: numbers of a state: P, and more where an optimiser keeps some of its own.
        host: keep the states in the CPU's memory.
    """

    def __init__(self, task: Shared, steps: int, width: int, *, host: bool = False) -> None:
        self._task, self._count, self._width = task, steps + 1, width
        self._starts = [
            _stretch(self._count, rank, task.processes).start for rank in range(task.processes)
        ]
        mine = _stretch(self._count, task.rank, task.processes)
        self._first = mine.start
        device = torch.device("cpu") if host else task.initial.device
        self.states = torch.empty(
            mine.stop - mine.start,
            width,
            dtype=task.initial.dtype,
            device=device,
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, t: int) -> Tensor:  # type: ignore[override]  # no slices
        t = range(self._count)[t]
        keeper = max(rank for rank, begin in enumerate(self._starts) if begin <= t)
        if keeper == self._task.rank:
            state = self.states[t - self._first].to(self._task.initial.device, copy=True)
        else:
            state = self._task.initial.new_empty(self._width)
        dist.broadcast(state, keeper)
        return state

    def put(self, t: int, state: Tensor) -> None:
        if 0 <= t - self._first < len(self.states):
            self.states[t - self._first].copy_(state)
