"""What the page on speed shows of a benchmark's results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from llbook.parameters import Parameters
from llbook.report.numbers import number, table
from llbook.runs.folders import records_folder

__all__ = [
    "PARTS",
    "WAYS",
    "SpeedConfig",
    "busy_table",
    "floor_table",
    "growth_table",
    "load_results",
    "machine_line",
    "narrow_sentence",
    "phase_table",
    "replay_range",
    "replay_ratio",
    "seeds_table",
    "speed_path",
    "target_table",
    "ways_table",
]


class SpeedConfig(Parameters):
    """The notebook that shows the results of a benchmark."""

    path: str = Field("", description="results of a benchmark; empty: the recorded ones")


Numbers = Mapping[str, Any]

PARTS = (
    "machine",
    "perceptron",
    "projection",
    "language model",
    "seeds",
    "growth",
    "busy",
    "import",
)


WAYS = {
    "here": "the compiled kernel",
    "operators": "PyTorch's operators",
    "JAX": "JAX, a scan with checkpoints",
}


def speed_path() -> Path:
    """Where the recorded results of ``make bench`` lie."""
    return records_folder() / "speed.json"


def load_results(path: Path | None = None) -> dict[str, Any]:
    """Read what ``make bench`` has written; the recorded results unless a path is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not one of a whole benchmark; the message says what it lacks.
    """
    path = speed_path() if path is None else path
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        lacking = [part for part in PARTS if part not in results["parts"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold results of a benchmark: {error!r}") from None
    if lacking:
        raise ValueError(f"{path} lacks the part {lacking[0]!r}: expected those of 'make bench'")
    return dict(results)


def machine_line(results: Numbers) -> str:
    """The machine, the date and the versions, in one line."""
    rates = results["parts"]["machine"]["gemm_flops"]
    products = ", ".join(f"{name} {number(rate / 1e9)} GFLOP/s" for name, rate in rates.items())
    memory = number(results["parts"]["machine"]["bytes_per_second"] / 1e9)
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    commit, changed = results["commit"]["commit"], results["commit"]["dirty"]
    origin = f" · commit {commit[:7]}" + " with changes" * bool(changed) if commit else ""
    return (
        f"{results['machine']} · matrix products: {products} · memory: {memory} GB/s · {versions} · "
        f"{results['date'][:10]}{origin}"
    )


def target_table(results: Numbers) -> str:
    """Every ratio that was aimed at, what was found, and whether that is enough."""
    parts = results["parts"]
    perceptron, language, seeds = parts["perceptron"], parts["language model"], parts["seeds"]

    def projections(name: str) -> float:
        return float(min(case[name] for case in parts["projection"].values() if name in case))

    epoch, step = "perceptron, a search epoch:", "language model, a step:"
    beside = f"{seeds['count']} seeds side by side: times one,"
    checkpoints = "√T checkpoints: times the time of a trajectory in memory,"
    faster, other = language["times_faster"], "projection of a policy: times faster than"
    ways = {
        (name, way): ratio
        for name, of in language.get("ways", {}).items()
        for way, ratio in of["times_faster"].items()
    }
    aims = {
        ("N = 64, width 32", "operators"): 3,
        ("N = 256, width 32", "operators"): 3,
        ("N = 64, width 128", "operators"): 1,
        ("N = 64, width 32", "JAX"): 2,
    }
    of_ways = [
        (f"language model, {way[0]}: times faster than {WAYS[way[1]]}", ways[way], aim)
        for way, aim in aims.items()
        if way in ways
    ]
    beside_jobs = [
        (f"{name}, beside two jobs: times a quiet machine", of["times_quiet"]["2"], 3)
        for name, of in parts["busy"].items()
        if isinstance(of, Mapping)
    ]
    at_least: tuple[tuple[Any, ...], ...] = (
        (f"{epoch} times faster than (a)", perceptron["times_faster"], 400),
        (f"{other} quadratic programs (a)", projections("times_faster_than_programs"), 500),
        ("the same without CVXPY around them", projections("times_faster_than_bare_programs"), 500),
        (f"{step} times faster than (a), fully batched", faster["ours"], 2),
        (f"{step} times faster than (a), 64 at once", faster["ours, than 64 at once"], 2),
        *of_ways,
    )
    of_examples = parts["growth"]["checkpoints_times_slower"]
    replayed = f"{checkpoints} where the parameters do", replay_ratio(results)
    at_most: tuple[tuple[Any, ...], ...] = (
        (f"{epoch} times its floor", perceptron["times_floor"], 2.5),
        ("language model, adjoint: times its floor", language["times_floor"]["adjoint"], 2),
        (f"{beside} perceptron of the paper's size", seeds["perceptron"]["times_one"], 2.5),
        (f"{beside} small perceptron", seeds["small perceptron"]["times_one"], 2.5),
        (f"{beside} language model", seeds["language model"]["times_one"], 2.5),
        (f"{checkpoints} where the examples take the time", of_examples, 1.4),
        (*replayed, 1.4, replay_range(results)),
        *beside_jobs,
        # a difference, which noise may turn
        (
            "`import llbook`, seconds beyond Python's own start",
            max(0, parts["import"]["seconds"]),
            0.3,
        ),
    )
    rows = []
    for sign, targets in (("≥", at_least), ("≤", at_most)):
        for what, value, bound, *note in targets:
            found = "".join([number(value, 2 if value < 100 else 3), *note])
            met = value >= bound if sign == "≥" else value <= bound
            aim = f"{sign}\N{NO-BREAK SPACE}{bound:g}"
            rows.append((what, aim, found, "met" if met else "**not met**"))
    return table(("what", "aim", "found", ""), rows)


def _replays(results: Numbers) -> list[tuple[float, float]]:
    """Along T, the seconds of an epoch with √T checkpoints and without."""
    growth, along = results["parts"]["growth"], "language model, T"
    return list(
        zip(growth[f"{along}, checkpoints"]["seconds"], growth[along]["seconds"], strict=True)
    )


def replay_ratio(results: Numbers) -> float:
    """Along T, the seconds of all epochs with √T checkpoints over those of all without."""
    slow, fast = map(sum, zip(*_replays(results), strict=True))
    return slow / fast


def replay_range(results: Numbers) -> str:
    """The least and the greatest of the same ratio over the points along T, in brackets."""
    ratios = [slow / fast for slow, fast in _replays(results)]
    return f" ({number(min(ratios), 3)} to {number(max(ratios), 3)})"


def phase_table(results: Numbers) -> str:
    """A search epoch of the perceptron, phase by phase, as described and here."""
    found = results["parts"]["perceptron"]
    steps, each = found["sizes"]["T"], found["described_seconds_per_step"]
    ours = found["seconds"]
    adjoint = sum(each[phase] for phase in ("contributions", "curvature", "desired"))
    rows = [
        ("training", steps * each["training"], ours["training"]),
        ("adjoint", steps * adjoint, ours["adjoint"]),
        ("projection", steps * each["projection"], ours["projection"] + ours["update"]),
        ("whole epoch", found["described_epoch"], found["epoch"]),
    ]
    return table(
        ("phase", "as described (s)", "here (s)", "times faster"),
        [(name, number(old), number(new), number(old / new, 2)) for name, old, new in rows],
    )


def floor_table(results: Numbers) -> str:
    """A step of the language model: seconds, floors, and what the variants gain."""
    found = results["parts"]["language model"]
    totals = {name: sum(seconds.values()) for name, seconds in found["seconds"].items()}
    rows = []
    for name, total in totals.items():
        half = "half" in name
        against = totals["described, half of γ zero" if half else "described"]
        label = name.replace("ours", "here").replace("described", "as described (a)")
        label += ", against the same" * (half and "ours" in name)
        floor = number(total / sum(found["floor"].values()), 2) if name == "ours" else ""
        rows.append((label, number(total), number(against / total, 2), floor))
    return table(("one step, forward and backward", "seconds", "times faster", "times floor"), rows)


def narrow_sentence(results: Numbers) -> str:
    """What bfloat16 brings, or that the processor has no instructions for it."""
    rates = results["parts"]["machine"]["gemm_flops"]
    errors = results["parts"]["language model"]["bfloat16_error"]
    if "bfloat16" not in rates or not errors:
        return (
            "In bfloat16 this processor, which has no instructions for the type, takes more than ten "
            "times as long for a matrix product: no step was timed in it."
        )
    return (
        f"In bfloat16 matrix products alone are {number(rates['bfloat16'] / rates['float32'], 2)} "
        "times faster here; a step gains less, since the rest of it stays in float32. The relative "
        f"error of bfloat16 in this one step is {number(errors['contributions'], 1)} in "
        rf"$\lambda\cdot\nabla l_n$ and {number(errors['curvature'], 1)} in $H\lambda$."
    )


def ways_table(results: Numbers) -> str:
    """Training and adjoint of the language model by each way that was measured, a step of each."""
    rows = []
    for name, of in results["parts"]["language model"].get("ways", {}).items():
        for way, seconds in of["seconds"].items():
            ratio = of["times_faster"].get(way)
            agreement = of["agreement"].get(way)
            rows.append(
                (
                    f"{name}, {WAYS[way]}",
                    number(seconds * 1e3),
                    "" if ratio is None else number(ratio, 2),
                    "" if agreement is None else number(agreement, 1),
                )
            )
    columns = ("a step of", "milliseconds", "here is times faster", "gradients differ by")
    return table(columns, rows) if rows else ""


def seeds_table(results: Numbers) -> str:
    """Several searches side by side against one that has the machine for itself."""
    seeds = results["parts"]["seeds"]
    return table(
        ("search", "one (s)", f"{seeds['count']} side by side (s)", "ratio"),
        [
            (name, number(of["one"]), number(of["several"]), number(of["times_one"], 2))
            for name, of in seeds.items()
            if isinstance(of, Mapping)
        ],
    )


def busy_table(results: Numbers) -> str:
    """A step of training and adjoint, alone and beside single-threaded jobs."""
    rows = []
    for name, of in results["parts"]["busy"].items():
        if isinstance(of, Mapping):
            quiet = of["seconds"]["0"]
            ratios = of["times_quiet"].values()
            rows.append([name, number(quiet * 1e3), *(number(ratio, 2) for ratio in ratios)])
    columns = ("a step of the", "alone (ms)", "beside one job (times)", "beside two (times)")
    return table(columns, rows)


def growth_table(results: Numbers) -> str:
    """How near to a line the cost along each axis is."""
    growth = results["parts"]["growth"]
    return table(
        ("along", "from … to", "r² of time", "r² of memory", "memory (MB), least to most"),
        [
            (
                name,
                f"{of['values'][0]} … {of['values'][-1]}",
                number(of["time_fit"]["r2"]),
                number(of["memory_fit"]["r2"]),
                f"{number(of['bytes'][0] / 1e6, 2)} to {number(of['bytes'][-1] / 1e6, 2)}",
            )
            for name, of in growth.items()
            if isinstance(of, Mapping)
        ],
    )
