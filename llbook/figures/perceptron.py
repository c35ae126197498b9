"""The paper's figures of the perceptron experiment, and those of its open points.

Every function takes the arrays of a run (see
:func:`llbook.experiments.perceptron.compute`) and returns a Matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from llbook.figures import style
from llbook.figures.search import evaluations

__all__ = [
    "compression_fit",
    "early_heat_map",
    "early_heat_maps",
    "first_order_gaps",
    "learned_weights",
    "loss_curves",
    "search_progress",
    "settings_spread",
    "similarity_against_compression",
    "similarity_against_loss",
    "zero_weights",
]

Arrays = Mapping[str, NDArray[Any]]


def loss_curves(run: Arrays, *, paper_ratio: float | None = None, from_zero: bool = True) -> Figure:
    """Figure 5: test loss of conventional and of near-optimal learning, with AR and ΔAUC.

    Args:
        run: arrays of a run.
        paper_ratio: the paper's AR, written beside that of the run.
        from_zero: whether the losses begin at zero, or a little below the least.
    """
    old, new = run["test_curves"][0], run["test_curves"][-1]
    steps = run["curve_steps"]
    ratio = float(run["history_ar"][-1])
    figure, axes = style.subplots()
    axes.plot(steps, old, color=style.CONVENTIONAL, label="conventional, γ = 1/N")
    axes.plot(steps, new, color=style.NEAR_OPTIMAL, label="near-optimal", linestyle="-")
    best = float(np.min(old))
    area = run["history_auc"]
    change = f"ΔAUC {100 * (area[-1] / area[0] - 1):+.1f}%".replace("-", "−")
    if np.isfinite(ratio):
        achieved = steps[1 + int(np.argmin(old[1:]))]
        reached = achieved / ratio
        axes.plot([reached, achieved], [best, best], color="#555555", linestyle=":", linewidth=1.2)
        axes.plot([reached], [best], marker="o", color=style.NEAR_OPTIMAL)
        text = f"AR {ratio:.2f}, {change}"
        if paper_ratio is not None:
            text += f"\n(paper: {paper_ratio:.2f})"
        if from_zero:
            at = {"xytext": (12, -14), "textcoords": "offset points", "va": "top"}
            axes.annotate(text, (reached, best), **at)
        else:  # the curves end near the dot; they begin high, on the left
            axes.text(0.03, 0.05, text, transform=axes.transAxes)
    else:
        text = f"dotted line never reached, {change}"
        axes.axhline(best, color="#555555", linestyle=":", linewidth=1.2)
        axes.text(0.98, 0.7, text, transform=axes.transAxes, ha="right")
    axes.set(xlabel="step t", ylabel=r"test loss $L_\mathrm{dsr}(\theta_t)$ (nats)")
    top = min(float(old[0]), 4 * float(np.median(old))) * 1.05
    # room below the curves for the note beside the dot
    least = min(best, float(np.min(new)))
    axes.set_ylim(bottom=0 if from_zero else least - 0.2 * (top - least), top=top)
    axes.legend()
    return figure


def search_progress(
    run: Arrays, *, paper: tuple[float, float] | None = None, from_zero: bool = True
) -> Figure:
    """Figure 4: AUC/T on both sets, and CR in both unit conventions, over gradient evaluations.

    Args:
        run: arrays of a run.
        paper: the paper's AUC/T before and after, drawn as marks.
        from_zero: whether both scales begin at zero.
    """
    spent = evaluations(run)
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.6))
    left.plot(spent, run["history_auc"], color=style.NEAR_OPTIMAL, label="test")
    left.plot(
        spent,
        run["history_desired_auc"],
        color=style.CONVENTIONAL,
        linestyle="--",
        label="desired (optimised)",
    )
    if paper is not None:
        left.plot(
            [spent[0], spent[-1]],
            paper,
            color=style.PAPER,
            marker="D",
            linestyle="none",
            label="paper, read off Fig. 4a",
            clip_on=False,
        )
    left.set(xlabel="gradient evaluations", ylabel="AUC / T (nats)")
    left.legend()
    right.plot(
        spent,
        run["history_cr_mixed"],
        color=style.NEAR_OPTIMAL,
        linestyle="--",
        label="paper's: bits over nats",
    )
    right.plot(spent, run["history_cr"], color=style.NEAR_OPTIMAL, label="in one unit")
    right.set(xlabel="gradient evaluations", ylabel="compression ratio CR (test)")
    if from_zero:
        left.set_ylim(bottom=0)
        right.set_ylim(bottom=0)
    right.legend(loc="lower right" if from_zero else "center right")
    return figure


def similarity_against_loss(run: Arrays, *, at_most: int = 9, scale: str = "log") -> Figure:
    """Figure 6: SIM_t against L_dsr(θ_t), a line for each of ``at_most`` policies of the search.

    ``scale`` is that of the loss, ``"log"`` or ``"linear"``.
    """
    rows = np.unique(np.linspace(0, len(run["curve_epochs"]) - 1, at_most).round().astype(int))
    chosen = np.searchsorted(run["history_epoch"], run["curve_epochs"])
    ratios = run["history_cr_mixed"][chosen]
    norm = Normalize(float(ratios.min()), float(ratios.max()))
    figure, axes = style.subplots()
    mappable = ScalarMappable(norm, style.RATIO_MAP)
    for row in rows:
        curve = run["similarity"][row]
        loss = run["test_curves"][row][: len(curve)]
        axes.plot(loss, curve, color=mappable.to_rgba(ratios[row]), linewidth=1.4)
    axes.set(
        xlabel=r"test loss $L_\mathrm{dsr}(\theta_t)$ (nats; training runs to the left)",
        ylabel=r"$\mathrm{SIM}_t$",
        xscale=scale,
    )
    figure.colorbar(mappable, ax=axes, label="CR of the policy (paper's unit)")
    return figure


def _law(ratio: NDArray[Any], scale: float, limit: float, power: float) -> NDArray[Any]:
    return np.log(scale) - power * np.log(limit - ratio)


def compression_fit(
    ratio: NDArray[Any], similarity: NDArray[Any]
) -> tuple[NDArray[Any], float] | None:
    """Least squares for SIM = log(a / (b - CR)^c) with b > max CR (the form of Fig. 7).

    Returns:
        (a, b, c) and r², or None where there is nothing to draw: the fit does not converge, is flat,
        has a parameter at the border of what it may be, or leaves half of the variance.
    """
    keep = np.isfinite(ratio) & np.isfinite(similarity)
    x, y = ratio[keep], similarity[keep]
    if len(x) < 5 or np.ptp(x) == 0:
        return None
    top = float(x.max())
    least, most = (1e-9, top * (1 + 1e-6), 0.0), (1e9, top * 10, 1e3)
    try:
        values, _ = curve_fit(
            _law,
            x,
            y,
            p0=(1.0, top + 0.1 * np.ptp(x), 0.1),
            bounds=(least, most),
            maxfev=20000,
        )
    except RuntimeError:
        return None
    quality = 1 - float(((y - _law(x, *values)) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    a, b, c = values
    inside = 10 * least[0] < a < most[0] / 10 and b < 0.99 * most[1] and c > 1e-3
    return (values, quality) if inside and quality >= 0.5 else None


def similarity_against_compression(run: Arrays) -> Figure:
    """Figure 7a: mean SIM against CR with the fitted divergence; the λ-version beside it."""
    ratio, mean = run["history_cr_mixed"], run["history_similarity"]
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.6))
    left.plot(
        ratio, mean, marker="o", linestyle="none", markersize=4, label="policies of the search"
    )
    fitted = compression_fit(ratio, mean)
    if fitted is not None:
        values, quality = fitted
        grid = np.linspace(float(ratio.min()), float(ratio.max()), 200)
        left.plot(
            grid,
            _law(grid, *values),
            color=style.PAPER,
            label=f"log(a/(b − CR)$^c$), b = {values[1]:.2f}, r² = {quality:.3f}",
        )
    left.set(xlabel="CR (paper's unit)", ylabel="mean SIM", title="with ∇L (the law)")
    left.legend(fontsize=8.5, loc="upper left")
    right.plot(
        ratio,
        run["history_future_similarity"],
        marker="s",
        linestyle="none",
        markersize=4,
        color=style.PAPER,
    )
    right.set(xlabel="CR (paper's unit)", ylabel="mean SIM", title="with λ (the exact condition)")
    return figure


def zero_weights(run: Arrays) -> Figure:
    """Figure 8a: of the (n, t) with CT ≤ 0, the share with γ = 0, over the search and over steps."""
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.6), sharey=True)
    left.plot(
        run["history_cr_mixed"],
        100 * run["history_zero_weight_share"],
        marker="o",
        linestyle="none",
        markersize=4,
    )
    left.set(
        xlabel="CR (paper's unit)",
        ylabel="share of γ = 0 where CT ≤ 0 (%)",
        ylim=(-2, 102),
        title="all steps, policies of the search",
    )
    idle = run["idle"]
    share = np.divide(
        run["idle_without_weight"], idle, where=idle > 0, out=np.full(len(idle), np.nan)
    )
    steps = run["curve_steps"][:-1]
    right.set(title="last policy, step by step")
    if steps[-1] < 500:  # less than two decades: the ticks of a logarithm would crowd
        right.plot(steps, 100 * share, color=style.PAPER)
        right.set(xlabel="step t")
    else:
        right.plot(1 + steps, 100 * share, color=style.PAPER)
        right.set(xlabel="step t + 1", xscale="log")
    return figure


def learned_weights(run: Arrays, bound: float, share: float) -> Figure:
    """Figure 9: distribution of γ_{n,t}/max_n γ_{n,t} over examples already learned.

    Args:
        run: its arrays.
        bound, share: the paper's; more than this share lies below the bound.
    """
    counts = run["learned_counts"]
    figure, axes = style.subplots()
    total = counts.sum()
    if total == 0:
        axes.text(
            0.5,
            0.5,
            "no example ever has a loss below 1e-6 in this run",
            transform=axes.transAxes,
            ha="center",
        )
    else:
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.plot(edges, 100 * np.concatenate([[0], counts.cumsum()]) / total)
        axes.axvline(bound, color=style.PAPER, linestyle="--", linewidth=1.2)
        axes.axhline(
            100 * share,
            color=style.PAPER,
            linestyle="--",
            linewidth=1.2,
            label=f"paper: more than {100 * share:.0f}% below {bound:g}",
        )
        axes.legend(loc="lower right")
    axes.set(
        xlabel=r"$\gamma_{n,t}\,/\,\max_n \gamma_{n,t}$",
        ylabel="share of learned (n, t) (%)",
        xlim=(0, 1),
        ylim=(0, 102),
    )
    return figure


def early_heat_map(run: Arrays) -> Figure:
    """Figure 10: γ of examples that contribute, those with weight at most steps on top.

    The steps are the first ones, or ``heat_map_steps`` where the run says which.
    """
    figure, axes = style.subplots(figsize=(6.4, 4.6))
    _draw_heat_map(axes, run)
    return figure


def early_heat_maps(runs: Mapping[str, Arrays]) -> Figure:
    """Figure 10 of several runs beside each other, by their titles."""
    figure, row = style.subplots(1, len(runs), figsize=(8.2, 3.9), squeeze=False)
    for axes, (title, run) in zip(row[0], runs.items(), strict=True):
        _draw_heat_map(axes, run)
        axes.set_title(title)
    return figure


def _draw_heat_map(axes: Axes, run: Arrays) -> None:
    weights = run["heat_map"]
    if weights.any():
        steps = run.get("heat_map_steps", np.arange(weights.shape[1]))
        # examples that carry weight at the same time stand together
        center = weights @ np.arange(weights.shape[1]) / np.maximum(weights.sum(1), 1e-30)
        order = np.lexsort((center, -(weights > 0).sum(1)))
        floor = float(weights.max()) * 1e-3
        image = axes.imshow(
            np.maximum(weights[order], floor),
            aspect="auto",
            interpolation="nearest",
            extent=(steps[0] - 0.5, steps[-1] + 0.5, len(weights) - 0.5, -0.5),
            cmap="magma",
            norm=LogNorm(floor, float(weights.max())),
            rasterized=True,
        )
        axes.figure.colorbar(image, ax=axes, label="γ (logarithmic; the darkest includes zero)")
    axes.set(xlabel="step t", ylabel="example (sorted)")
    axes.grid(False)


def first_order_gaps(run: Arrays) -> Figure:
    """How far the last policy is from first-order optimality, and how many examples it uses."""
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.6))
    steps = run["curve_steps"][:-1]
    positive = run["future_mean"] > 0
    left.plot(
        steps[positive],
        run["relative_gap"][positive],
        marker=".",
        markersize=2,
        linestyle="none",
        label="relative",
    )
    left.set(xlabel="step t", ylabel="relative first-order gap", yscale="log")
    right.plot(steps, run["support"])
    right.set(xlabel="step t", ylabel="examples with γ > 0", yscale="log")
    return figure


def settings_spread(
    names: Sequence[str],
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    ratio: Sequence[Sequence[float]],
    *,
    paper: tuple[float, float, float] | None = None,
) -> Figure:
    """AUC/T before and after, and AR, of several settings: a mark per seed.

    Args:
        names: one per setting.
        before, after, ratio: per setting, a value per seed.
        paper: the paper's three values, drawn as lines.
    """
    figure, (left, right) = style.subplots(
        1, 2, figsize=(8.8, 0.42 * len(names) + 1.7), sharey=True, width_ratios=(3, 2)
    )
    for row, (old, new, gain) in enumerate(zip(before, after, ratio, strict=True)):
        left.plot(
            old,
            [row] * len(old),
            marker="|",
            markersize=12,
            linestyle="none",
            color="#666666",
            label="conventional" if row == 0 else None,
        )
        left.plot(
            new,
            [row] * len(new),
            marker="o",
            markersize=5,
            linestyle="none",
            color=style.NEAR_OPTIMAL,
            label="searched" if row == 0 else None,
        )
        right.plot(
            gain,
            [row] * len(gain),
            marker="o",
            markersize=5,
            linestyle="none",
            color=style.NEAR_OPTIMAL,
        )
    if paper is not None:
        for axes, values in ((left, paper[:2]), (right, paper[2:])):
            for value in values:
                axes.axvline(
                    value,
                    color=style.PAPER,
                    linestyle="--",
                    linewidth=1.2,
                    label="paper" if value == paper[0] else None,
                )
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel="test AUC / T (nats)", xlim=(0, None))
    right.set(xlabel="acceleration ratio AR", xscale="log")
    right.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    right.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
