"""What the page on scaling laws says of its fits: changes of B and β, AR, rival forms, verdicts by rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llbook.measures.rivals import FORMS, held_out_errors, law_is_best
from llbook.measures.scaling import Draws, Fit, NoLawError, acceleration, bootstrap, fit
from llbook.report.numbers import number, per_cent, spread, table
from llbook.report.paper import LADDER
from llbook.report.verdicts import (
    FACTOR,
    Arrays,
    Verdict,
    Word,
    area_changes,
    graded,
    sized,
)
from llbook.runs.run import Run

__all__ = [
    "CARRIED",
    "CLOSE",
    "NO_LAW",
    "Scaling",
    "apart",
    "border_sentence",
    "common_updates",
    "idle",
    "interval",
    "ladder_ratios",
    "law_row",
    "law_sentence",
    "rivals_table",
    "rung_row",
    "scaling_of",
    "verdicts",
]

NO_LAW = "no law"
CLOSE = 1.1
"""AR by Eq. 9 *agrees* with the measured one within this factor."""

CARRIED = 2500
"""Figure 11 carries the laws from T = 4,000 to 10⁷ steps: so many times T."""

ROUNDED = 1 + 1e-9
"""A ratio of two laws that are the same, of a search that found nothing, differs from 1 by less."""


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
        misses: what each form misses on held-out steps, by :func:`held_out_errors`; none
            where the first steps are too few for a law.
        course: after so many updates, AR of the best policy by then: least area on the desired
            examples, of those that were measured.
    """

    found: Fit | None
    draws: Draws | None
    steps: int
    measured: float
    change: float
    reason: str = ""
    misses: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    course: dict[int, float] = field(default_factory=dict)

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
    steps, curves = run["curve_steps"], run["test_curves"][[0, -1]]
    facts = int(steps[-1]), float(run["history_ar"][-1]), float(area_changes([run])[0])
    areas = run["history_desired_auc"]
    best = [int(areas[: place + 1].argmin()) for place in range(len(areas))]
    epochs = (int(epoch) for epoch in run["history_epoch"])
    course = dict(zip(epochs, run["history_ar"][best].tolist(), strict=True))
    try:
        found = fit(steps, curves)
    except NoLawError as error:
        return Scaling(None, None, *facts, reason=str(error), course=course)
    resampled = bootstrap(found, draws=draws)
    try:
        misses = held_out_errors(steps, curves)
    except NoLawError:
        misses = {}
    return Scaling(found, resampled, *facts, misses=misses, course=course)


def common_updates(rungs: Iterable[Sequence[Scaling]]) -> int:
    """The most updates after which AR was measured in every run; 0 where there are none but the start.

    A policy that a search returned to counts as an update more.
    """
    known = [set(run.course) for rung in rungs for run in rung]
    return max(set.intersection(*known), default=0) if known else 0


def _ratios_after(rungs: Iterable[Sequence[Scaling]], updates: int) -> list[float]:
    """The mean AR of each rung after so many updates of the policy."""
    return [float(np.mean([run.course[updates] for run in rung])) for rung in rungs]


def ladder_ratios(rungs: Sequence[Sequence[Scaling]]) -> str:
    """AR from rung to rung, means over seeds, after as many updates in each: ``1.2 → 1.5``."""
    if not (updates := common_updates(rungs)):
        return "never measured after as many updates"
    text = " → ".join(map(number, _ratios_after(rungs, updates)))
    more = any(updates < max(run.course) for rung in rungs for run in rung)
    return text + f" after {updates} updates" * more


def rivals_table(runs: Sequence[Scaling]) -> str:
    """What each form misses on held-out steps, in nats: mean and range over runs, by policy."""
    judged = [run for run in runs if run.misses]
    rows = [
        [name, *(spread([run.misses[name][policy] for run in judged], 2) for policy in (0, 1))]
        for name in FORMS
    ]
    rows = rows if judged else [["too few steps to hold any out", "–", "–"]]
    return table(["form", "conventional (nats)", "near-optimal (nats)"], rows)


