"""What runs show of the paper's items, judged by rule; verdicts are found by the item's key.

A rule says *reproduced* of what has the paper's size, within a factor of :data:`FACTOR` on both
sides; what is beyond it on the good side is *larger than printed*, which is another finding and
not the paper's. The same rules judge both experiments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llbook.report.numbers import number, per_cent, spread, table, values
from llbook.report.paper import ITEMS, LEARNED, Experiment

__all__ = [
    "FACTOR",
    "FEWEST_POLICIES",
    "GROWTH",
    "MARKS",
    "MEASURABLE",
    "Verdict",
    "Word",
    "area_changes",
    "chance_similarity",
    "expected_zeros",
    "figure_verdicts",
    "gain",
    "graded",
    "joint_table",
    "known_mean",
    "largest_similarity",
    "learned_below",
    "near_zero_share",
    "rank_correlation",
    "similarity_rises",
    "sized",
    "verdict_table",
    "zero_weights",
]

Arrays = Mapping[str, NDArray[Any]]

FACTOR = 1.5
"""A value is *reproduced* within this factor of the paper's, on both sides."""

MEASURABLE = 0.005
"""A change of the area under the loss curve that is smaller than this share of it counts as none."""

FEWEST_POLICIES = 5
"""Over fewer policies of a search a correlation says nothing, and is not judged."""

GROWTH = 2.0
"""Mean SIM *rises* if it ends above so many times that under conventional learning."""


class Word(StrEnum):
    """The verdicts."""

    REPRODUCED = "reproduced"
    CHANGED = "reproduced under stated changes"
    LARGER = "larger than printed"
    PART = "in part"
    FAILED = "not reproduced"
    UNDEFINED = "undefined"
    SMALLER = "not attempted at this scale"


MARKS = dict(zip(Word, ("✓", "(✓)", "↑", "~", "✗", "?", "–"), strict=True))
"""Each verdict's mark."""


@dataclass(frozen=True)
class Verdict:
    """One item of the paper held against runs.

    Attributes:
        key: of :data:`~llbook.report.paper.ITEMS`.
        ours: what the runs have.
        word: the rule's.
    """

    key: str
    ours: str
    word: Word


def verdict_table(found: Iterable[Verdict]) -> str:
    """Item, the paper's value, ours and the verdict, as a Markdown table."""
    rows = [[ITEMS[v.key].title, ITEMS[v.key].printed, v.ours, v.word] for v in found]
    return table(["item", "paper", "companion", "verdict"], rows)


def joint_table(settings: Mapping[str, Sequence[Verdict]]) -> str:
    """A row per setting with the marks of all items in it, and how many hold there together.

    What is undefined in a setting is not counted.
    """
    keys = dict.fromkeys(verdict.key for found in settings.values() for verdict in found)
    rows = []
    for name, found in settings.items():
        words = {verdict.key: verdict.word for verdict in found}
        judged = [word for word in words.values() if word != Word.UNDEFINED]
        marks = [MARKS[words[key]] if key in words else "" for key in keys]
        rows.append([name, *marks, f"{judged.count(Word.REPRODUCED)} of {len(judged)}"])
    return table(["setting", *(ITEMS[key].name for key in keys), "hold together"], rows)


def sized(value: float, paper: float, *, some: bool = True) -> Word:
    """A size against the paper's; ``some``: whether there is an effect of the right sign at all."""
    if not (some and value > 0):  # nan is not
        return Word.FAILED
    if value > FACTOR * paper:
        return Word.LARGER
    return Word.REPRODUCED if value >= paper / FACTOR else Word.PART


def graded(value: float, full: float, part: float) -> Word:
    """*Reproduced* above ``full``, *in part* above ``part``; undefined where the value is."""
    if np.isnan(value):
        return Word.UNDEFINED
    return Word.REPRODUCED if value > full else Word.PART if value > part else Word.FAILED


