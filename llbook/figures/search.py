"""Figures of how policies are searched, and of how near to an optimum they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from llbook.figures import style

__all__ = [
    "area_against_evaluations",
    "desired_and_test",
    "evaluations",
    "gradient_scales",
    "reduced_spectrum",
    "side_by_side",
    "starts",
    "weights_in_use",
]

Arrays = Mapping[str, NDArray[Any]]
_MARKS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")


def evaluations(run: Arrays) -> NDArray[Any]:
    """Gradient evaluations made at each measured policy; of the paper's method its updates and one."""
    return run.get("history_evaluations", run["history_epoch"] + 1)


def area_against_evaluations(runs: Mapping[str, Arrays], *, steps: int) -> Figure:
    """J over gradient evaluations, a line per search, and the median relative first-order gap.

    Args:
        runs: what a search is called → its arrays.
        steps: T.
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(8.6, 3.9))
    for number, (name, run) in enumerate(runs.items()):
        look = {
            "color": f"C{number}",
            "linestyle": _DASHES[number % len(_DASHES)],
            "marker": _MARKS[number % len(_MARKS)],
            "markersize": 4,
            "markevery": 0.2,
        }
        spent = evaluations(run)
        left.plot(spent, run["history_desired_auc"] * steps, label=name, **look)
        right.plot(spent, run["history_relative_gap"], **look)
    left.set(xlabel="gradient evaluations", ylabel=r"J = $\sum_t L_\mathrm{dsr}$ (nats)")
    left.set(xscale="log", yscale="log")
    ticks = [tick for tick in (50, 100, 150, 200, 300, 400, 500, 700, 1000) if _within(tick, left)]
    if len(ticks) > 1:
        left.set_yticks(ticks, [str(tick) for tick in ticks])
        left.minorticks_off()
    right.set(xlabel="gradient evaluations", ylabel="relative gap, median over steps")
    right.set(xscale="log", yscale="log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _within(value: float, axes: Axes) -> bool:
    low, high = axes.get_ylim()
    return low <= value <= high


def gradient_scales(scales: Mapping[str, NDArray[Any]]) -> Figure:
    """The spread of ∂J/∂γ over the examples of each step, of one policy or several.

    Args:
        scales: policy → max_n − min_n of ∂J/∂γ_{n,t} for each t, shape (T,).
    """
    figure, axes = style.subplots()
    for number, (name, scale) in enumerate(scales.items()):
        axes.plot(scale, label=name, linestyle=_DASHES[number % len(_DASHES)])
    axes.set(
        xlabel="step t",
        ylabel=r"spread of $\partial J/\partial\gamma_{\cdot,t}$ (nats)",
        yscale="log",
    )
    axes.legend()
    return figure


def side_by_side(runs: Mapping[str, Arrays]) -> Figure:
    """What Figures 5a, 6a, 7a, 8a and 9 show, for several searches in one scale each.

    Args:
        runs: what a search is called → its arrays (a record's are enough).
    """
    figure, grid = style.subplots(2, 3, figsize=(9.6, 6.4))
    loss, curve, similar, zero, learned, used = grid.ravel()
    for number, (name, run) in enumerate(runs.items()):
        look = {"color": f"C{number}", "linestyle": _DASHES[number % len(_DASHES)]}
        dots = {"color": f"C{number}", "marker": _MARKS[number % len(_MARKS)], "linestyle": "none"}
        steps, last = run["curve_steps"], run["test_curves"][-1]
        if number == 0:
            loss.plot(steps, run["test_curves"][0], color=style.CONVENTIONAL, label="equal weights")
        loss.plot(steps, last, label=name, **look)
        sim = run["similarity"][-1]
        curve.plot(last[: len(sim)], sim, linewidth=1, **look)
        ratio = run["history_cr_mixed"]
        similar.plot(ratio, run["history_similarity"], markersize=4, **dots)
        zero.plot(ratio, 100 * run["history_zero_weight_share"], markersize=4, **dots)
        counts = run["learned_counts"]
        if counts.sum():
            edges = np.linspace(0, 1, len(counts) + 1)
            learned.plot(edges, 100 * np.append(0, counts.cumsum()) / counts.sum(), **look)
        used.plot(steps[:-1], run["support"], linewidth=1, **look)
        if "sparse_steps" in run:
            named = "sparse_steps" not in _earlier(runs, number)
            _representatives(run, zero, used, color=f"C{number}", named=named)
    loss.set(title="Fig. 5a", xlabel="step t", ylabel="test loss (nats)", xscale="symlog")
    loss.set_ylim(bottom=0)
    curve.set(title="Fig. 6a", xlabel="test loss (nats)", ylabel=r"$\mathrm{SIM}_t$", xscale="log")
    similar.set(title="Fig. 7a", xlabel="CR (paper's unit)", ylabel="mean SIM")
    zero.set(title="Fig. 8a", xlabel="CR (paper's unit)", ylabel="zero where CT ≤ 0 (%)")
    zero.set_ylim(-3, 103)
    learned.set(title="Fig. 9", xlabel=r"$\gamma/\max\gamma$", ylabel="learned (n, t) (%)")
    learned.axvline(0.2, color="#777777", linestyle=":", linewidth=1)
    used.set(title="examples in use", xlabel="step t", ylabel="support", yscale="log")
    handles, labels = loss.get_legend_handles_labels()
    more = used.get_legend_handles_labels()
    figure.legend(handles + more[0], labels + more[1], loc="outside upper center", ncols=3)
    return figure


def _earlier(runs: Mapping[str, Arrays], number: int) -> set[str]:
    return {key for run in list(runs.values())[:number] for key in run}


def _representatives(run: Arrays, zero: Any, used: Any, *, color: str, named: bool) -> None:
    """The other policies of a run's last process: fewest weights, and least idle ones."""
    ratio, idle = run["history_cr_mixed"][-1], run["sparse_idle"].sum()
    for objective, mark in (("fewest", "x"), ("idle", "+")):
        share = 100 * run[f"{objective}_idle_without_weight"].sum() / max(1, idle)
        zero.plot([ratio], [share], marker=mark, markersize=9, color=color, linestyle="none")
    used.plot(
        run["sparse_steps"],
        run["fewest_support"],
        color=color,
        linestyle=":",
        label="the same process, fewest weights" if named else None,
    )


def weights_in_use(steps: NDArray[Any], before: NDArray[Any], after: Mapping[str, Any]) -> Figure:
    """Size of the support at each step: of a policy and of others with the same process.

    Args:
        steps: t, shape (S,).
        before: of the policy, shape (S,).
        after: representative → sizes, shape (S,).
    """
    figure, axes = style.subplots()
    axes.plot(steps, before, label="as searched")
    for number, (name, sizes) in enumerate(after.items()):
        axes.plot(steps, sizes, label=name, linestyle=_DASHES[1 + number % 3])
    axes.set(xlabel="step t", ylabel="examples in use", yscale="log")
    axes.legend()
    return figure


def starts(
    groups: Sequence[str],
    objective: NDArray[Any],
    similarity: NDArray[Any],
    zeros: NDArray[Any],
) -> Figure:
    """Where searches from several starts end: J, mean SIM and the share of zeros, as histograms.

    Args:
        groups: the start of each search, M names.
        objective: J in nats, shape (M,).
        similarity: mean SIM, shape (M,).
        zeros: share of zero weights where CT ≤ 0, shape (M,).
    """
    figure, panels = style.subplots(1, 3, figsize=(9.2, 3.4))
    names = list(dict.fromkeys(groups))
    shown = (
        (objective, "J (nats)"),
        (similarity, "mean SIM"),
        (100 * zeros, "zero where CT ≤ 0 (%)"),
    )
    for axes, (numbers, label) in zip(panels, shown, strict=True):
        known = np.isfinite(numbers)  # a search may have diverged
        edges = np.histogram_bin_edges(numbers[known], bins=8)
        parts = [numbers[known & (np.asarray(groups) == name)] for name in names]
        axes.hist(parts, bins=edges, stacked=True, label=names, edgecolor="white")
        axes.set(xlabel=label)
    panels[0].set(ylabel="searches")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def desired_and_test(
    sizes: NDArray[Any], conventional: Arrays, searched: Arrays, stopped: NDArray[Any]
) -> Figure:
    """Areas over desired and test examples against K, a mark per seed and lines through the means.

    Args:
        sizes: K of each search, shape (M,).
        conventional, searched: ``desired`` and ``test``, AUC/T in nats, shape (M,).
        stopped: the test AUC/T of the measured policy with the least, shape (M,).
    """
    figure, axes = style.subplots()
    shown = (
        ("equal weights, test", conventional["test"], style.CONVENTIONAL, "-", "o"),
        ("searched, desired", searched["desired"], style.NEAR_OPTIMAL, "--", "s"),
        ("searched, test", searched["test"], style.NEAR_OPTIMAL, "-", "D"),
        ("searched and stopped in time, test", stopped, style.PAPER, "-.", "^"),
    )
    unique = np.unique(sizes)
    for label, numbers, color, dashes, mark in shown:
        axes.plot(sizes, numbers, color=color, marker=mark, linestyle="none", markersize=4)
        means = [numbers[sizes == size].mean() for size in unique]
        axes.plot(unique, means, color=color, linestyle=dashes, label=label)
    axes.set(xlabel="desired examples K", ylabel="AUC / T (nats)", xscale="log")
    axes.set_xticks(unique, [f"{size:,}" for size in unique], fontsize=9)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9)
    return figure


def reduced_spectrum(eigenvalues: NDArray[Any]) -> Figure:
    """Eigenvalues of the Hessian of J on the face of the simplices that a policy lies on.

    Args:
        eigenvalues: ascending, in nats, shape (F,).
    """
    figure, axes = style.subplots()
    place = np.arange(1, len(eigenvalues) + 1)
    negative = eigenvalues < 0
    for part, mark, label in ((~negative, "o", "positive"), (negative, "v", "negative")):
        if part.any():
            axes.plot(
                place[part],
                np.abs(eigenvalues[part]),
                marker=mark,
                linestyle="none",
                markersize=4,
                label=label,
            )
    axes.set(xlabel="eigenvalue, ascending", ylabel="absolute value (nats)")
    if len(eigenvalues):
        axes.set(yscale="log")
        axes.legend()
    return figure
