"""The training that a policy steers: optimiser, rates and batches.

The paper's is gradient descent on the full batch (Eq. 1). In general a step has weights
w_{n,t} of the examples, the gradient g_t = Σ_n w_{n,t} ∇l(x_n, θ_t), and the state
s_t = (θ_t, what the optimiser keeps) becomes s_{t+1} = U_t(s_t, g_t), elementwise (see
:mod:`llbook.optimal.updates`).

Batches of B of the N examples are those of seeded shuffles of the training set, cut into
⌊N/B⌋ batches each (what remains of a shuffle is left out). Two ways for a policy to act on them:

- ``"weigh"``: w_{n,t} = (N/B) γ_{n,t} for the examples of the batch, 0 for all others. Every example
  is in a batch with probability B/N, so that the mean of w_t over the shuffles is γ_t, and w is linear in γ.
  The weights of a batch need not sum to 1.
- ``"draw"``: B examples are drawn from γ_t, with replacement, and w are their counts over B: no shuffles.
  The process, and J, are then piecewise constant in γ: it trains, but it has no gradient.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from llbook.optimal.updates import Adam, Descent, Momentum, Update
from llbook.parameters import whole_number
from llbook.tasks.task import Task

__all__ = ["BATCHES", "OPTIMIZERS", "PLAIN", "RATE_SCHEDULES", "Inner"]

OPTIMIZERS = ("gradient-descent", "momentum", "nesterov", "adam", "adamw")
_SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda x: 1.0,
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
}
RATE_SCHEDULES = tuple(_SHAPES)
BATCHES = ("weigh", "draw")
BLOCK = 256  # rows of a policy that are drawn from at once


@dataclass(frozen=True)
class Inner:
    """How θ_0 is trained under a policy.

    Attributes:
        optimizer: a name from :data:`OPTIMIZERS`.
        momentum: μ in [0, 1), of momentum and Nesterov's.
        beta1, beta2: β₁ and β₂ in [0, 1), of Adam and AdamW.
        epsilon: ε > 0 of them, outside the root.
        weight_decay: ω ≥ 0. AdamW's is decoupled, θ ← θ (1 - η_t ω) before the step; all others add ω θ_t to g_t.
        schedule: η_t/η over the T steps: ``"constant"``; ``"linear"`` or ``"cosine"``, from 1 after
            the warm-up to 0 after the last step; or T factors ≥ 0.
        warmup: so many first steps have the further factor (t + 1)/warmup.
        batch: B, examples of a batch; 0: all of them.
        batches: ``"weigh"`` or ``"draw"``, see above.
        seed: of the batches.

    Raises:
        ValueError: a value out of range or an unknown name; the message has name, value and range.
    """

    optimizer: str = "gradient-descent"
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: str | tuple[float, ...] = "constant"
    warmup: int = 0
    batch: int = 0
    batches: str = "weigh"
    seed: int = 0
    update: Update = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names: list[tuple[str, tuple[str, ...]]] = [
            ("optimizer", OPTIMIZERS),
            ("batches", BATCHES),
        ]
        if isinstance(self.schedule, str):
            names.append(("schedule", RATE_SCHEDULES))
        for name, known in names:
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        for name in ("momentum", "beta1", "beta2", "epsilon", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise ValueError(f"{name} must be a number, got {value!r}")
            object.__setattr__(self, name, float(value))  # as a checkpoint's JSON has it
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be positive and finite, got {self.epsilon}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        for name in ("warmup", "batch", "seed"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 0))
        if self.batches == "draw" and self.batch == 0:
            raise ValueError("batch must be at least 1 where batches are drawn, got 0")
        # T factors have an order, and bytes are not factors
        if not isinstance(self.schedule, Iterable) or isinstance(self.schedule, bytes | Set):
            raise ValueError(
                f"schedule must be one of {RATE_SCHEDULES} or T factors, got {self.schedule!r}"
            )
        if not isinstance(self.schedule, str):
            try:
                factors = tuple(map(float, self.schedule))
            except (TypeError, ValueError):
                raise ValueError(
                    f"schedule must be one of {RATE_SCHEDULES} or T factors, got {self.schedule!r}"
                ) from None
            object.__setattr__(self, "schedule", factors)
            for t, factor in enumerate(self.schedule):
                if not 0 <= factor < math.inf:
                    raise ValueError(
                        f"the factors of a schedule must be at least 0 and finite, got {factor} at step {t}"
                    )
        update: Update = Descent()
        if self.optimizer in ("momentum", "nesterov"):
            update = Momentum(self.momentum, self.optimizer == "nesterov")
        elif self.optimizer in ("adam", "adamw"):
            update = Adam(self.beta1, self.beta2, self.epsilon)
        object.__setattr__(self, "update", update)

    def check(self, size: int, steps: int) -> None:
        """Raise unless it fits a training of T ``steps`` on N = ``size`` examples.

        Raises:
            ValueError: a batch of more than N examples, a warm-up of more than T steps, a
                schedule of another length than T.
        """
        if self.batch > size:
            raise ValueError(
                f"batch must be at most N = {size} examples (0: all of them), got {self.batch}"
            )
        if self.warmup > steps:
            raise ValueError(f"warmup must be at most T = {steps} steps, got {self.warmup}")
        if not isinstance(self.schedule, str) and len(self.schedule) != steps:
            raise ValueError(
                f"schedule must have a factor for each of T = {steps} steps, got {len(self.schedule)}"
            )

    @property
    def plain(self) -> bool:
        """Whether it is the paper's: gradient descent on the full batch, η at every step."""
        return self.descends and self.schedule == "constant" and self.warmup == 0

    @property
    def descends(self) -> bool:
        """Whether it is gradient descent on the full batch without decay, η_t being any."""
        return self.optimizer == "gradient-descent" and self.weight_decay == 0 and self.batch == 0

    def check_differentiable(self) -> None:
        """Raise unless J has a gradient in γ.

        Raises:
            ValueError: batches that are drawn from γ.
        """
        if self.batches == "draw":
            raise ValueError(
                "batches = 'draw' draws whole examples from γ: J is piecewise constant in γ and has "
                "no gradient; search with batches = 'weigh', got 'draw'"
            )

    def identity(self) -> dict[str, Any]:
        """What differs from the paper's, as JSON."""
        usual = {f.name: f.default for f in fields(self) if f.init}
        own = {name: value for name, value in asdict(self).items() if name in usual}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in own.items()
            if value != usual[name]
        }

    def factors(self, steps: int) -> list[float]:
        """f_t = η_t/η of each of T ``steps``."""
        if isinstance(self.schedule, tuple):
            factors = list(self.schedule)
        else:
            left = max(1, steps - self.warmup)
            past = [max(0, t - self.warmup) / left for t in range(steps)]
            factors = [_SHAPES[self.schedule](x) for x in past]
        return [f * (t + 1) / self.warmup if t < self.warmup else f for t, f in enumerate(factors)]

    def batch_examples(self, task: Task, policy: Tensor) -> Tensor | None:
        """Which examples each batch has, shape (T, B); None for full batches."""
        if self.batch == 0:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        if self.batches == "draw":
            parts = [
                torch.multinomial(
                    task.gather(rows).cpu().double(),
                    self.batch,
                    replacement=True,
                    generator=generator,
                )
                for rows in policy.split(BLOCK)
            ]
        else:
            cuts = task.total // self.batch
            parts = [
                torch.randperm(task.total, generator=generator)[: cuts * self.batch].view(cuts, -1)
                for _ in range(-(-len(policy) // cuts))
            ]
        return torch.cat(parts)[: len(policy)].to(policy.device)

    def weights(self, task: Task, row: Tensor, batch: Tensor | None) -> Tensor:
        """w_t of a row γ_t of the policy and its batch, shape (size,)."""
        if batch is None:
            return row
        examples, weights = self.batch_weights(task, row, batch)
        return torch.zeros_like(row).index_put((examples,), weights, accumulate=True)

    def batch_weights(self, task: Task, row: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The examples of a batch, of those that this process has, and their weights, shape (n,) each.

        One that was drawn twice is there twice.
        """
        examples = task.local(batch)
        if self.batches == "draw":
            return examples, row.new_full((len(examples),), 1 / self.batch)
        return examples, row.index_select(0, examples).mul_(task.total / self.batch)

    def begin(self, theta: Tensor) -> Tensor:
        """s_0, shape (1 + kept rows, P)."""
        return torch.cat([theta[None], theta.new_zeros(self.update.kept, len(theta))])

    def advance(self, state: Tensor, gradient: Tensor, rate: float, t: int) -> Tensor:
        """s_{t+1} from s_t, g_t and η_t, of shape (1 + kept rows, P)."""
        theta, kept = state[0], state[1:]
        if self.weight_decay and self.optimizer == "adamw":
            theta = theta * (1 - rate * self.weight_decay)
        elif self.weight_decay:
            gradient = torch.add(gradient, theta, alpha=self.weight_decay)
        return torch.stack(self.update.step(theta, kept, gradient, rate, t))

    def transpose(
        self, costates: Sequence[Tensor], after: Tensor, eta: float, f: float, t: int
    ) -> tuple[list[Tensor], Tensor]:
        """(∂s_{t+1}/∂θ_t)ᵀ σ_{t+1} for a given Σ_n w_n ∇l_n, whose own costate over -η is the *pull* p_t.

        Args:
            costates: σ_{t+1}: λ_{t+1}, shape (P,), and, over -η, those of the carried rows that step t + 1 left.
            after: s_{t+1}.
            eta, f: η, and η_t/η.
            t: the step.

        Returns:
            The first and those of the rows that step t left; and p_t.
        """
        costate, *carried = costates
        of_kept, pull = self.update.transpose(costate, carried, after[1:], f, t)
        if self.weight_decay and self.optimizer == "adamw":
            costate = costate * (1 - eta * f * self.weight_decay)
        elif self.weight_decay:
            costate = torch.sub(costate, pull, alpha=eta * self.weight_decay)
        return [costate, *of_kept], pull

    def preconditioner(self, process: Any, t: int) -> Tensor:
        """M_t, shape (P,): θ_{t+1} - θ_t is -η_t M_t g_t and terms of the past.

        1 for gradient descent and momentum, 1 + μ for Nesterov's, and
        (1 - β₁)/(1 - β₁^{t+1}) / (√û_{t+1} + ε) for Adam.

        Args:
            process: a training with this optimiser.
            t: the step, 0 … T - 1.
        """
        if not 0 <= t < process.steps:
            raise ValueError(f"t must be a step, 0 to {process.steps - 1}, got {t}")
        after = process.state(t + 1)
        return self.update.preconditioner(after[0], after[1:], t)


PLAIN = Inner()
"""Gradient descent on the full batch (Eq. 1)."""
