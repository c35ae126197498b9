"""Other forms in the place of the power law, judged on steps that none of them was fitted to.

Over a stretch of a few powers of two every smooth falling curve is nearly a line once
an L_0 may be chosen for it: r² of 0.999 tells a power law from an exponential no
better than from a / ln t. What tells them apart is where they go. Each form is

    L(t) = L_0 + A φ(t),    L_0, A ≥ 0,

with at most one number inside φ, fitted by least squares to the first steps of a
curve and held against the last. Steps are even in ln t, in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar, nnls

from llbook.measures.scaling import fit, thinned

__all__ = ["FORMS", "HELD_OUT", "LAW", "held_out_errors", "law_is_best"]

HELD_OUT = 2.0
"""Steps after T over this are held out."""

LAW = "power law with L₀"
"""The form that is the law's own (Fig. 11)."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """L_0 + A φ(t; s).

    Attributes:
        phi: φ at steps (n,) for a number s.
        bounds: least and greatest s; equal where φ has none.
        floor: whether there is an L_0.
    """

    phi: Callable[[Array, float], Array]
    bounds: tuple[float, float]
    floor: bool

    def fitted(
        self, s: float, t: Array, curve: Array, seen: NDArray[np.bool_]
    ) -> tuple[Array, float]:
        """The form at ``t`` for one s, and the norm of its residual on those ``seen``."""
        columns = np.stack([self.phi(t, s), np.ones_like(t)][: 1 + self.floor], 1)
        scale = columns[seen].max(0)
        weights, residual = nnls(columns[seen] / scale, curve[seen])
        return columns @ (weights / scale), residual

    def error(self, t: Array, curve: Array, seen: NDArray[np.bool_]) -> float:
        """Root mean square of what is missed on the steps that are not ``seen``."""
        low, high = np.log(self.bounds)
        logs = np.linspace(low, high, 60 if low < high else 1)

        def residual(log: float) -> float:
            return self.fitted(float(np.exp(log)), t, curve, seen)[1]

        best = int(np.argmin([residual(log) for log in logs]))
        around = logs[max(best - 1, 0)], logs[min(best + 1, len(logs) - 1)]
        log = minimize_scalar(residual, bounds=around, method="bounded", options={"xatol": 1e-9}).x
        missed = (self.fitted(float(np.exp(log)), t, curve, seen)[0] - curve)[~seen]
        return float(np.sqrt(np.mean(missed**2)))


def _power(t: Array, beta: float) -> Array:
    return t**-beta


def _exponential(t: Array, rate: float) -> Array:
    return np.exp(-rate * (t - t[0]))  # from the first step on: of a late t itself it is zero


def _logarithm(t: Array, _: float) -> Array:
    return 1 / np.log(t)


FORMS = {
    LAW: Form(_power, (1e-3, 10), True),
    "power law": Form(_power, (1e-3, 10), False),
    "exponential with L₀": Form(_exponential, (1e-6, 1), True),
    "exponential": Form(_exponential, (1e-6, 1), False),
    "a / ln t with L₀": Form(_logarithm, (1, 1), True),
    "a / ln t": Form(_logarithm, (1, 1), False),
}


def held_out_errors(steps: ArrayLike, losses: ArrayLike) -> dict[str, Array]:
    """Root mean squares of what each form misses on the last steps, in nats, shape (C,) each.

    All forms are fitted, curve by curve, to the steps from t_0 to T / :data:`HELD_OUT`, with
    the t_0 that :func:`~llbook.measures.scaling.fit` finds there, and at least 2.

    Args:
        steps: t of each point, shape (n,), rising.
        losses: in nats, shape (n,) or (C, n).

    Raises:
        NoLawError: no law can be fitted to the first steps.
        ValueError: as :func:`~llbook.measures.scaling.fit`.
    """
    t, curves = thinned(steps, losses)
    first = t <= t[-1] / HELD_OUT
    used = t > max(1.0, fit(t[first], curves[:, first]).laws[0].t0)
    return {
        name: np.array([form.error(t[used], curve[used], first[used]) for curve in curves])
        for name, form in FORMS.items()
    }


def law_is_best(errors: dict[str, Array]) -> NDArray[np.bool_]:
    """Whether the law misses less than every rival, shape (C,); without L_0 it is none."""
    rivals = [error for name, error in errors.items() if name not in (LAW, "power law")]
    return errors[LAW] < np.min(rivals, 0)
