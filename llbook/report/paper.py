"""The paper: its items by key, its numbers, and what its printed digits leave open.

Nothing else in the package holds a number of the paper. A key is the paper's own
name of a figure ("4a", "11"), or says which part of a table or which theorem is meant.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from llbook.measures.scaling import equation_9
from llbook.report.numbers import number, per_cent

__all__ = [
    "ITEMS",
    "LADDER",
    "LADDER_EPOCHS",
    "LANGUAGE_MODEL",
    "LAWS",
    "LEARNED",
    "PERCEPTRON",
    "TEXT",
    "Experiment",
    "Item",
    "from_changes",
    "printed_interval",
]


@dataclass(frozen=True)
class Experiment:
    """What the paper reports of one of its two experiments (Figures 2 and 4 to 6).

    Attributes:
        scale: T, N and, of the language model, V (App. D).
        auc: AUC/T in nats, before and after the search.
        cr: the compression ratio, before and after, bits over nats.
        ar: the acceleration ratio.
        similarity: the largest SIM_t.
    """

    scale: dict[str, int]
    auc: tuple[float, float]
    cr: tuple[float, float]
    ar: float
    similarity: float

    @property
    def change(self) -> float:
        """The relative change of AUC/T."""
        return self.auc[1] / self.auc[0] - 1


PERCEPTRON = Experiment({"steps": 2000, "size": 4096}, (0.25, 0.14), (4.0, 7.0), 5.50, 0.75)
LANGUAGE_MODEL = Experiment(
    {"steps": 4000, "size": 2**14, "vocabulary": 5000}, (4.1, 3.8), (3.0, 3.25), 2.41, 6.0
)

LEARNED = (0.2, 0.9)
"""Figure 9: below this share of the largest weight lies more than that share of the learned examples."""


@dataclass(frozen=True)
class Laws:
    """Table 1: conventional and near-optimal, with the t_0 and L_0 of both and the T of the run."""

    b: tuple[float, float] = (3.16e8, 1.99e7)
    beta: tuple[float, float] = (0.12, 0.14)
    r2: tuple[float, float] = (0.995, 0.999)
    l0: float = 0.051
    t0: float = 400.0
    steps: int = 4000

    def ratio(self, steps: float) -> float:
        """AR by Eq. 9."""
        old, new = zip(self.b, self.beta, strict=True)
        return float(equation_9(old, new, steps))


LAWS = Laws()

LADDER = (
    {"steps": 1000, "size": 2**12, "vocabulary": 4000, "b": -0.885, "beta": 0.100, "ar": 2.16},
    {"steps": 2000, "size": 2**13, "vocabulary": 4500, "b": -0.949, "beta": 0.180, "ar": 2.31},
    {"steps": 4000, "size": 2**14, "vocabulary": 5000, "b": -0.937, "beta": 0.187, "ar": 2.41},
    {"steps": 8000, "size": 2**15, "vocabulary": 6000, "b": -0.948, "beta": 0.190, "ar": 2.48},
)
"""Table 2: scale, ΔB/B, Δβ/β and AR."""
LADDER_EPOCHS = 15
"""Updates of the policy in each of its rows (App. C)."""

TEXT = {"b": -0.966, "beta": 0.212}
"""ΔB/B and Δβ/β in the text of Figure 11."""


def printed_interval(steps: float) -> dict[str, tuple[float, float]]:
    """What Table 1's printed digits leave open: ``b`` and ``beta``, the relative changes, and ``ar``.

    The least and the greatest value over all B and β that round to the printed ones. Each is
    monotone in each of the four numbers, so that these lie at corners.
    """
    half = np.array([0.005e8, 0.005e7, 0.005, 0.005])
    corners = []
    for signs in itertools.product((-1, 1), repeat=4):
        b1, b2, beta1, beta2 = np.array([*LAWS.b, *LAWS.beta]) + signs * half
        ratio = float(equation_9((b1, beta1), (b2, beta2), steps))
        corners.append((b2 / b1 - 1, beta2 / beta1 - 1, ratio))
    bounds = zip(np.min(corners, 0), np.max(corners, 0), strict=True)
    return dict(zip(("b", "beta", "ar"), bounds, strict=True))


def from_changes(b_change: float, beta_change: float, steps: float) -> tuple[float, float, float]:
    """AR by Eq. 9 from relative changes of B and β: its value, and the least and greatest.

    B and β of conventional learning are Table 1's, the changes printed to a tenth of a per cent.
    A common factor of both β leaves Eq. 9 as it is, so that the two printed digits of β do not
    come in.

    Args:
        b_change, beta_change: ΔB/B and Δβ/β.
        steps: T.
    """

    def ratio(*signs: int) -> float:
        b1, fall, rise = np.array([LAWS.b[0], b_change, beta_change]) + signs * np.array(
            [0.005e8, 5e-4, 5e-4]
        )
        return float(equation_9((b1, 1.0), (b1 * (1 + fall), 1 + rise), steps))

    corners = [ratio(*signs) for signs in itertools.product((-1, 1), repeat=3)]
    return ratio(0, 0, 0), min(corners), max(corners)


@dataclass(frozen=True)
class Item:
    """A figure, table, equation or theorem of the paper, and what is looked at in it.

    Attributes:
        name: as the paper calls it.
        what: the statement or the value.
        printed: what the paper says.
        place: where it is in the book, as MyST.
    """

    name: str
    what: str
    printed: str
    place: str

    @property
    def title(self) -> str:
        return f"{self.name}: {self.what}"


def _figures(part: str, paper: Experiment) -> dict[str, Item]:
    shown = {
        "4": ("Fig. 4", "change of AUC/T", f"about {per_cent([paper.change], 0)}"),
        "5": ("Fig. 5" if part == "a" else "Fig. 2, 5", "AR", f"{paper.ar:.2f}"),
        "6": ("Fig. 6", "largest SIM_t of the last policy", f"about {paper.similarity:g}"),
        "7": ("Fig. 7", "mean SIM rises with CR", "diverges"),
        "8": ("Fig. 8", "γ = 0 where CT ≤ 0", "towards 100%"),
        "10": ("Fig. 10", "weights below 0.1/N where CT > 0", "many"),
    }
    return {
        f"{key}{part}": Item(f"{name}{part}", what, printed, f"{{numref}}`fig-{key}{part}`")
        for key, (name, what, printed) in shown.items()
    }


_LADDER = "{ref}`sc-ladder`"

ITEMS: dict[str, Item] = {
    "A.1": Item("Theorem A.1", "training is a code", "d(C) = Σ B·L_t + d(trainer)", "{prf:ref}`thm-description-length`"),
    "algorithms": Item("Algorithms 1, 2", "encode while training, decode by replaying it", "lossless", "{prf:ref}`alg-encode`, {prf:ref}`alg-decode`"),
    "3.1": Item("Theorem 3.1", "the Learning Law", "equal CT over the support, equal to −dL/dt", "{prf:ref}`thm-ll-law`, {prf:ref}`thm-mp-law`"),
    "B.1": Item("Lemma B.1", "multipliers", "μ = 0 implies μ′ = 0", "{prf:ref}`lem-ll-multiplier`"),
    "4.1": Item("Property 4.1", "CT ≤ 0 gets no weight", "before convergence", "{prf:ref}`prop-ll-non-contributive`"),
    "4.2": Item("Property 4.2", "learned examples get no weight", "margin → +∞ implies γ = 0", "{prf:ref}`prop-ll-learned`"),
    "4.3": Item("Property 4.3", "a redundant training set is not used up", "almost surely some γ = 0", "{prf:ref}`prop-ll-redundant`"),
    "eq-22": Item("Eq. 22", "gradient by backward recursion", "exact", "{doc}`optimal_policy`"),
    "1": Item("Fig. 1", "area under the curve, and compression", "a drawing", "{numref}`fig-1`"),
    "3A": Item("Fig. 3A", "the law in 3-D", "a drawing", "{numref}`fig-ll-drawing`"),
    "3B": Item("Fig. 3B", "mean SIM rises with CR", "rises", "{numref}`fig-ll-similarity`"),
    "12": Item("Fig. 12", "training as a network", "a drawing", "{numref}`fig-12`"),
    **_figures("a", PERCEPTRON),
    "9": Item("Fig. 9", f"learned examples below {LEARNED[0]:g} of the largest weight", f"more than {100 * LEARNED[1]:.0f}%", "{numref}`fig-9`"),
    **_figures("b", LANGUAGE_MODEL),
    "table-1": Item("Table 1", "a power law, told from rival forms on held-out steps", "r² " + ", ".join(f"{r2:.3f}" for r2 in LAWS.r2), "{doc}`scaling_laws`"),
    "tables-1-2": Item("Tables 1, 2", "B falls and β rises", "at every scale", _LADDER),
    "table-2-b": Item("Table 2", "ΔB/B", per_cent([row["b"] for row in LADDER]), _LADDER),
    "table-2-beta": Item("Table 2", "Δβ/β", per_cent([row["beta"] for row in LADDER]), _LADDER),
    "table-2-ar": Item("Table 2", "AR grows with the scale", " → ".join(number(row["ar"]) for row in LADDER), _LADDER),
    "eq-9": Item("Eq. 9", "AR from the laws, against the measured", f"{number(LAWS.ratio(LAWS.steps), 2)} by its printed laws, {LANGUAGE_MODEL.ar} measured", "{eq}`eq-ar-laws`"),
    "11": Item("Fig. 11", "extrapolation of the laws", f"from T = {LAWS.steps:,}", "{numref}`fig-11`"),
}  # fmt: skip
"""Key → item."""
