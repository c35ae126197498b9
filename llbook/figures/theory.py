"""Figures of the theory: measures in, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from llbook.figures import style

__all__ = [
    "LAW_ARROWS",
    "bang_bang",
    "budget",
    "convergence",
    "coupling",
    "flow_and_steps",
    "identity_terms",
    "influence",
    "law_drawing",
    "many_points",
    "pair_law",
    "rotation",
    "similarity_against_ratio",
    "water",
]

_PALETTE = sns.color_palette("colorblind").as_hex()
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", "-.", ":")


def flow_and_steps(
    times: np.ndarray, exact: np.ndarray, coarse: Mapping[float, np.ndarray]
) -> Figure:
    """The desired loss along the flow, and along Euler's method at a few step sizes.

    Args:
        times, exact: L_dsr(θ(t)), shape (S,).
        coarse: η → loss curve L(θ_0) … L(θ_T).
    """
    figure, axes = style.subplots()
    axes.plot(times, exact, color="black", linewidth=1.4, label="gradient flow")
    axes.fill_between(times, exact, color=_PALETTE[9], alpha=0.25, linewidth=0)
    for (eta, curve), marker, colour in zip(coarse.items(), _MARKERS, _PALETTE, strict=False):
        axes.plot(
            eta * np.arange(len(curve)),
            curve,
            marker=marker,
            color=colour,
            linestyle="",
            markersize=4.5,
            label=f"Euler, η = {eta:g}",
        )
    axes.set(xlabel="time ηt", ylabel="desired loss (nats)", ylim=(0, None))
    axes.legend()
    return figure


def convergence(
    sizes: np.ndarray, errors: Mapping[str, np.ndarray], *, order: int = 1, xlabel: str
) -> Figure:
    """Errors against step size on two logarithmic axes, and the slope they should have."""
    figure, axes = style.subplots()
    for (name, values), marker, dash, colour in zip(
        errors.items(), _MARKERS, _DASHES, _PALETTE, strict=False
    ):
        axes.loglog(sizes, values, marker=marker, linestyle=dash, color=colour, label=name)
    first = max(values[0] for values in errors.values())
    guide = 2.2 * first * (sizes / sizes[0]) ** order
    axes.loglog(sizes, guide, color="black", linewidth=1, linestyle=(0, (1, 2)))
    middle = len(sizes) // 2
    axes.annotate(
        f"slope {order}",
        (sizes[middle], guide[middle]),
        xytext=(-8, 6),
        textcoords="offset points",
        ha="right",
    )
    axes.set(xlabel=xlabel, ylabel="relative error")
    axes.legend()
    return figure


LAW_ARROWS = (
    ((-0.85, -0.25), (0.45, -0.75), (0.65, 0.6)),
    (0.3, 1.12, 0.72),
    (0.75, 0.75, 0.75),
)
"""Of Fig. 3A: where three arrows point across ∇L; their heights along it before, and under, the law."""


def law_drawing() -> Figure:
    """Fig. 3A: gradients of three examples, and their heights along ∇L.

    The height of an arrow's head along the upright ∇L is CT_n/|∇L|. Left, the
    heights differ; right, the heads lie in one plane at right angles to ∇L.
    """
    figure = Figure(figsize=(7.6, 4.1))
    across, unequal, equal = (np.array(part) for part in LAW_ARROWS)
    cases = (("weight should move to example 2", unequal), ("the law holds", equal))
    angles = np.linspace(0, 2 * np.pi, 60)
    disc = np.c_[np.cos(angles), np.sin(angles)] * 1.08
    for place, (title, heights) in enumerate(cases, 1):
        axes = figure.add_subplot(1, 2, place, projection="3d", computed_zorder=False)
        level = float(np.mean(heights))
        axes.quiver(0, 0, 0, 0, 0, 1.5, color="black", linewidth=2, arrow_length_ratio=0.07)
        axes.text(0, 0, 1.56, "∇L", fontsize=12, ha="center")
        if place == 2:
            plane = Poly3DCollection([np.c_[disc, np.full(60, level)]], zorder=0)
            plane.set(facecolor=_PALETTE[9], edgecolor=_PALETTE[0], alpha=0.35)
            axes.add_collection3d(plane)
        for n, (flat, height) in enumerate(zip(across, heights, strict=True)):
            head = np.array([*flat, height])
            axes.quiver(0, 0, 0, *head, color=_PALETTE[n], linewidth=2.6, arrow_length_ratio=0.13)
            foot = np.array([0.0, 0.0, height])
            axes.plot(*np.c_[head, foot], color=_PALETTE[n], linestyle=":", linewidth=1.6)
            axes.scatter(*foot, color=_PALETTE[n], s=24, depthshade=False)
            axes.text(*(head * [1.16, 1.16, 1] + [0, 0, 0.04]), f"$g_{n + 1}$", fontsize=12)
            if place == 1:
                label = f"CT$_{n + 1}$"
                side = "right" if flat[0] > 0 else "left"
                axes.text(
                    *(foot + np.array([0.07 if side == "left" else -0.07, 0, 0])), label, ha=side
                )
        if place == 2:
            axes.text(-0.07, 0, level + 0.3, "CT$_1$ = CT$_2$ = CT$_3$", ha="right")
        axes.set_title(title, y=1.05)
        axes.set(xlim=(-0.9, 0.9), ylim=(-0.9, 0.9), zlim=(0, 1.5))
        axes.set_box_aspect((1, 1, 0.95), zoom=1.25)
        axes.view_init(elev=14, azim=-68)
        axes.set_axis_off()
    return figure


def similarity_against_ratio(ratios: np.ndarray, series: Mapping[str, np.ndarray]) -> Figure:
    """Mean SIM against CR over the policies met in one search (Fig. 3B)."""
    figure, axes = style.subplots()
    for (name, values), marker, dash, colour in zip(
        series.items(), _MARKERS, _DASHES, _PALETTE, strict=False
    ):
        axes.plot(
            ratios, values, marker=marker, linestyle=dash, markersize=5, color=colour, label=name
        )
    axes.annotate("γ = 1/N", (ratios[0], 0), xytext=(5, 4), textcoords="offset points")
    axes.set(xlabel="compression ratio on the desired examples", ylabel="mean SIM", ylim=(0, None))
    axes.legend()
    return figure


def identity_terms(
    times: np.ndarray, contribution: np.ndarray, drift: np.ndarray, bracket: np.ndarray
) -> Figure:
    """CT_n and the two terms it is made of, for a few examples (columns)."""
    shown = contribution.shape[1]
    figure, panels = style.subplots(1, shown, figsize=(7.2, 3.2), sharey=True, sharex=True)
    for n, axes in enumerate(panels):
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.plot(times, contribution[:, n], color="black", label="CT$_n$")
        axes.plot(times, drift[:, n], "--", color=_PALETTE[0], label="−d(λ·g$_n$)/dt")
        axes.plot(times, bracket[:, n], ":", color=_PALETTE[1], linewidth=2.4, label="bracket sum")
        axes.plot(
            times[::6],
            (drift + bracket)[::6, n],
            "o",
            color=_PALETTE[2],
            markersize=3.5,
            label="sum of the two",
        )
        axes.set(title=f"example {n + 1}", xlabel="time")
    panels[0].set_ylabel("nats per time")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def water(times: np.ndarray, level: np.ndarray, values: np.ndarray, policy: np.ndarray) -> Figure:
    """Contributions and weights of the commuting task's exact optimum over time.

    Args:
        times: (M + 1,).
        level: ν(t), shape (M + 1,).
        values: CT_n(t), shape (M + 1, N).
        policy: (M, N).
    """
    figure, (top, bottom) = style.subplots(2, 1, figsize=(6.4, 5.2), sharex=True)
    top.semilogy(times, level, color="#bbbbbb", linewidth=6, label="level ν = −dL/dt")
    for n in range(values.shape[1]):
        dash = _DASHES[n]
        top.semilogy(times, values[:, n], dash, color=_PALETTE[n], label=f"CT, example {n + 1}")
        bottom.stairs(
            policy[:, n],
            times,
            baseline=None,
            linestyle=dash,
            linewidth=1.8,
            color=_PALETTE[n],
            label=f"example {n + 1}",
        )
    top.set_ylabel("contribution")
    top.legend()
    bottom.set(xlabel="time", ylabel="weight γ", ylim=(-0.03, 1.03))
    return figure


def pair_law(
    times: np.ndarray, differences: np.ndarray, brackets: np.ndarray, three: tuple[float, float]
) -> Figure:
    """CT_i - CT_j, lines, and b_ij, open markers, of the pairs among three examples in use.

    Args:
        times: middles of the intervals, shape (M,).
        differences, brackets: nan for pairs not in use, shape (M, 3, 3).
        three: when all three share, from and to.
    """
    figure, axes = style.subplots(figsize=(6.4, 4.2))
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvspan(*three, color="#eeeeee", zorder=0)
    for k, (i, j) in enumerate(((0, 1), (1, 2), (2, 0))):
        pair = f"{i + 1}, {j + 1}"
        axes.plot(
            times,
            differences[:, i, j],
            _DASHES[k],
            color=_PALETTE[k],
            label=f"CT difference {pair}",
        )
        axes.plot(
            times[::2],
            brackets[::2, i, j],
            _MARKERS[k],
            color=_PALETTE[k],
            markersize=5,
            markerfacecolor="none",
            label=f"bracket {pair}",
        )
    axes.set(xlabel="time", ylabel="difference / mean contribution")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def rotation(
    turns: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    predicted: np.ndarray,
    limit: float,
) -> Figure:
    """J'' along variations that rotate weight among three examples, in both senses.

    Args:
        turns: of the variation, shape (S,).
        forward, backward: J'', shape (S,).
        predicted: half of their difference by the theory, shape (S,).
        limit: the most turns that the policy's own grid can hold.
    """
    figure, axes = style.subplots()
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(limit, color="#888888", linewidth=1, linestyle="--")
    axes.annotate(
        "the grid's limit",
        (limit, 0.05),
        xycoords=("data", "axes fraction"),
        xytext=(5, 0),
        textcoords="offset points",
    )
    mean = (forward + backward) / 2
    for sign, values, name, k in ((1, forward, "one way", 0), (-1, backward, "the other", 1)):
        axes.plot(turns, values, _MARKERS[k], color=_PALETTE[k], label=f"rotated {name}")
        axes.plot(turns, mean + sign * predicted, ":", color=_PALETTE[k])
    axes.set(xlabel="turns on the arc", ylabel="second derivative of the area")
    axes.legend(loc="upper left")
    return figure


def budget(
    step: float, spent: Mapping[int, np.ndarray], price: np.ndarray, shed: np.ndarray
) -> Figure:
    """The weight a policy spends as its search goes on, and the price of a little more.

    Args:
        step: length of an interval.
        spent: gradients so far → Σ_n γ_n without the idle example, shape (M,).
        price: max_n λ·g_n at the end, mean over each interval, shape (M,).
        shed: L(t) - L(T) at the intervals' ends, shape (M + 1,).
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(7.4, 3.3))
    edges = step * np.arange(len(price) + 1)
    for (count, weight), dash, colour in zip(spent.items(), _DASHES, _PALETTE, strict=False):
        left.stairs(
            weight,
            edges,
            baseline=None,
            linestyle=dash,
            linewidth=1.8,
            color=colour,
            label=f"{count} gradients",
        )
    left.set(xlabel="time", ylabel="budget spent, Σγ", ylim=(-0.03, 1.05))
    left.legend(loc="center left")
    right.plot(edges, shed, color="black", linewidth=1.2, label="loss still to be shed")
    middles = (edges[1:] + edges[:-1]) / 2
    right.plot(middles[::2], price[::2], "o", color=_PALETTE[0], markersize=4, label="price c")
    right.set(xlabel="time", ylabel="nats", ylim=(0, None))
    right.legend()
    return figure