def known_mean(numbers: Iterable[float]) -> float:
    """The mean of those that are defined; nan if none is."""
    known = [value for value in numbers if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def area_changes(runs: Sequence[Arrays], *, name: str = "auc") -> list[float]:
    """AUC after the search over AUC before it, minus one, of each run (``auc`` or ``desired_auc``)."""
    return [run[f"history_{name}"][-1] / run[f"history_{name}"][0] - 1 for run in runs]


def gain(changes: Sequence[float]) -> str:
    """``"gain"`` or ``"loss"`` where all runs change by more than :data:`MEASURABLE`, else ``"nothing"``.

    Raises:
        ValueError: no run at all.
    """
    if not len(changes):
        raise ValueError("expected at least one change, got none")
    if np.max(changes) < -MEASURABLE:  # nan, of a run without an area, is neither
        return "gain"
    return "loss" if np.min(changes) > MEASURABLE else "nothing"


def rank_correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Spearman's ρ, which no single policy far from the others decides.

    Returns:
        nan over fewer than :data:`FEWEST_POLICIES` finite pairs, or where one side never changes.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    if keep.sum() < FEWEST_POLICIES or np.ptp(x[keep]) == 0 or np.ptp(y[keep]) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # takes long to import

    return float(spearmanr(x[keep], y[keep]).statistic)


def _size(run: Arrays) -> float:
    """N, of a run that has all of its steps."""
    return float(np.mean(run["support"]) / run["history_support_share"][-1])


def near_zero_share(run: Arrays) -> float:
    """Of the heat map's cells with CT > 0, the share below a tenth of 1/N; nan without such a cell."""
    if "heat_map" not in run:
        return float("nan")
    cells = run["heat_map"]
    if "heat_map_contributes" in run:  # the perceptron's contribute at every cell
        cells = cells[run["heat_map_contributes"].astype(bool)]
    return float(np.mean(cells * _size(run) < 0.1)) if cells.size else float("nan")


def expected_zeros(run: Arrays, first: int | None = None) -> float:
    """Share of γ = 0 where CT ≤ 0 if the zeros of each step fell on its examples blindly.

    Idle examples and zero weights are both more frequent at some steps than at others: their
    share of all weights would mix the two.

    Args:
        run: its arrays.
        first: of the first so many steps; of all unless given.

    Returns:
        Σ_t i_t (1 − s_t/N) / Σ_t i_t with i_t examples of CT ≤ 0 and s_t weights above zero at
        step t; nan where that is zero. Of a run without i_t, as early records are, 1 − Σ_t s_t/(T N).
    """
    if "idle" not in run:
        return float(1 - run["history_support_share"][-1])
    idle = run["idle"][:first]
    if not idle.sum():
        return float("nan")
    return float(np.average(1 - run["support"][:first] / _size(run), weights=idle))


def chance_similarity(run: Arrays, *, draws: int = 200, seed: int = 0) -> NDArray[np.float64]:
    """Largest SIM_t of policies that use as many examples at each step, at random; shape (D,).

    Where the run has them, under ``permuted_similarity``, these are of its own policy, dealt to
    other examples (:func:`llbook.measures.law.permuted_similarity`), less those whose deviations
    underflowed. Otherwise the contributions
    of s_t examples are drawn as normal ones, with the mean over deviation that all examples have
    at that step of conventional learning; of s of these the mean is normal, the squared
    deviation χ² with s − 1 degrees of freedom, and both are independent.
    """
    if "permuted_similarity" in run:
        drawn = np.asarray(run["permuted_similarity"], dtype=float)
        # in some records the squares of deviations underflowed, and SIM is the largest float32
        known = drawn[~np.isnan(drawn) & (drawn != np.finfo(np.float32).max)]
        return known if known.size else np.array([np.nan])
    sizes, centre = run["support"].astype(float), run["similarity"][0]
    use = (sizes >= 2) & np.isfinite(centre)
    if not use.any():
        return np.full(draws, np.nan)
    sizes, generator = sizes[use], np.random.default_rng(seed)
    shape = (draws, len(sizes))
    mean = centre[use] + generator.normal(size=shape) / np.sqrt(sizes)
    return np.max(mean / np.sqrt(generator.chisquare(sizes - 1, shape) / sizes), 1)


def _largest(curve: NDArray[Any]) -> float:
    return float(np.nanmax(curve)) if (~np.isnan(curve)).any() else float("nan")


def _area(key: str, paper: Experiment, runs: Sequence[Arrays]) -> Verdict:
    changes = area_changes(runs)
    word = sized(-float(np.mean(changes)), -paper.change, some=gain(changes) == "gain")
    return Verdict(key, per_cent(changes), word)


def _acceleration(key: str, paper: Experiment, runs: Sequence[Arrays]) -> Verdict:
    ratios = values(runs, "ar")
    mean = float(np.mean(ratios))  # nan if one is
    some = gain(area_changes(runs)) == "gain" and mean > 1
    return Verdict(key, spread(ratios), sized(mean, paper.ar, some=some))


def largest_similarity(key: str, paper: Experiment, runs: Sequence[Arrays]) -> Verdict:
    """Figure 6: the mean over runs of the largest SIM_t of the last policy, against the paper's.

    It counts only if, in every run, the search gains on the test set and the largest SIM_t is
    above that under conventional learning, and above 95% of :func:`chance_similarity`; in part
    at most unless it is above the former by :data:`FACTOR`.
    """
    start, top = (
        np.array([_largest(run["similarity"][place]) for run in runs]) for place in (0, -1)
    )
    chance = np.array([np.quantile(chance_similarity(run), 0.95, method="higher") for run in runs])
    some = gain(area_changes(runs)) == "gain" and bool((top > np.maximum(start, chance)).all())
    word = sized(float(np.mean(top)), paper.similarity, some=some)
    if some and not (top > FACTOR * start).all():
        word = Word.PART
    ours = f"{spread(top, 2)}; {spread(start, 2)} under conventional learning"
    return Verdict(key, f"{ours}; up to {spread(chance, 2)} by chance", word)


def similarity_rises(key: str, runs: Sequence[Arrays], *, examples: str = "") -> Verdict:
    """Figures 3B and 7: whether mean SIM rises with CR over the policies of the search, and far.

    In every run Spearman's ρ, over :data:`FEWEST_POLICIES` at least, is above 0.9, the policy of
    the largest CR has the largest mean SIM, and that is more than :data:`GROWTH` times that of
    conventional learning. In part: ρ above 0.3 in every run that has one; over one run in part
    at most.

    Args:
        key: of the item.
        runs: of one setting.
        examples: ``"desired_"`` for the desired examples in the place of the test examples.
    """
    follows, rises = [], len(runs) > 1
    for run in runs:
        ratio, mean = 1 / run[f"history_{examples}auc"], run[f"history_{examples}similarity"]
        follows.append(rank_correlation(ratio, mean))
        end = mean[np.argmax(ratio)]
        rises &= bool(end == np.nanmax(mean) and end > GROWTH * max(mean[0], 0))
    known = [value for value in follows if not np.isnan(value)]
    if not known:
        return Verdict(key, "too few policies", Word.UNDEFINED)
    before, after = (
        number(known_mean(values(runs, f"{examples}similarity", place)), 2) for place in (0, -1)
    )
    ours = f"rank correlation {spread(np.round(known, 2) + 0.0, 2)}; mean SIM {before} → {after}"
    full = 0.9 if rises and len(known) == len(runs) else np.inf
    return Verdict(key, ours, graded(min(known), full, 0.3))


def zero_weights(key: str, runs: Sequence[Arrays]) -> Verdict:
    """Figure 8: whether examples with CT ≤ 0 get no weight under the last policy.

    The share of γ = 0 among such (n, t) is above 90% and at most half as far from all of them as
    :func:`expected_zeros`; in part: above 50%, and above what is expected. A policy of few weights
    has zeros nearly everywhere.
    """
    zero = known_mean(values(runs, "zero_weight_share"))
    if np.isnan(zero):
        return Verdict(key, "no such example", Word.UNDEFINED)
    blind = known_mean(expected_zeros(run) for run in runs)
    ours = f"{100 * zero:.1f}%; {100 * blind:.1f}% by chance"
    if zero <= blind:
        return Verdict(key, ours, Word.FAILED)
    word = graded(zero, 0.9, 0.5)
    weak = word == Word.REPRODUCED and 1 - zero > (1 - blind) / 2
    return Verdict(key, ours, Word.PART if weak else word)


def learned_below(runs: Sequence[Arrays], bound: float) -> float:
    """Of the learned (n, t) of all runs, the share below ``bound`` of the largest weight; or nan."""
    counts = np.sum([run["learned_counts"] for run in runs], axis=0)
    below = counts[: round(bound * len(counts))].sum()
    return float(below / counts.sum()) if counts.sum() else float("nan")


def _share(key: str, share: float, full: float, part: float, missing: str) -> Verdict:
    ours = missing if np.isnan(share) else f"{100 * share:.0f}%"
    return Verdict(key, ours, graded(share, full, part))


def figure_verdicts(part: str, paper: Experiment, runs: Sequence[Arrays]) -> list[Verdict]:
    """Figures 4 to 10 of an experiment held against runs of one setting.

    The rules: the change of AUC/T, which has to be a :func:`gain`, and AR, which has to be above
    1 and defined in every run of such, as :func:`sized` has it. Figures 6, 7 and 8 by
    :func:`largest_similarity`, :func:`similarity_rises` and :func:`zero_weights`. Learned examples
    below a fifth of the largest weight: above 90%, in part above 50%. Weights below a tenth of
    1/N where CT > 0 (:func:`near_zero_share`): above 50%, above 10%.

    Args:
        part: ``"a"`` or ``"b"``, as the paper's figures have it.
        paper: what it reports.
        runs: at least one.
    """
    found = [
        _area(f"4{part}", paper, runs),
        _acceleration(f"5{part}", paper, runs),
        largest_similarity(f"6{part}", paper, runs),
        similarity_rises(f"7{part}", runs),
        zero_weights(f"8{part}", runs),
    ]
    if "learned_counts" in runs[0]:
        below, share = LEARNED
        learned = _share("9", learned_below(runs, below), share, 0.5, "no such example")
        # a weight that is none is below it, whether its example is learned or not
        anyway = 100 * (1 - np.mean(values(runs, "support_share")))
        note = "" if learned.word == Word.UNDEFINED else f"; at least {anyway:.0f}% of all"
        found.append(replace(learned, ours=learned.ours + note))
    near = known_mean(near_zero_share(run) for run in runs)
    return [*found, _share(f"10{part}", near, 0.5, 0.1, "not in these runs")]
