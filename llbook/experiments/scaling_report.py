"""What the page on scaling laws says of its fits: changes of B and β, AR, verdicts by rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llbook.experiments.language_report import FACTOR, Verdict, per_cent
from llbook.experiments.reporting import number, spread
from llbook.measures.scaling import Draws, Fit, acceleration, bootstrap, equation_9, fit

__all__ = [
    "PAPER_LADDER",
    "PAPER_LAWS",
    "Scaling",
    "interval",
    "printed_interval",
    "scaling_of",
    "verdicts",
]

Arrays = Mapping[str, NDArray]

PAPER_LAWS = {
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
CLOSE = 1.1
"""AR by Eq. 9 *agrees* with the measured one within this factor."""


@dataclass(frozen=True)
class Scaling:
    """The laws of one run: conventional and near-optimal learning, fitted together.

    Attributes:
        found: the two laws, with one t_0 and one L_0.
        draws: the same from resampled curves.
        steps: T.
        measured: AR of the run, by running minima.
        change: AUC after the search over AUC before it, minus one.
    """

    found: Fit
    draws: Draws
    steps: int
    measured: float
    change: float

    @property
    def b_change(self) -> float:
        """B of the near-optimal law over that of the conventional one, minus one."""
        old, new = self.found.laws
        return math.expm1(new.log_b - old.log_b)

    @property
    def beta_change(self) -> float:
        """The same of β."""
        old, new = self.found.laws
        return new.beta / old.beta - 1

    def predicted(self, steps: float | None = None) -> float:
        """AR by Eq. 9 at T, or at other ``steps``."""
        old, new = self.found.laws
        return acceleration(new, old, self.steps if steps is None else steps)

    def predicted_draws(self, steps: float | None = None) -> NDArray[np.float64]:
        """The same of each resampled pair of laws, shape (D,)."""
        at = self.steps if steps is None else steps
        return np.array(
            [
                acceleration(self.draws.law(draw, 1), self.draws.law(draw, 0), at)
                for draw in range(len(self.draws.l0))
            ]
        )


def scaling_of(run: Arrays, *, draws: int = 200) -> Scaling:
    """Fit both laws to the test curves of a run, of its first and of its last policy.

    Raises:
        ValueError: the curves are too short or do not fall, see :func:`llbook.measures.scaling.fit`.
    """
    found = fit(run["curve_steps"], run["test_curves"][[0, -1]])
    auc = run["history_auc"]
    return Scaling(
        found,
        bootstrap(found, draws=draws),
        int(run["curve_steps"][-1]),
        float(run["history_ar"][-1]),
        float(auc[-1] / auc[0] - 1),
    )


def interval(values: NDArray, digits: int = 3) -> str:
    """The middle 90% of resampled values: ``0.31 to 0.36``."""
    low, high = np.nanquantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return f"{number(low, digits)} to {number(high, digits)}".replace("-", "−")


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


def verdicts(rungs: Sequence[Sequence[Scaling]], horizon: float) -> list[Verdict]:
    """The paper's claims on scaling laws held against runs, the rungs of a ladder in order.

    The rules. r²: above 0.99 in every run, in part above 0.95. Directions of B and β: those
    of the paper in every run, in part in more than half. Sizes: the mean within a factor
    of :data:`FACTOR` of the paper's mean over its ladder, in part if of its sign. AR along
    the ladder: each rung's mean above the one before, in part if the last is above the first.
    Eq. 9: within :data:`CLOSE` of the measured AR in every run, in part within :data:`FACTOR`.
    The extrapolation counts as attempted if the longest run has a thousandth of its steps.

    Raises:
        ValueError: no run at all.
    """
    runs = [run for rung in rungs for run in rung]
    if not runs:
        raise ValueError("expected at least one run, got none")
    r2 = [law.r2 for run in runs for law in run.found.laws]
    right = np.array([run.b_change < 0 < run.beta_change for run in runs])
    b, beta = ([getattr(run, name) for run in runs] for name in ("b_change", "beta_change"))
    paper_b, paper_beta = (np.mean([row[name] for row in PAPER_LADDER]) for name in ("b", "beta"))
    means = [float(np.mean([run.measured for run in rung])) for rung in rungs]
    off = [
        math.exp(abs(math.log(run.predicted() / run.measured)))
        if run.predicted() > 0 and run.measured > 0
        else math.inf
        for run in runs
    ]
    own = float(
        equation_9(
            (PAPER_LAWS["b"][0], PAPER_LAWS["beta"][0]),
            (PAPER_LAWS["b"][1], PAPER_LAWS["beta"][1]),
            PAPER_LAWS["steps"],
        )
    )
    longest = max(run.steps for run in runs)
    return [
        Verdict(
            "Table 1: r² of the laws",
            "0.995, 0.999",
            f"{min(r2):.4f} at least",
            _graded(min(r2), 0.99, 0.95),
        ),
        Verdict(
            "Tables 1, 2: B falls and β rises",
            "at every scale",
            f"in {right.sum()} of {len(runs)} runs",
            _graded(float(right.mean()), 1 - 1e-9, 0.5),
        ),
        Verdict(
            "Table 2: |ΔB/B|",
            per_cent([-row["b"] for row in PAPER_LADDER]),
            per_cent(b),
            _sized(-float(np.mean(b)), float(paper_b)),
        ),
        Verdict(
            "Table 2: |Δβ/β|",
            per_cent([row["beta"] for row in PAPER_LADDER]),
            per_cent(beta),
            _sized(float(np.mean(beta)), float(paper_beta)),
        ),
        Verdict(
            "Table 2: AR grows with the scale",
            " → ".join(number(row["ar"]) for row in PAPER_LADDER),
            " → ".join(number(mean) for mean in means),
            "undefined"
            if len(means) < 2 or np.isnan(means).any()
            else "reproduced"
            if (np.diff(means) > 0).all()
            else "in part"
            if means[-1] > means[0]
            else "not reproduced",
        ),
        Verdict(
            "Eq. 9 against the measured AR",
            f"{number(own, 2)} by its printed laws, 2.41 measured",
            f"apart by a factor of {spread(off)}",
            _graded(-max(off), -CLOSE, -FACTOR),
        ),
        Verdict(
            f"Fig. 11: extrapolation to {number(horizon)} steps",
            "from T = 4,000",
            f"from T = {longest:,}",
            "attempted" if longest * 1000 >= horizon else "not attempted at this scale",
        ),
    ]


def _graded(value: float, full: float, part: float) -> str:
    return "reproduced" if value >= full else "in part" if value >= part else "not reproduced"


def _sized(value: float, paper: float) -> str:
    if not value > 0:
        return "not reproduced"
    return "reproduced" if paper / FACTOR <= value <= FACTOR * paper else "in part"
