"""Forward and adjoint sweeps over signed inputs, from the closed forms of the logistic loss.

Both sweeps walk over the signed inputs a_n once a step: on a CPU a compiled
kernel reads a_n, takes its product with θ or λ and adds its share to the sum
while the row is still in the cache, and a row with γ_n = 0 costs nothing that
can be left out. On other devices the same formulas are matrix–vector products.

The kernels cut the rows into a fixed number of blocks and add the blocks in a
fixed order, so that results do not depend on the number of threads. That number
is chosen anew every few steps: threads meet at every step, and beside other programs on the
same cores each meeting waits for the one that is not running.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numba import get_num_threads, njit, prange, set_num_threads
from torch import Tensor

__all__ = ["adjoint_sweep", "descend"]

BLOCKS = 16
SMALL = 2**16  # numbers in the inputs
STRETCH, FEW = 16, 4  # steps between two looks at the clock; before the first
SHORTEST, LONGEST = 8, 128  # stretches by one thread, before all are tried again
_FLAGS = {"reassoc", "contract", "nsz"}


class _Crew:
    """By how many threads steps are done: all, or one for a while, where that is faster.

    It is where each step is short, and beside other programs on the same cores. The while is the
    longer the sooner all threads are slower again.
    """

    def __init__(self) -> None:
        self._pause = SHORTEST
        self._alone = self._together = 0  # stretches: still to be done by one; since then by all
        self._taken = 0.0  # by all, of the time by one in the same run; recent stretches weigh most

    def run(self, steps: Callable[[int, int], None], count: int, signed: Tensor) -> None:
        """Do so many steps, from one to another at a time."""
        most = get_num_threads()
        always = most == 1 or signed.numel() < SMALL
        by_one, first = 0.0, 0
        try:
            while first < count:
                alone = always or self._alone > 0 or first == 0
                set_num_threads(1 if alone else most)
                last = count if always else min(first + (STRETCH if first else FEW), count)
                began = time.perf_counter()
                steps(first, last)
                taken, first = (time.perf_counter() - began) / (last - first), last
                if alone:
                    self._alone, by_one = max(0, self._alone - 1), taken
                else:
                    self._learn(taken, by_one)
        finally:
            set_num_threads(most)

    def _learn(self, taken: float, by_one: float) -> None:
        before = self._taken if self._together else 0.5  # as on two quiet cores
        self._taken = (7 * before + taken / by_one) / 8
        self._together += 1
        if self._taken > 1:
            self._alone, self._together = self._pause, 0
            self._pause = min(2 * self._pause, LONGEST)
        elif self._together > self._pause:
            self._pause = SHORTEST


_CREW = _Crew()


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def descend(signed: Tensor, initial: Tensor, eta: float, policy: Tensor) -> Tensor:
    """θ_0 … θ_T of Eq. 1, shape (T + 1, D).

    Args:
        signed: a_n = y_n z_n, shape (N, D).
        initial: θ_0, shape (D,).
        eta: η.
        policy: γ, shape (T, N).
    """
    trajectory = policy.new_empty(len(policy) + 1, len(initial))
    trajectory[0] = initial
    if _on_cpu(policy):
        inputs = signed.numpy()
        weights = policy.contiguous().numpy()
        rate, states = inputs.dtype.type(eta), trajectory.numpy()

        def run(first: int, last: int) -> None:
            _descend(inputs, weights[first:last], rate, states[first : last + 1])

        _CREW.run(run, len(policy), signed)
    else:
        for t, weights in enumerate(policy):
            theta = trajectory[t]
            pull = weights * torch.sigmoid(-(signed @ theta))
            torch.addmv(theta, signed.T, pull, alpha=eta, out=trajectory[t + 1])
    return trajectory


def adjoint_sweep(
    signed: Tensor, eta: float, policy: Tensor, trajectory: Tensor, slopes: Tensor
) -> Tensor:
    """∂J/∂γ of shape (T, N) by the backward recursion of Eq. 22.

    ``trajectory`` and ``slopes``, ∇L_dsr(θ_0) … ∇L_dsr(θ_T), have shape (T + 1, D). With s_n = σ(-a_n·θ_t) and u_n = a_n·λ_{t+1}: ∂J/∂γ_{n,t} = η s_n u_n, and
    H_t λ_{t+1} = Σ_n γ_{n,t} s_n (1 - s_n) u_n a_n.
    """
    # overwritten in place: s goes in, ∂J/∂γ comes out
    gradient = torch.sigmoid_((trajectory[:-1] @ signed.T).neg_())
    if _on_cpu(policy):
        inputs = signed.numpy()
        weights, rate = policy.contiguous().numpy(), inputs.dtype.type(eta)
        along, result, steps = slopes.numpy(), gradient.numpy(), len(policy)
        carried = along[steps].copy()

        def run(first: int, last: int) -> None:
            rows = slice(steps - last, steps - first)
            _adjoint_sweep(inputs, weights[rows], rate, along[rows], result[rows], carried)

        _CREW.run(run, steps, signed)
        return gradient
    costate = slopes[-1]
    for t in range(len(policy) - 1, -1, -1):
        pull = gradient[t]
        product = pull * (signed @ costate)
        curvature = signed.T @ (policy[t] * (1 - pull) * product)
        torch.mul(product, eta, out=gradient[t])
        costate = slopes[t] + costate - eta * curvature
    return gradient


@njit(parallel=True, cache=True, fastmath=_FLAGS)
def _descend(signed, policy, eta, trajectory):  # pragma: no cover - compiled
    steps, size = policy.shape
    width = signed.shape[1]
    one = signed.dtype.type(1)  # a literal 1 would widen the arithmetic to float64
    sums = np.zeros((BLOCKS, width), dtype=signed.dtype)
    for t in range(steps):
        theta = trajectory[t]
        for block in prange(BLOCKS):
            total = sums[block]
            total[:] = 0
            for n in range(block * size // BLOCKS, (block + 1) * size // BLOCKS):
                weight = policy[t, n]
                if weight == 0:
                    continue
                row = signed[n]
                margin = signed.dtype.type(0)
                for d in range(width):
                    margin += row[d] * theta[d]
                pull = weight / (one + np.exp(margin))
                for d in range(width):
                    total[d] += pull * row[d]
        for d in range(width):
            step = signed.dtype.type(0)
            for block in range(BLOCKS):
                step += sums[block, d]
            trajectory[t + 1, d] = theta[d] + eta * step


@njit(parallel=True, cache=True, fastmath=_FLAGS)
def _adjoint_sweep(signed, policy, eta, slopes, gradient, costate):  # pragma: no cover - compiled
    steps, size = policy.shape
    width = signed.shape[1]
    one = signed.dtype.type(1)  # a literal 1 would widen the arithmetic to float64
    sums = np.zeros((BLOCKS, width), dtype=signed.dtype)
    for t in range(steps - 1, -1, -1):
        for block in prange(BLOCKS):
            total = sums[block]
            total[:] = 0
            for n in range(block * size // BLOCKS, (block + 1) * size // BLOCKS):
                row = signed[n]
                product = signed.dtype.type(0)
                for d in range(width):
                    product += row[d] * costate[d]
                pull = gradient[t, n]
                product *= pull
                gradient[t, n] = eta * product
                weight = policy[t, n]
                if weight == 0:
                    continue
                curvature = weight * (one - pull) * product
                for d in range(width):
                    total[d] += curvature * row[d]
        for d in range(width):
            step = signed.dtype.type(0)
            for block in range(BLOCKS):
                step += sums[block, d]
            costate[d] = slopes[t, d] + costate[d] - eta * step
