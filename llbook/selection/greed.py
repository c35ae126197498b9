"""What greed costs where the best policy can be solved for: least squares, whose brackets are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from llbook.optimal.process import constant_policy
from llbook.selection.methods.greedy import Greedy
from llbook.selection.selector import select
from llbook.tasks.least_squares import LeastSquares, Rows, tilted
from llbook.theory.solve import solve
from llbook.theory.transcription import objective

__all__ = ["Price", "coupled_price", "tilted_price"]

FEWEST, MOST = 1, 2  # examples that greedy weighs at a step
MIXED = 0.1  # equal weight in the start from greedy: a zero weight would stay out of Newton's steps


class Price(NamedTuple):
    """Areas ηJ in nats: of equal weights, of greedy, and the least that was found, with its gap.

    Attributes:
        usual, greedy, best: ηJ.
        gap: relative first-order gap of the best, large where no solution is better than greedy.
    """

    usual: float
    greedy: float
    best: float
    gap: float


def tilted_price(
    coupling: float, *, size: int = 12, steps: int = 60, seed: int = 0, iterations: int = 3000
) -> Price:
    """Greedy beside the best policy of a random :func:`~llbook.tasks.least_squares.tilted` task.

    r_n is uniform in (0.4, 1), c_n between 1 and e⁻³, uniform in its logarithm, and the horizon is
    N/2. Greedy is the better of one and of two examples a step; the best policy
    that of the least area among these two and those solved for from them.

    Args:
        coupling: κ in [0, 1); the brackets of the flows grow with it.
        size: N.
        steps: T of Euler's method.
        seed: of r and c.
        iterations: gradients of each solution, at most.

    Raises:
        ValueError: a coupling out of range, fewer than two examples or one step.
    """
    if size < MOST or steps < 1:
        raise ValueError(
            f"expected at least {MOST} examples and one step, got size = {size}, steps = {steps}"
        )
    generator = np.random.default_rng(seed)
    rates, starts = generator.uniform(0.4, 1, size), np.exp(-generator.uniform(0, 3, size))
    eta = size / (2 * steps)
    task = tilted(rates, starts, np.ones(size), coupling=coupling, learning_rate=eta)
    return _price(task, eta, steps, iterations)


def coupled_price(*, steps: int = 120, iterations: int = 3000) -> Price:
    """The same where no two flows fail to commute, but the desired loss couples what they move.

    l_1 = θ_1²/2, l_2 = 0.15 θ_2², L_dsr = ((θ_1 + θ_2 - 1.5)² + θ_2²)/4, θ_0 = (1, 1), horizon 6.

    Args:
        steps: T of Euler's method.
        iterations: gradients of each solution, at most.

    Raises:
        ValueError: no step.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps = {steps}")
    own, both = [[1.0, 0.0], [0.0, 0.3**0.5]], [[1.0, 1.0], [0.0, 1.0]]
    training, desired = (
        Rows(torch.tensor(rows, dtype=torch.float64), torch.tensor(to, dtype=torch.float64))
        for rows, to in ((own, [0.0, 0.0]), (both, [1.5, 0.0]))
    )
    start, eta = torch.ones(2, dtype=torch.float64), 6 / steps
    task = LeastSquares(training, desired, initial=start, learning_rate=eta)
    return _price(task, eta, steps, iterations)


def _price(task: LeastSquares, eta: float, steps: int, iterations: int) -> Price:
    size = task.size
    value = objective(task, interval=eta, scheme="euler")
    tried = [select(task, Greedy(count / size), steps).policy for count in range(FEWEST, MOST + 1)]
    greedy = min(tried, key=lambda policy: value(policy)[0])
    equal = constant_policy(task, steps)
    mixed = (1 - MIXED) * greedy + MIXED / size
    solutions = [solve(value, start, iterations=iterations) for start in (equal, mixed)]
    # themselves: few iterations may end above them
    ends = [solve(value, policy, iterations=1) for policy in (equal, greedy)]
    best = min(solutions + ends, key=lambda one: one.objective)
    return Price(ends[0].objective, ends[1].objective, best.objective, best.gap)
