"""The results of a sweep: its table, the groups in it, and mean and interval of each."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from scipy import stats

from llbook.experiments.experiment import registry
from llbook.parameters import FileName, Parameters
from llbook.runs.run import Run

__all__ = [
    "Interval",
    "SweepConfig",
    "SweepTable",
    "interval",
    "last_measures",
    "read_table",
    "recorded_table",
]


class SweepConfig(Parameters):
    """The notebook that draws the table of a sweep."""

    table: FileName = Field(
        "", description="table.csv of a sweep; empty: the recorded perceptron runs"
    )
    over: str = Field("seed", description="the parameter that means are taken over")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")


# what a mean can be, of measures that cannot be any number
_SHARE: dict[str, Any] = {"least": 0.0, "most": 1.0}
_RANGES: dict[str, dict[str, Any]] = {
    "ar": {"logarithm": True},
    "auc": {"least": 0.0},
    "desired_auc": {"least": 0.0},
    "objective": {"least": 0.0},
    "zero_weight_share": _SHARE,
    "support_share": _SHARE,
    "undefined_share": _SHARE,
}

# the columns of a table between its parameters and its measures
_FACTS = ("run", "state", "seconds", "error")


@dataclass(frozen=True)
class Interval:
    """Mean of the defined ones of some values, and a confidence interval of it.

    Attributes:
        values: all of them, those that are undefined as NaN.
        mean: NaN when none is defined.
        low, high: of Student's interval; NaN when fewer than two are defined.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SweepTable:
    """A table of results.

    Attributes:
        varying: the parameters that differ between points.
        measures: names of the results.
        rows: a mapping per finished point, with parameters as text and measures as numbers.
        failed: points without a result.
    """

    varying: tuple[str, ...]
    measures: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    failed: int

    def groups(self, over: str) -> dict[str, list[Mapping[str, Any]]]:
        """The points that differ in ``over`` alone, by what they have in common.

        Args:
            over: the dotted name of a parameter, or its last part.

        Raises:
            ValueError: there are other parameters, but not this one.
        """
        names = [name for name in self.varying if over in (name, name.rpartition(".")[2])]
        if not names and self.varying:
            raise ValueError(f"over must be one of {', '.join(self.varying)}, got {over!r}")
        rest = [name for name in self.varying if name not in names]
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.rows:
            label = ", ".join(f"{name.rpartition('.')[2]} = {row[name]}" for name in rest)
            if rest == ["setting"]:
                label = row["setting"]  # a name that says it all
            found.setdefault(label or "all points", []).append(row)
        return found

    def intervals(self, over: str, measure: str, confidence: float) -> dict[str, Interval]:
        """:func:`interval` of a measure for each of :meth:`groups`."""
        return {
            label: interval([row[measure] for row in rows], confidence, **_RANGES.get(measure, {}))
            for label, rows in self.groups(over).items()
        }


def interval(
    values: Sequence[float],
    confidence: float,
    *,
    logarithm: bool = False,
    least: float = -math.inf,
    most: float = math.inf,
) -> Interval:
    """Mean and Student's confidence interval of the mean.

    Where a value is undefined neither is known: to leave it out would favour what is left. An
    infinite value makes the mean infinite, and leaves no interval.

    Args:
        values: of the points.
        confidence: of the interval.
        logarithm: mean and interval are of the logarithms, and so of the geometric mean: for ratios, above 0.
        least, most: what the mean can be; the interval is cut there.
    """
    given = np.array(values, dtype=float)
    drawn = np.log(given) if logarithm else given
    centre, low, high = float(drawn.mean()), math.nan, math.nan
    if len(drawn) > 1 and math.isfinite(centre):
        half = float(stats.t.ppf((1 + confidence) / 2, len(drawn) - 1) * stats.sem(drawn))
        low, high = centre - half, centre + half
    if logarithm:
        centre, low, high = (float(np.exp(end)) for end in (centre, low, high))
    if not math.isnan(low):
        low, high = max(low, least), min(high, most)
    return Interval(tuple(map(float, values)), centre, low, high)


def read_table(path: Path) -> SweepTable:
    """The ``table.csv`` of a sweep.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not such a table, or no point of it has a result.
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        header, rows = list(reader.fieldnames or ()), list(reader)
    try:
        first, last = header.index(_FACTS[0]), header.index(_FACTS[-1])
    except ValueError:
        raise ValueError(f"{path}: not the table of a sweep; its columns are {header}") from None
    done = [row for row in rows if not row["error"]]
    if not done:
        raise ValueError(f"{path}: none of its {len(rows)} points has a result")
    return _table(done, header[:first], header[last + 1 :], len(rows) - len(done))


def recorded_table(experiment: str = "perceptron") -> SweepTable:
    """The recorded runs of an experiment as the table of a sweep over settings and seeds."""
    rows = [
        {"setting": name, "seed": str(run.config["seed"])} | last_measures(run)
        for name, runs in registry()[experiment].load_records().items()
        for run in runs
    ]
    # records of before do not have all that later ones have
    common = set.intersection(*(set(row) for row in rows)) - {"setting", "seed"}
    measures = [name for name in rows[0] if name in common]
    return _table(rows, ["setting", "seed"], measures, 0)


def _table(
    rows: Sequence[Mapping[str, Any]],
    parameters: Sequence[str],
    measures: Sequence[str],
    failed: int,
) -> SweepTable:
    varying = [name for name in parameters if len({row[name] for row in rows}) > 1]
    # a point without a measure that others have has an empty cell
    numbers = [
        dict(row) | {name: math.nan if row[name] == "" else float(row[name]) for name in measures}
        for row in rows
    ]
    return SweepTable(tuple(varying), tuple(measures), tuple(numbers), failed)


def last_measures(run: Run) -> dict[str, float]:
    """What a run's search measured last, by name."""
    return {
        name.removeprefix("history_"): float(array[-1])
        for name, array in run.arrays.items()
        if name.startswith("history_")
    }
