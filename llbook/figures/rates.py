"""Figures of the learning rate: areas beside searches, and where neighbouring trainings part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from llbook.figures import style

__all__ = ["areas_at_rates", "edge", "schedules", "spreads"]

Array = NDArray[Any]
_MARKS = "osD^vP"


def areas_at_rates(
    rates: Array,
    usual: Array,
    searched: Mapping[str, tuple[Sequence[float], Array]],
    *,
    far: bool = False,
) -> Figure:
    """Area at several rates, relative to the least that equal weights have at any.

    Args:
        rates: shape (G,), ascending.
        usual: of equal weights, shape (G, M), a mark for each of M trainings; ratios to the least.
        searched: what a search is called → its rates and its ratios, shape (rates, seeds).
        far: draw ratios on a logarithmic axis, not differences in per cent.
    """

    def shown(ratios: Array) -> Array:
        return ratios if far else 100 * (ratios - 1)

    figure, axes = style.subplots(figsize=(7.2, 4.0))
    axes.plot(rates, shown(usual.mean(1)), color=style.CONVENTIONAL)
    axes.plot(
        np.repeat(rates, usual.shape[1]),
        shown(usual.ravel()),
        "o",
        markersize=3,
        color=style.CONVENTIONAL,
        label="equal weights",
    )
    colours = (style.PAPER, style.NEAR_OPTIMAL, style.GREEDY)
    for number, (word, (places, ratios)) in enumerate(searched.items()):
        colour, mark = colours[number % 3], "sD^"[number % 3]
        # side by side, or one would hide another
        x = 1.04**number * np.repeat(np.asarray(places, float), [len(row) for row in ratios])
        y = shown(np.concatenate([np.asarray(row, float) for row in ratios]))
        axes.plot(x, y, mark, color=colour, label=word)
    axes.axhline(shown(np.array(1.0)), color="#999999", linewidth=1)
    name = "area over" if far else "area beyond"
    axes.set(
        xscale="log",
        yscale="log" if far else "linear",
        xlabel="learning rate η",
        ylabel=f"{name} the least of equal weights" + " (%)" * (not far),
    )
    if far:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.legend()
    return figure


def spreads(rates: Array, shares: Array, seeds: Sequence[int]) -> Figure:
    """Spread of the area over draws of θ_0 that differ by millionths, a mark per seed.

    Args:
        rates: shape (G,).
        shares: spread over area, shape (G, S).
        seeds: S of them.
    """
    figure, axes = style.subplots(figsize=(7.2, 3.6))
    for number, (seed, row) in enumerate(zip(seeds, shares.T, strict=True)):
        axes.plot(rates, 100 * row, _MARKS[number % 6] + "-", label=f"seed {seed}", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="learning rate η", ylabel="spread of the area (%)")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.legend()
    return figure


def edge(steps: Array, sharpness: Mapping[str, Array], partings: Mapping[str, Array]) -> Figure:
    """ηλ of the largest eigenvalue over the steps, and how neighbouring trainings part.

    Args:
        steps: at which the eigenvalue is known, shape (S,).
        sharpness: what a training is called → ηλ, shape (S,).
        partings: the same → distance over that at the start, shape (T + 1,).
    """
    figure, (left, right) = style.subplots(1, 2, figsize=(8.8, 3.5))
    for number, word in enumerate(sharpness):
        left.plot(steps, sharpness[word], _MARKS[number % 6] + "-", label=word)
        right.plot(partings[word], color=f"C{number}", label=word)
    left.axhline(2, color="#999999", linewidth=1)
    left.set(xlabel="step t", ylabel="η × largest eigenvalue", ylim=(0, None))
    right.set(xlabel="step t", ylabel="distance over the first one", yscale="log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def schedules(words: Sequence[str], rates: Array, saved: Mapping[str, Array]) -> Figure:
    """Learning rates over the steps, and the areas of equal weights and of policies under them.

    Args:
        words: what the M kinds of rates are called.
        rates: η_t of each seed, shape (S, M, T).
        saved: what a measure is called → of the least area of equal weights at a constant rate,
            for equal weights and the policy, shape (M, 2, S).
    """
    figure, (left, *right) = style.subplots(1, 1 + len(saved), figsize=(9.6, 3.6))
    looks = [(style.CONVENTIONAL, ":"), (style.CONVENTIONAL, "--"), (style.PAPER, "-")]
    for kind, word in enumerate(words):
        colour, line = looks[kind % 3]
        for seed, own in enumerate(rates[:, kind]):
            left.plot(own, line, color=colour, label=word if seed == 0 else None)
    left.set(xlabel="step t", ylabel="learning rate", ylim=(0, None))
    left.legend()
    for axes, (name, values) in zip(right, saved.items(), strict=True):
        for who, (label, colour, mark) in enumerate(
            (("equal weights", style.CONVENTIONAL, "o"), ("policy", style.NEAR_OPTIMAL, "D"))
        ):
            rows = values[:, who]
            x = np.repeat(np.arange(len(words)) + 0.12 * (2 * who - 1), rows.shape[1])
            axes.plot(x, 100 * rows.ravel(), mark, color=colour, label=label)
        axes.axhline(0, color="#999999", linewidth=1)
        axes.set_xticks(range(len(words)), words)
        axes.set(ylabel=f"saved, {name} examples (%)", xlim=(-0.5, len(words) - 0.5))
    right[0].legend()
    return figure
