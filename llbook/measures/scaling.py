"""Scaling laws of training: L(t) = L_0 + (B/t)^β for t > t_0 (§4.3, Fig. 11, Tables 1 and 2).

For given t_0 and L_0 the law is a line,

    ln(L - L_0) = -β ln t + β ln B,

fitted by least squares; t_0 and L_0 are those with the highest r². That search has
two ways to deceive. A short stretch of any smooth curve is nearly a line, so r²
rises by itself as fewer points remain: at least :data:`STRETCH` in t and
:data:`FEWEST` points must. And B, β and L_0 trade against each other: a larger L_0
with a larger β fits almost as well, which is why :func:`bootstrap` gives intervals.

Steps of a training are many more at its end than at its start in ln t, in which the
line lives. Curves are first thinned to steps at equal distances in ln t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FEWEST",
    "STRETCH",
    "Draws",
    "Fit",
    "Law",
    "NoLawError",
    "acceleration",
    "bootstrap",
    "equation_9",
    "fit",
    "thinned",
]

STRETCH = 4.0
"""The last step of a fitted stretch over its first, at least."""

FEWEST = 16
"""Points of a fitted stretch after thinning, at least."""

_POINTS = 100
_FLOORS = 1 - np.geomspace(1, 0.02, 60)  # L_0 over the least loss: 0 to 0.98
# B goes with a high power of L_0: each round looks between the neighbours of the best L_0 so far
_ROUNDS, _BETWEEN = 5, 8


class NoLawError(ValueError):
    """Curves to which no law can be fitted: too short, not falling, or not finite."""


@dataclass(frozen=True)
class Law:
    """L(t) = L_0 + (B/t)^β.

    Attributes:
        log_b: ln B; B in steps.
        beta: β.
        l0: L_0 in nats.
        t0: the step after which the law was fitted.
        r2: r² of the line.
    """

    log_b: float
    beta: float
    l0: float
    t0: float
    r2: float

    @property
    def b(self) -> float:
        """B in steps; infinite where a float cannot hold it."""
        return math.exp(self.log_b) if self.log_b < 709 else math.inf

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The loss in nats at ``steps``."""
        logs = np.log(np.asarray(steps, dtype=float))
        return self.l0 + np.exp(self.beta * (self.log_b - logs))


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` returns: C laws with one t_0 and one L_0.

    Attributes:
        laws: one per curve.
        steps: the thinned steps, shape (M,).
        losses: the curves there in nats, shape (C, M).
        starts: values of t_0 tried, shape (S,).
        floors: values of L_0 tried in nats, shape (G,).
        r2: mean r² over the curves, shape (G, S); -inf where a curve does not fall.
    """

    laws: tuple[Law, ...]
    steps: NDArray[np.float64]
    losses: NDArray[np.float64]
    starts: NDArray[np.float64]
    floors: NDArray[np.float64]
    r2: NDArray[np.float64]

    @property
    def at_border(self) -> tuple[bool, bool]:
        """Whether t_0 is the last, and L_0 the first or last, that the search could try.

        The highest r² is then no maximum. A t_0 of 0 is none of these: nothing was left out.
        """
        law, (starts, floors) = self.laws[0], (self.starts, self.floors)
        return (
            len(starts) > 1 and law.t0 == float(starts[-1]),
            len(floors) > 1 and law.l0 in (floors[0], floors[-1]),
        )


@dataclass(frozen=True)
class Draws:
    """Laws of resampled curves: D draws of C laws, each draw with one t_0 and one L_0.

    A draw whose curves do not fall has no law: nan.

    Attributes:
        log_b, beta: shape (D, C).
        l0, t0: shape (D,).
    """

    log_b: NDArray[np.float64]
    beta: NDArray[np.float64]
    l0: NDArray[np.float64]
    t0: NDArray[np.float64]

    @property
    def b(self) -> NDArray[np.float64]:
        """B in steps, shape (D, C); infinite where a float cannot hold it."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_b)

    def law(self, draw: int, curve: int) -> Law:
        """One of them; its r² is not kept."""
        return Law(
            float(self.log_b[draw, curve]),
            float(self.beta[draw, curve]),
            float(self.l0[draw]),
            float(self.t0[draw]),
            math.nan,
        )

    def losses(self, curve: int, steps: ArrayLike) -> NDArray[np.float64]:
        """The losses in nats that the draws predict at ``steps`` (n,), shape (D, n)."""
        logs = np.log(np.asarray(steps, dtype=float))[None]
        power = self.beta[:, curve, None] * (self.log_b[:, curve, None] - logs)
        with np.errstate(over="ignore"):
            return self.l0[:, None] + np.exp(power)


def fit(
    steps: ArrayLike,
    losses: ArrayLike,
    *,
    t0: float | None = None,
    l0: float | None = None,
) -> Fit:
    """Fit the law to one curve, or to several with t_0 and L_0 in common, as the paper does.

    Args:
        steps: t of each point, shape (n,), rising; points at t < 1 are left out.
        losses: in nats, shape (n,) or (C, n).
        t0, l0: given, or searched for the highest mean r².

    Raises:
        NoLawError: too short a curve; one that does not fall; losses that are not positive
            and finite.
        ValueError: shapes that do not fit; steps that do not rise; a t_0 that leaves too
            little; an L_0 that is not below every loss. The message says what was got.
    """
    steps_, losses_ = thinned(steps, losses)
    starts = _starts(steps_) if t0 is None else np.array([float(t0)])
    if t0 is not None and not _long_enough(steps_[steps_ > t0]):
        raise ValueError(f"t0: got {t0}; {_too_short(steps_)}")
    least = float(losses_.min())
    floors = least * _FLOORS if l0 is None else np.array([float(l0)])
    if l0 is not None and not 0 <= l0 < least:
        raise ValueError(f"l0 must be in [0, {least:.6g}), below the least loss, got {l0}")
    tried, mean = _search(steps_, losses_[None], starts, floors[None])
    if not np.isfinite(mean).any():
        raise NoLawError("a curve does not fall over any stretch that is long enough for a law")
    g, s = np.unravel_index(int(np.argmax(mean[0])), mean[0].shape)
    lines = _lines(steps_, losses_[None], starts[[s]], tried[:, [g]])
    laws = tuple(
        Law(float(log_b), float(beta), float(tried[0, g]), float(starts[s]), float(r2))
        for log_b, beta, r2 in zip(*(part[0, :, 0, 0] for part in lines), strict=True)
    )
    return Fit(laws, steps_, losses_, starts, tried[0], mean[0])


def bootstrap(found: Fit, *, draws: int = 200, seed: int = 0) -> Draws:
    """Refit curves whose residuals are resampled in blocks, with the same search for t_0 and L_0.

    The points of one training are not independent: residuals in ln(L - L_0) after t_0 are
    drawn in moving blocks of √m of the m points, all curves with the same blocks; points up
    to t_0, of which the law says nothing, stay. This is the uncertainty that the curve leaves
    in its law. It knows nothing of other seeds, nor of whether the law holds further on.

    Raises:
        ValueError: fewer than one draw.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    law = found.laws[0]
    after = np.flatnonzero(found.steps > law.t0)
    count = len(after)
    predicted = np.stack([one(found.steps[after]) for one in found.laws]) - law.l0
    residuals = np.log(found.losses[:, after] - law.l0) - np.log(predicted)
    block = math.ceil(math.sqrt(count))
    generator = np.random.default_rng(seed)
    first = generator.integers(0, count - block + 1, size=(draws, math.ceil(count / block)))
    places = (first[..., None] + np.arange(block)).reshape(draws, -1)[:, :count]
    curves = np.repeat(found.losses[None], draws, 0)
    drawn = residuals[:, places].transpose(1, 0, 2)  # (D, C, m)
    curves[:, :, after] = law.l0 + predicted * np.exp(drawn)
    if len(found.floors) > 1:
        floors = curves.min((1, 2))[:, None] * _FLOORS
    else:
        floors = np.repeat(found.floors[None], draws, 0)
    floors, mean = _search(found.steps, curves, found.starts, floors)
    g, s = _best(mean)
    rows = np.arange(draws)
    log_b, beta, _ = _lines(found.steps, curves, found.starts, floors[rows, g][:, None])
    chosen = log_b[rows, :, 0, s], beta[rows, :, 0, s], floors[rows, g], found.starts[s]
    falls = np.isfinite(mean[rows, g, s])
    return Draws(*(np.where(falls, part.T, np.nan).T for part in chosen))


def acceleration(new: Law, old: Law, steps: float) -> float:
    """T over the step at which ``new`` is down to the loss of ``old`` at T = ``steps``.

    Of laws with one L_0 this is :func:`equation_9`; nan where L_0 of ``new`` lies above
    that loss, so that it never gets there.
    """
    left = float(old(steps)) - new.l0
    if not left > 0:
        return math.nan
    with np.errstate(over="ignore"):
        return float(np.exp(math.log(steps) - new.log_b + math.log(left) / new.beta))


def equation_9(
    old: tuple[float, float], new: tuple[float, float], steps: ArrayLike
) -> NDArray[np.float64]:
    """AR = B₁^{β₁/β₂} / B₂ · T^{1 - β₁/β₂}, for two laws (B, β) with one L_0.

    From (B₂/t)^{β₂} = (B₁/T)^{β₁}: the new law is there at t = B₂ (T/B₁)^{β₁/β₂}, and AR = T/t.
    """
    (b1, beta1), (b2, beta2) = old, new
    ratio = beta1 / beta2
    logs = np.log(np.asarray(steps, dtype=float))
    return np.exp(ratio * np.log(b1) - np.log(b2) + (1 - ratio) * logs)


def thinned(steps: ArrayLike, losses: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Curves (C, M) in nats at steps t ≥ 1, at most a hundred, as even in ln t as they come.

    Raises:
        NoLawError, ValueError: as :func:`fit`.
    """
    t = np.asarray(steps, dtype=float)
    curves = np.atleast_2d(np.asarray(losses, dtype=float))
    if t.ndim != 1 or curves.ndim != 2 or curves.shape[1] != len(t):
        raise ValueError(
            f"expected steps (n,) and losses (n,) or (C, n), got {t.shape} and {np.shape(losses)}"
        )
    if not (np.diff(t) > 0).all():
        raise ValueError("steps must rise from each point to the next")
    if not (np.isfinite(curves).all() and (curves > 0).all()):
        bad = curves[~(np.isfinite(curves) & (curves > 0))][0]
        raise NoLawError(f"losses must be positive and finite, got {bad}")
    keep = t >= 1
    t, curves = t[keep], curves[:, keep]
    if not _long_enough(t):
        raise NoLawError(_too_short(t))
    wanted = np.geomspace(t[0], t[-1], _POINTS)
    places = np.unique(np.abs(t[:, None] - wanted).argmin(0))
    return t[places], curves[:, places]


def _long_enough(t: NDArray[np.float64]) -> bool:
    return len(t) >= FEWEST and bool(t[-1] >= STRETCH * t[0])


def _too_short(t: NDArray[np.float64]) -> str:
    got = f"{len(t)} points from {t[0]:g} to {t[-1]:g}" if len(t) else "no point"
    return (
        f"a law needs at least {FEWEST} points whose last step is {STRETCH:g} times the first, "
        f"got {got}"
    )


def _starts(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every t_0 after which enough is left; 0 first, which leaves nothing out."""
    candidates = np.concatenate([[0.0], steps])
    return np.array([t for t in candidates if _long_enough(steps[steps > t])])


def _search(
    steps: NDArray[np.float64],
    curves: NDArray[np.float64],
    starts: NDArray[np.float64],
    floors: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean r² of curves (D, C, M) over the L_0 given (D, G) and, round by round, finer ones.

    Returns:
        All L_0 that were tried, rising (D, G'), and r² there (D, G', S).
    """
    rows = np.arange(len(curves))
    mean = _lines(steps, curves, starts, floors)[2].mean(1)
    for _ in range(_ROUNDS if floors.shape[1] > 1 else 0):
        g, _ = _best(mean)
        low = floors[rows, np.maximum(g - 1, 0)]
        high = floors[rows, np.minimum(g + 1, floors.shape[1] - 1)]
        finer = np.linspace(low, high, _BETWEEN + 2, axis=1)[:, 1:-1]
        order = np.argsort(floors := np.concatenate([floors, finer], 1), axis=1)
        mean = np.concatenate([mean, _lines(steps, curves, starts, finer)[2].mean(1)], 1)
        floors = np.take_along_axis(floors, order, 1)
        mean = np.take_along_axis(mean, order[..., None], 1)
    return floors, mean


def _best(mean: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places in (G, S) of the largest of each of the D r²."""
    g, s = np.unravel_index(mean.reshape(len(mean), -1).argmax(1), mean.shape[1:])
    return g, s


def _lines(
    steps: NDArray[np.float64],
    curves: NDArray[np.float64],
    starts: NDArray[np.float64],
    floors: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """ln B, β and r² of curves (D, C, M) for each L_0 (D, G) and t_0 (S,): shape (D, C, G, S)."""
    x = np.log(steps)
    y = np.log(curves[:, :, None] - floors[:, None, :, None])  # (D, C, G, M)
    # sums over the points after each start, from the end; centred, so that none cancel
    x = x - x[-1]
    shift = y[..., -1:]
    y = y - shift
    at = np.searchsorted(steps, starts, side="right")
    count = (len(steps) - at).astype(float)

    def after(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[..., ::-1].cumsum(-1)[..., ::-1][..., at]

    sx, sxx = after(x), after(x * x)
    sy, syy, sxy = after(y), after(y * y), after(x * y)
    xx, yy, xy = sxx - sx * sx / count, syy - sy * sy / count, sxy - sx * sy / count
    slope = xy / xx
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where((slope < 0) & (yy > 0), xy * xy / (xx * yy), -np.inf)
        level = (sy - slope * sx) / count + shift  # at the last step
        beta = -slope
        log_b = np.log(steps[-1]) + level / beta
    return log_b, beta, np.minimum(r2, 1.0)
