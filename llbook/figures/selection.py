"""Figures of data selection: gain and cost, areas, weights, look-ahead, greed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from llbook.figures import style

__all__ = [
    "areas",
    "gain_against_cost",
    "look_ahead",
    "price_of_greed",
    "shares_of_settings",
    "weight_maps",
]

Array = NDArray[Any]
_FLOOR = -0.2  # shares below it are drawn on it
_DASHES = ("-", "--", "-.", ":")
_LEAST = 1e-2  # of N γ in a map


def gain_against_cost(names: Sequence[str], costs: Array, test: Array, desired: Array) -> Figure:
    """Share of the attainable gain against cost, a point per method.

    Args:
        names: of the methods, R.
        costs: in gradient evaluations, shape (R,).
        test, desired: shares on the test and on the desired examples, shape (R,); those below
            -0.2 are drawn there, one under the other, with their value.
    """
    figure, axes = style.subplots(figsize=(8.6, 5.4))
    below = test < _FLOOR
    shown = np.where(below, _FLOOR - 0.06 * (np.cumsum(below) - 1), test)
    left_out = np.where(below | (desired < _FLOOR), np.nan, desired)
    axes.plot(costs, left_out, "o", mfc="none", color="C0", label="desired")
    axes.plot(costs, shown, "D", color="C0", markersize=5, label="test")
    for name, x, y, at in zip(names, costs, _apart(costs, shown, 0.045), test, strict=True):
        value = f"{at:.1f}".replace("-", "−")
        text = name if at >= _FLOOR else f"{name} ({value})"
        axes.annotate(text, (x, y), (8, 0), textcoords="offset points", va="center", fontsize=9)
    axes.axhline(0, color=style.CONVENTIONAL, linewidth=1)
    axes.set(xscale="log", xlabel="cost of one run (gradient evaluations)")
    axes.set(ylabel="share of the attainable gain")
    axes.set_xlim(right=float(np.max(costs)) * 3)
    axes.legend(loc="lower right")
    return figure


def _apart(x: Array, y: Array, least: float) -> Array:
    """Heights of labels, so that those of points near each other in x do not meet."""
    placed: list[int] = []
    result = np.array(y, dtype=float)
    for n in np.argsort(-result, kind="stable"):
        near = [result[m] for m in placed if abs(np.log(x[m] / x[n])) < 1.2]
        if near:
            result[n] = min(result[n], min(near) - least)
        placed.append(int(n))
    return result


def shares_of_settings(settings: Mapping[str, Mapping[str, Array]]) -> Figure:
    """Share of the attainable gain of each method, a mark per seed, a colour and mark per setting.

    Args:
        settings: what a setting is called → method → shares, shape (S,), nan where there was no
            gain. The methods are drawn in the order of their means over all settings that have
            them, the best at the top.
    """
    settings = {
        word: {name: v[np.isfinite(v)] for name, v in shares.items() if np.isfinite(v).any()}
        for word, shares in settings.items()
    }
    pooled: dict[str, list[float]] = {}
    for shares in settings.values():
        for name, values in shares.items():
            pooled.setdefault(name, []).append(float(np.mean(values)))
    order = sorted(pooled, key=lambda name: np.mean(pooled[name]))
    figure, axes = style.subplots(figsize=(7.6, 0.36 * len(order) + 1.4))
    for number, (word, shares) in enumerate(settings.items()):
        lift = 0.2 * ((len(settings) - 1) / 2 - number)
        look = {"color": f"C{number}", "marker": "osD^"[number % 4], "linestyle": "none"}
        heights = np.array([order.index(name) + lift for name in shares])
        for height, values in zip(heights, shares.values(), strict=True):
            axes.hlines(height, np.min(values), np.max(values), color=look["color"], linewidth=1)
        marks = np.concatenate(list(shares.values()))
        places = np.repeat(heights, [len(values) for values in shares.values()])
        axes.plot(marks, places, label=word, markersize=5, **look)
    axes.axvline(0, color=style.CONVENTIONAL, linewidth=1)
    axes.set_yticks(range(len(order)), order)
    axes.set(xlabel="share of the attainable gain, test examples")
    axes.legend(loc="lower right")
    return figure


def areas(steps: Array, curves: Mapping[str, Array]) -> Figure:
    """Test loss over the steps, and the area up to each, relative to that of the first curve.

    Args:
        steps: shape (S,), from 0.
        curves: policy → test losses in nats, shape (S,); the first is conventional learning.
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(9.2, 4.3))
    usual = next(iter(curves.values()))
    for number, (name, curve) in enumerate(curves.items()):
        look = {"color": f"C{number}", "linestyle": _DASHES[number % len(_DASHES)]}
        if number == 0:
            look["color"] = style.CONVENTIONAL
        left.plot(steps, curve, label=name, **look)
        width = np.diff(steps)
        right.plot(steps[1:], np.cumsum(curve[1:] * width) / np.cumsum(usual[1:] * width), **look)
    left.set(xlabel="step t", ylabel="test loss (nats)", yscale="log", xscale="symlog")
    left.set_xlim(left=0)
    right.set(xlabel="step t", ylabel="area up to t, over conventional", xscale="log")
    right.set_ylim(bottom=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def weight_maps(maps: Mapping[str, Array], steps: int) -> Figure:
    """Weights of a few policies: groups of examples down, steps across, one scale.

    Args:
        maps: policy → N times the mean weight, (examples, steps).
        steps: T.
    """
    columns = min(3, len(maps))
    lines = -(-len(maps) // columns)
    figure, grid = style.subplots(
        lines, columns, figsize=(9.2, 2.3 * lines + 0.6), sharex=True, sharey=True, squeeze=False
    )
    top = max(float(np.max(one)) for one in maps.values())
    norm = LogNorm(_LEAST, max(top, 1.0))
    for axes, (name, one) in zip(grid.flat, maps.items(), strict=False):
        picture = axes.imshow(
            np.maximum(one, _LEAST),
            norm=norm,
            cmap=style.RATIO_MAP,
            aspect="auto",
            extent=(0, steps, 100, 0),
            interpolation="nearest",
        )
        axes.set_title(name)
        axes.grid(visible=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("step t")
    for axes in grid[:, 0]:
        axes.set_ylabel("examples (%)")
    figure.colorbar(picture, ax=grid, label="N γ, mean of a cell", shrink=0.7)
    return figure


def look_ahead(horizons: Sequence[str], shares: Mapping[str, Array]) -> Figure:
    """Share of the attainable gain against how far the costate sees.

    Args:
        horizons: in words, H of them.
        shares: what a line is called → shares, shape (H,).
    """
    figure, axes = style.subplots()
    places = np.arange(len(horizons))
    for number, (name, values) in enumerate(shares.items()):
        look = {"marker": "osD^"[number % 4], "linestyle": _DASHES[number % len(_DASHES)]}
        axes.plot(places, values, label=name, **look)
    axes.set_xticks(places, list(horizons))
    axes.set(xlabel="look-ahead h (steps)", ylabel="share of the attainable gain")
    axes.legend()
    return figure


def price_of_greed(amounts: Array, ratios: Array, shares: Array, *, cause: str) -> Figure:
    """J of greedy over J of the best known, and greedy's share of the gain, against a cause of it.

    Args:
        amounts: of the cause in each run, shape (M,).
        ratios: J(greedy)/J(best), shape (M,).
        shares: of the attainable gain, shape (M,).
        cause: what the axis is called.
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(8.6, 3.6))
    levels = np.unique(amounts)
    for axes, values, label in (
        (left, ratios, "J(greedy) / J(best known)"),
        (right, shares, "greedy's share of the gain"),
    ):
        axes.plot(amounts, values, "o", mfc="none", color="C0", label="a seed")
        means = [values[amounts == level].mean() for level in levels]
        axes.plot(levels, means, "-", color="C0", label="mean")
        axes.set(xlabel=cause, ylabel=label)
    left.set_ylim(bottom=1)
    right.set_ylim(top=1)
    left.legend()
    return figure
