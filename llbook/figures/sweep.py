"""The figure of a sweep: every point, and mean and interval of each group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from matplotlib.figure import Figure

from llbook.figures import style

__all__ = ["intervals"]


SPREAD = 30  # times the least value is the greatest, from where on an axis is logarithmic


class _Interval(Protocol):
    values: tuple[float, ...]
    mean: float
    low: float
    high: float


def intervals(panels: Mapping[str, Mapping[str, _Interval]]) -> Figure:
    """A panel per measure, a row per group: its points, its mean, and the interval of the mean.

    Args:
        panels: label of a measure → group → its values and their interval. A value that is
            undefined has no mark, and neither has an interval of fewer than two values.
    """
    groups = list(next(iter(panels.values())))
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)
    size = (8.8, lines * (1.2 + 0.34 * len(groups)))
    figure, axes = style.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    for unused in axes.flat[len(panels) :]:
        unused.set_axis_off()
    rows = range(len(groups))[::-1]
    for panel, (label, found) in zip(axes.flat, panels.items(), strict=False):
        points = [
            (value, row)
            for row, group in zip(rows, groups, strict=True)
            for value in found[group].values
            if math.isfinite(value)
        ]
        means = [(found[group].mean, row) for row, group in zip(rows, groups, strict=True)]
        ends = [
            (max(found[g].mean - found[g].low, 0), max(found[g].high - found[g].mean, 0))
            for g in groups
        ]
        x_points, y = zip(*points, strict=True) if points else ((), ())
        panel.plot(
            x_points, y, "o", color=style.CONVENTIONAL, alpha=0.6, markersize=5, label="points"
        )
        x, y = zip(*means, strict=True)
        panel.errorbar(
            *(x, y),
            xerr=list(zip(*ends, strict=True)),
            fmt="D",
            color=style.NEAR_OPTIMAL,
            markersize=5,
            capsize=4,
            label="mean and interval",
        )
        if x_points and min(x_points) > 0 and max(x_points) > SPREAD * min(x_points):
            panel.set_xscale("log")
        panel.set(xlabel=label, ylim=(-0.6, len(groups) - 0.4))
        panel.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(list(rows), groups)
    axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9)
    return figure
