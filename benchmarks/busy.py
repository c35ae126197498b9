"""What a step costs beside other jobs that want the same cores.

Threads that meet often lose most there: each meeting waits for the one that is not running.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from torch import Tensor

from benchmarks.floors import take_turns
from benchmarks.growth import transformer
from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.runs.provenance import cores
from llbook.tasks.task import Task

__all__ = ["JOBS", "beside", "measure"]

JOBS = (0, 1, 2)
"""Single-threaded jobs at the side of what is measured."""


@contextmanager
def beside(jobs: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that do nothing but keep a core busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(jobs)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def _sweep(task: Task, steps: int) -> Callable[[], Tensor]:
    policy = constant_policy(task, steps)
    return lambda: policy_gradient(task, policy, train(task, policy))


def measure(
    *,
    perceptron: dict[str, int] | None = None,
    laptop: dict[str, int] | None = None,
    steps: int = 8,
    rounds: int = 5,
) -> dict[str, Any]:
    """Seconds of a step of training and adjoint beside :data:`JOBS`, and how many times the quiet ones."""
    sizes = {"size": 4096, "desired_size": 4096, "steps": 1000} | (perceptron or {})
    shape = {"size": 128, "hidden": 32, "length": 32, "vocabulary": 400} | (laptop or {})
    work = {
        "perceptron": (
            _sweep(build_task(PerceptronConfig.from_flat(sizes)), sizes["steps"]),
            sizes["steps"],
        ),
        "language model": (_sweep(transformer(**shape), steps), steps),
    }
    result: dict[str, Any] = {"cores": cores()}
    for name, (function, count) in work.items():
        turns: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
        function()  # compiled, and its memory touched
        for _ in range(rounds):
            for jobs in JOBS:
                with beside(jobs):
                    turns[jobs].append(take_turns({"one": function}, rounds=3)["one"] / count)
        seconds = {str(jobs): median(of) for jobs, of in turns.items()}
        times = {jobs: seconds[jobs] / seconds["0"] for jobs in seconds if jobs != "0"}
        result[name] = {"seconds": seconds, "times_quiet": times}
    return result
