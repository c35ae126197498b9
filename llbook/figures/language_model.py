"""Figures that only the language-model experiment has; the others it shares with the perceptron's.

Every function takes the arrays of a run, as the language-model experiment stores
them, or numbers of several runs, and returns a Matplotlib figure. N is the number
of training examples, T of steps, E of measured epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from llbook.figures import style

__all__ = [
    "attention_scales",
    "clean_weights",
    "example_weights",
    "relative_weights",
    "settings_gains",
    "study_gains",
    "weight_quantiles",
]

Arrays = Mapping[str, NDArray[Any]]

_CLEAN, _PERTURBED = style.NEAR_OPTIMAL, style.PAPER


def relative_weights(run: Arrays) -> NDArray[Any]:
    """Weight of each example under the last policy over that of an equal share, shape (N,).

    Σ_t γ_{n,t} · N / T: 1 is what conventional learning gives, and the mean of all.
    """
    total = np.asarray(run["example_weight"], dtype=float)
    return total * len(total) / total.sum()


def clean_weights(run: Arrays, *, at_most: int = 6) -> Figure:
    """Total weight on the unperturbed examples over the steps, a line per policy of the search.

    Args:
        run: arrays of a run; ``clean_weight`` (E, T), ``curve_epochs`` (E,), ``curve_steps``
            (T + 1,), ``perturbed`` (N,).
        at_most: how many of the measured policies are drawn, first and last among them.
    """
    epochs, shares = run["curve_epochs"], run["clean_weight"]
    rows = np.unique(np.linspace(0, len(epochs) - 1, at_most).round().astype(int))
    mappable = ScalarMappable(Normalize(0, max(1, int(epochs[-1]))), style.RATIO_MAP)
    equal = 1 - float(np.mean(run["perturbed"]))
    figure, axes = style.subplots()
    for row in rows[1:] if len(rows) > 1 else rows:
        axes.plot(
            run["curve_steps"][:-1],
            100 * shares[row],
            color=mappable.to_rgba(epochs[row]),
            linewidth=1.5,
        )
    axes.axhline(
        100 * equal,
        color="#555555",
        linestyle="--",
        linewidth=1.2,
        label=f"γ = 1/N (epoch 0): {100 * equal:.0f}%",
    )
    axes.set(xlabel="step t", ylabel="weight on unperturbed examples (%)")
    axes.margins(y=0.15)
    axes.legend()
    figure.colorbar(mappable, ax=axes, label="search epoch of the policy")
    return figure


def example_weights(run: Arrays) -> Figure:
    """Weight of each example under the last policy, by edit distance and by mean contribution.

    Left: against the Levenshtein distance (tokens) between an example and its text before
    perturbation, with the mean of the examples at that distance. Right: against the mean
    of CT_{n,t} over t.
    """
    weight, edits, spoilt = relative_weights(run), run["edits"], run["perturbed"].astype(bool)
    figure, (left, right) = style.subplots(1, 2, figsize=(8.6, 3.8), sharey=True)
    # points at whole numbers would hide each other
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(edits))
    for chosen, colour, marker, label in (
        (~spoilt, _CLEAN, "o", "unperturbed"),
        (spoilt, _PERTURBED, "^", "perturbed"),
    ):
        options = {
            "color": colour,
            "marker": marker,
            "markersize": 3.5,
            "linestyle": "none",
            "alpha": 0.45,
            "markeredgewidth": 0,
            "rasterized": True,
        }
        left.plot(edits[chosen] + jitter[chosen], weight[chosen], label=label, **options)
        right.plot(run["example_contribution"][chosen], weight[chosen], **options)
    distances = np.unique(edits)
    left.plot(
        distances,
        [weight[edits == distance].mean() for distance in distances],
        color="#222222",
        marker="_",
        markersize=9,
        markeredgewidth=2,
        linestyle="none",
        label="mean at this distance",
    )
    for axes in (left, right):
        axes.axhline(1, color="#555555", linestyle="--", linewidth=1.2)
    left.set(xlabel="edit distance (tokens)", ylabel="weight over equal share")
    right.set(xlabel=r"mean contribution $\mathrm{CT}_n$ over the steps")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def weight_quantiles(run: Arrays) -> Figure:
    """Quantiles over the examples of γ_{n,t} · N under the last policy, step by step.

    Args:
        run: arrays of a run; ``weight_spread`` (Q, T) and the Q shares ``weight_quantiles``.
    """
    levels, spread = run["weight_quantiles"], run["weight_spread"]
    mappable = ScalarMappable(Normalize(0, 1), "cividis")
    figure, axes = style.subplots()
    steps = run["curve_steps"][:-1]
    for level, curve in zip(levels, spread, strict=True):
        colour = mappable.to_rgba(np.asarray(float(level)))
        axes.plot(steps, curve, color=colour, linewidth=1.4, label=f"{level:g}")
    axes.axhline(1, color="#555555", linestyle="--", linewidth=1.2)
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.4)
    axes.set(xlabel="step t", ylabel=r"$\gamma_{n,t}\,N$ (1: equal weights)")
    axes.set_ylim(bottom=-0.02)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], title="quantile", loc="outside right center")
    return figure


def settings_gains(
    names: Sequence[str],
    change: Sequence[Sequence[float]],
    desired_change: Sequence[Sequence[float]],
    ratio: Sequence[Sequence[float]],
    *,
    paper: tuple[float, float] | None = None,
) -> Figure:
    """Change of the area under the loss curve, and AR, of several settings: a mark per seed.

    Args:
        names: one per setting.
        change, desired_change: per setting, AUC after the search over AUC before it, minus one,
            on the test and on the desired examples; a value per seed.
        ratio: per setting, AR; nan where it is undefined.
        paper: the paper's change and AR, drawn as lines.
    """
    figure, (left, right) = style.subplots(
        1, 2, figsize=(8.8, 0.45 * len(names) + 1.9), sharey=True, width_ratios=(3, 2)
    )
    series = (
        (left, change, "o", style.NEAR_OPTIMAL, "test", 100),
        (left, desired_change, "|", "#666666", "desired (optimised)", 100),
        (right, ratio, "o", style.NEAR_OPTIMAL, None, 1),
    )
    for axes, rows, marker, colour, label, scale in series:
        for row, values in enumerate(rows):
            axes.plot(
                scale * np.asarray(values, dtype=float),
                [row] * len(values),
                marker=marker,
                markersize=12 if marker == "|" else 5,
                linestyle="none",
                color=colour,
                label=label if row == 0 else None,
            )
    left.axvline(0, color="#999999", linewidth=1)
    right.axvline(1, color="#999999", linewidth=1)
    if paper is not None:
        options = {"color": style.PAPER, "linestyle": "--", "linewidth": 1.2}
        left.axvline(100 * paper[0], label="paper", **options)
        right.axvline(paper[1], **options)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set(xlabel="ΔAUC (%)")
    right.set(xlabel="acceleration ratio AR")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def study_gains(
    x: Sequence[float],
    group: Sequence[str],
    change: Sequence[float],
    desired_change: Sequence[float],
    *,
    label: str,
    log: bool = True,
) -> Figure:
    """Change of the area over one setting, a line per value of the others (test and desired).

    Args:
        x: the setting on the horizontal axis, a value per trial.
        group: what the other settings were; trials that agree in it form a line.
        change, desired_change: relative change of AUC on the test and on the desired
            examples; nan for a training that diverged, drawn as a cross at the top.
        label: what ``x`` is.
        log: whether the horizontal scale is logarithmic.

    Raises:
        ValueError: sequences of different lengths.
    """
    lengths = {len(values) for values in (x, group, change, desired_change)}
    if len(lengths) != 1:
        raise ValueError(f"expected one value of each kind a trial, got {sorted(lengths)} values")
    places, test, desired = (np.asarray(v, dtype=float) for v in (x, change, desired_change))
    figure, axes = style.subplots(figsize=(6.8, 4.0))
    for number, name in enumerate(dict.fromkeys(group)):
        chosen = np.array([other == name for other in group])
        order = np.flatnonzero(chosen)[np.argsort(places[chosen], kind="stable")]
        (line,) = axes.plot(
            places[order],
            100 * test[order],
            marker="osD^vP*X"[number % 8],
            markersize=5,
            label=name,
        )
        axes.plot(
            places[order],
            100 * desired[order],
            color=line.get_color(),
            linestyle=":",
            marker=line.get_marker(),
            markersize=4,
            markerfacecolor="none",  # seen where a line is one point
            alpha=0.8,
        )
        lost = order[np.isnan(test[order])]
        axes.plot(
            places[lost],
            np.full(len(lost), 1.0),
            transform=axes.get_xaxis_transform(),
            color=line.get_color(),
            marker="x",
            markersize=9,
            markeredgewidth=2,
            linestyle="none",
            clip_on=False,
        )
    axes.axhline(0, color="#999999", linewidth=1)
    if log:
        axes.set_xscale("log")
        axes.set_xticks(np.unique(x), [f"{value:g}" for value in np.unique(x)])
        axes.minorticks_off()
    axes.set(xlabel=label, ylabel="ΔAUC (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def attention_scales(steps: NDArray[Any], curves: Mapping[str, NDArray[Any]]) -> Figure:
    """Test loss of conventional learning under each attention scale.

    Args:
        steps: t = 0 … T, shape (T + 1,).
        curves: name of the scale → test loss in nats, shape (T + 1,).
    """
    figure, axes = style.subplots()
    for (name, curve), line in zip(curves.items(), ("-", "--", ":"), strict=False):
        axes.plot(steps, curve, linestyle=line, label=name)
    axes.set(xlabel="step t", ylabel=r"test loss $L_\mathrm{dsr}(\theta_t)$ (nats)")
    axes.legend()
    return figure