def influence(
    lengths: np.ndarray, misses: np.ndarray, predicted: np.ndarray, retrained: np.ndarray
) -> Figure:
    """Convergence to the influence function, and leave-one-out against its prediction."""
    figure, (left, right) = style.subplots(1, 2, figsize=(7.4, 3.4))
    left.semilogy(lengths, misses, "o-", color=_PALETTE[0])
    left.set(xlabel="steps T", ylabel="largest relative error of the sum")
    ends = np.array([predicted.min(), predicted.max()])
    right.plot(ends, ends, color="black", linewidth=1, linestyle=(0, (1, 2)))
    right.plot(predicted, retrained, "o", color=_PALETTE[1], markersize=4.5)
    right.set(xlabel="predicted, G·H⁻¹g / N (nats)", ylabel="retrained without it (nats)")
    return figure


def many_points(areas: np.ndarray, eigenvalues: np.ndarray) -> Figure:
    """Areas of first-order points from several starts; the reduced Hessian's spectrum at the best.

    Args:
        areas: ηJ, one a start, shape (S,).
        eigenvalues: shape (F,).
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(7.4, 3.3))
    left.hist(areas, bins=max(4, len(areas) // 2), color=_PALETTE[0], edgecolor="white")
    left.set(xlabel="area ηJ", ylabel="starts")
    left.locator_params(axis="x", nbins=4)
    left.ticklabel_format(useOffset=False)
    right.semilogy(np.arange(1, len(eigenvalues) + 1), eigenvalues, "o", color=_PALETTE[1])
    right.set(xlabel="number", ylabel="eigenvalue")
    return figure


def coupling(values: np.ndarray, series: Mapping[str, np.ndarray]) -> Figure:
    """Median SIM against the coupling, for instant and future contributions."""
    figure, axes = style.subplots()
    for (name, sims), marker, dash, colour in zip(
        series.items(), _MARKERS, _DASHES, _PALETTE, strict=False
    ):
        axes.semilogy(values, sims, marker=marker, linestyle=dash, color=colour, label=name)
    axes.set(xlabel="coupling κ", ylabel="median SIM over steps", ylim=(1, None))
    axes.legend(loc="center right")
    return figure


def bang_bang(
    panels: Sequence[tuple[str, np.ndarray]], horizon: float, *, examples: Sequence[int]
) -> Figure:
    """Policies over time as heat maps, one example a row.

    Args:
        panels: title and policy (T, N), all over the same horizon.
        horizon: time at the end.
        examples: which rows are shown.
    """
    figure, axes = style.subplots(len(panels), 1, figsize=(6.8, 1.9 * len(panels)), sharex=True)
    axes = np.atleast_1d(axes)
    for place, (title, policy) in zip(axes, panels, strict=True):
        image = place.imshow(
            policy[:, list(examples)].T,
            aspect="auto",
            extent=(0, horizon, len(examples) - 0.5, -0.5),
            cmap="cividis",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        place.grid(False)
        place.set(title=title, ylabel="example", yticks=range(len(examples)))
        place.set_yticklabels([str(n + 1) for n in examples], fontsize=8)
    axes[-1].set_xlabel("time")
    figure.colorbar(image, ax=list(axes), label="weight γ", shrink=0.7)
    return figure
