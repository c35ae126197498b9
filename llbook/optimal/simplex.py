"""Euclidean projection of the rows of a matrix onto the probability simplex.

The projection of v is max(v - τ, 0) with τ chosen so that the result sums to
one (Eq. 6). τ is the root of the convex, piecewise linear, decreasing function
φ(τ) = Σ_n max(v_n - τ, 0) - 1; Newton's method started to the left of the root
climbs to it monotonically and stops after finitely many steps, exactly, with no
sort. On a CPU each row stays in the first-level cache for all its iterations.

References: Held, Wolfe and Crowder (1974) for τ; Michelot (1986) for the
iteration; Condat (2016) for a survey.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

__all__ = ["project"]


def project(v: Tensor) -> Tensor:
    """Project each row onto {w ≥ 0, Σ w = 1} (the Proj of Eq. 6).

    Args:
        v: shape (T, N), or (N,) for a single row; float32 or float64.

    Returns:
        A new tensor of the same shape, dtype and device.

    Raises:
        ValueError: an empty row, a wrong number of dimensions, or a value that is
            not finite; the message names the row.
        TypeError: not a float32 or float64 tensor.
    """
    if not isinstance(v, Tensor) or v.dtype not in (torch.float32, torch.float64):
        got = f"a tensor of {v.dtype}" if isinstance(v, Tensor) else type(v).__name__
        raise TypeError(f"expected a float32 or float64 tensor, got {got}")
    if v.ndim not in (1, 2) or v.shape[-1] == 0:
        raise ValueError(f"expected shape (T, N) or (N,) with N ≥ 1, got {tuple(v.shape)}")
    rows = v.detach().reshape(-1, v.shape[-1])
    if rows.device.type == "cpu":
        rows = rows.contiguous()
        out = torch.empty_like(rows)
        worst = _project_rows(rows.numpy(), out.numpy())
    else:
        out, worst = _project_tensor(rows)
    if worst >= 0:
        raise ValueError(f"row {worst} of {len(rows)} has a value that is not finite")
    return out.reshape(v.shape)


# No "nnan" or "ninf" here: values that are not finite must be seen.
@njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _project_rows(rows, out):  # pragma: no cover - compiled
    count, width = rows.shape
    zero = rows.dtype.type(0)
    broken = np.full(count, False)
    for i in prange(count):
        row, target = rows[i], out[i]
        top = row[0]
        for n in range(width):
            top = max(top, row[n])
        # measured from the largest entry, τ lies in [-1, -1/N]: no cancellation at any scale
        total = 0.0
        for n in range(width):
            target[n] = row[n] - top
            total += target[n]
        if not np.isfinite(total):  # or the entries are as far apart as numbers can be
            broken[i] = not np.isfinite(row).all()
            if broken[i]:
                continue
        tau = max(-1.0, (total - 1.0) / width)
        while True:
            total = 0.0
            active = 0
            # selected before they are widened, and counted as integers: twice the speed
            for n in range(width):
                inside = target[n] > tau
                total += np.float64(target[n] if inside else zero)
                active += int(inside)
            step = (total - 1.0) / active
            if step <= tau:
                break
            tau = step
        for n in range(width):
            target[n] = max(target[n] - tau, 0.0)
    for i in range(count):
        if broken[i]:
            return i
    return -1


def _project_tensor(rows: Tensor) -> tuple[Tensor, int]:
    """The same iteration on all rows at once, for devices other than the CPU."""
    broken = ~torch.isfinite(rows).all(1)
    if bool(broken.any()):
        return rows, int(broken.nonzero()[0])
    shifted = rows - rows.amax(1, keepdim=True)
    tau = ((shifted.sum(1, keepdim=True, dtype=torch.float64) - 1) / rows.shape[1]).clamp(min=-1)
    while True:
        inside = shifted > tau
        active = inside.sum(1, keepdim=True)
        total = torch.where(inside, shifted, 0).sum(1, keepdim=True, dtype=torch.float64)
        step = (total - 1) / active
        if bool((step <= tau).all()):
            return (shifted - tau).clamp_(min=0).to(rows.dtype), -1
        tau = torch.maximum(step, tau)
