"""The parts of :mod:`llbook.tasks.window`: each on values and, where ``dual``, on tangents.

Arrays are (features, positions), with tangents in the columns from n on. A dot over a
letter is its tangent along the direction, a bar over it the derivative of the weighted
sum of the losses (of their tangents, where ``dual``) with respect to it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from llbook.tasks.lanes import FLAGS, apart, exponential, product, transpose

__all__ = [
    "activate",
    "activate_back",
    "attend",
    "attend_back",
    "head",
    "norm",
    "norm_back",
    "outer",
    "pull",
    "push",
]

_EPSILON = 1e-6


@njit(cache=True, fastmath=FLAGS)
def push(y, weights, dweights, x, n, dual, fresh):  # pragma: no cover - compiled
    """y = Wᵀx, ẏ = Wᵀẋ + Ẇᵀx; added to y unless ``fresh``."""
    product(y, weights.T, x, fresh)
    if dual:
        product(y[:, n:], dweights.T, x[:, :n], False)


@njit(cache=True, fastmath=FLAGS)
def pull(x_bar, weights, dweights, y_bar, n, dual):  # pragma: no cover - compiled
    """x̄ = Wȳ + Ẇẏ̄ (with ẏ̄ the derivative in ẏ), and that in ẋ, Wẏ̄."""
    product(x_bar, weights, y_bar, True)
    if dual:
        product(x_bar[:, :n], dweights, y_bar[:, n:], False)


@njit(cache=True, fastmath=FLAGS)
def outer(total, a, b, turned):  # pragma: no cover - compiled
    """total += a bᵀ, the sum over positions (over both halves, where there are tangents)."""
    transpose(b, turned)
    product(total, a, turned, False)


@njit(cache=True, fastmath=FLAGS)
def norm(x, w, d, unit, y, rate, mean, n, dual):  # pragma: no cover - compiled
    """y = g u + b with u = r x, r = (mean x² + ε)^(-1/2), means over features.

    u̇ = r (ẋ - u m), m = mean(u ẋ);   ẏ = g u̇ + ġ u + ḃ.
    """
    apart()
    real = x.dtype.type
    size = len(x)
    each = real(1 / size)
    rate[:] = 0
    for a in range(size):
        row = x[a]
        for i in range(n):
            rate[i] += row[i] * row[i]
    for i in range(n):
        rate[i] = real(1) / np.sqrt(rate[i] * each + real(_EPSILON))
    if dual:
        mean[:] = 0
    for a in range(size):
        row, u, out, gain, bias = x[a], unit[a], y[a], w[0, a], w[1, a]
        for i in range(n):
            u[i] = row[i] * rate[i]
        for i in range(n):
            out[i] = u[i] * gain + bias
        if dual:
            for i in range(n):
                mean[i] += u[i] * row[n + i]
    if not dual:
        return
    for i in range(n):
        mean[i] *= each
    for a in range(size):
        dx, u, out, gain, dgain, dbias = x[a, n:], unit[a], y[a], w[0, a], d[0, a], d[1, a]
        for i in range(n):
            u[n + i] = (dx[i] - u[i] * mean[i]) * rate[i]
        for i in range(n):
            out[n + i] = u[n + i] * gain + u[i] * dgain + dbias


@njit(cache=True, fastmath=FLAGS)
def norm_back(
    x_bar, y_bar, x, w, d, unit, rate, mean, total, sums, n, dual
):  # pragma: no cover - compiled
    """Adds to x̄, ẋ̄ and to ḡ = Σ ȳ u + ẏ̄ u̇, b̄ = Σ ȳ (sums over positions).

    With e = g ẏ̄ and q = mean(u e):  ẋ̄ += r (e - u q),
    ū = g ȳ + ġ ẏ̄ - r (m e + q ẋ),  x̄ += r ū - r u [mean(ū u) + mean(e u̇)].
    """
    apart()
    real = x.dtype.type
    size = len(x)
    each = real(1 / size)
    inner, q = sums[0], sums[1]
    inner[:] = 0
    q[:] = 0
    for a in range(size):
        u, y, gain = unit[a], y_bar[a], w[0, a]
        by_gain, by_bias = real(0), real(0)
        for i in range(len(y)):
            by_gain += y[i] * u[i]
        for i in range(n):
            by_bias += y[i]
        total[0, a] += by_gain
        total[1, a] += by_bias
        if dual:
            for i in range(n):
                q[i] += gain * y[n + i] * u[i]
    if dual:
        for i in range(n):
            q[i] *= each
    for a in range(size):
        u, y, gain = unit[a], y_bar[a], w[0, a]
        if dual:
            dx, out, dgain = x[a, n:], x_bar[a], d[0, a]
            for i in range(n):
                y[i] = gain * y[i] + dgain * y[n + i]
            for i in range(n):
                y[i] -= rate[i] * (mean[i] * gain * y[n + i] + q[i] * dx[i])
            for i in range(n):
                inner[i] += y[i] * u[i]
            for i in range(n):
                inner[i] += gain * y[n + i] * u[n + i]
            for i in range(n):
                out[n + i] += rate[i] * (gain * y[n + i] - u[i] * q[i])
        else:
            for i in range(n):
                y[i] *= gain
            for i in range(n):
                inner[i] += y[i] * u[i]
    for i in range(n):
        inner[i] *= each
    for a in range(size):
        u, y, out = unit[a], y_bar[a], x_bar[a]
        for i in range(n):
            out[i] += rate[i] * (y[i] - u[i] * inner[i])


@njit(cache=True, fastmath=FLAGS)
def attend(mixed, qkv, share, slope, work, sums, heads, scale, n, dual):  # pragma: no cover
    """m = v p, p = softmax over the keys j ≤ i of κ k·q, arrays (key j, query i).

    With s = κ (k̇·q + k·q̇):  ṗ = p∘d, d = s - p·s;   ṁ = v̇ p + v ṗ.
    ``share`` takes p, ``slope`` d.
    """
    apart()
    real = mixed.dtype.type
    zero = real(0)
    hidden = len(mixed)
    size = hidden // heads
    top, total = sums[0], sums[1]
    for h in range(heads):
        lo, hi = h * size, (h + 1) * size
        q, k = qkv[lo:hi], qkv[hidden + lo : hidden + hi]
        v, out = qkv[2 * hidden + lo : 2 * hidden + hi], mixed[lo:hi]
        p, d = share[h * n : (h + 1) * n], slope[h * n : (h + 1) * n]
        product(p, k[:, :n].T, q[:, :n], True)
        top[:] = -np.inf
        total[:] = 0
        # whole rows and a choice: the compiler makes vectors of that, not of parts of rows
        for j in range(n):
            row = p[j]
            for i in range(n):
                top[i] = row[i] if (i >= j) & (row[i] > top[i]) else top[i]
        for j in range(n):
            row = p[j]
            for i in range(n):
                each = exponential(scale * (row[i] - top[i]))
                row[i] = each if i >= j else zero
            for i in range(n):
                total[i] += row[i]
        for i in range(n):
            total[i] = real(1) / total[i]
        for j in range(n):
            row = p[j]
            for i in range(n):
                row[i] *= total[i]
        product(out[:, :n], v[:, :n], p, True)
        if not dual:
            continue
        product(d, k[:, n:].T, q[:, :n], True)
        product(d, k[:, :n].T, q[:, n:], False)
        total[:] = 0
        for j in range(n):
            row, near = d[j], p[j]
            for i in range(n):
                row[i] *= scale
            for i in range(n):
                total[i] += near[i] * row[i]
        for j in range(n):
            row, near, dp = d[j], p[j], work[j]
            for i in range(n):
                row[i] -= total[i]
            for i in range(n):
                dp[i] = near[i] * row[i]
        product(out[:, n:], v[:, n:], p, True)
        product(out[:, n:], v[:, :n], work[:n], False)


@njit(cache=True, fastmath=FLAGS)
def attend_back(
    qkv_bar, mixed_bar, qkv, share, slope, work, turned, sums, heads, scale, n, dual
):  # pragma: no cover - compiled
    """The derivatives in q, k, v and q̇, k̇, v̇, given m̄ and the derivative c in ṁ.

    With e = vᵀc less its mean p·(vᵀc) over the keys:  f = κ p∘e is that in s,
    p̄ = vᵀm̄ + v̇ᵀc + e∘d (up to what is the same for all keys),  t = κ p∘(p̄ - p·p̄);
    q̄ = k t + k̇ f, k̄ = q tᵀ + q̇ fᵀ, v̄ = m̄ pᵀ + c ṗᵀ; in q̇: k f, in k̇: q fᵀ, in v̇: c pᵀ.
    """
    apart()
    hidden = len(mixed_bar)
    size = hidden // heads
    inner, outer_sum = sums[0], sums[1]
    for h in range(heads):
        lo, hi = h * size, (h + 1) * size
        q, k = qkv[lo:hi], qkv[hidden + lo : hidden + hi]
        v, m_bar = qkv[2 * hidden + lo : 2 * hidden + hi], mixed_bar[lo:hi]
        q_bar, k_bar = qkv_bar[lo:hi], qkv_bar[hidden + lo : hidden + hi]
        v_bar = qkv_bar[2 * hidden + lo : 2 * hidden + hi]
        p, d = share[h * n : (h + 1) * n], slope[h * n : (h + 1) * n]
        transpose(p, turned)
        if dual:
            for j in range(n):
                row, near, far = work[j], p[j], d[j]
                for i in range(n):
                    row[i] = near[i] * far[i]
            transpose(work[:n], turned[n:])
            product(v_bar[:, n:], m_bar[:, n:], turned[:n], True)
        product(v_bar[:, :n], m_bar, turned, True)
        t = work[:n]
        product(t, v[:, :n].T, m_bar[:, :n], True)
        if dual:
            f = work[n:]
            product(t, v[:, n:].T, m_bar[:, n:], False)
            product(f, v[:, :n].T, m_bar[:, n:], True)
            inner[:] = 0
            for j in range(n):
                row, near = f[j], p[j]
                for i in range(n):
                    inner[i] += near[i] * row[i]
            for j in range(n):
                row, near, up, far = f[j], p[j], t[j], d[j]
                for i in range(n):
                    row[i] -= inner[i]
                for i in range(n):
                    up[i] += row[i] * far[i]
                for i in range(n):
                    row[i] *= scale * near[i]
        outer_sum[:] = 0
        for j in range(n):
            row, near = t[j], p[j]
            for i in range(n):
                outer_sum[i] += near[i] * row[i]
        for j in range(n):
            row, near = t[j], p[j]
            for i in range(n):
                row[i] = scale * near[i] * (row[i] - outer_sum[i])
        product(q_bar[:, :n], k[:, :n], t, True)
        transpose(t, turned)
        if dual:
            product(q_bar[:, :n], k[:, n:], work[n:], False)
            product(q_bar[:, n:], k[:, :n], work[n:], True)
            transpose(work[n:], turned[n:])
            product(k_bar[:, n:], q[:, :n], turned[n:], True)
        product(k_bar[:, :n], q, turned, True)


@njit(cache=True, fastmath=FLAGS)
def activate(active, bend, z, gelu, n, dual):  # pragma: no cover - compiled
    """φ(z), φ'(z) and φ'(z) ż: relu, or gelu z Φ(z) of slope Φ(z) + z Φ'(z)."""
    apart()
    real = z.dtype.type
    one, zero, half, density = real(1), real(0), real(0.5), real(1 / math.sqrt(2 * math.pi))
    root = real(math.sqrt(0.5))
    for a in range(len(z)):
        row, out, slope = z[a], active[a], bend[a]
        if gelu:
            for i in range(n):
                out[i] = half * (one + math.erf(row[i] * root))
            for i in range(n):
                slope[i] = out[i] + row[i] * density * exponential(-half * row[i] * row[i])
            for i in range(n):
                out[i] *= row[i]
        else:
            for i in range(n):
                slope[i] = one if row[i] > zero else zero
            for i in range(n):
                out[i] = row[i] * slope[i]
        if dual:
            for i in range(n):
                out[n + i] = row[n + i] * slope[i]


