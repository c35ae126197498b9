"""``python -m benchmarks.inner``: what a step of each optimiser costs, beside that of gradient descent.

A step is one of the training and of its adjoint. Everything is held against gradient descent
by the same general way (rates that are written out keep it from the compiled kernels); the
paper's own, with its kernels, is there as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from torch import Tensor

from benchmarks.floors import take_turns
from llbook.experiments.language_model import LanguageModelConfig
from llbook.experiments.language_model import build_task as language_model
from llbook.experiments.perceptron import PerceptronConfig
from llbook.experiments.perceptron import build_task as perceptron
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import OPTIMIZERS, PLAIN, Inner
from llbook.optimal.process import constant_policy, train
from llbook.tasks.task import Task

__all__ = ["costs"]

GENERAL = "gradient descent, general"


def costs(task: Task, steps: int, *, rounds: int = 7) -> dict[str, dict[str, float]]:
    """Seconds a step, and their ratio to those of :data:`GENERAL`, medians over ``rounds``."""
    policy = constant_policy(task, steps)
    inners = {GENERAL: Inner(schedule=(1.0,) * steps), "gradient descent, the paper's": PLAIN}
    inners |= {name: Inner(name, weight_decay=1e-4) for name in OPTIMIZERS[1:]}
    batch = max(1, task.total // 8)
    inners |= {f"{name}, batches": Inner(name, batch=batch) for name in (OPTIMIZERS[0], "adam")}

    def both(inner: Inner) -> Tensor:
        return policy_gradient(task, policy, train(task, policy, inner=inner))

    do: dict[str, Callable[[], object]] = {
        name: partial(both, inner) for name, inner in inners.items()
    }
    seconds = take_turns(do, rounds=rounds)
    return {
        "seconds": {name: of / steps for name, of in seconds.items()},
        "times": {name: of / seconds[GENERAL] for name, of in seconds.items()},
    }


if __name__ == "__main__":
    small = {"size": 1024, "steps": 100}
    measured = {
        "perceptron": costs(perceptron(PerceptronConfig.from_flat(small)), 100),
        "perceptron, N = 4096": costs(perceptron(PerceptronConfig.from_flat({"steps": 100})), 50),
        "language model": costs(
            language_model(LanguageModelConfig.from_flat({"corpus": "grammar"})), 4, rounds=5
        ),
    }
    print(json.dumps(measured, indent=1))
