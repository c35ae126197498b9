"""Drawings of ideas, each computed from a small example rather than traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray

from llbook.figures import style

__all__ = ["area_under_the_curve", "growth", "projection", "unrolled_training", "verdicts"]


def area_under_the_curve(old: NDArray[Any], new: NDArray[Any], ratios: Sequence[float]) -> Figure:
    """Figure 1: two loss curves, the areas under them, and what each area is as compression.

    Args:
        old, new: loss curves (T + 1,) in nats, of conventional and near-optimal learning.
        ratios: their compression ratios, in one unit.
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(8.2, 3.5), width_ratios=(3, 1.3))
    steps = np.arange(len(old))
    left.fill_between(steps, new, old, color=style.NEAR_OPTIMAL, alpha=0.16, linewidth=0)
    left.fill_between(steps, 0, new, color=style.CONVENTIONAL, alpha=0.16, linewidth=0)
    left.plot(steps, old, color=style.CONVENTIONAL, label="conventional")
    left.plot(steps, new, color=style.NEAR_OPTIMAL, label="near-optimal")
    middle = len(old) // 4
    left.annotate(
        "area saved",
        (middle, (old[middle] + new[middle]) / 2),
        xytext=(30, 28),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": "#555555"},
    )
    left.set(xlabel="step t", ylabel="test loss (nats)", ylim=(0, None), xlim=(0, len(old) - 1))
    left.legend(loc="upper right")
    names = ("conventional", "near-\noptimal")
    bars = right.bar(names, ratios, color=(style.CONVENTIONAL, style.NEAR_OPTIMAL), width=0.6)
    right.bar_label(bars, fmt="%.2f", padding=2)
    right.set(ylabel="compression ratio CR")
    right.margins(y=0.15)
    right.grid(False)
    return figure


def unrolled_training(steps: int = 4) -> Figure:
    """Figure 12: training as a network whose layer t holds the policy's row γ_t."""
    figure, axes = style.subplots(figsize=(8.2, 3.1))
    axes.set(xlim=(-0.7, steps + 0.9), ylim=(-1.55, 1.75))
    axes.axis("off")

    def box(x: float, y: float, text: str, color: str) -> None:
        axes.add_patch(
            FancyBboxPatch(
                (x - 0.26, y - 0.22),
                0.52,
                0.44,
                boxstyle="round,pad=0.04",
                facecolor="white",
                edgecolor=color,
                linewidth=1.5,
            )
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=11)

    def arrow(
        start: tuple[float, float], end: tuple[float, float], color: str, bend: float = 0.0
    ) -> None:
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=11,
                color=color,
                connectionstyle=f"arc3,rad={bend}",
                linewidth=1.3,
            )
        )

    for t in range(steps + 1):
        last = t == steps
        name = "T" if last else str(t)
        box(t, 0, rf"$\theta_{{{name}}}$", "#333333")
        if t > 0:
            box(t, -1.2, rf"$L_\mathrm{{dsr}}(\theta_{{{name}}})$", style.CONVENTIONAL)
            arrow((t, -0.3), (t, -0.92), style.CONVENTIONAL)
        if not last:
            box(
                t + 0.5, 1.25, rf"$\gamma_{{{'T-1' if t == steps - 1 else t}}}$", style.NEAR_OPTIMAL
            )
            arrow((t + 0.5, 0.97), (t + 0.5, 0.08), style.NEAR_OPTIMAL)
            arrow((t + 0.32, 0.04), (t + 0.68, 0.04), "#333333")
            arrow((t + 0.7, -0.16), (t + 0.3, -0.16), style.PAPER)
            axes.text(
                t + 0.5,
                -0.42,
                rf"$\lambda_{{{'T' if t == steps - 1 else t + 1}}}$",
                ha="center",
                color=style.PAPER,
            )
    axes.text(-0.62, 1.25, "policy", va="center", color=style.NEAR_OPTIMAL)
    axes.text(-0.62, -1.2, "objective", va="center", color="#555555")
    axes.text(-0.62, -0.42, "costate", va="center", color=style.PAPER)
    return figure


def projection(points: NDArray[Any], projected: NDArray[Any]) -> Figure:
    """The projection onto the simplex of three examples, seen from above.

    Args:
        points: (M, 3), before.
        projected: (M, 3), after.
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    figure, axes = style.subplots(figsize=(5.2, 4.4))
    # a point off the plane Σ = 1 is first dropped on it, which the projection does as well
    flat = points - (points.sum(1, keepdims=True) - 1) / 3
    before, after = flat @ corners, projected @ corners
    axes.fill(*corners.T, color=style.NEAR_OPTIMAL, alpha=0.1)
    axes.plot(*corners[[0, 1, 2, 0]].T, color=style.NEAR_OPTIMAL)
    for start, end in zip(before, after, strict=True):
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "->", "color": "#777777", "lw": 1.1}
        )
    axes.plot(
        *before.T, marker="o", linestyle="none", color=style.CONVENTIONAL, label="γ − ε ∂J/∂γ"
    )
    axes.plot(*after.T, marker="s", linestyle="none", color=style.NEAR_OPTIMAL, label="projected")
    for corner, name, align in zip(corners, "123", ("right", "left", "center"), strict=True):
        axes.annotate(
            f"all weight on {name}",
            corner,
            xytext=(0, 9 if name == "3" else -14),
            textcoords="offset points",
            ha=align,
            fontsize=9.5,
        )
    axes.set_aspect("equal")
    axes.margins(0.14)
    axes.axis("off")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def verdicts(parts: Mapping[str, Sequence[str]], marks: Mapping[str, str]) -> Figure:
    """How many items of each part have which verdict, as bars of marked squares.

    Args:
        parts: part → the verdict of each of its items.
        marks: verdict → mark, in the order of the bars' pieces.
    """
    figure, axes = style.subplots(figsize=(7.6, 0.5 * len(parts) + 1.3))
    colors = dict(zip(marks, sns.color_palette("viridis", len(marks)).as_hex()[::-1], strict=True))
    starts = dict.fromkeys(parts, 0)
    for verdict, mark in marks.items():
        counts = {part: list(given).count(verdict) for part, given in parts.items()}
        if not any(counts.values()):
            continue
        axes.barh(
            list(parts),
            list(counts.values()),
            left=list(starts.values()),
            color=colors[verdict],
            edgecolor="#ffffff",
            label=f"{mark} {verdict}",
        )
        for part, count in counts.items():
            if count:
                red, green, blue = to_rgb(colors[verdict])
                axes.text(
                    starts[part] + count / 2,
                    part,
                    f"{mark} {count}",
                    ha="center",
                    va="center",
                    fontsize=9.5,
                    color="#000000" if red + green + blue > 1.3 else "#ffffff",
                )
            starts[part] += count
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="items")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def growth(steps: NDArray[Any], seconds: dict[str, NDArray[Any]]) -> Figure:
    """Time of a gradient against T, one line a strategy, relative to the first point of the first.

    Args:
        steps: values of T.
        seconds: strategy → time at each T.
    """
    figure, axes = style.subplots(figsize=(5.6, 3.6))
    unit = next(iter(seconds.values()))[0]
    for (name, values), marker in zip(seconds.items(), "os^D", strict=False):
        axes.plot(steps, values / unit, marker=marker, label=name)
    axes.set(xlabel="steps T", ylabel="time (multiple of the lowest)", xscale="log", yscale="log")
    axes.legend()
    return figure