@njit(cache=True, fastmath=FLAGS)
def activate_back(bar, bend, z, gelu, n, dual):  # pragma: no cover - compiled
    """In place, derivatives in φ and φ̇ become z̄ = φ' φ̄ + φ'' ż φ̇̄ and φ' φ̇̄ (φ̇̄: that in φ̇).

    φ'' is 0 for relu, (2 - z²) Φ'(z) for gelu.
    """
    apart()
    real = z.dtype.type
    half, two, density = real(0.5), real(2), real(1 / math.sqrt(2 * math.pi))
    for a in range(len(z)):
        row, out, slope = z[a], bar[a], bend[a]
        for i in range(n):
            out[i] *= slope[i]
        if dual:
            if gelu:
                for i in range(n):
                    square = row[i] * row[i]
                    curve = density * exponential(-half * square) * (two - square)
                    out[i] += curve * row[n + i] * out[n + i]
            for i in range(n):
                out[n + i] *= slope[i]


@njit(cache=True, fastmath=FLAGS)
def head(
    x_bar, x, w, d, targets, count, scores, turned, total, sums, weight, reverse, n, dual
):  # pragma: no cover - compiled
    """Mean over ``count`` targets y of l = log Σ exp z - z_y, z = Wᵀx, or of l̇ = p·ż - ż_y.

    With p = softmax(z): z̄ = w (p - e_y); where dual, z̄ = w p∘(ż - p·ż) and the
    derivative in ż is w (p - e_y). Takes as many positions at once as
    ``scores`` has columns for.
    """
    apart()
    wide = scores.shape[1] // 2 if dual else scores.shape[1]
    # tangents at the left: their places take z̄, beside x, and those of p what is beside ẋ
    right = scores.shape[1] - wide
    z, dz = scores[:, right:], scores[:, :wide]
    value = 0.0
    top, share, mean, zero = sums[0], sums[1], sums[2], x.dtype.type(0)
    for lo in range(0, n, wide):
        hi = lo + wide
        product(z, w.T, x[:, lo:hi], True)
        if dual:
            product(dz, w.T, x[:, n + lo : n + hi], True)
            product(dz, d.T, x[:, lo:hi], False)
        last = min(wide, count - lo)
        picked = dz if dual else z
        for i in range(last):
            value -= picked[targets[lo + i], i]
        _exponentials(scores, sums, wide, dual)
        for i in range(last):
            value += mean[i] / share[i] if dual else top[i] + np.log(share[i])
        if not reverse:
            continue
        for i in range(wide):
            mean[i] /= share[i]
            share[i] = weight / share[i] if i < last else zero
        _slopes(scores, sums, wide, dual)
        for i in range(last):
            z[targets[lo + i], i] -= weight
        product(x_bar[:, lo:hi], w, dz, True)
        transpose(x[:, lo:hi], turned)
        if dual:
            product(x_bar[:, lo:hi], d, z, False)
            product(x_bar[:, n + lo : n + hi], w, z, True)
            transpose(x[:, n + lo : n + hi], turned[wide:])
        product(total, scores, turned, False)
    return value / count


