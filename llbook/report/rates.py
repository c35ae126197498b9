"""What is said of learning rates: areas of conventional learning, and what a search saves beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llbook.experiments.schedule import WEIGHTS
from llbook.report.numbers import number, per_cent, spread, table, values
from llbook.report.selection import percent, row_names, seeds
from llbook.runs.run import Run

__all__ = [
    "Areas",
    "areas_of",
    "draw_spread",
    "parts_table",
    "rules_of_equal",
    "rules_table",
    "saved_beyond",
    "saved_by_rules",
    "saved_by_schedules",
    "saved_of_best_equal",
    "saved_of_equal",
    "schedules_table",
    "searches_table",
    "share_of_policy",
]

HISTORY = {"desired": "desired_auc", "test": "auc"}  # what runs call these areas
PARTS = {
    "equal": "equal weights",
    "length": "length alone",
    "direction": "direction alone",
    "policy": "the policy",
    "intact": "intact stories alone",
}
ROUNDED = 1e-6  # sweeps keep areas in single precision
NOTABLE = 1e-3  # of an area: a search gains a few per cent


@dataclass(frozen=True)
class Areas:
    """Areas of conventional learning over T, in nats a step, at G rates, S seeds and D draws of θ_0.

    Attributes:
        rates: shape (G,), ascending.
        seeds: shape (S,), ascending.
        desired, test: shape (G, S, D), nan where the training diverged.
    """

    rates: NDArray[np.float64]
    seeds: NDArray[np.int64]
    desired: NDArray[np.float64]
    test: NDArray[np.float64]

    def least(self, measure: str = "desired") -> NDArray[np.float64]:
        """Of each seed, over all rates and draws, shape (S,)."""
        return np.asarray(np.nanmin(getattr(self, measure), (0, 2)))

    def places(self, seeds: Sequence[int]) -> list[int]:
        """Where some seeds stand in ``seeds``.

        Raises:
            ValueError: one that is not there.
        """
        own = self.seeds.tolist()
        if missing := [seed for seed in seeds if seed not in own]:
            raise ValueError(f"seed: got {missing[0]}; expected one of {own}")
        return [own.index(seed) for seed in seeds]

    def best(self) -> int:
        """Which rate has the least desired area in the mean, of those where no training diverged."""
        return int(np.nan_to_num(self.desired.mean((1, 2)), nan=np.inf).argmin())

    def spreads(self) -> NDArray[np.float64]:
        """(largest - least) / mean over the draws of each rate and seed, shape (G, S)."""
        return np.asarray(np.ptp(self.desired, 2) / self.desired.mean(2))

    def settled(self) -> float:
        """The largest rate up to which no draw moves the area by a thousandth, at any seed; nan if none is."""
        fine = [bool(row.all()) for row in self.spreads() < NOTABLE]
        count = [*fine, False].index(False)
        return float(self.rates[count - 1]) if count else float("nan")


def areas_of(sweep: Run) -> Areas:
    """The areas in the recorded sweeps ``edge`` of the language model and ``rates`` of the perceptron.

    Raises:
        ValueError: a sweep that is no grid of several rates and seeds, and of draws where it has several.
    """
    arrays = sweep.arrays
    names = ("learning_rate", "seed", "initial_scale")
    if missing := [name for name in names[:2] if name not in arrays]:
        raise ValueError(f"sweep: got one {missing[0]} throughout; expected several")
    one_draw = np.zeros_like(arrays["learning_rate"])
    columns = [arrays.get(name, one_draw) for name in names]
    axes = [np.unique(column) for column in columns]
    shape = tuple(map(len, axes))
    points = np.stack(columns, 1)
    different = len(np.unique(points, axis=0))
    if not np.prod(shape) == len(points) == different:
        raise ValueError(
            f"sweep: got {len(points)} points, {different} of them different; expected a grid of "
            f"rates, seeds and draws, {shape}"
        )
    order = np.lexsort(columns[::-1])
    desired, test = (
        arrays[f"history_{name}"][order, 0].reshape(shape) for name in HISTORY.values()
    )
    return Areas(axes[0], axes[1].astype(int), desired, test)


def saved_beyond(
    areas: Areas, runs: Sequence[Run], measure: str = "desired"
) -> NDArray[np.float64]:
    """Area that searches save of the least one of equal weights at any rate, shape (S,).

    Args:
        areas: of conventional learning.
        runs: of searches, a seed each.
        measure: ``"desired"`` or ``"test"``.

    Raises:
        ValueError: a run of a seed that ``areas`` does not have.
    """
    found = values([run.arrays for run in runs], HISTORY[measure])
    return (
        1 - np.array(found) / areas.least(measure)[areas.places([r.config["seed"] for r in runs])]
    )


def searches_table(areas: Areas, rows: Sequence[tuple[str, Sequence[Run]]]) -> str:
    """A Markdown table of searches, means and ranges over their seeds.

    Args:
        areas: of conventional learning.
        rows: what a search is called, its runs, a seed each.
    """
    lines = []
    for word, runs in rows:
        rate = runs[0].config["training"]["learning_rate"]
        arrays = [run.arrays for run in runs]
        own = [
            1 - np.divide(values(arrays, name), values(arrays, name, 0))
            for name in HISTORY.values()
        ]
        beyond = [saved_beyond(areas, runs, measure) for measure in HISTORY]
        least = spread(values(arrays, HISTORY["desired"]), 4)
        lines.append([word, number(rate, 2), least, *map(per_cent, [*own, *beyond])])
    header = ["saved at its rate", "on test", "saved beyond every rate", "on test"]
    return table(["search", "rate", "J/T", *header], lines)


def saved_by_rules(
    areas: Areas, sweep: Run, measure: str = "desired"
) -> dict[str, NDArray[np.float64]]:
    """Area that each rule saves of the least one of equal weights at any constant rate, shape (S,) each.

    Args:
        areas: of conventional learning at constant rates.
        sweep: recorded, of ``selection`` or ``language-selection``, its points under the same rates.
        measure: ``"desired"`` or ``"test"``.
    """
    least = areas.least(measure)[areas.places(seeds(sweep))]
    saved = 1 - sweep.arrays[f"course_{HISTORY[measure]}"].astype(float) / least[:, None]
    return dict(zip(row_names(sweep), saved.T, strict=True))


def rules_of_equal(sweep: Run, measure: str = "desired") -> dict[str, NDArray[np.float64]]:
    """Area that each rule saves of that of equal weights under the same rates, shape (S,) each.

    Args:
        sweep: as :func:`saved_by_rules` has it.
        measure: ``"desired"`` or ``"test"``.
    """
    names = row_names(sweep)
    area = sweep.arrays[f"course_{HISTORY[measure]}"].astype(float)
    saved = 1 - area / area[:, [names.index("uniform")]]
    return dict(zip(names, saved.T, strict=True))


def rules_table(areas: Areas, sweep: Run) -> str:
    """A Markdown table of rules of selection, means and ranges over the seeds: equal weights, then the best first.

    Args:
        areas: of conventional learning.
        sweep: recorded, of ``selection`` or ``language-selection``, its points under the same rates.
    """
    names, arrays = row_names(sweep), sweep.arrays
    spoilt = arrays["course_spoilt_weight"]
    usual = names.index("uniform")
    saved = {}
    for measure in HISTORY:
        saved[measure] = np.stack([*rules_of_equal(sweep, measure).values()], 1)
        saved[f"{measure} beyond"] = np.stack([*saved_by_rules(areas, sweep, measure).values()], 1)
    # where equal weights have their least area, both are the same
    ahead = np.abs([saved[f"{measure} beyond"][:, usual] for measure in HISTORY])
    where = ("", " beyond") if ahead.max() > ROUNDED else ("",)
    order = np.argsort(-saved["test"].mean(0), kind="stable").tolist()
    order.remove(usual)
    lines = [
        [
            PARTS["equal"] if n == usual else names[n],
            *(
                per_cent(saved[f"{measure}{of}"][:, n])
                for of in where
                for measure in ("desired", "test")
            ),
            *([percent(spoilt[:, n])] if spoilt.any() else []),
        ]
        for n in (usual, *order)
    ]
    header = ["rule", "saved at its rates", "on test", "saved beyond constant rates", "on test"]
    return table(
        [*header[: 1 + 2 * len(where)], *["weight on perturbed"] * bool(spoilt.any())], lines
    )


def saved_by_schedules(
    areas: Areas, runs: Sequence[Run], measure: str = "desired", *, moved: bool = False
) -> NDArray[np.float64]:
    """Area saved of the least one of equal weights at any constant rate, shape (M, W, S).

    Under M kinds of rates, by each of :data:`llbook.experiments.schedule.WEIGHTS`: the mean over the
    draws of θ_0 that no search saw, or the only one.

    Args:
        areas: of conventional learning at constant rates.
        runs: of the experiment ``language-schedule``, a seed each.
        measure: ``"desired"`` or ``"test"``.
        moved: the policies found under M kinds of rates, each under all of them, (M, M, S).

    Raises:
        ValueError: a run of a seed that ``areas`` does not have.
    """
    name = f"moved_{measure}" if moved else measure
    draws = np.stack([run.arrays[name] for run in runs], -1)  # (M, W, D, S)
    unseen = draws[:, :, 1:] if draws.shape[2] > 1 else draws
    at = areas.places([run.config["seed"] for run in runs])
    return np.asarray(1 - unseen.mean(2) / areas.least(measure)[at])


def parts_table(areas: Areas, runs: Sequence[Run], words: Sequence[str]) -> str:
    """A Markdown table of what length and direction of a policy's steps save by themselves.

    Args:
        areas: of conventional learning at constant rates.
        runs: of the experiment ``language-schedule``, a seed each.
        words: what the first of its kinds of rates are called.
    """
    saved = {measure: saved_by_schedules(areas, runs, measure) for measure in HISTORY}
    rows = [
        [
            word,
            PARTS[name],
            *(per_cent(values[kind, WEIGHTS.index(name)]) for values in saved.values()),
        ]
        for kind, word in enumerate(words)
        for name in PARTS
    ]
    return table(["rate", "", "saved", "on test"], rows)


def share_of_policy(saved: NDArray[np.float64], kind: int, name: str) -> NDArray[np.float64]:
    """What others get of the area that the policy saves of that of equal weights, shape (S,).

    Args:
        saved: of :func:`saved_by_schedules`.
        kind: of the rates.
        name: one of :data:`llbook.experiments.schedule.WEIGHTS`.
    """
    equal, policy, own = saved[kind, 0], saved[kind, 1], saved[kind, WEIGHTS.index(name)]
    return np.asarray((own - equal) / (policy - equal))


def draw_spread(runs: Sequence[Run], kind: int, who: int = 0) -> float:
    """(largest - least) / mean of the desired area over all draws of θ_0, the widest of the seeds.

    Args:
        runs: of the experiment ``language-schedule``, a seed each.
        kind: of the rates.
        who: 0, equal weights; 1, the policy found.
    """
    rows = [run.arrays["desired"][kind, who] for run in runs]
    return max(float(np.ptp(row) / row.mean()) for row in rows)


def saved_of_equal(saved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area that policies save of that of equal weights under the same rates, shape (M, S).

    Args:
        saved: of :func:`saved_by_schedules`.
    """
    return np.asarray(1 - (1 - saved[:, 1]) / (1 - saved[:, 0]))


