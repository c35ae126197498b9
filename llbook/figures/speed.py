"""The figures of the page on speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from llbook.figures import style

__all__ = ["growth", "ratios"]


def ratios(found: Mapping[str, float]) -> Figure:
    """Horizontal bars on a logarithmic scale: how many times faster, 1 being as fast.

    Args:
        found: label → ratio, drawn from top to bottom.
    """
    figure, axes = style.subplots(figsize=(8.8, 0.9 + 0.42 * len(found)))
    rows = np.arange(len(found))[::-1]
    values = np.array(list(found.values()))
    axes.barh(rows, values - 1, left=1, color=style.NEAR_OPTIMAL, height=0.62)
    for row, value in zip(rows, values, strict=True):
        said = f"{value:,.0f}×" if value >= 100 else f"{value:.3g}×"
        axes.annotate(said, (value, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.axvline(1, color="#555555", linewidth=1)
    axes.set_xlim(min(1, 0.8 * values.min()), 4 * values.max())
    axes.set_yticks(rows, list(found))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("times faster (logarithmic)")
    return figure


def growth(axes_measured: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Time (above) and memory (below) of a search epoch, each against one size.

    Args:
        axes_measured: label → ``values``, ``seconds``, ``bytes``, ``time_fit``, ``memory_fit``;
            a label that ends in ", checkpoints" is drawn into the panel of its axis.
    """
    names = [name for name in axes_measured if not name.endswith(", checkpoints")]
    columns = len(names) // 2
    figure, panels = style.subplots(4, columns, figsize=(8.8, 8.6), squeeze=False)
    for number, name in enumerate(names):
        line, column = divmod(number, columns)
        for kind, fit, unit, panel in (
            ("seconds", "time_fit", 1.0, panels[2 * line, column]),
            ("bytes", "memory_fit", 1e6, panels[2 * line + 1, column]),
        ):
            series = {"trajectory in memory": (axes_measured[name], "o", style.NEAR_OPTIMAL)}
            if other := axes_measured.get(f"{name}, checkpoints"):
                series["√T checkpoints"] = (other, "s", style.CONVENTIONAL)
            for label, (measured, marker, color) in series.items():
                x = np.asarray(measured["values"], dtype=float)
                y = np.asarray(measured[kind]) / unit
                panel.plot(x, y, marker, color=color, markersize=5, label=label)
                wide = np.linspace(0, x[-1], 50)
                law = (measured[fit]["intercept"] + measured[fit]["slope"] * wide) / unit
                panel.plot(wide, law, color=color, linewidth=1, linestyle=":")
            panel.set_ylim(bottom=0)
            panel.set_xlim(left=0)
            panel.tick_params(labelsize=8)
            if len(series) > 1:
                panel.legend(fontsize=7)
            if column == 0:
                panel.set_ylabel("time (s)" if kind == "seconds" else "memory (MB)", fontsize=9)
            if kind == "seconds":
                panel.set_title(name.rsplit(", ", 1)[0], fontsize=9)
            else:
                panel.set_xlabel(name.rsplit(", ", 1)[1], fontsize=9)
    return figure