@njit(cache=True, fastmath=FLAGS)
def _exponentials(scores, sums, wide, dual):  # pragma: no cover - compiled
    """e^(z - top) over z, with top = max z, their sum and that of their products with ż."""
    apart()
    right = scores.shape[1] - wide
    top, total, mean = sums[0], sums[1], sums[2]
    top[:] = -np.inf
    total[:] = 0
    mean[:] = 0
    for v in range(len(scores)):
        row = scores[v, right:]
        for i in range(wide):
            top[i] = row[i] if row[i] > top[i] else top[i]
    for v in range(len(scores)):
        row, tangent = scores[v, right:], scores[v]
        for i in range(wide):
            row[i] = exponential(row[i] - top[i])
        for i in range(wide):
            total[i] += row[i]
        if dual:
            for i in range(wide):
                mean[i] += row[i] * tangent[i]


@njit(cache=True, fastmath=FLAGS)
def _slopes(scores, sums, wide, dual):  # pragma: no cover - compiled
    """w p over the exponentials, w p∘(ż - p·ż) over ż."""
    apart()
    right = scores.shape[1] - wide
    share, mean = sums[1], sums[2]
    for v in range(len(scores)):
        row, tangent = scores[v, right:], scores[v]
        for i in range(wide):
            row[i] *= share[i]
        if dual:
            for i in range(wide):
                tangent[i] = row[i] * (tangent[i] - mean[i])