def saved_of_best_equal(saved: NDArray[np.float64], kind: int) -> NDArray[np.float64]:
    """Area that policies save of the least one of equal weights under any rates, constant or not, shape (S,).

    Args:
        saved: of :func:`saved_by_schedules`.
        kind: of the rates of the policies.
    """
    equal = np.maximum(0, saved[:, 0].max(0))
    return np.asarray(1 - (1 - saved[kind, 1]) / (1 - equal))


def schedules_table(areas: Areas, runs: Sequence[Run], words: Sequence[str]) -> str:
    """A Markdown table of rates, equal weights and policies; means and ranges over the seeds.

    Args:
        areas: of conventional learning at constant rates.
        runs: of the experiment ``language-schedule``, a seed each.
        words: what its M kinds of rates are called.
    """
    saved = {measure: saved_by_schedules(areas, runs, measure) for measure in HISTORY}
    lines = []
    for kind, word in enumerate(words):
        cells = [values[kind, who] for who in (0, 1) for values in saved.values()]
        cells += [saved_of_equal(values)[kind] for values in saved.values()]
        lines.append([word, *map(per_cent, cells)])
    header = ["equal weights save", "a policy saves", "of equal weights there"]
    return table(["rate", *(cell for word in header for cell in (word, "on test"))], lines)
