"""Figures of the scaling laws: the laws with their curves, the search for them, the ladder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import ArrayLike

from llbook.figures import style
from llbook.measures.scaling import Draws, Fit

__all__ = ["ladder", "laws", "no_law", "search"]

_COLOURS = (style.CONVENTIONAL, style.NEAR_OPTIMAL)
_NAMES = ("conventional", "near-optimal")


def laws(found: Fit, draws: Draws, *, horizon: float) -> Figure:
    """Loss curves, their laws, and the laws carried on to ``horizon`` steps with 90% bands.

    Args:
        found: laws of conventional and of near-optimal learning.
        draws: their resampled companions.
        horizon: last step shown on the right.

    Raises:
        ValueError: a horizon that is not beyond the last step.
    """
    if not horizon > found.steps[-1]:
        raise ValueError(
            f"horizon must be beyond the last step, {found.steps[-1]:g}, got {horizon}"
        )
    figure, (left, right) = style.subplots(1, 2, figsize=(8.8, 4.0), sharey=False)
    last = found.steps[-1]
    near = np.geomspace(max(found.laws[0].t0, found.steps[0]), last, 80)
    far = np.geomspace(last, horizon, 80)
    for curve, (law, colour, name) in enumerate(zip(found.laws, _COLOURS, _NAMES, strict=True)):
        marks = {"color": colour, "marker": "o", "markersize": 3, "linestyle": "none"}
        left.plot(found.steps, found.losses[curve], alpha=0.55, label=name, **marks)
        left.plot(near, law(near), color=colour, label=f"law, r² = {law.r2:.4f}")
        right.plot(near, law(near), color=colour)
        right.plot(far, law(far), color=colour, linestyle="--", label=name)
        low, high = np.nanquantile(draws.losses(curve, far), [0.05, 0.95], axis=0)
        right.fill_between(far, low, high, color=colour, alpha=0.18, linewidth=0)
    if found.laws[0].t0 > 0:
        left.axvline(found.laws[0].t0, color="#555555", linestyle=":", linewidth=1.2, label="t₀")
    right.axhline(
        found.laws[0].l0, color="#555555", linestyle=":", linewidth=1.2, label="L₀, of both"
    )
    for axes, title in ((left, "fitted"), (right, "carried on")):
        axes.set_xscale("log")
        axes.set(xlabel="step t", title=title)
    left.set(ylabel="test loss (nats)")
    left.legend(fontsize=9)
    right.legend(fontsize=9)
    return figure


def no_law(steps: ArrayLike, losses: ArrayLike) -> Figure:
    """In the place of the others, where no law can be fitted: the two loss curves alone.

    Args:
        steps: shape (n,).
        losses: of conventional and of near-optimal learning in nats, shape (2, n).
    """
    figure, axes = style.subplots()
    for curve, colour, name in zip(np.asarray(losses), _COLOURS, _NAMES, strict=True):
        axes.plot(np.asarray(steps), curve, color=colour, label=name)
    axes.set(xlabel="step t", ylabel="test loss (nats)", title="no law can be fitted")
    axes.legend()
    return figure


def search(found: Fit, draws: Draws) -> Figure:
    """How t_0 and L_0 were found: 1 - r² over both, and what the curve leaves open.

    Left: the map with the pair that was taken and the pairs of the resampled curves. Right:
    ln B and β of those.
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(8.8, 4.0))
    starts = np.maximum(found.starts, 0.5)  # 0 has no place on a logarithmic axis
    lost = np.log10(np.clip(1 - found.r2, 1e-9, 1))
    if len(starts) > 1 and len(found.floors) > 1:
        image = left.pcolormesh(
            starts, found.floors, lost, cmap="cividis", shading="nearest", rasterized=True
        )
        figure.colorbar(image, ax=left, label="log₁₀(1 − r²), mean of both laws")
    jitter = np.random.default_rng(0).normal(0, 0.03, len(draws.t0))
    left.plot(
        np.maximum(draws.t0, 0.5) * np.exp(jitter),
        draws.l0,
        marker="o",
        markersize=3,
        linestyle="none",
        color="#ffffff",
        markeredgecolor="#222222",
        markeredgewidth=0.5,
        alpha=0.7,
        label="resampled",
    )
    law = found.laws[0]
    left.plot(
        [max(law.t0, 0.5)],
        [law.l0],
        marker="*",
        markersize=15,
        linestyle="none",
        color=style.PAPER,
        markeredgecolor="#222222",
        label="taken",
    )
    left.set_xscale("log")
    left.xaxis.set_major_formatter(ScalarFormatter())
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set(xlabel="t₀ (steps)", ylabel="L₀ (nats)")
    left.legend(loc="lower right", framealpha=0.9, frameon=True, fontsize=9)
    for curve, (colour, name, marker) in enumerate(zip(_COLOURS, _NAMES, "so", strict=True)):
        right.plot(
            draws.log_b[:, curve],
            draws.beta[:, curve],
            marker=marker,
            markersize=3.5,
            linestyle="none",
            alpha=0.5,
            color=colour,
            label=name,
        )
        right.plot(
            [found.laws[curve].log_b],
            [found.laws[curve].beta],
            marker="*",
            markersize=15,
            linestyle="none",
            color=colour,
            markeredgecolor="#222222",
        )
    right.set(xlabel="ln B", ylabel="β")
    right.legend(fontsize=9)
    return figure


def ladder(
    names: Sequence[str],
    b: Sequence[Sequence[float]],
    beta: Sequence[Sequence[float]],
    measured: Sequence[Sequence[float]],
    predicted: Sequence[Sequence[float]],
    *,
    paper: int,
) -> Figure:
    """ΔB/B, Δβ/β and AR of every rung: a mark per seed.

    Args:
        names: one per rung.
        b, beta: per rung, relative changes; a value per seed.
        measured, predicted: per rung, AR of the run and by Eq. 9.
        paper: how many rungs at the end are the paper's.
    """
    figure, panels = style.subplots(1, 3, figsize=(8.8, 0.42 * len(names) + 1.9), sharey=True)
    own = len(names) - paper
    for axes, rows, scale, marker, label in (
        (panels[0], b, 100, "o", None),
        (panels[1], beta, 100, "o", None),
        (panels[2], predicted, 1, "x", "by Eq. 9"),
        (panels[2], measured, 1, "o", "measured"),
    ):
        for row, values in enumerate(rows):
            axes.plot(
                scale * np.asarray(values, dtype=float),
                [row] * len(values),
                marker=marker,
                markersize=6,
                linestyle="none",
                color=style.NEAR_OPTIMAL if row < own else style.PAPER,
                label=label if row == 0 else None,
            )
    for axes, centre, label in zip(
        panels, (0, 0, 1), ("ΔB/B (%)", "Δβ/β (%)", "acceleration ratio AR"), strict=True
    ):
        axes.axvline(centre, color="#999999", linewidth=1)
        axes.axhline(own - 0.5, color="#cccccc", linewidth=0.8)
        axes.set(xlabel=label)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
