"""What the page on scaling laws says of its fits: changes of B and β, AR, verdicts by rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llbook.measures.scaling import (
    Draws,
    Fit,
    NoLawError,
    acceleration,
    bootstrap,
    equation_9,
    fit,
)
from llbook.report.language_model import FACTOR, Verdict, per_cent
from llbook.report.numbers import number, spread

__all__ = [
    "NO_LAW",
    "PAPER_LADDER",
    "PAPER_LAWS",
    "Scaling",
    "apart",
    "border_sentence",
    "from_changes",
    "interval",
    "law_row",
    "law_sentence",
    "printed_interval",
    "rung_row",
    "scaling_of",
    "verdicts",
]

Arrays = Mapping[str, NDArray[Any]]

PAPER_LAWS: dict[str, Any] = {
    "b": (3.16e8, 1.99e7),
    "beta": (0.12, 0.14),
    "r2": (0.995, 0.999),
    "l0": 0.051,
    "t0": 400.0,
    "steps": 4000,
}
"""Table 1: conventional and near-optimal, with the t_0 and L_0 of both and the T of the run."""

PAPER_LADDER = (
    {"steps": 1000, "size": 2**12, "vocabulary": 4000, "b": 0.885, "beta": 0.100, "ar": 2.16},
    {"steps": 2000, "size": 2**13, "vocabulary": 4500, "b": 0.949, "beta": 0.180, "ar": 2.31},
    {"steps": 4000, "size": 2**14, "vocabulary": 5000, "b": 0.937, "beta": 0.187, "ar": 2.41},
    {"steps": 8000, "size": 2**15, "vocabulary": 6000, "b": 0.948, "beta": 0.190, "ar": 2.48},
)
"""Table 2: scale, |ΔB/B|, |Δβ/β| and AR."""

_LEVEL = 0.9
NO_LAW = "no law"
_GROWTH = "Table 2: AR grows with the scale"
CLOSE = 1.1
"""AR by Eq. 9 *agrees* with the measured one within this factor."""


@dataclass(frozen=True)
class Scaling:
    """The laws of one run: conventional and near-optimal learning, fitted together.

    Where no law can be fitted, what derives from one is nan.

    Attributes:
        found: the two laws, with one t_0 and one L_0; None where there is none.
        draws: the same from resampled curves.
        steps: T.
        measured: AR of the run, by running minima.
        change: AUC after the search over AUC before it, minus one.
        reason: why there is no law.
    """

    found: Fit | None
    draws: Draws | None
    steps: int
    measured: float
    change: float
    reason: str = ""

    @property
    def b_fall(self) -> float:
        """ln(B₁/B₂), conventional over near-optimal: above zero where B falls, and without a bound."""
        if self.found is None:
            return math.nan
        old, new = self.found.laws
        return old.log_b - new.log_b

    @property
    def b_change(self) -> float:
        """B of the near-optimal law over that of the conventional one, minus one."""
        with np.errstate(over="ignore"):
            return float(np.expm1(-self.b_fall))

    @property
    def beta_change(self) -> float:
        """The same of β."""
        if self.found is None:
            return math.nan
        old, new = self.found.laws
        return new.beta / old.beta - 1

    def predicted(self, steps: float | None = None) -> float:
        """AR by Eq. 9 at T, or at other ``steps``."""
        if self.found is None:
            return math.nan
        old, new = self.found.laws
        return acceleration(new, old, self.steps if steps is None else steps)

    def predicted_draws(self, steps: float | None = None) -> NDArray[np.float64]:
        """The same of each resampled pair of laws, shape (D,); none without a law."""
        if self.draws is None:
            return np.empty(0)
        at = self.steps if steps is None else steps
        return np.array(
            [
                acceleration(self.draws.law(draw, 1), self.draws.law(draw, 0), at)
                for draw in range(len(self.draws.l0))
            ]
        )


def scaling_of(run: Arrays, *, draws: int = 200) -> Scaling:
    """Fit both laws to the test curves of a run, of its first and of its last policy.

    Curves that are too short or do not fall have no law, and the reason stands in its place.
    """
    auc = run["history_auc"]
    facts = (
        int(run["curve_steps"][-1]),
        float(run["history_ar"][-1]),
        float(auc[-1] / auc[0] - 1),
    )
    try:
        found = fit(run["curve_steps"], run["test_curves"][[0, -1]])
    except NoLawError as error:
        return Scaling(None, None, *facts, reason=str(error))
    return Scaling(found, bootstrap(found, draws=draws), *facts)


def interval(values: NDArray[Any], digits: int = 3) -> str:
    """The middle 90% of resampled values: ``0.31 to 0.36``; of those that there are."""
    known = np.asarray(values)[~np.isnan(values)]
    if len(known) == 0:
        return NO_LAW
    # infinite values cannot be interpolated
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="nearest")
    return f"{number(low, digits)} to {number(high, digits)}".replace("-", "−")


def law_sentence(run: Scaling) -> str:
    """Whether a law can be fitted to a run, and which way its coefficients go."""
    if run.found is None:
        return (
            f"**No law can be fitted to this run**: {run.reason}. Where its laws are asked for, the "
            f"page says *{NO_LAW}*."
        )
    falls, grows = run.b_change < 0, run.beta_change > 0
    if falls and grows:
        return "In this run B falls and β grows, as in the paper."
    b, beta = "falls" if falls else "does not fall", "grows" if grows else "does not grow"
    return f"**In this run B {b} and β {beta}**; in the paper B falls and β grows."


def border_sentence(runs: Sequence[Scaling], kind: str = "recorded") -> str:
    """In how many runs, of that ``kind``, the search for t_0 and L_0 ended at its border."""
    fitted = [run.found for run in runs if run.found is not None]
    if not fitted:
        return ""
    t0, l0 = (sum(found.at_border[i] for found in fitted) for i in (0, 1))
    if len(fitted) == 1:
        ends = [
            name for name, there in zip(("t₀", "L₀"), fitted[0].at_border, strict=True) if there
        ]
        if not ends:
            return f"In the {kind} run the search ends inside of what it may try."
        return (
            f"In the {kind} run the search ends at the border of what it may try for "
            f"{' and for '.join(ends)}: there the highest r² is no maximum."
        )
    count = f"{len(fitted)} {kind} runs"
    if not t0 + l0:
        return f"In none of {count} does the search end at the border of what it may try."
    return (
        f"Of {count}, the search ends at the last t₀ that it may try in {t0}, and at the least or the "
        f"greatest L₀ in {l0}: there the highest r² is no maximum."
    )


def apart(rungs: Iterable[Sequence[Scaling]]) -> dict[str, float]:
    """Between seeds of one rung, the greatest over the least ``b`` and ``beta`` of conventional learning.

    The largest such factor of all rungs; nan where none has two laws.
    """
    factors = {"b": [math.nan], "beta": [math.nan]}
    for rung in rungs:
        laws = [run.found.laws[0] for run in rung if run.found is not None]
        for name in factors if len(laws) > 1 else ():
            known = [getattr(law, name) for law in laws]
            factors[name].append(max(known) / min(known))
    return {name: float(np.fmax.reduce(values)) for name, values in factors.items()}


def law_row(label: str, runs: Sequence[Scaling]) -> list[str]:
    """A row of Table 1: B (geometric mean), β (mean), the lowest r², L_0 and t_0 with their range."""
    laws = [run.found.laws for run in runs if run.found is not None]
    if len(laws) < len(runs):
        label += f"; {NO_LAW} in {len(runs) - len(laws)} of {len(runs)}"
    if not laws:
        return [label, *[NO_LAW] * 5]

    def both(name: str) -> NDArray[Any]:
        return np.array([[getattr(law, name) for law in pair] for pair in laws])

    with np.errstate(over="ignore"):
        b = np.exp(both("log_b").mean(0))
    return [
        label,
        " → ".join(number(value) for value in b),
        " → ".join(number(value) for value in both("beta").mean(0)),
        ", ".join(f"{value:.4f}" for value in both("r2").min(0)),
        spread(both("l0")[:, 0]),
        spread(both("t0")[:, 0]),
    ]


def rung_row(runs: Sequence[Scaling]) -> list[str]:
    """ΔB/B, Δβ/β, AR measured, AR by Eq. 9 and ΔAUC of a rung: means over seeds, with their range."""
    fitted = [run for run in runs if run.found is not None]
    b, beta = (
        per_cent([getattr(run, name) for run in fitted]) if fitted else NO_LAW
        for name in ("b_change", "beta_change")
    )
    return [
        b,
        beta,
        spread([run.measured for run in runs]),
        spread([run.predicted() for run in fitted]) if fitted else NO_LAW,
        per_cent([run.change for run in runs]),
    ]


def printed_interval(steps: float) -> dict[str, tuple[float, float]]:
    """What Table 1's printed digits leave open: ``b`` and ``beta``, the relative changes, and ``ar``.

    The least and the greatest value over all B and β that round to the printed ones. Each is
    monotone in each of the four numbers, so that these lie at corners.
    """
    half = {"b": (0.005e8, 0.005e7), "beta": (0.005, 0.005)}
    corners = []
    for signs in itertools.product((-1, 1), repeat=4):
        b1, b2 = (PAPER_LAWS["b"][i] + signs[i] * half["b"][i] for i in (0, 1))
        beta1, beta2 = (PAPER_LAWS["beta"][i] + signs[2 + i] * half["beta"][i] for i in (0, 1))
        ratio = float(equation_9((b1, beta1), (b2, beta2), steps))
        corners.append((b2 / b1 - 1, beta2 / beta1 - 1, ratio))
    low, high = np.min(corners, 0), np.max(corners, 0)
    return {name: (low[i], high[i]) for i, name in enumerate(("b", "beta", "ar"))}


def from_changes(
    b_change: float, beta_change: float, steps: float, *, half: float = 5e-4
) -> tuple[float, float, float]:
    """AR by Eq. 9 from relative changes of B and β: its value, and the least and greatest.

    B and β of conventional learning are Table 1's. A common factor of both β leaves Eq. 9 as it
    is, so that the two printed digits of β do not come in.

    Args:
        b_change, beta_change: ΔB/B (negative) and Δβ/β.
        steps: T.
        half: half of the last digit to which the changes are printed.
    """

    def ratio(b1: float, b_change: float, beta_change: float) -> float:
        return float(equation_9((b1, 1.0), (b1 * (1 + b_change), 1 + beta_change), steps))

    b1 = PAPER_LAWS["b"][0]
    corners = [
        ratio(b1 + i * 0.005e8, b_change + j * half, beta_change + k * half)
        for i, j, k in itertools.product((-1, 1), repeat=3)
    ]
    return ratio(b1, b_change, beta_change), min(corners), max(corners)


def verdicts(rungs: Sequence[Sequence[Scaling]], horizon: float) -> list[Verdict]:
    """The paper's claims on scaling laws held against runs, the rungs of a ladder in order.

    The rules. r²: above 0.99 in every run, in part above 0.95. Directions of B and β: those
    of the paper in every run, in part in more than half. Sizes: the mean within a factor
    of :data:`FACTOR` of the paper's mean over its ladder, in part if of its sign; for B the mean
    of ln(B₁/B₂), since ΔB/B cannot go below −1. AR along
    the ladder: each rung's mean above the one before, in part if the last is above the first.
    Eq. 9: within :data:`CLOSE` of the measured AR in every run, in part within :data:`FACTOR`.
    The extrapolation counts as attempted if the longest run has a thousandth of its steps. A run
    to which no law can be fitted fails where *every run* is asked for and is left out of means;
    if that is so of all of them, what needs a law is not attempted.

    Raises:
        ValueError: no run at all.
    """
    runs = [run for rung in rungs for run in rung]
    if not runs:
        raise ValueError("expected at least one run, got none")
    fitted = [run for run in runs if run.found is not None]
    missing = f"; {NO_LAW} in {len(runs) - len(fitted)}" if len(fitted) < len(runs) else ""
    r2 = [law.r2 for run in fitted if run.found for law in run.found.laws]
    right = np.array([run.b_change < 0 < run.beta_change for run in runs])
    b, fall, beta = (
        [getattr(run, name) for run in fitted] for name in ("b_change", "b_fall", "beta_change")
    )
    paper_fall = -np.log1p([-row["b"] for row in PAPER_LADDER])
    paper_beta = np.mean([row["beta"] for row in PAPER_LADDER])
    means = [float(np.mean([run.measured for run in rung])) for rung in rungs]
    off = [
        math.exp(abs(math.log(run.predicted() / run.measured)))
        if run.predicted() > 0 and run.measured > 0
        else math.inf
        for run in fitted
    ]
    own = float(
        equation_9(
            (PAPER_LAWS["b"][0], PAPER_LAWS["beta"][0]),
            (PAPER_LAWS["b"][1], PAPER_LAWS["beta"][1]),
            PAPER_LAWS["steps"],
        )
    )
    measured = next(row["ar"] for row in PAPER_LADDER if row["steps"] == PAPER_LAWS["steps"])
    longest = max(run.steps for run in runs)
    if not fitted:
        r2, b, fall, beta, off = [0.0], [math.nan], [math.nan], [math.nan], [math.inf]
    whole = -math.inf if missing else 0.0  # fails what is asked of every run
    found = [
        Verdict(
            "Table 1: r² of the laws",
            "0.995, 0.999",
            f"{min(r2):.4f} at least{missing}",
            _graded(min(r2) + whole, 0.99, 0.95),
        ),
        Verdict(
            "Tables 1, 2: B falls and β rises",
            "at every scale",
            f"in {right.sum()} of {len(runs)} runs",
            _graded(float(right.mean()), 1 - 1e-9, 0.5),
        ),
        Verdict(
            "Table 2: ΔB/B",
            per_cent([-row["b"] for row in PAPER_LADDER]) + _factor(paper_fall),
            per_cent(b) + _factor(fall),
            _sized(float(np.mean(fall)), float(np.mean(paper_fall))),
        ),
        Verdict(
            "Table 2: Δβ/β",
            per_cent([row["beta"] for row in PAPER_LADDER]),
            per_cent(beta),
            _sized(float(np.mean(beta)), float(paper_beta)),
        ),
        Verdict(
            _GROWTH,
            " → ".join(number(row["ar"]) for row in PAPER_LADDER),
            " → ".join(number(mean) for mean in means),
            "not attempted at this scale"
            if len(means) < 2
            else "undefined"
            if np.isnan(means).any()
            else "reproduced"
            if (np.diff(means) > 0).all()
            else "in part"
            if means[-1] > means[0]
            else "not reproduced",
        ),
        Verdict(
            "Eq. 9 against the measured AR",
            f"{number(own, 2)} by its printed laws, {number(measured)} measured",
            f"apart by a factor of {spread(off, 4)}{missing}",
            _graded(-max(off) + whole, -CLOSE, -FACTOR),
        ),
        Verdict(
            f"Fig. 11: extrapolation to {number(horizon)} steps",
            "from T = 4,000",
            f"from T = {longest:,}",
            "attempted" if longest * 1000 >= horizon else "not attempted at this scale",
        ),
    ]
    if fitted:
        return found
    # only the measured AR needs no law
    return [
        verdict
        if verdict.item == _GROWTH
        else replace(verdict, ours=NO_LAW, word="not attempted at this scale")
        for verdict in found
    ]


def _graded(value: float, full: float, part: float) -> str:
    return "reproduced" if value >= full else "in part" if value >= part else "not reproduced"


def _factor(fall: Sequence[float] | NDArray[Any]) -> str:
    """B₁/B₂ from its logarithms: geometric mean and range."""
    with np.errstate(over="ignore"):
        mean, low, high = (number(np.exp(of(fall)), 2) for of in (np.mean, np.min, np.max))
    return f"; B₁/B₂ = {mean}" + (f" ({low} to {high})" if len(fall) > 1 else "")


def _sized(value: float, paper: float) -> str:
    if not value > 0:
        return "not reproduced"
    return "reproduced" if paper / FACTOR <= value <= FACTOR * paper else "in part"
