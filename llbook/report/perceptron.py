"""What is said of the perceptron's runs: the paper's values, the settings by name, verdicts by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llbook.report.language_model import (
    Verdict,
    against,
    graded,
    largest_similarity_verdict,
    near_zero_share,
    similarity_verdict,
    zero_weights_verdict,
)
from llbook.report.numbers import spread, values

__all__ = ["LABELS", "PAPER", "verdicts"]

Arrays = Mapping[str, NDArray[Any]]

PAPER: dict[str, Any] = {
    "auc": (0.25, 0.14),
    "cr_mixed": (4.0, 7.0),
    "ar": 5.50,
    "similarity": 0.75,
    "learned": 0.9,
}
"""The paper's values: AUC/T in nats and CR before and after, AR, the largest SIM_t, and the share of
learned examples with less than a fifth of the largest weight."""

LABELS = {
    "as-printed": "as printed: default θ₀, K = 512",
    "headline": "θ₀ ~ N(0, I), K = 4096",
    "normal-512": "θ₀ ~ N(0, I), K = 512",
    "linear-4096": "default θ₀, K = 4096",
    "noise-3-linear-512": "as printed, 3% label noise",
    "noise-20-linear-512": "as printed, 20% label noise",
    "decay-headline": "θ₀ ~ N(0, I), K = 4096, scripts' ε",
    "decay-as-printed": "as printed, scripts' ε",
    "large-step-headline": "θ₀ ~ N(0, I), K = 4096, ε = 2·10⁻⁵",
}
"""The recorded settings in words."""


def verdicts(runs: Sequence[Arrays], *, size: int | None = None) -> list[Verdict]:
    """Each figure of the paper held against runs of one setting.

    Args:
        runs: the runs, at least one.
        size: N, without which heat maps are not judged.

    The rules: AR, which has to be defined in every run, is *reproduced* within a factor of
    :data:`~llbook.report.language_model.FACTOR` of the paper's, *exceeded* beyond it, reproduced
    *in part* above 1. The ratio of the areas: below 0.7, below 0.9. Figures 6, 7 and 8 as
    :func:`~llbook.report.language_model.largest_similarity_verdict`,
    :func:`~llbook.report.language_model.similarity_verdict` and
    :func:`~llbook.report.language_model.zero_weights_verdict` have it. The share of
    learned examples below a fifth of the largest weight: above 90%, above 50%.
    The share of weights below a tenth of 1/N where CT > 0
    (:func:`~llbook.report.language_model.near_zero_share`, where the run has its heat
    map): above 50%, above 10%.
    """
    ratios = values(runs, "ar")
    reached = float(np.mean(ratios))  # nan if one is
    before, after = PAPER["auc"]
    fall = float(np.mean(values(runs, "auc")) / np.mean(values(runs, "auc", 0)))
    learned = np.sum([run["learned_counts"] for run in runs], axis=0)
    below = float(learned[: len(learned) // 5].sum() / max(1, learned.sum()))
    found = [
        Verdict(
            "Fig. 4a: AUC/T, ratio after to before",
            f"{after} / {before} = {after / before:.2f}",
            f"{fall:.2f}",
            graded(-fall, -0.7, -0.9),
        ),
        Verdict(
            "Fig. 5a: AR",
            f"{PAPER['ar']:.2f}",
            spread(ratios),
            against(reached, PAPER["ar"], reached > 1),
        ),
        largest_similarity_verdict(
            "Fig. 6a: largest SIM_t of the last policy", PAPER["similarity"], runs
        ),
        similarity_verdict("Fig. 7a", runs),
        zero_weights_verdict("Fig. 8a", runs),
        Verdict(
            "Fig. 9: learned examples below 0.2",
            f"more than {100 * PAPER['learned']:.0f}%",
            f"{100 * below:.0f}%" if learned.sum() else "no such example",
            graded(below, PAPER["learned"], 0.5),
        ),
    ]
    shares = [] if size is None else [near_zero_share(run, size) for run in runs]
    if known := [share for share in shares if not np.isnan(share)]:
        near = float(np.mean(known))
        found.append(
            Verdict(
                "Fig. 10a: weights below 0.1/N where CT > 0",
                "many",
                f"{100 * near:.0f}%",
                graded(near, 0.5, 0.1),
            )
        )
    return found
