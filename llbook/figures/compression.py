"""Figures of the compression chapter: traces of the codec and sizes in, figures out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from llbook.figures import style

if TYPE_CHECKING:
    from llbook.compression.codec import Trace

__all__ = ["area_and_code", "code_sizes", "learning_speeds"]

_PALETTE = sns.color_palette("colorblind").as_hex()
_DASHES = ("-", "--", "-.", ":")


def area_and_code(trace: Trace) -> Figure:
    """The loss curve with its area, and below it that area as it grows beside the coder's bytes."""
    seen = np.cumsum(trace.symbols)
    left = seen - np.array(trace.symbols)
    loss = trace.losses / np.log(2)
    figure, (top, bottom) = style.subplots(2, 1, figsize=(6.4, 5.6), sharex=True)
    edges = np.append(left, seen[-1])
    top.stairs(loss, edges, fill=True, color=_PALETTE[9], alpha=0.6)
    top.stairs(loss, edges, baseline=None, color=_PALETTE[0], linewidth=1.4)
    top.set(ylabel="loss (bits a symbol)", ylim=(0, None))
    top.annotate(
        f"area = Σ B·L$_t$\n= {trace.total_bits / 8:,.0f} bytes",
        (0.5, 0.62),
        xycoords="axes fraction",
        ha="center",
    )
    bottom.plot(
        seen, np.cumsum(trace.bits) / 8e3, color=_PALETTE[0], label="area so far, Σ B·L$_t$"
    )
    some = np.unique(np.linspace(0, len(seen) - 1, 22).astype(int))
    bottom.plot(
        seen[some],
        np.array(trace.written)[some] / 8e3,
        "o",
        color=_PALETTE[1],
        markersize=5,
        label="written by the range coder",
    )
    bottom.xaxis.set_major_formatter("{x:,.0f}")
    bottom.set(xlabel="symbols coded", ylabel="code so far (kB)", ylim=(0, None))
    bottom.legend(loc="upper left")
    return figure


def code_sizes(sizes: Mapping[str, tuple[int, int]]) -> Figure:
    """Bytes of the same text under several codes.

    Args:
        sizes: name → (bytes of the code, bytes of a header within it); the learner's
            names begin with "learner".
    """
    names = sorted(sizes, key=lambda name: sizes[name][0])
    figure, axes = style.subplots(figsize=(6.4, 0.5 * len(names) + 1.2))
    for row, name in enumerate(names):
        total, header = sizes[name]
        ours = name.startswith("learner")
        axes.barh(
            row,
            total - header,
            color=_PALETTE[0] if ours else style.CONVENTIONAL,
            label="the learner's code" if ours else "a general compressor",
        )
        if header:
            axes.barh(
                row,
                header,
                left=total - header,
                color=_PALETTE[1],
                hatch="//",
                edgecolor="white",
                label="its header, with the list of words",
            )
        axes.text(total, row, f" {total:,}", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="bytes", xlim=(0, 1.15 * max(total for total, _ in sizes.values())))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", visible=False)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(handles.values(), handles.keys(), loc="upper right")
    return figure


def learning_speeds(traces: Mapping[str, Trace]) -> Figure:
    """Loss curves of several learners on one text; the legend gives their areas."""
    figure, axes = style.subplots()
    ranked = sorted(traces.items(), key=lambda item: item[1].total_bits)
    for i, (name, trace) in enumerate(ranked):
        width = max(1, len(trace.bits) // 40)
        kept = len(trace.bits) // width * width
        smooth = (trace.losses[:kept] / np.log(2)).reshape(-1, width).mean(1)
        seen = np.cumsum(trace.symbols)[:kept].reshape(-1, width).mean(1)
        axes.plot(
            seen,
            smooth,
            _DASHES[i % len(_DASHES)],
            color=_PALETTE[i],
            label=f"{name}: {trace.total_bits / 8e3:.1f} kB",
        )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="symbols coded", ylabel="loss (bits a symbol)", ylim=(0, None))
    axes.legend()
    return figure
