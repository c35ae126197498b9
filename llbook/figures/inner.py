"""Figures of other optimisers: what a policy gains there, and where else it helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from llbook.figures import style

__all__ = ["curves", "gains_over_orders", "gradient_norms", "levels", "rates", "transfer"]

Array = NDArray[Any]
_MARKS = "osD^vP*X"
_FLOOR = -1.0  # a change of the area below it is drawn on it


def curves(panels: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Desired loss over the steps, conventional and searched, a panel per optimiser.

    Args:
        panels: optimiser → its two curves in nats, each of shape (T + 1,).
    """
    return _pairs(panels, "desired loss (nats)")


def gradient_norms(panels: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Length of the gradient that is stepped along, conventional and searched.

    Args:
        panels: optimiser → its two norms ‖g_t‖, each of shape (T,).
    """
    return _pairs(panels, "‖g‖ of a step")


def _pairs(panels: Mapping[str, tuple[Array, Array]], label: str) -> Figure:
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = style.subplots(
        lines, columns, figsize=(8.6, 2.6 * lines + 0.5), sharex=True, sharey=True, squeeze=False
    )
    for axes, (name, (usual, found)) in zip(grid.flat, panels.items(), strict=False):
        axes.plot(usual, "--", color=style.CONVENTIONAL, label="conventional")
        axes.plot(found, "-", color=style.NEAR_OPTIMAL, label="searched")
        axes.set(title=name, yscale="log")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("step t")
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    grid[0, 0].legend()
    return figure


def rates(
    factors: Array, usual: Mapping[str, Array], tried: Array, found: Mapping[str, Array]
) -> Figure:
    """J against the rate: of conventional learning, and of policies that were searched at some.

    Args:
        factors: multiples of an optimiser's rate, shape (F,).
        usual: optimiser → J under equal weights in nats, shape (F,); nan where it diverged.
        tried: the multiples at which a policy was searched, shape (S,).
        found: optimiser, among those of ``usual``, → J of these policies, shape (S,).
    """
    figure, axes = style.subplots(figsize=(7.4, 5.0))
    for number, (name, values) in enumerate(usual.items()):
        look = {"color": f"C{number}", "marker": _MARKS[number]}
        axes.plot(factors, values, "--", mfc="none", label=f"{name}: equal weights", **look)
        if name in found:
            axes.plot(tried, found[name], "-", label=f"{name}: searched", **look)
    axes.set(xscale="log", yscale="log", xlabel="rate, as a multiple of the first")
    axes.set_ylabel(r"J = $\sum_t L_\mathrm{dsr}$ (nats)")
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def transfer(rows: Sequence[str], columns: Sequence[str], gains: Array) -> Figure:
    """How much lower J is than conventional learning's, for each policy and each training.

    Args:
        rows: what the policies were searched for, R.
        columns: what trains under them, C.
        gains: 1 - J/J of equal weights, in the same training, shape (R, C); nan where it diverged.
    """
    figure, axes = style.subplots(figsize=(1.3 * len(columns) + 2.6, 0.55 * len(rows) + 1.5))
    shown = np.maximum(gains, _FLOOR)
    picture = axes.imshow(shown, cmap="PuOr", norm=CenteredNorm(halfrange=1), aspect="auto")
    for (row, column), value in np.ndenumerate(gains):
        text = f"{100 * value:+.0f}%".replace("-", "−") if value == value else "diverged"
        dark = abs(shown[row, column]) > 0.6
        axes.text(column, row, text, ha="center", va="center", color="w" if dark else "k")
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel="trains under it", ylabel="policy searched for")
    axes.grid(visible=False)
    figure.colorbar(picture, ax=axes, label="area saved")
    return figure


def gains_over_orders(own: Mapping[str, float], others: Mapping[str, Array]) -> Figure:
    """What policies gain on the batches that they were searched with, and on others.

    Args:
        own: policy → 1 - J/J of equal weights on the batches of its search; nan where there
            are none.
        others: policy → the same on other orders of batches, shape (S,).
    """
    figure, axes = style.subplots(figsize=(7.4, 0.6 * len(others) + 1.4))
    for place, (name, gains) in enumerate(others.items()):
        last = place == len(others) - 1
        axes.plot(
            *(gains, np.full(len(gains), place), "o"),
            mfc="none",
            color="C0",
            label="other orders" if last else None,
        )
        axes.plot(own[name], place, "D", color="C1", label="its own order" if last else None)
    handles, labels = axes.get_legend_handles_labels()
    axes.axvline(0, color=style.CONVENTIONAL, linewidth=1)
    axes.set_yticks(range(len(others)), list(others))
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set(xlabel="area saved against equal weights on the same batches")
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def levels(lines: Mapping[str, Array]) -> Figure:
    """What more weight at a step saves, over the steps, a line per optimiser.

    Args:
        lines: optimiser → Σ_n γ c of each step over the largest of them, shape (T,).
    """
    figure, axes = style.subplots(figsize=(7.4, 3.8))
    for number, (name, values) in enumerate(lines.items()):
        look = {"linestyle": ("-", ":", "--", "-.")[number % 4], "marker": _MARKS[number]}
        axes.plot(values, label=name, markevery=max(1, len(values) // 8), markersize=5, **look)
    axes.axhline(0, color=style.CONVENTIONAL, linewidth=1)
    axes.set(xlabel="step t", ylabel="level, over the largest")
    axes.legend()
    return figure
