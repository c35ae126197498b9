"""Small things that every page prints the same way: numbers, spreads and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
from IPython.display import HTML
from numpy.typing import NDArray

from llbook.data.stories import text_name
from llbook.experiments.experiment import registry
from llbook.experiments.perceptron import PerceptronConfig
from llbook.parameters import Parameters
from llbook.runs.run import Run, provenance_line

__all__ = [
    "flat_parameters",
    "number",
    "page_print",
    "per_cent",
    "small_print",
    "spread",
    "table",
    "values",
]


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def small_print(run: Run, notebook: str, usual: Parameters | None = None) -> HTML:
    """Where a figure comes from, as the line of small print that stands under it.

    Args:
        run: what the figure shows.
        notebook: name of the notebook that draws it.
        usual: the defaults to compare with; the perceptron's unless given. What a run's
            configuration has beside them is not listed, but for the text it was made from.
    """
    defaults = (PerceptronConfig() if usual is None else usual).model_dump()
    own = {name: value for name, value in run.config.items() if name in defaults}
    line = provenance_line(replace(run, config=own), notebook, defaults)
    if name := run.config.get("corpus_name"):
        digest = run.config["corpus_sha256"]
        line += f" · text: {text_name(name, digest)}, SHA-256 {digest[:12]}"
    return HTML(f'<p class="provenance">{escape(line)}</p>')


def page_print(notebook: str, config: Parameters) -> HTML:
    """The small print of a figure whose numbers the page itself computes, without a stored run."""
    usual = type(config)().flat()
    changed = [f"{name} = {value}" for name, value in config.flat().items() if value != usual[name]]
    line = " · ".join(
        [notebook, ", ".join(changed) or "default parameters", "computed in the page"]
    )
    return HTML(f'<p class="provenance">{escape(line)}</p>')


def flat_parameters(run: Run) -> dict[str, Any]:
    """Flat parameters of a run; its experiment's defaults where it does not say, as older ones do not."""
    sections = [part for part in run.config.values() if isinstance(part, Mapping)]
    own = {name: value for part in (run.config, *sections) for name, value in part.items()}
    usual: dict[str, Any] = registry()[run.kind].config().flat()
    return {name: own.get(name, value) for name, value in usual.items()}


def number(value: float | np.floating[Any], digits: int = 3) -> str:
    """``value`` with so many significant digits, or all of its whole part's; an exponent only if needed."""
    value = float(value)
    if math.isnan(value):
        return "never"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")  # of the rounded value
    power = int(exponent)
    if -3 <= power < 5:
        text = f"{value:.{max(0, digits - (value != 0) - power)}f}"
    else:
        text = f"{mantissa}·10{str(power).translate(_RAISED)}"
    return text.replace("-", "−")


def per_cent(changes: Sequence[float] | NDArray[Any], decimals: int = 1) -> str:
    """Mean and range of relative changes: ``-7.3% (-8.0 to -6.9)``."""
    array = 100 * np.asarray(changes, dtype=float)
    text = f"{array.mean():+z.{decimals}f}%"
    if len(array) > 1:
        text += f" ({array.min():+z.{decimals}f} to {array.max():+z.{decimals}f})"
    return text.replace("-", "−")


def spread(results: Sequence[float] | NDArray[Any], digits: int = 3) -> str:
    """Mean and range over seeds: ``0.121 (0.119–0.124)``; says how many are undefined."""
    array = np.asarray(results, dtype=float)
    known = array[~np.isnan(array)]
    if len(known) == 0:
        return "never"
    text = number(known.mean(), digits)
    if len(known) > 1:
        text += f" ({number(known.min(), digits)}–{number(known.max(), digits)})"
    if len(known) < len(array):
        text += f"; never in {len(array) - len(known)} of {len(array)}"
    return text


def values(runs: Iterable[Mapping[str, np.ndarray]], name: str, position: int = -1) -> list[float]:
    """``history_<name>`` of several runs at one measured epoch."""
    return [float(run[f"history_{name}"][position]) for run in runs]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
