"""What a search keeps from one epoch to the next, in memory and on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from llbook.optimal.checkpoint import (
    DamagedCheckpoint,
    decode_policy,
    encode_policy,
    load_checkpoint,
    save_checkpoint,
)
from llbook.optimal.methods import Method
from llbook.runs.files import set_aside
from llbook.tasks.task import Task

__all__ = ["Keeper", "Recorder"]


@runtime_checkable
class Recorder(Protocol):
    """A callback whose memory can be put aside and taken up again."""

    def __call__(self, epoch: Any) -> None: ...

    def tensors(self) -> dict[str, Tensor]:
        """All that was collected so far, by name."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""


class Keeper:
    """The progress of a search: counts, the best policy met, the history; and their checkpoint.

    Args:
        path: the checkpoint; None for a search in memory alone.
        task: the learning problem.
        asked: what else must not change between the two halves of an interrupted search.
        form: what γ is rounded to, see :mod:`llbook.optimal.checkpoint`.

    Attributes:
        epochs: policies evaluated.
        evaluations: gradient evaluations, those of the start included.
        returning: whether the policy to evaluate next is the best one, to end with.
        history: rows of :attr:`llbook.optimal.search.Search.history`.
        first_test: the test curve of the first policy met, (T + 1,).
    """

    def __init__(self, path: Path | None, task: Task, asked: Mapping[str, Any], form: str) -> None:
        self._path, self._task, self._form = path, task, form
        self._asked = dict(asked) | {
            "policy_storage": form,
            "dtype": str(task.initial.dtype),
            "task": task.identity() if path is not None else "",
        }
        self._best_value = math.inf
        self._best_policy: Tensor | None = None
        # the policy in hand and the best one as they were rounded: rounding twice is not rounding once
        self._stored: dict[str, Tensor] | None = None
        self._best_stored: dict[str, Tensor] | None = None
        self.epochs, self.evaluations, self.returning = 0, 0, False
        self.history: list[dict[str, float]] = []
        self.first_test: Tensor | None = None

    def improved(self, policy: Tensor, value: float) -> bool:
        """Note J of a policy; True, and the policy kept, where none was better."""
        if not value < self._best_value:
            return False
        self._best_value, self._best_stored = value, self._stored
        if self._best_policy is None:
            self._best_policy = policy.clone()
        else:
            self._best_policy.copy_(policy)
        return True

    def best(self) -> Tensor:
        """A copy of the best policy met, the columns of this process, to go on with."""
        assert self._best_policy is not None
        self._stored = self._best_stored  # what is saved next is this policy
        return self._best_policy.clone()

    def rounded(self, policy: Tensor) -> Tensor:
        """The policy to go on from."""
        if self._form == "float32":
            return policy
        self._stored = encode_policy(self._task.gather(policy), self._form)
        return self._task.own(decode_policy(self._stored, policy))

    def save(self, policy: Tensor, method: Method, callback: object) -> None:
        """Write all that is needed to go on with ``policy``; nothing without a path."""
        if self._path is None:
            return
        task, best = self._task, self._best_policy
        assert best is not None and self.first_test is not None  # measured before the first update
        parts = {
            "next": self._stored or encode_policy(task.gather(policy), "float32"),
            "method": {name: task.gather(t) for name, t in method.tensors().items()},
        }
        if self._best_stored is None or self._best_stored is not self._stored:  # else it is next
            parts["best"] = self._best_stored or encode_policy(task.gather(best), "float32")
        if not task.first:
            return
        if isinstance(callback, Recorder):
            parts["recorded"] = callback.tensors()
        tensors = {f"{part}.{name}": t for part, kept in parts.items() for name, t in kept.items()}
        tensors["search.first_test"] = self.first_test
        facts = {
            "identity": self._asked,
            "method": method.facts(),
            "updates": self.epochs,
            "evaluations": self.evaluations,
            "returning": self.returning,
            "best": self._best_value,
            "history": self.history,
        }
        save_checkpoint(self._path, tensors, facts)

    def restore(self, method: Method, callback: object, *, otherwise: Tensor) -> Tensor:
        """The policy to go on with, all else taken up; ``otherwise`` where there is no checkpoint.

        Raises:
            ValueError: the checkpoint is of another search; the message says in what.
        """
        tensors, facts = self._load()
        if not facts:
            return otherwise
        stored = facts.get("identity", {})
        if stored != self._asked:
            differs = [
                f"{name}: {stored.get(name)} there, {self._asked.get(name)} asked for"
                for name in sorted(stored.keys() | self._asked.keys())
                if stored.get(name) != self._asked.get(name)
            ]
            raise ValueError(f"{self._path} is of another search: {'; '.join(differs)}")
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = tensor
        parts.setdefault("best", parts["next"])
        if isinstance(callback, Recorder) and "recorded" not in parts:
            raise ValueError(
                f"{self._path} was written without a recorder as callback; what one would have "
                f"collected until update {facts['updates']} is not there"
            )
        like = self._task.initial
        policy, best = (
            self._task.own(decode_policy(parts[part], like)) for part in ("next", "best")
        )
        self._stored, self._best_stored = (
            None if "policy" in parts[part] else parts[part] for part in ("next", "best")
        )
        self._best_policy, self._best_value = best, facts["best"]
        moved = {name: self._task.own(t.to(like)) for name, t in parts.get("method", {}).items()}
        method.restore(moved, facts["method"])
        self.epochs, self.evaluations = facts["updates"], facts["evaluations"]
        self.returning, self.history = facts["returning"], facts["history"]
        self.first_test = parts["search"]["first_test"].to(like.device)
        if isinstance(callback, Recorder):
            callback.restore(parts["recorded"])
        return policy

    def _load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of the checkpoint; none without one, or with a damaged one."""
        if self._path is None or not self._path.exists():
            return {}, {}
        try:
            return load_checkpoint(self._path)
        except FileNotFoundError:  # another process has just moved a damaged one
            return {}, {}
        except DamagedCheckpoint as error:
            if self._task.first:
                aside = set_aside(self._path)
                print(f"{error}; moved to {aside.name}, the search starts over", flush=True)
            return {}, {}
