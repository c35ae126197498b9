"""How the cost of a search epoch grows, and what several searches side by side cost.

Every point is measured in a process of its own, forked from one that has imported
everything and computed nothing: its peak of memory is then its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numba
import numpy as np
import torch

from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import search
from llbook.optimal.simplex import project
from llbook.runs.provenance import cores
from llbook.tasks.language import Transformer
from llbook.tasks.task import Task
from llbook.tasks.transformer import Architecture, initial_parameters

__all__ = ["fit_line", "measure", "several_seeds", "transformer"]

Numbers = dict[str, Any]

PERCEPTRON: dict[str, int] = {"steps": 1000, "size": 2048, "dimension": 128, "desired_size": 256}
LANGUAGE_MODEL: dict[str, int] = {
    "steps": 12,
    "size": 32,
    "vocabulary": 1000,
    "length": 16,
    "hidden": 32,
}
# few examples, many parameters: here the trajectory is what takes the memory
LONG: dict[str, int] = {"steps": 64, "size": 8, "vocabulary": 2000, "length": 8, "hidden": 64}
AXES: dict[str, tuple[str, dict[str, int], Sequence[int]]] = {
    "perceptron, T": ("steps", PERCEPTRON, (500, 1000, 1500, 2000)),
    "perceptron, N": ("size", PERCEPTRON, (1024, 2048, 3072, 4096)),
    "perceptron, D": ("dimension", PERCEPTRON, (64, 128, 192, 256)),
    "language model, N": ("size", LANGUAGE_MODEL | {"steps": 6}, (128, 256, 384, 512)),
    "language model, V": ("vocabulary", LONG | {"steps": 32}, (1000, 2000, 3000, 4000)),
    "language model, T": ("steps", LONG, (24, 48, 72, 96)),
}


def transformer(
    device: str = "cpu",
    *,
    size: int = 256,
    vocabulary: int = 1000,
    length: int = 64,
    hidden: int = 128,
    seed: int = 0,
    **options: Any,
) -> Transformer:
    """A Transformer task on random tokens: what it costs does not depend on the text."""
    architecture = Architecture(vocabulary=vocabulary, context=length, hidden=hidden)
    generator = torch.Generator().manual_seed(seed)
    windows = torch.randint(vocabulary, (3, size, length + 1), generator=generator).to(device)
    initial = initial_parameters(architecture, seed).to(device)
    return Transformer(architecture, *windows, initial=initial, **options)


def _task(sizes: Mapping[str, int], seed: int = 0) -> Task:
    sizes = {name: value for name, value in sizes.items() if name != "steps"}
    if "dimension" in sizes:
        return build_task(PerceptronConfig.from_flat({**sizes, "seed": seed, "device": "cpu"}))
    return transformer(**sizes, seed=seed)


def _epoch(task: Task, steps: int, trajectory: str) -> None:
    policy = constant_policy(task, steps)
    process = train(task, policy, trajectory=trajectory)
    gradient = policy_gradient(task, policy, process)
    project(policy.add_(gradient, alpha=-1e-9))


def _threads(count: int) -> None:
    torch.set_num_threads(count)
    numba.set_num_threads(count)


def _peak() -> int:
    """Bytes of memory that this process had at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _point(sizes: dict[str, int], trajectory: str) -> tuple[float, int]:
    """Seconds and bytes of an epoch, on one thread."""
    _threads(1)
    # what is compiled and loaded once, with buffers that do not count
    few = {"size": 2, "steps": 2} | ({"desired_size": 2} if "dimension" in sizes else {})
    _epoch(_task(sizes | few), 2, trajectory)
    task = _task(sizes)
    before, began = _peak(), time.perf_counter()
    _epoch(task, sizes["steps"], trajectory)
    return time.perf_counter() - began, _peak() - before


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def fit_line(x: Sequence[float], y: Sequence[float]) -> Numbers:
    """y = a + b x by least squares: ``intercept``, ``slope`` and r²."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.subtract(y, np.polyval((slope, intercept), x))
    spread = np.subtract(y, np.mean(y))
    r2 = 1 - float(residual @ residual) / float(spread @ spread)
    return {"intercept": float(intercept), "slope": float(slope), "r2": r2}


def _take_turns(
    pool: ProcessPoolExecutor, points: Sequence[tuple[dict[str, int], str]], rounds: int
) -> list[tuple[list[float], int]]:
    """Per point its seconds in each round, and its bytes."""
    measured = [[pool.submit(_point, *point).result() for point in points] for _ in range(rounds)]
    return [
        ([seconds for seconds, _ in of_point], max(peak for _, peak in of_point))
        for of_point in zip(*measured, strict=True)
    ]


def measure(rounds: int = 2) -> Numbers:
    """Time and memory along each axis, and of a trajectory kept as √T checkpoints.

    The seconds of a point are the least of all rounds: what disturbs only adds.
    """
    result: Numbers = {}
    with ProcessPoolExecutor(1, mp_context=_context(), max_tasks_per_child=1) as pool:
        for name, (axis, sizes, values) in AXES.items():
            both = ("memory", "checkpoints") if name == "language model, T" else ("memory",)
            points = [(sizes | {axis: value}, kept) for value in values for kept in both]
            measured = _take_turns(pool, points, rounds)
            for number, trajectory in enumerate(both):
                seconds = [min(each) for each, _ in measured[number :: len(both)]]
                peaks = [peak for _, peak in measured[number :: len(both)]]
                result[name + (", checkpoints" if trajectory == "checkpoints" else "")] = {
                    "sizes": {key: value for key, value in sizes.items() if key != axis},
                    "axis": axis,
                    "values": list(values),
                    "seconds": seconds,
                    "bytes": peaks,
                    "time_fit": fit_line(values, seconds),
                    "memory_fit": fit_line(values, peaks),
                }
        # what replaying costs is asked where the training is what takes the time
        longer = LANGUAGE_MODEL | {"steps": 48}
        pair = [(longer, "memory"), (longer, "checkpoints")]
        (kept, _), (replayed, _) = _take_turns(pool, pair, 2 * rounds)
    result["checkpoints_times_slower"] = float(np.median(replayed) / np.median(kept))
    return result


SEARCHES: dict[str, tuple[dict[str, int], int, float]] = {  # sizes, epochs, ε
    "perceptron": ({"steps": 2000, "size": 4096, "dimension": 128, "desired_size": 4096}, 3, 5e-6),
    "small perceptron": (
        {"steps": 200, "size": 256, "dimension": 16, "desired_size": 512},
        60,
        5e-3,
    ),
    "language model": (LANGUAGE_MODEL, 2, 1e-3),
}


def _search(name: str, seed: int, threads: int) -> None:
    _threads(threads)
    sizes, epochs, step_size = SEARCHES[name]
    search(
        _task(sizes, seed), sizes["steps"], epochs=epochs, step_size=step_size, measure_every=epochs
    )


def several_seeds(count: int = 5, rounds: int = 2) -> Numbers:
    """One search with all threads, and ``count`` of them, one thread each, side by side."""
    workers = cores()
    result: Numbers = {"count": count, "workers": workers}
    with ProcessPoolExecutor(workers, mp_context=_context()) as pool:
        for name in SEARCHES:
            warm = [pool.submit(_search, name, 0, 1) for _ in range(workers)]
            for each in warm:
                each.result()
            one, several = [], []
            for _ in range(rounds):
                began = time.perf_counter()
                pool.submit(_search, name, 0, workers).result()
                one.append(time.perf_counter() - began)
                began = time.perf_counter()
                for each in [pool.submit(_search, name, seed, 1) for seed in range(count)]:
                    each.result()
                several.append(time.perf_counter() - began)
            times = float(np.median(several) / np.median(one))
            result[name] = {
                "one": float(np.median(one)),
                "several": float(np.median(several)),
                "times_one": times,
            }
    return result
