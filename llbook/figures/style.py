"""One look for every figure of the book, and the numbers that a figure shows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection, PathCollection, PolyCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

__all__ = [
    "CONVENTIONAL",
    "GREEDY",
    "NEAR_OPTIMAL",
    "PAPER",
    "RATIO_MAP",
    "BookFigure",
    "apply",
    "shown_data",
    "subplots",
]

_palette = sns.color_palette("colorblind").as_hex()
CONVENTIONAL = _palette[7]
NEAR_OPTIMAL = _palette[0]
GREEDY = _palette[2]
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


class BookFigure(Figure):
    """A figure that a notebook shows with its numbers: beside the picture, as ``text/csv``."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        data = shown_data(self)
        return {"text/csv": data} if data else {}


def subplots(rows: int = 1, columns: int = 1, **options: Any) -> tuple[BookFigure, Any]:
    """A figure that pyplot does not know of, and its axes: shown once, where it is returned."""
    size = options.pop("figsize", None)
    figure = BookFigure(figsize=size)
    return figure, figure.subplots(rows, columns, **options)


def shown_data(figure: Figure) -> str:
    """The points that a figure draws, as CSV with one point a line; empty if it has none.

    Columns: ``panel`` (its title or number), ``x_axis`` and ``y_axis`` (their labels, with
    units), ``series`` (as in the legend, else its kind and number), ``x``, ``y``. A mark
    that runs along a whole axis has no value on it. Lines, bars, points and bands are
    taken; panels that are pictures (heat maps) or in three dimensions are left out.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for number, axes in enumerate(figure.axes, 1):
        if axes.images or axes.name == "3d" or axes.get_label() == "<colorbar>":
            continue
        # shared axes carry their label on one panel only
        x_axis, y_axis = (
            next((label for label in [own, *shared] if label), "")
            for own, shared in (
                (axes.get_xlabel(), [a.get_xlabel() for a in _sharing(axes, "x")]),
                (axes.get_ylabel(), [a.get_ylabel() for a in _sharing(axes, "y")]),
            )
        )
        panel = axes.get_title() or axes.get_title(loc="left") or str(number)
        for series, x, y in _points(axes):
            if not file.tell():
                writer.writerow(["panel", "x_axis", "y_axis", "series", "x", "y"])
            writer.writerow([panel, x_axis, y_axis, series, _cell(x), _cell(y)])
    return file.getvalue()


def _sharing(axes: Axes, which: str) -> list[Axes]:
    group = axes.get_shared_x_axes() if which == "x" else axes.get_shared_y_axes()
    return group.get_siblings(axes)


def _points(axes: Axes) -> Iterator[tuple[str, Any, Any]]:
    """(series, x, y) of all that is drawn in data coordinates."""
    for number, line in enumerate(axes.lines, 1):
        name = _name(line.get_label(), f"line {number}")
        in_x, in_y = line.get_transform().contains_branch_seperately(axes.transData)
        if not in_x and not in_y:
            continue
        points = np.asarray(line.get_xydata(), dtype=float)
        if not (in_x and in_y):
            points = points[:1]
        for x, y in points:
            yield name, x if in_x else math.nan, y if in_y else math.nan
    for number, container in enumerate(axes.containers, 1):
        if not isinstance(container, BarContainer):
            continue
        name = _name(container.get_label(), f"bars {number}")
        for bar in container:
            if container.orientation == "horizontal":
                place = bar.get_y() + bar.get_height() / 2
                yield name, bar.get_x() + bar.get_width(), _category(axes.yaxis, place)
            else:
                place = bar.get_x() + bar.get_width() / 2
                yield name, _category(axes.xaxis, place), bar.get_y() + bar.get_height()
    steps = [patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)]
    for number, (values, edges, _) in enumerate(steps, 1):
        if number > 1 and np.array_equal(values, steps[number - 2][0]):
            continue  # the outline of an area
        for x, y in zip(edges[:-1], values, strict=True):
            yield f"steps {number}, from x on", x, y
    for number, collection in enumerate(axes.collections, 1):
        name = _name(collection.get_label(), f"{_kind(collection)} {number}")
        if isinstance(collection, PathCollection):
            corners = [np.ma.filled(collection.get_offsets(), np.nan)]
        elif isinstance(collection, PolyCollection):
            corners = [np.asarray(path.vertices) for path in collection.get_paths()]
        else:
            continue
        for x, y in np.concatenate(corners):
            yield name, x, y


def _kind(collection: Collection) -> str:
    return "points" if isinstance(collection, PathCollection) else "band"


def _name(label: object, otherwise: str) -> str:
    text = str(label)
    return otherwise if not text or text.startswith("_") else text


def _category(axis: Axis, place: float) -> str | float:
    """What a tick at this place says, or else the place."""
    places = np.asarray(axis.get_ticklocs(), dtype=float)
    for tick, text in zip(
        places, axis.get_major_formatter().format_ticks(places.tolist()), strict=True
    ):
        if text and math.isclose(tick, place, abs_tol=1e-9):
            return text
    return place


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.8g}"
