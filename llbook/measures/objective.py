"""Loss AUC, compression ratio and acceleration ratio (Eqs. 4, 9 and App. A).

A *loss curve* here is L(θ_0) … L(θ_T), shape (T + 1,), in nats. The area sums
t = 1..T: the objective J of the search counts the losses that a policy can
still change.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["acceleration_ratio", "compression_ratio", "loss_auc"]


def _curve(losses: Tensor) -> Tensor:
    losses = torch.as_tensor(losses)
    if losses.ndim != 1 or len(losses) < 2:
        raise ValueError(f"expected a loss curve of shape (T + 1,), got {tuple(losses.shape)}")
    return losses.double()


def loss_auc(losses: Tensor) -> float:
    """Mean loss over steps 1..T in nats: J/T, the area under the curve by T (Eq. 4).

    Args:
        losses: L(θ_0) … L(θ_T) in nats, shape (T + 1,).
    """
    return float(_curve(losses)[1:].mean())


def compression_ratio(losses: Tensor, vocabulary: int, *, unit: str = "consistent") -> float:
    """Bits before over bits after, for symbols of V kinds (App. A).

    With ``unit="consistent"`` both are in one unit: ln V over the mean loss in
    nats. The numbers plotted in the paper fit ``unit="mixed"``: log2 V, in bits,
    over the mean loss in nats, which is larger by 1/ln 2 = 1.44. Of a loss of zero it is inf.

    Raises:
        ValueError: an unknown unit, V < 2, or a curve of the wrong shape.
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary must be at least 2, got {vocabulary}")
    if unit not in ("consistent", "mixed"):
        raise ValueError(f"unit must be 'consistent' or 'mixed', got {unit!r}")
    raw = math.log(vocabulary) if unit == "consistent" else math.log2(vocabulary)
    area = loss_auc(losses)
    return raw / area if area else math.inf


def acceleration_ratio(new: Tensor, old: Tensor) -> float:
    """How many times fewer steps ``new`` needs to get where ``old`` gets (Eq. 9).

    Where ``old`` falls throughout, this is T over the first step at which ``new`` is
    down to the final loss of ``old``. A curve that over-fits rises again, and its
    final loss is no achievement: so both curves are replaced by their running
    minima, and the ratio is that of the first steps at which they are down to the
    least loss of ``old``. Of any curve with itself it is exactly 1.

    Returns:
        The ratio, or nan where ``new`` never gets there.

    Raises:
        ValueError: curves of the wrong shape or of different lengths.
    """
    new, old = _curve(new)[1:], _curve(old)[1:]
    if len(new) != len(old):
        raise ValueError(f"the curves have {len(new) + 1} and {len(old) + 1} points")
    reached = new <= old.min()
    if not bool(reached.any()):
        return math.nan
    # argmax of a mask is its first true entry
    return (int(old.argmin()) + 1) / (int(reached.int().argmax()) + 1)