def interval(values: NDArray[np.float64], digits: int = 3) -> str:
    """The middle 90% of resampled values: ``0.31 to 0.36``; of those that there are."""
    known = np.asarray(values)[~np.isnan(values)]
    if len(known) == 0:
        return NO_LAW
    # infinite values cannot be interpolated
    low, high = np.quantile(known, [0.05, 0.95], method="nearest")
    return f"{number(low, digits)} to {number(high, digits)}"


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
    return (
        f"In {len(fitted)} {kind} run{'s' * (len(fitted) > 1)}, the search ends at the last t₀ that it may "
        f"try in {t0}, and at the least or the greatest L₀ in {l0}"
        + (": there the highest r² is no maximum." if t0 + l0 else ".")
    )


def apart(rungs: Iterable[Sequence[Scaling]]) -> dict[str, float]:
    """Between seeds of one rung, the greatest over the least ``b`` and ``beta`` of conventional learning.

    The largest such factor of all rungs; nan where none has two laws.
    """
    factors = {"b": [math.nan], "beta": [math.nan]}
    for rung in rungs:
        laws = [run.found.laws[0] for run in rung if run.found is not None]
        if len(laws) > 1:
            # B itself may be too small or too large for a float
            logs, betas = [law.log_b for law in laws], [law.beta for law in laws]
            with np.errstate(over="ignore"):
                factors["b"].append(float(np.exp(max(logs) - min(logs))))
            factors["beta"].append(max(betas) / min(betas))
    return {name: float(np.fmax.reduce(values)) for name, values in factors.items()}


def law_row(label: str, runs: Sequence[Scaling]) -> list[str]:
    """A row of Table 1: B (geometric mean), β (mean), the lowest r², L_0 and t_0 with their range."""
    laws = [run.found.laws for run in runs if run.found is not None]
    if len(laws) < len(runs):
        label += f"; {NO_LAW} in {len(runs) - len(laws)} of {len(runs)}"
    if not laws:
        return [label, *[NO_LAW] * 5]

    def both(name: str) -> NDArray[np.float64]:
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


def idle(run: Run) -> bool:
    """Whether a search found nothing with less area on the desired examples than it began with."""
    return bool(area_changes([run.arrays], name="desired_auc")[0] >= 0)


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


