"""What a method of descent is to the search: asked for a policy, told what came of it.

The search evaluates J and ∂J/∂γ at the policy that a method proposed, and asks for the
next one. A method knows nothing of trainings, checkpoints or processes; what it keeps
between two evaluations are tensors of shape (T, N), of which it may have two, and
numbers. Sums over examples go through ``task.summed`` and whole rows through
``task.by_rows``, so that several processes can share the columns.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from llbook.optimal.simplex import project
from llbook.tasks.task import Task

__all__ = ["Method", "Settings", "inner", "projected"]

SCHEDULES = ("constant", "linear")
OBJECTIVES = ("sum", "mean")
FASTEST = 10  # a step of more than e^±13 in every weight is no method


@dataclass(frozen=True)
class Settings:
    """What a method is told before it starts.

    Attributes:
        steps: T.
        updates: how often a policy will be asked for.
        step_size: ε of Eq. 6, for the objective named by ``objective``.
        schedule: ``"constant"``, or ``"linear"``: ε falls linearly, to reach zero
            after the last update.
        objective: ``"sum"``, J = Σ_t L_dsr(θ_t), or ``"mean"``, J/T. An ε on the
            mean is T times an ε on the sum.
        rate: of the mirror method, the length of its steps in ln γ.
    """

    steps: int
    updates: int
    step_size: float | None = None
    schedule: str = "constant"
    objective: str = "sum"
    rate: float = 0.3

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("updates", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.step_size is not None and not 0 <= self.step_size < math.inf:
            raise ValueError(f"step_size must be at least 0 and finite, got {self.step_size}")
        if not 0 < self.rate <= FASTEST:
            raise ValueError(f"rate must be above 0 and at most {FASTEST}, got {self.rate}")
        for name, known in (("schedule", SCHEDULES), ("objective", OBJECTIVES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


class Method(ABC):
    """A way to descend J, from policy to policy.

    Attributes:
        spare: evaluations of its budget that a search keeps for the return to the best
            policy: 1, or 0 for a method whose budget counts updates.
        start: the start it is best used from, see :mod:`llbook.optimal.starts`.
        forms: what γ may be rounded to between two epochs.
    """

    spare: ClassVar[int] = 1
    start: ClassVar[str] = "greedy"
    forms: ClassVar[tuple[str, ...]] = ("float32", "uint16")

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings

    @abstractmethod
    def propose(self, policy: Tensor, gradient: Tensor, value: float) -> Tensor:
        """The next policy to evaluate.

        Args:
            policy: the one proposed before, or the start, shape (T, N). It may be
                overwritten, as may the gradient.
            gradient: ∂J/∂γ there.
            value: J there.
        """

    def retreat(self) -> bool:
        """Forget where it was and step shorter: its last proposal trains to numbers that are not finite.

        The search goes on from the best policy met, which it evaluates again. False where a
        method has no shorter step; the search then fails.
        """
        return False

    def tensors(self) -> dict[str, Tensor]:
        """What is kept from one evaluation to the next, each (T, N)."""
        return {}

    def facts(self) -> dict[str, Any]:
        """The numbers kept beside the tensors, as JSON."""
        return {}

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what :meth:`tensors` and :meth:`facts` gave."""


def projected(task: Task, policy: Tensor) -> Tensor:
    """The rows of a policy, projected onto the simplex (the Proj of Eq. 6)."""
    return task.by_rows(project, policy)


def inner(task: Task, one: Tensor, other: Tensor) -> float:
    """Σ_{n,t} of a product, over all processes, in float64 from row to row."""
    rows = (one * other).sum(1).double()
    return float(task.summed(rows).sum())
