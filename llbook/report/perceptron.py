"""What is said of the perceptron's runs: their setting in a few signs, and the verdicts on its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from llbook.experiments.perceptron import PerceptronConfig
from llbook.report import paper
from llbook.report.numbers import flat_parameters
from llbook.report.verdicts import Verdict, figure_verdicts
from llbook.runs.run import Run

__all__ = ["setting_label", "verdicts"]

_SIGNS = {"size": "N", "dimension": "D", "learning_rate": "η", "steps": "T", "step_size": "ε"}
_WORDS: dict[tuple[str, Any], str] = {
    ("initialisation", "linear"): "default θ₀",
    ("initialisation", "normal"): "θ₀ ~ N(0, I)",
    ("initialisation", "zero"): "θ₀ = 0",
    ("objective", "mean"): "on J/T",
    ("schedule", "linear"): "decaying",
    **{("method", name): name for name in ("spectral", "mirror", "two-stage")},
    **{("start", name): f"from {name}" for name in ("equal", "greedy", "static")},
}


def setting_label(runs: Sequence[Run]) -> str:
    """θ₀, K, and whatever else a setting changes of the defaults, in a few signs."""
    own, usual = flat_parameters(runs[0]), PerceptronConfig().flat()
    words = [_WORDS["initialisation", own.pop("initialisation")], f"K = {own.pop('desired_size')}"]
    if noise := own.pop("label_noise", 0):
        words.append(f"{100 * noise:g}% label noise")
    for name, value in own.items():
        if value != usual[name] and not name.endswith(("seed", "device", "_every")):
            shown = f"{value:g}" if isinstance(value, float) else value
            sign = _SIGNS.get(name, name.replace("_", " "))
            words.append(_WORDS.get((name, value), f"{sign} = {shown}"))
    return ", ".join(words)


def verdicts(runs: Sequence[Mapping[str, NDArray[Any]]]) -> list[Verdict]:
    """Figures 4a to 10a held against runs of one setting, by the rules of
    :func:`~llbook.report.verdicts.figure_verdicts`."""
    return figure_verdicts("a", paper.PERCEPTRON, runs)
