"""What is measured: each part returns plain numbers, ready for JSON.

Seconds are medians over rounds in which everything that is compared takes turns; they say
little about another machine. The ratios between them are the result.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import busy, growth
from benchmarks.baselines import PHASES, AsDescribed, BareProgram, project_by_sorting, unrolled
from benchmarks.floors import (
    bandwidth,
    four_products,
    gemm_rate,
    take_turns,
    transformer_flops,
    worthwhile,
)
from benchmarks.growth import transformer
from benchmarks.in_jax import MISSING, available, policy_gradient_in_jax
from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import search
from llbook.optimal.simplex import project
from llbook.tasks.language import Transformer

__all__ = ["ON_A_CPU", "PARTS", "error"]

Numbers = dict[str, Any]


def error(got: Tensor, exact: Tensor) -> float:
    """Relative error in norm."""
    return float((got.double() - exact.double()).norm() / exact.double().norm())


def machine(device: str) -> Numbers:
    """The floors: rates of matrix products and of memory."""
    rates: Numbers = {
        "float32": gemm_rate(torch.float32, device=device),
    }
    if worthwhile(torch.bfloat16, device=device):
        rates["bfloat16"] = gemm_rate(torch.bfloat16, device=device)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        rates["tf32"] = gemm_rate(torch.float32, device=device)
        torch.backends.cuda.matmul.allow_tf32 = False
    return {"gemm_flops": rates, "bytes_per_second": bandwidth(device=device)}


def perceptron(device: str, *, steps: int = 2000, size: int = 4096, sample: int = 20) -> Numbers:
    """A search epoch at the paper's scale, against baseline (a), (b) and its floor.

    Baseline (a) is timed on ``sample`` steps and carried on to all of them. Its quadratic programs
    are of neighbouring steps, each of which starts from the solution of the one before.
    """
    config = PerceptronConfig.from_flat({"steps": steps, "size": size, "device": device})
    task = build_task(config)
    epsilon = config.search.step_size
    # a policy on its way: neither all weights equal nor nearly all zero
    policy = search(task, steps, epochs=5, step_size=epsilon, measure_every=5).policy
    process = train(task, policy)
    gradient = policy_gradient(task, policy, process)
    moved = policy - epsilon * gradient
    baseline = AsDescribed(task)

    def described() -> None:
        list(baseline.backward(policy, process.states, until=steps - sample))
        for t in range(sample):
            baseline.training_step(process.states[t], policy[t])
            baseline.project(moved[steps // 2 + t])

    phases: list[dict[str, float]] = []

    def described_apart() -> None:
        baseline.seconds = dict.fromkeys(PHASES, 0.0)
        described()
        phases.append(baseline.seconds)

    rounds, products = 5, four_products(task.training.signed)
    seconds = take_turns(
        {
            "training": lambda: train(task, policy),
            "adjoint": lambda: policy_gradient(task, policy, process),
            "projection": lambda: project(moved),
            "update": lambda: policy.add_(gradient, alpha=-0.0),
            "described": described_apart,
            "floor": lambda: [products() for _ in range(200)],
        },
        rounds=rounds,
        device=device,
    )
    del seconds["described"]
    floor = seconds.pop("floor") * steps / 200
    # the gradient of the desired loss at θ_T is one more than the steps
    each = {phase: median(of[phase] for of in phases[1:]) / sample for phase in PHASES}
    each["desired"] *= sample / (sample + 1)
    rows = list(baseline.backward(policy, process.states, until=steps - sample))
    epoch = sum(seconds.values())
    described_epoch = steps * sum(each.values())
    result = {
        "sizes": {"N": size, "T": steps, "D": config.data.dimension, "K": config.data.desired_size},
        "seconds": seconds,
        "epoch": epoch,
        "described_seconds_per_step": each,
        "described_epoch": described_epoch,
        "described_steps": sample * rounds,
        "times_faster": described_epoch / epoch,
        "times_faster_without_projection": steps
        * (sum(each.values()) - each["projection"])
        / (epoch - seconds["projection"]),
        "agreement": max(error(row, gradient[steps - 1 - t]) for t, row in enumerate(rows)),
        "floor": floor,
        "times_floor": epoch / floor,
    }
    both = take_turns(
        {
            "ours": lambda: policy_gradient(task, policy, train(task, policy)),
            "unrolled": lambda: unrolled(task, policy, process),  # trains anew
        },
        rounds=2,
        device=device,
    )
    result["unrolled"] = both["unrolled"]
    result["unrolled_times_faster"] = both["unrolled"] / both["ours"]
    result["unrolled_agreement"] = error(gradient, unrolled(task, policy, process))
    return result


def projection(device: str, *, steps: int = 2000, size: int = 4096, sample: int = 20) -> Numbers:
    """All rows of a policy after an update, against sorting and against quadratic programs."""
    config = PerceptronConfig.from_flat({"steps": steps, "size": size, "device": device})
    task = build_task(config)
    policy = constant_policy(task, steps)
    result: Numbers = {"sizes": {"T": steps, "N": size}}
    baseline = AsDescribed(task)
    for name, epsilon in (
        ("usual step", config.search.step_size),
        ("step 100 times as long", 100 * config.search.step_size),
    ):
        gradient = policy_gradient(task, policy, train(task, policy))
        moved = policy - epsilon * gradient
        middle = slice(steps // 2, steps // 2 + sample)
        rows = moved[middle]
        baseline.project(rows[0])

        def programs(rows: Tensor = rows) -> list[Tensor]:
            return [baseline.project(row) for row in rows]

        bare = BareProgram(size)
        points = rows.double().cpu().numpy()
        timed: dict[str, Callable[[], object]] = {
            "bare programs": lambda points=points, bare=bare: [bare(point) for point in points],
            "ours": lambda moved=moved: project(moved),
            "sorting": lambda moved=moved: project_by_sorting(moved),
            "programs": programs,
        }
        seconds = take_turns(timed, rounds=5, device=device)
        for kind in ("programs", "bare programs"):
            seconds[kind] *= steps / len(rows)
        ours = project(moved)
        result[name] = {
            "step_size": epsilon,
            "weights_above_zero": float((ours > 0).double().mean()),
            "seconds": seconds,
            "times_faster_than_programs": seconds["programs"] / seconds["ours"],
            "times_faster_than_bare_programs": seconds["bare programs"] / seconds["ours"],
            "times_faster_than_sorting": seconds["sorting"] / seconds["ours"],
            # against reading the rows and writing them, once
            "times_floor": seconds["ours"] / (2 * moved.nbytes / bandwidth(device=device)),
            "agreement": float((project_by_sorting(moved) - ours).abs().max()),
            "agreement_bare_programs": float(
                np.abs(
                    np.stack([bare(point) for point in points]) - ours[middle].cpu().numpy()
                ).max()
            ),
            "agreement_programs": float((torch.stack(programs()) - ours[middle]).abs().max()),
        }
    return result


WAYS: dict[str, dict[str, int]] = {
    f"N = {size}, width {hidden}": {
        "size": size,
        "hidden": hidden,
        "length": length,
        "vocabulary": vocabulary,
    }
    for size, hidden, length, vocabulary in (
        (64, 32, 32, 400),
        (256, 32, 32, 400),
        (64, 128, 64, 1000),
    )
}


def ways(
    cases: dict[str, dict[str, int]] = WAYS, *, steps: int = 4, rounds: int = 3
) -> tuple[Numbers, str]:
    """Seconds a step of training and adjoint by each way to compute them, and what was left out.

    ``here``, the engine with its compiled kernel; ``operators``, the engine with PyTorch's
    operators; ``JAX``, if it is installed.
    """
    result: Numbers = {}
    for name, shape in cases.items():
        tasks = {
            "here": transformer(**shape),
            "operators": transformer(**shape, kernel="operators"),
        }
        policy = constant_policy(tasks["here"], steps)
        do: dict[str, Callable[[], Tensor]] = {
            way: lambda task=task, policy=policy: policy_gradient(task, policy, train(task, policy))
            for way, task in tasks.items()
        }
        if available():
            in_jax = policy_gradient_in_jax(tasks["here"])
            do["JAX"] = lambda in_jax=in_jax, policy=policy: in_jax(policy)
        found = {way: function() for way, function in do.items()}
        seconds = take_turns(do, rounds=rounds)
        others = [way for way in do if way != "here"]
        result[name] = {
            "sizes": shape,
            "seconds": {way: of / steps for way, of in seconds.items()},
            "times_faster": {way: seconds[way] / seconds["here"] for way in others},
            "agreement": {way: error(found[way], found["here"]) for way in others},
        }
    return result, "" if available() else MISSING


def language_model(
    device: str,
    *,
    size: int = 256,
    vocabulary: int = 1000,
    hidden: int = 128,
    rounds: int = 2,
    cases: dict[str, dict[str, int]] = WAYS,
) -> Numbers:
    """Forward and backward of one step of the search, against baseline (a) and counted FLOPs."""
    shape = {"size": size, "vocabulary": vocabulary, "hidden": hidden}
    task = transformer(device, **shape)
    narrow = worthwhile(torch.bfloat16, device=device)
    low = transformer(device, **shape, products="bfloat16")
    theta = task.initial
    weights = theta.new_full((size,), 1 / size)
    half = torch.where(torch.arange(size, device=device) % 2 == 0, 2 * weights, 0)
    costate = task.mean_gradient(theta, task.desired)[1]
    baseline = AsDescribed(task)
    length = task.training.shape[1] - 1

    def step(of: Transformer, weights: Tensor) -> dict[str, Callable[[], object]]:
        return {
            "training": lambda: of.gradient(theta, weights),
            "costate products": lambda: of.costate_products(theta, weights, costate),
            "desired": lambda: of.mean_gradient(theta, of.desired),
        }

    def described(by: AsDescribed, weights: Tensor = weights) -> dict[str, Callable[[], object]]:
        return {
            "training": lambda: by.training_step(theta, weights),
            "contributions": lambda: by.contributions(theta, costate),
            "curvature": lambda: by.curvature(theta, weights, costate),
            "desired": lambda: by.desired_gradient(theta),
        }

    parts = {
        "described": described(baseline),
        "described, 64 at once": described(AsDescribed(task, micro_batch=64)),
        "described, half of γ zero": described(baseline, half),
        "ours": step(task, weights),
        "ours, half of γ zero": step(task, half),
    }
    if narrow:
        parts["ours, bfloat16"] = step(low, weights)
    flat = {(name, phase): do for name, part in parts.items() for phase, do in part.items()}
    square = torch.randn(2, 2048, 2048, device=device)
    # the floor takes its turn too: a slow moment then falls on both
    flat["floor", "gemm"] = lambda: [square[0] @ square[1] for _ in range(4)]
    seconds = take_turns(flat, rounds=rounds, device=device)
    table = {name: {p: seconds[name, p] for p in part} for name, part in parts.items()}
    total = {name: sum(part.values()) for name, part in table.items()}
    flops = transformer_flops(task.architecture, size, length)
    rate = 4 * 2 * 2048**3 / seconds["floor", "gemm"]
    floor = {
        "training": flops["gradient"] / rate,
        "costate products": flops["costate_products"] / rate,
        "desired": flops["gradient"] / rate,
    }
    adjoint = ("costate products", "desired")
    compared, note = ways(cases, rounds=rounds) if device == "cpu" else ({}, "")
    products, curvature = task.costate_products(theta, weights, costate)
    errors: Numbers = {}
    if narrow:
        low_products, low_curvature = low.costate_products(theta, weights, costate)
        errors = {
            "contributions": error(low_products, products),
            "curvature": error(low_curvature, curvature),
        }
    faster = {
        name: total["described"] / of for name, of in total.items() if name == "ours, bfloat16"
    }
    return {
        "sizes": {"N": size, "K": size, "L": length, "V": vocabulary, "hidden": hidden},
        "parameters": theta.numel(),
        "seconds": table,
        "times_faster": {
            "ours": total["described"] / total["ours"],
            "ours, than 64 at once": total["described, 64 at once"] / total["ours"],
            "ours, half of γ zero": total["described, half of γ zero"]
            / total["ours, half of γ zero"],
        }
        | faster,
        "half_times_faster": total["ours"] / total["ours, half of γ zero"],
        "flops": flops,
        "gemm_flops": rate,
        "floor": floor,
        "times_floor": {phase: table["ours"][phase] / floor[phase] for phase in floor}
        | {"adjoint": sum(table["ours"][p] for p in adjoint) / sum(floor[p] for p in adjoint)},
        "ways": compared,
        "ways_note": note,
        "agreement": {
            "contributions": error(baseline.contributions(theta, costate), products),
            "curvature": error(baseline.curvature(theta, weights, costate), curvature),
        },
        "bfloat16_error": errors,
    }


def imports() -> Numbers:
    """Seconds of ``import llbook``, over those of a Python that does nothing, in fresh processes."""

    def run(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    seconds = take_turns({"nothing": run(""), "llbook": run("import llbook")}, rounds=5)
    return {"seconds": seconds["llbook"] - seconds["nothing"]}


def seeds(*, count: int = 5) -> Numbers:
    """Searches of several seeds side by side, against one alone."""
    return growth.several_seeds(count)


PARTS: dict[str, Callable[[str], Numbers]] = {
    "machine": machine,
    "perceptron": perceptron,
    "projection": projection,
    "language model": language_model,
    "seeds": lambda device: seeds(),
    "growth": lambda device: growth.measure(),
    "busy": lambda device: busy.measure(),
    "import": lambda device: imports(),
}
ON_A_CPU = frozenset({"seeds", "growth", "busy", "import"})
"""Parts that have no sense on a GPU."""
