"""What is said of other optimisers: what a policy saves, and what a larger rate would have saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llbook.report.numbers import number, spread
from llbook.report.selection import percent
from llbook.report.verdicts import known_mean
from llbook.runs.run import Run

__all__ = ["against_least", "equal_rate", "mean_of", "mean_transfer", "saved", "summary"]


def saved(area: float | NDArray[np.float64], usual: float | NDArray[np.float64]) -> float:
    """1 - J/J of equal weights; of several trainings the ratio of their sums."""
    return float(1 - np.sum(area) / np.sum(usual))


def equal_rate(factors: NDArray[np.float64], usual: NDArray[np.float64], area: float) -> float:
    """By what the rate must be multiplied for equal weights to have this area.

    Interpolated between the two first neighbours between which J falls through it, in logarithms.

    Args:
        factors: multiples of the rate, ascending, shape (F,).
        usual: J under equal weights at each of them, shape (F,); nan where it diverged.
        area: J to be had.

    Returns:
        The multiple; nan where J falls through the area between no two of them.
    """
    x, y = np.log(factors), np.log(usual)
    for left in range(len(x) - 1):
        above, below = y[left] - np.log(area), y[left + 1] - np.log(area)
        if above >= 0 >= below:
            share = above / (above - below) if above > below else 0.0
            return float(np.exp(x[left] + share * (x[left + 1] - x[left])))
    return float("nan")


def mean_transfer(
    runs: Sequence[Run], words: Mapping[str, str]
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Rows, columns and cells of :func:`llbook.figures.inner.transfer`: area saved on test examples.

    nan where a training diverged under any seed.

    Args:
        runs: of :data:`llbook.experiments.inner.INNER`, of one setting and several seeds.
        words: name of an optimiser → what it is called.
    """
    names = [words[str(name)] for name in runs[0].arrays["names"]]
    areas = np.array([run.arrays["test"] for run in runs])
    return names, names, (1 - areas[:, 1:] / areas[:, :1]).mean(0)


def against_least(run: Run) -> NDArray[np.float64]:
    """Area that a policy saves against equal weights at the rate of their least area.

    On the desired examples, shape (M, M): rows, what the policy was searched for; columns, what
    trains under it.

    Args:
        run: of :data:`llbook.experiments.inner.INNER`.
    """
    arrays = run.arrays
    return np.asarray(1 - arrays["desired"][1:] / np.nanmin(arrays["rate_area"], 1))


def mean_of(runs: Sequence[Run]) -> str:
    """Of how many seeds a number is the mean, in words."""
    return f"mean of {len(runs)} seeds" if len(runs) > 1 else "one seed"


def summary(runs: Sequence[Run], words: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: an optimiser a line, means and ranges over the seeds.

    Args:
        runs, words: as for :func:`mean_transfer`.
    """
    header = ["optimiser", "rate", "saved", "AR", "new order", "new θ₀", "new data"]
    header += ["SIM with ∇L", "with M∇L", "with p"]
    rows, one = [], [run.arrays for run in runs]
    for m, name in enumerate(runs[0].arrays["names"]):
        shares = [[1 - a["test"][m + 1, m] / a["test"][0, m] for a in one]]
        shares += [
            [1 - a["changed_test"][m, c, 1] / a["changed_test"][m, c, 0] for a in one]
            for c in range(3)
        ]
        told = [percent(values) for values in shares]
        rows.append(
            [
                words[str(name)],
                ", ".join(f"{rate:.3g}" for rate in sorted({float(a["rates"][m]) for a in one})),
                told[0],
                spread([a["ar"][m + 1, m] for a in one]),
                *told[1:],
                *(
                    number(known_mean([a[f"measured_{kind}similarity"][m, 1] for a in one]), 2)
                    for kind in ("", "preconditioned_", "future_")
                ),
            ]
        )
    return header, rows