def verdicts(rungs: Sequence[Sequence[Scaling]]) -> list[Verdict]:
    """The paper's claims on scaling laws held against runs, the rungs of a ladder in order.

    The rules. The law itself: it predicts held-out steps better than every rival form
    (:func:`~llbook.measures.rivals.law_is_best`) for both curves of every run, in part for more
    than half of them; r² alone, which any smooth curve has, is shown and not judged. Directions
    of B and β: those of the paper in every run, in part in more than half. Sizes: the mean as
    :func:`~llbook.report.verdicts.sized` has it against the paper's mean over its ladder; for B
    the geometric mean of B₁/B₂, since ΔB/B cannot go below −1. AR along the ladder, after as many
    updates in each (:func:`common_updates`): each rung's mean above the one before, in part if
    the last is above the first. Eq. 9: within :data:`CLOSE` of
    the measured AR in every run, in part within :data:`~llbook.report.verdicts.FACTOR`. The
    extrapolation, as many times T as the paper's, :data:`CARRIED`: AR by the laws grows on the
    way in every run, in part in more than half. A run to which no law can be fitted fails
    where *every run* is asked for and is left out of means; if that is so of all of them, what
    needs a law is not attempted.

    Raises:
        ValueError: no run at all.
    """
    rungs = [rung for rung in rungs if rung]
    runs = [run for rung in rungs for run in rung]
    if not runs:
        raise ValueError("expected at least one run, got none")
    updates = common_updates(rungs)
    word = _growth(_ratios_after(rungs, updates)) if updates else Word.UNDEFINED
    growth = Verdict("table-2-ar", ladder_ratios(rungs), word)
    fitted = [run for run in runs if run.found is not None]
    if not fitted:
        keys = ("table-1", "tables-1-2", "table-2-b", "table-2-beta", "eq-9", "11")
        found = [Verdict(key, NO_LAW, Word.SMALLER) for key in keys]
        return [*found[:4], growth, *found[4:]]
    lost = len(runs) - len(fitted)
    missing = f"; {NO_LAW} in {lost}" if lost else ""

    def everywhere(good: Iterable[bool]) -> Word:
        """*Reproduced* if so in all runs, in part in more than half."""
        share = sum(good) / len(runs)
        return graded(share, 1 - 1e-9, 0.5)

    b, fall, beta = (
        [getattr(run, name) for run in fitted] for name in ("b_change", "b_fall", "beta_change")
    )
    paper_fall = -np.log1p([row["b"] for row in LADDER])
    paper_beta = float(np.mean([row["beta"] for row in LADDER]))
    right = [run.b_change < 0 < run.beta_change for run in runs]
    off = [
        math.exp(abs(math.log(run.predicted() / run.measured)))
        if run.predicted() > 0 and run.measured > 0
        else math.inf
        for run in fitted
    ]
    close = -math.inf if lost else -max(off)
    carried = [run.predicted(CARRIED * run.steps) > ROUNDED * run.predicted() for run in fitted]
    return [
        _law_verdict(runs, missing),
        Verdict("tables-1-2", f"in {sum(right)} of {len(runs)} runs", everywhere(right)),
        Verdict(
            "table-2-b",
            f"{per_cent(b)}; {_factor(fall)}, the paper's {_factor(paper_fall)}",
            sized(_ratio(fall), _ratio(paper_fall), some=_ratio(fall) > 1),
        ),
        Verdict("table-2-beta", per_cent(beta), sized(float(np.mean(beta)), paper_beta)),
        growth,
        Verdict(
            "eq-9",
            f"apart by a factor of {spread(off, 4)} where the laws are fitted{missing}",
            graded(close, -CLOSE, -FACTOR),
        ),
        Verdict(
            "11",
            f"by the laws, from T to {CARRIED:,} T, AR grows in {sum(carried)} of {len(runs)} runs",
            everywhere(carried),
        ),
    ]


def _law_verdict(runs: Sequence[Scaling], missing: str) -> Verdict:
    r2 = min(law.r2 for run in runs if run.found is not None for law in run.found.laws)
    ours = f"r² {r2:.4f} at least{missing}"
    best = [good for run in runs if run.misses for good in law_is_best(run.misses)]
    if not best:
        return Verdict("table-1", f"{ours}; too few steps to hold any out", Word.SMALLER)
    count = 2 * len(runs)
    return Verdict(
        "table-1",
        f"nearest on held-out steps for {sum(best)} of {count} curves; {ours}",
        graded(sum(best) / count, 1 - 1e-9, 0.5),
    )


def _growth(means: Sequence[float]) -> Word:
    if len(means) < 2:
        return Word.SMALLER
    if np.isnan(means).any():
        return Word.UNDEFINED
    if (np.diff(means) > 0).all():
        return Word.REPRODUCED
    return Word.PART if means[-1] > means[0] else Word.FAILED


def _ratio(fall: Sequence[float] | NDArray[np.float64] | float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(np.mean(fall)))


def _factor(fall: Sequence[float] | NDArray[np.float64]) -> str:
    """B₁/B₂ from its logarithms: geometric mean and range."""
    mean, low, high = (number(_ratio(ends), 2) for ends in (fall, min(fall), max(fall)))
    return f"B₁/B₂ = {mean}" + (f" ({low} to {high})" if len(fall) > 1 else "")
