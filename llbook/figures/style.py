"""One look for every figure of the book."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import seaborn as sns
from cycler import cycler
from matplotlib.figure import Figure

__all__ = ["CONVENTIONAL", "NEAR_OPTIMAL", "PAPER", "RATIO_MAP", "apply", "subplots"]

_palette = sns.color_palette("colorblind").as_hex()
CONVENTIONAL = _palette[7]
NEAR_OPTIMAL = _palette[0]
PAPER = _palette[1]
RATIO_MAP = "viridis"


def apply() -> None:
    """Set Matplotlib's defaults for the whole process.

    Figures are SVG with their text kept as text. They stand on an opaque light
    ground in both colour modes of the site: a figure never depends on the page
    behind it. Inside a notebook, figures are shown as such SVG.
    """
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "figure.facecolor": "#ffffff",
            "figure.constrained_layout.use": True,
            "svg.fonttype": "none",
            "svg.hashsalt": "llbook",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
            "font.size": 11,
            "axes.titlesize": 11.5,
            "axes.labelsize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=_palette),
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.8,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "legend.fontsize": 10,
        }
    )


def subplots(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure that pyplot does not know of, and its axes: shown once, where it is returned."""
    size = options.pop("figsize", None)
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns, **options)
