"""What is said of methods of data selection: names, shares of the attainable gain, tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llbook.report.numbers import number, spread, values
from llbook.runs.run import Run
from llbook.selection.experiment import BEST, ORDER, TOTALS
from llbook.selection.methods import METHODS, method_names
from llbook.selection.selector import PASSES

__all__ = [
    "attained",
    "below",
    "beside",
    "methods_table",
    "percent",
    "row_names",
    "search_cost",
    "seeds",
    "shares_over",
]


def row_names(run: Run) -> list[str]:
    """The policies of a run, or of the runs of a recorded sweep, in the order of their rows."""
    if "names" in run.arrays:
        return [str(name) for name in run.arrays["names"]]
    chosen = run.config["selection"]
    names = method_names(chosen["methods"])
    if run.config["search"]["epochs"]:
        names += [BEST, *((TOTALS, ORDER) if chosen["studies"] else ())]
    return names


def attained(areas: NDArray[Any], best: float | NDArray[Any]) -> NDArray[np.float64]:
    """(AUC_uniform - AUC_m) / (AUC_uniform - AUC_best), with uniform in the first column.

    Args:
        areas: shape (…, R), a column per policy.
        best: the area of the best known policy, shape (…,).

    Returns:
        Shape (…, R); negative where a method is worse than equal weights, nan where the best known
        policy gains nothing beyond rounding.
    """
    usual = np.asarray(areas[..., :1], dtype=float)
    gain = usual - np.asarray(best, dtype=float)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gain > 1e-6 * usual, (usual - areas) / gain, np.nan)


def shares_over(
    run: Run, where: NDArray[np.bool_], *, measure: str = "auc", best: Sequence[float] = ()
) -> dict[str, NDArray[np.float64]]:
    """Policy → its share of the attainable gain in each of some runs of a sweep.

    Args:
        run: a recorded sweep.
        where: which of its points, shape (M,).
        measure: ``"auc"``, on the test examples, or ``"desired_auc"``.
        best: areas of the best known policies of these points where they have no search of their own.
    """
    names, areas = row_names(run), run.arrays[f"course_{measure}"][where]
    least = np.array(best) if len(best) else areas[:, names.index(BEST)]
    return dict(zip(names, attained(areas, least).T, strict=True))


def seeds(sweep: Run) -> list[int]:
    """Of each point of a recorded sweep."""
    usual = np.full(len(sweep.arrays["seconds"]), sweep.config.get("seed", 0))
    return [int(seed) for seed in sweep.arrays.get("seed", usual)]


def search_cost(run: Run) -> float:
    """What a search cost, in gradient evaluations as those of the methods are counted.

    Args:
        run: of a perceptron or a language model. Where it did not count: each update took an
            evaluation, and the last policy one more.
    """
    known = run.arrays.get("history_evaluations", run.arrays["history_epoch"] + 1)
    data = run.config["data"]
    return float(known[-1]) * (1 + 2 * data["desired_size"] / data["size"] / PASSES)


def below(sweep: Run, name: str, searches: Sequence[Mapping[str, NDArray[Any]]]) -> str:
    """In how many seeds a method has less area than a search, on desired and on test examples.

    Args:
        sweep: recorded, a point a seed.
        name: of the method.
        searches: arrays of runs, one of each of its seeds.
    """
    place = row_names(sweep).index(name)
    less = [
        sweep.arrays[f"course_{measure}"][:, place] < values(searches, measure)
        for measure in ("desired_auc", "auc")
    ]
    return f"{int(np.all(less, 0).sum())} of {len(searches)}"


def beside(
    sweep: Run, searches: Sequence[Run], *, others: Mapping[str, Sequence[Run]] | None = None
) -> dict[str, dict[str, str]]:
    """Policy → mean and range over the points of a sweep, in words; equal weights left out.

    Args:
        sweep: recorded, without searches of its own.
        searches: runs that found the best known policy of each of its points.
        others: what another search is called → its runs, one of each point.

    Returns:
        Of each policy ``desired`` and ``test``, shares of the attainable gain; ``AR``; ``cost``, in gradient
        evaluations; ``on spoilt``, its weight there; ``AUROC``. The other searches come next to
        the last, the best known is the last.

    Raises:
        ValueError: a search of another N or T.
    """
    others = others or {}
    for one in [*searches, *(run for runs in others.values() for run in runs)]:
        for section, name in (("data", "size"), ("training", "steps")):
            here, there = sweep.config[section][name], one.config[section][name]
            if here != there:
                raise ValueError(
                    f"{name}: got a search with {there}; expected that of the sweep, {here}"
                )
    every, found = np.ones(len(searches), bool), [one.arrays for one in searches]
    measures = {"desired": "desired_auc", "test": "auc"}
    shares = {
        word: shares_over(sweep, every, measure=measure, best=values(found, measure))
        for word, measure in measures.items()
    }
    rows = {}
    for n, name in enumerate(row_names(sweep)):
        if name == "uniform":
            continue
        column = {
            key[7:]: sweep.arrays[key][:, n] for key in sweep.arrays if key.startswith("course_")
        }
        rows[name] = {word: percent(share[name]) for word, share in shares.items()} | {
            "AR": spread(column["ar"]),
            "cost": number(column["evaluations"].mean(), 2),
            "on spoilt": percent(column["spoilt_weight"]),
            "AUROC": spread(column["auroc"], 2) if np.isfinite(column["auroc"]).any() else "–",
        }
    usual = row_names(sweep).index("uniform")
    for name, runs in others.items():
        rows[name] = _search_row(runs)
        for word, measure in measures.items():
            ends = values([one.arrays for one in runs], measure)
            areas = np.stack([sweep.arrays[f"course_{measure}"][:, usual], ends], 1)
            rows[name][word] = percent(attained(areas, np.array(values(found, measure)))[:, 1])
    rows[BEST] = _search_row(searches) | dict.fromkeys(measures, "100%")
    return rows


def _search_row(runs: Sequence[Run]) -> dict[str, str]:
    """What :func:`beside` says of searches, but for their shares."""
    ends = [one.arrays for one in runs]
    clean = [one["clean_weight"][-1].mean() for one in ends if "clean_weight" in one]
    return {
        "AR": spread(values(ends, "ar")),
        "cost": number(np.mean([search_cost(one) for one in runs]), 2),
        "on spoilt": percent([1 - share for share in clean]),
        "AUROC": "–",
    }


def percent(shares: Iterable[float]) -> str:
    """Mean and range of shares: ``86% (84 to 88)``; a bare dash where there is none."""
    known = [100 * share for share in shares if math.isfinite(share)]
    if not known:
        return "–"
    mean, low, high = (f"{of(known):z.0f}" for of in (np.mean, np.min, np.max))
    text = f"{mean}%" + (f" ({low} to {high})" if len(known) > 1 else "")
    return text.replace("-", "−")


def methods_table(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of one run: a line per policy, the best known last."""
    names = [str(name) for name in arrays["names"]]
    areas = (arrays[f"history_{measure}"] for measure in ("desired_auc", "auc"))
    desired, test = (
        attained(area, area[names.index(BEST)] if BEST in names else math.nan) for area in areas
    )
    header = [
        "method",
        "knob",
        "J",
        "desired",
        "test",
        "AR",
        "cost",
        "with its trials",
        "weights in use",
    ]
    header += ["on CT ≤ 0", "ranks", "shared with best"]

    def sign(value: float, digits: int = 2) -> str:
        return number(value, digits) if math.isfinite(value) else "–"

    rows = []
    for n, name in enumerate(names):
        one = {key[8:]: float(arrays[key][n]) for key in arrays if key.startswith("history_")}
        method = METHODS.get(name)
        knob = f"{method.knob} {one['value']:g}" if method and method.knob else ""
        rows.append(
            [
                *(name, knob, number(one["objective"], 4)),
                *(percent([desired[n]]), percent([test[n]]), number(one["ar"])),
                *(sign(one["evaluations"]), sign(one["trials"])),
                *(percent([one["support_share"]]), percent([one["idle_weight"]])),
                *(sign(one["agreement"]), sign(one["overlap"])),
            ]
        )
    return header, rows
