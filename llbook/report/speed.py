"""What the page on speed shows of a benchmark's results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from llbook.parameters import Parameters
from llbook.report.numbers import number, table
from llbook.runs.folders import records_folder

__all__ = [
    "PARTS",
    "SpeedConfig",
    "floor_table",
    "growth_table",
    "load_results",
    "machine_line",
    "phase_table",
    "replay_range",
    "replay_ratio",
    "seeds_table",
    "speed_path",
    "target_table",
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
    "import",
)


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


def _verdict(value: float, bound: float, *, least: bool) -> str:
    return "met" if (value >= bound if least else value <= bound) else "**not met**"


def target_table(results: Numbers) -> str:
    """Every ratio that was aimed at, what was found, and whether that is enough."""
    parts = results["parts"]
    perceptron, language = parts["perceptron"], parts["language model"]
    seeds, beside = parts["seeds"], f"{parts['seeds']['count']} seeds side by side: times one,"
    programs = min(
        case["times_faster_than_programs"]
        for case in parts["projection"].values()
        if "times_faster_than_programs" in case
    )
    bare = min(
        case["times_faster_than_bare_programs"]
        for case in parts["projection"].values()
        if "times_faster_than_bare_programs" in case
    )
    adjoint = language["times_floor"]["adjoint"]
    replay = parts["growth"]["checkpoints_times_slower"]
    imported = max(0.0, parts["import"]["seconds"])  # a difference, which noise may turn
    checkpoints = "√T checkpoints: times the time of a trajectory in memory,"
    epoch, step = "perceptron, a search epoch:", "language model, a step:"
    beyond = {f"{checkpoints} where the parameters do": replay_range(results)}
    rows: Iterable[tuple[str, float, float, bool]] = (
        (f"{epoch} times faster than (a)", perceptron["times_faster"], 400, True),
        ("projection of a policy: times faster than quadratic programs (a)", programs, 500, True),
        ("the same without CVXPY around them", bare, 500, True),
        (f"{step} times faster than (a), fully batched", language["times_faster"]["ours"], 2, True),
        (
            f"{step} times faster than (a), 64 at once",
            language["times_faster"]["ours, than 64 at once"],
            2,
            True,
        ),
        (f"{epoch} times its floor", perceptron["times_floor"], 2.5, False),
        ("language model, adjoint: times its floor", adjoint, 2, False),
        (f"{beside} perceptron of the paper's size", seeds["perceptron"]["times_one"], 2.5, False),
        (f"{beside} small perceptron", seeds["small perceptron"]["times_one"], 2.5, False),
        (f"{beside} language model", seeds["language model"]["times_one"], 2.5, False),
        (f"{checkpoints} where the examples take the time", replay, 1.4, False),
        (f"{checkpoints} where the parameters do", replay_ratio(results), 1.4, False),
        ("`import llbook`, seconds beyond Python's own start", imported, 0.3, False),
    )
    return table(
        ("what", "aim", "found", ""),
        [
            (
                what,
                f"{'≥' if least else '≤'}\N{NO-BREAK SPACE}{bound:g}",
                number(value, 2 if value < 100 else 3) + beyond.get(what, ""),
                _verdict(value, bound, least=least),
            )
            for what, value, bound, least in rows
        ],
    )


def replay_ratio(results: Numbers) -> float:
    """Along T, the seconds of all epochs with √T checkpoints over those of all without."""
    growth, along = results["parts"]["growth"], "language model, T"
    return sum(growth[f"{along}, checkpoints"]["seconds"]) / sum(growth[along]["seconds"])


def replay_range(results: Numbers) -> str:
    """The least and the greatest of the same ratio over the points along T, in brackets."""
    growth, along = results["parts"]["growth"], "language model, T"
    ratios = [
        slow / fast
        for slow, fast in zip(
            growth[f"{along}, checkpoints"]["seconds"], growth[along]["seconds"], strict=True
        )
    ]
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
        against = "described, half of γ zero" if "half" in name else "described"
        floor = total / sum(found["floor"].values()) if name == "ours" else None
        rows.append(
            (
                name.replace("ours", "here").replace("described", "as described (a)")
                + (", against the same" if "half" in name and "ours" in name else ""),
                number(total),
                number(totals[against] / total, 2),
                "" if floor is None else number(floor, 2),
            )
        )
    return table(("one step, forward and backward", "seconds", "times faster", "times floor"), rows)


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
