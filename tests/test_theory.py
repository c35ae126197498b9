"""Flows, costates, the identity between contributions, exact optima, and bad input."""

import numpy as np
import pytest
import sympy as sp
import torch

from llbook.measures.law import similarity
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import Inner
from llbook.optimal.process import constant_policy, train
from llbook.tasks.least_squares import LeastSquares, Rows, tilted, water_filling
from llbook.tasks.task import Task
from llbook.theory.arcs import pair_law, rotation, shared_arc
from llbook.theory.config import GradientFlowConfig, MaximumPrincipleConfig
from llbook.theory.flows import (
    brackets,
    derivatives,
    euler_identity,
    exchange_curvature,
    flow_identity,
    gradient_flow,
    sample,
    smooth_policy,
)
from llbook.theory.influence import final_loss_gradient, influence
from llbook.theory.instances import small_perceptron
from llbook.theory.solve import euler_objective, first_order_point, reduced_hessian, solve
from llbook.theory.transcription import midpoints, objective, transcribe

RATES, STARTS = [1.0, 0.5, 0.5], np.exp([0.0, -2.0, -10 / 3])
IMPORTANCE = [1.0, 2.0, 0.5]


def perceptron(size=6, dimension=4, desired_size=16, seed=0, eta=0.1):
    return small_perceptron(
        size, dimension, desired_size, label_noise=0.2, seed=seed, learning_rate=eta
    )


class Quartic(Task):
    """A task without closed forms: l_n = Σ_d (θ_d - x_nd)⁴ + θ_1 θ_2 x_n1."""

    vocabulary = 2

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.training = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        self.desired = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        self.test = self.desired
        self.initial = torch.zeros(3, dtype=torch.float64)
        self.learning_rate = 0.01

    def losses(self, theta, examples):
        return (theta - examples).pow(4).sum(1) + theta[0] * theta[1] * examples[:, 0]


def random_policy(steps, size, seed=0):
    weights = np.random.default_rng(seed).exponential(size=(steps, size))
    return torch.from_numpy(weights / weights.sum(1, keepdims=True))


TASKS = {
    "perceptron": perceptron,
    "least squares": lambda: tilted(RATES, STARTS, IMPORTANCE, coupling=0.3),
    "quartic": Quartic,
}


@pytest.mark.parametrize("name", TASKS)
def test_derivatives_are_those_of_the_losses(name):
    task = TASKS[name]()
    theta = task.initial + 0.1
    at = derivatives(task, theta.numpy())
    np.testing.assert_allclose(
        at.gradients, torch.func.jacrev(lambda p: task.losses(p, task.training))(theta), atol=1e-13
    )
    np.testing.assert_allclose(
        at.hessians, torch.func.hessian(lambda p: task.losses(p, task.training))(theta), atol=1e-13
    )
    np.testing.assert_allclose(at.desired_loss, task.mean_loss(theta, task.desired))
    np.testing.assert_allclose(
        at.desired_gradient,
        torch.func.grad(lambda p: task.mean_loss(p, task.desired))(theta),
        atol=1e-13,
    )


@pytest.mark.parametrize(
    ("name", "seed"),
    [*((n, s) for n in ("perceptron", "least squares") for s in (0, 1, 2)), ("quartic", 0)],
)
def test_the_identity_holds_to_solver_accuracy_for_any_smooth_policy(name, seed):
    task = TASKS[name]()
    # automatic derivatives are slow
    horizon, tolerance = (0.2, 1e-9) if name == "quartic" else (1.0, 1e-12)
    policy = smooth_policy(task.size, horizon=horizon, seed=seed)
    flow = gradient_flow(task, policy, horizon=horizon, tolerance=tolerance)
    identity = flow_identity(task, policy, flow, horizon=horizon, nodes=97)
    assert identity.error < 1e-6
    assert np.abs((identity.weights * identity.bracket).sum(1)).max() < 1e-12
    np.testing.assert_allclose(
        (identity.weights * identity.contribution).sum(1), identity.speed, rtol=1e-11
    )
    # without the bracket it does not hold
    rest = identity.contribution - identity.drift
    assert np.abs(rest).max() > 1e-3 * np.abs(identity.contribution).max()


def test_the_identity_holds_in_steps_to_first_order():
    policy = smooth_policy(6, horizon=2.0, seed=2)
    errors = []
    for eta in (0.02, 0.01, 0.005):
        task = perceptron(eta=eta)
        rows = sample(policy, steps=round(2 / eta), learning_rate=eta)
        errors.append(euler_identity(task, rows, train(task, rows).trajectory).error)
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(order - 1) < 0.1).all()


def test_bracket_of_two_perceptron_examples():
    task = perceptron()
    theta, costate = task.initial.numpy(), np.arange(1.0, 5.0)
    a = task.training.signed.numpy()
    s = 1 / (1 + np.exp(a @ theta))
    result = brackets(derivatives(task, theta), costate)
    assert np.array_equal(result, -result.T)
    for n, m in ((0, 1), (2, 5)):
        formula = -s[n] * s[m] * (a[n] @ a[m]) * ((1 - s[m]) * a[m] - (1 - s[n]) * a[n])
        np.testing.assert_allclose(result[n, m], costate @ formula, rtol=1e-12)


def test_flows_commute_only_without_coupling():
    costate = np.array([1.0, 2.0, 3.0])
    for coupling, commute in ((0.0, True), (0.1, False)):
        task = tilted(RATES, STARTS, IMPORTANCE, coupling=coupling)
        result = brackets(derivatives(task, task.initial.numpy()), costate)
        assert (np.abs(result).max() < 1e-14) == commute


def test_the_order_of_commuting_flows_does_not_matter():
    for coupling, commute in ((0.0, True), (0.3, False)):
        task = tilted(RATES, STARTS, IMPORTANCE, coupling=coupling)
        rows = torch.eye(3, dtype=torch.float64).repeat_interleave(20, 0)
        ends = [
            transcribe(task, order, interval=0.05).trajectory[-1] for order in (rows, rows.flip(0))
        ]
        assert (float((ends[0] - ends[1]).norm()) < 1e-10) == commute


def test_symbolic_bracket_is_antisymmetric_and_law_for_separate_coordinates():
    u, v, l1, l2, r, w, start, total = sp.symbols("u v l1 l2 r w start total", positive=True)
    f, g = sp.Function("f")(u, v), sp.Function("g")(u, v)

    def bracket(one, other):
        slope = [sp.Matrix([h.diff(u), h.diff(v)]) for h in (one, other)]
        curve = [sp.hessian(h, (u, v)) for h in (one, other)]
        return (sp.Matrix([[l1, l2]]) * (curve[1] * slope[0] - curve[0] * slope[1]))[0]

    assert sp.expand(bracket(f, g) + bracket(g, f)) == 0
    assert sp.expand(bracket(f, g)) != 0
    state = start * sp.exp(-r * total)
    assert sp.simplify((w * state**2 / 2).diff(total) + (w * state) * (r * state)) == 0


@pytest.mark.parametrize("name", ["perceptron", "least squares"])
def test_transcription_by_euler_is_the_engines_adjoint(name):
    task = TASKS[name]()
    task.learning_rate = 0.05
    rows = random_policy(20, task.size)
    process = train(task, rows)
    swept = transcribe(task, rows, interval=0.05, scheme="euler")
    losses = task.trajectory_losses(process.trajectory[1:], task.desired)
    assert swept.area == pytest.approx(0.05 * float(losses.sum()), rel=1e-13)
    torch.testing.assert_close(swept.trajectory, process.trajectory, rtol=1e-12, atol=1e-14)
    engine = 0.05 * policy_gradient(task, rows, process)
    torch.testing.assert_close(swept.gradient, engine, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", ["perceptron", "least squares"])
@pytest.mark.parametrize("substeps", [1, 3])
def test_transcription_by_runge_kutta_has_the_exact_gradient(name, substeps):
    task = TASKS[name]()
    rows = random_policy(8, task.size)
    value = objective(task, interval=0.2, substeps=substeps)
    gradient = value(rows)[1]
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=rows.shape))
    width = 1e-5
    difference = value(rows + width * direction)[0] - value(rows - width * direction)[0]
    assert difference / (2 * width) == pytest.approx(float((gradient * direction).sum()), rel=1e-8)


def test_transcription_converges_to_the_flow_with_order_four():
    task = perceptron()
    steady = np.full(6, 1 / 6)
    flow = gradient_flow(task, lambda t: steady, horizon=2.0)
    errors, costates = [], []
    for count in (20, 40, 80):
        swept = transcribe(task, constant_policy(task, count), interval=2 / count)
        errors.append(abs(swept.area - flow.area))
        costates.append(np.abs(swept.costates[0].numpy() - flow.costate(0.0)).max())
    for sequence in (errors, costates):
        assert (np.log2(np.array(sequence[:-1]) / sequence[1:]) > 3.5).all()


def test_exchange_curvature_is_the_second_derivative():
    misses = []
    for eta in (0.02, 0.01, 0.005):
        task = perceptron(eta=eta)
        rows = constant_policy(task, round(1 / eta))
        place, move = len(rows) // 2, torch.zeros_like(rows)
        move[place, 0], move[place, 1], move[place + 1, 0], move[place + 1, 1] = 1, -1, -1, 1
        value = objective(task, interval=eta, scheme="euler")
        up, down = (value(rows + sign * 1e-4 * move)[1] for sign in (1, -1))
        second = float(((up - down) * move).sum()) / 2e-4
        swept = transcribe(task, rows, interval=eta, scheme="euler")
        at = derivatives(task, swept.trajectory[place].numpy())
        curvature = exchange_curvature(at, swept.costates[place + 2].numpy())
        assert np.allclose(curvature, curvature.T)
        misses.append(abs(second / (-2 * eta**2 * curvature[0, 1]) - 1))
    assert misses[2] < 0.7 * misses[1] < 0.5 * misses[0] + 0.01


def test_water_filling_enters_and_levels():
    grid = np.linspace(0, 6, 61)
    water = water_filling(RATES, STARTS, grid)
    np.testing.assert_allclose(water.entries, [0, 1, 3], atol=1e-12)
    np.testing.assert_allclose(water.policy.sum(1), 1)
    np.testing.assert_allclose(water.totals.sum(1), grid, atol=1e-12)
    contribution = STARTS * np.exp(-2 * np.array(RATES) * water.totals)
    inside = water.totals > 1e-12
    level = np.broadcast_to(water.level[:, None], inside.shape)
    np.testing.assert_allclose(contribution[inside], level[inside], rtol=1e-9)
    assert (contribution[~inside] <= level[~inside] * (1 + 1e-9)).all()


def test_solver_finds_the_commuting_optimum_where_the_law_is_exact():
    task = tilted(RATES, STARTS, IMPORTANCE)
    solution = solve(objective(task, interval=0.25, substeps=2), constant_policy(task, 24))
    assert solution.gap < 1e-10
    water = water_filling(RATES, STARTS, np.linspace(0, 6, 25))
    np.testing.assert_allclose(solution.policy.numpy(), water.policy, atol=1e-4)
    middle = midpoints(task, solution.policy, interval=0.25)
    sim = similarity(torch.from_numpy(middle.contribution), solution.policy)
    assert float(sim[~sim.isnan()].median()) > 1e6


def test_where_flows_do_not_commute_the_law_fails_by_the_bracket():
    task = tilted(RATES, STARTS, IMPORTANCE, coupling=0.1)
    solution = solve(objective(task, interval=0.2, substeps=2), constant_policy(task, 30))
    assert solution.gap < 1e-10
    middle = midpoints(task, solution.policy, interval=0.2)
    shared = ((solution.policy > 0).sum(1) > 1).numpy()
    used = (solution.policy > 0).numpy() & shared[:, None]
    off = (middle.contribution - middle.mean[:, None])[used]
    assert np.median(np.abs(off - middle.bracket[used])) < 0.01 * np.median(np.abs(off))
    future = similarity(-solution.gradient, solution.policy)
    assert float(future[~future.isnan()].median()) > 1e6
    # the future contribution in use is the loss still to be shed
    end = transcribe(task, solution.policy, interval=0.2).trajectory[-1].numpy()
    to_shed = middle.losses - derivatives(task, end).desired_loss
    np.testing.assert_allclose(middle.future.max(1), to_shed, atol=0.01 * to_shed[0])


def test_solver_certifies_a_small_perceptron_by_the_engines_own_gradient():
    task = perceptron()
    solution = solve(objective(task, interval=0.1, scheme="euler"), constant_policy(task, 20))
    assert solution.gap < 1e-10
    value, gradient = euler_objective(task)(solution.policy)
    assert value == pytest.approx(solution.objective / 0.1, rel=1e-12)
    mean = (solution.policy * gradient).sum(1)
    assert float(((mean - gradient.amin(1)) / mean.abs()).max()) < 1e-10
    even = constant_policy(task, 20)
    assert value < euler_objective(task)(even)[0]


@pytest.fixture(scope="module")
def tilt():
    """A task, its first-order point on 60 intervals, and θ and λ at their middles."""
    task = tilted(RATES, STARTS, IMPORTANCE, coupling=0.1)
    value = objective(task, interval=0.1, substeps=2)
    policy = first_order_point(value, constant_policy(task, 60)).policy
    halves = transcribe(task, policy.repeat_interleave(2, 0), interval=0.05)
    return task, policy, halves.trajectory[1::2].numpy(), halves.costates[1::2].numpy()


def test_two_examples_obey_the_pair_law_with_the_weights_of_the_second_order(tilt):
    task, policy, states, costates = tilt
    arc = np.flatnonzero((policy > 0).sum(1).numpy() == 2)[6:-3]
    assert len(arc) > 8
    for m in arc:
        at = derivatives(task, states[m])
        contribution = at.gradients @ at.desired_gradient
        law = pair_law(task, states[m], costates[m])
        assert np.array_equal(law, -law.T)
        assert abs(law[0, 1]) < 1e-3 * abs(contribution[0] - contribution[1])
        found = shared_arc(task, states[m], costates[m], (0, 1))
        assert found.curvature > 0
        assert found.weight == pytest.approx(float(policy[m, 0]), abs=2e-3)
        other = shared_arc(task, states[m], costates[m], (1, 0))
        assert other.curvature == pytest.approx(found.curvature, rel=1e-6)
        assert other.weight == pytest.approx(1 - found.weight, abs=1e-6)


def test_curvature_of_an_arc_is_the_second_derivative_of_a_narrow_variation(tilt):
    task, policy, states, costates = tilt
    middle = int(np.flatnonzero((policy > 0).sum(1).numpy() == 2)[11])
    fine, step = policy.repeat_interleave(32, 0), 0.1 / 32
    edges = step * np.arange(len(fine) + 1)
    offset = (edges - 0.1 * (middle + 0.5)) / 0.3
    bump = np.where(np.abs(offset) < 0.5, np.cos(np.pi * offset) ** 2, 0)
    move = torch.zeros_like(fine)
    move[:, 0] = torch.from_numpy(np.diff(bump) / step)
    move[:, 1] = -move[:, 0]
    value, width = objective(task, interval=step), 1e-6
    up, down = value(fine + width * move)[1], value(fine - width * move)[1]
    second = float(((up - down) * move).sum()) / (2 * width)
    curvature = shared_arc(task, states[middle], costates[middle], (0, 1)).curvature
    assert second == pytest.approx(curvature * (bump**2).sum() * step, rel=0.05)


def test_three_examples_violate_gohs_condition_and_a_rotation_lowers_the_area(tilt):
    task, policy, states, costates = tilt
    assert (
        torch.linalg.eigvalsh(
            reduced_hessian(objective(task, interval=0.1, substeps=2), policy)
        ).min()
        > 0
    )  # a minimum as far as its own grid can see
    three = np.flatnonzero((policy > 0).sum(1).numpy() == 3)[5:]
    b = np.stack([brackets(derivatives(task, states[m]), costates[m]) for m in three])
    goh = b[:, 0, 1] + b[:, 1, 2] + b[:, 2, 0]
    law = np.stack([pair_law(task, states[m], costates[m]) for m in three])
    np.testing.assert_allclose(
        law[:, 0, 1], policy[three, 2].numpy() * goh, atol=0.01 * np.abs(goh).max()
    )
    fine, step = policy.repeat_interleave(48, 0), 0.1 / 48
    edges, span, width = step * np.arange(len(fine) + 1), (0.1 * three[0], 6.0), 1e-8
    value, seconds = objective(task, interval=step), []
    for turns in (40, -40):
        move = rotation(edges, span, turns, (0, 1, 2), 3)
        assert float(move.sum(1).abs().max()) < 1e-9
        up, down = value(fine + width * move)[1], value(fine - width * move)[1]
        seconds.append(float(((up - down) * move).sum()) / (2 * width))
    envelope = np.sin(np.pi * (0.1 * (three + 0.5) - span[0]) / (6.0 - span[0])) ** 4
    predicted = 2 * np.pi * 40 / (6.0 - span[0]) * 0.1 * (envelope * goh).sum()
    assert (seconds[0] - seconds[1]) / 2 == pytest.approx(predicted, rel=0.03)
    assert min(seconds) < 0


def test_solutions_hold_no_weights_of_rounding():
    task = perceptron(size=8, desired_size=32, seed=1)
    found = solve(objective(task, interval=0.1, scheme="euler"), constant_policy(task, 30))
    assert found.gap < 1e-10
    assert not bool(((found.policy > 0) & (found.policy < 1e-12)).any())


def test_reduced_hessian_is_that_of_the_weights_in_use():
    matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 9.0]]).double()

    def quadratic(policy):
        return float((policy @ matrix * policy).sum() / 2), policy @ matrix

    policy = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]]).double()
    # one coordinate: from the second example to the first
    torch.testing.assert_close(
        reduced_hessian(quadratic, policy), torch.tensor([[2.0 + 4 - 2 * 1]]).double()
    )
    assert reduced_hessian(quadratic, policy[1:]).shape == (0, 0)


def test_a_point_with_a_gap_is_not_passed_off_as_first_order():
    task = perceptron()
    value = objective(task, interval=0.1, scheme="euler")
    with pytest.raises(RuntimeError, match=r"after \d gradients, expected < 1e-10"):
        first_order_point(value, constant_policy(task, 20), iterations=3)


def test_future_contributions_of_the_final_loss_sum_up_to_influence_functions():
    task = perceptron(size=40, desired_size=64, eta=0.5)
    policy = constant_policy(task, 300)
    process = train(task, policy)
    gradient = final_loss_gradient(task, policy, process)

    def final(weights):
        end = train(task, weights).trajectory[-1]
        return float(task.mean_loss(end, task.desired))

    move = torch.zeros_like(policy)
    move[280, 3], move[280, 5] = 1e-4, -1e-4
    difference = (final(policy + move) - final(policy - move)) / 2e-4
    assert difference == pytest.approx(float(gradient[280, 3] - gradient[280, 5]), rel=1e-6)
    limit = influence(task, process.trajectory[-1].numpy(), np.full(40, 1 / 40))
    np.testing.assert_allclose(gradient.sum(0), limit, atol=1e-9 * np.abs(limit).max())
    without = torch.full_like(policy, 1 / 39)
    worst = int(np.argmax(np.abs(limit)))
    without[:, worst] = 0
    assert final(without) - final(policy) == pytest.approx(-limit[worst] / 40, rel=0.5)


def test_future_contributions_of_the_final_loss_at_rates_that_fall():
    task, inner = perceptron(eta=0.5), Inner(schedule="linear")
    policy = constant_policy(task, 30)
    gradient = final_loss_gradient(task, policy, train(task, policy, inner=inner))
    move = torch.zeros_like(policy)
    move[7, 0], move[7, 1] = 1e-4, -1e-4
    ends = [train(task, policy + sign * move, inner=inner).trajectory[-1] for sign in (1, -1)]
    above, below = (float(task.mean_loss(end, task.desired)) for end in ends)
    expected = float(gradient[7, 0] - gradient[7, 1])
    assert (above - below) / 2e-4 == pytest.approx(expected, rel=1e-6)
    heavy = train(task, policy, inner=Inner("momentum"))
    with pytest.raises(ValueError, match="expected gradient descent.*momentum"):
        final_loss_gradient(task, policy, heavy)


def test_a_free_budget_is_used_up_before_convergence():
    task = perceptron()
    task.training.signed = torch.cat([task.training.signed, torch.zeros(1, 4).double()])
    idle = constant_policy(task, 20) * 0.1
    idle[:, -1] = 1 - idle[:, :-1].sum(1)
    found = solve(objective(task, interval=0.1), idle)
    assert found.gap < 1e-10 and float(found.gradient.amin(1).max()) < 0
    assert float(found.policy[:, -1].max()) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: shared_arc(perceptron(), np.zeros(4), np.ones(4), (0, 1), width=0.0),
            ValueError,
            "got 0.0",
        ),
        (
            lambda: rotation(np.linspace(0, 1, 21), (0.0, 1.0), 4, (0, 1, 2), 3),
            ValueError,
            "for 4 turns",
        ),
        (
            lambda: influence(perceptron(size=2, dimension=4), np.zeros(4), np.full(2, 0.5)),
            ValueError,
            "positive definite",
        ),
        (
            lambda: final_loss_gradient(
                perceptron(), random_policy(4, 6), train(perceptron(), random_policy(5, 6))
            ),
            ValueError,
            "4 steps, the process 5",
        ),
        (lambda: derivatives(perceptron(), np.zeros(3)), ValueError, r"\(4,\), got \(3,\)"),
        (lambda: smooth_policy(0, horizon=1.0), ValueError, "size 0"),
        (lambda: smooth_policy(3, horizon=0.0), ValueError, "horizon 0.0"),
        (
            lambda: sample(smooth_policy(3, horizon=1.0), steps=0, learning_rate=0.1),
            ValueError,
            "got 0 and 0.1",
        ),
        (
            lambda: gradient_flow(perceptron(), smooth_policy(5, horizon=1.0), horizon=1.0),
            ValueError,
            r"shape \(6,\), got \(5,\)",
        ),
        (
            lambda: gradient_flow(perceptron(), smooth_policy(6, horizon=1.0), horizon=-1.0),
            ValueError,
            "got -1.0",
        ),
        (
            lambda: euler_identity(perceptron(), random_policy(4, 6), torch.zeros(4, 4)),
            ValueError,
            r"got \(4, 6\) and \(4, 4\)",
        ),
        (lambda: transcribe(Quartic(), random_policy(2, 4), interval=0.1), TypeError, "Quartic"),
        (
            lambda: transcribe(perceptron(), random_policy(2, 6), interval=0.0),
            ValueError,
            "got 0.0 and 1",
        ),
        (
            lambda: transcribe(perceptron(), random_policy(2, 6), interval=0.1, scheme="leapfrog"),
            ValueError,
            "euler, runge-kutta, got 'leapfrog'",
        ),
        (
            lambda: transcribe(perceptron(), 2 * random_policy(2, 6), interval=0.1),
            ValueError,
            "row 0 of the policy is not on the simplex",
        ),
        (lambda: solve(lambda p: (0.0, p), torch.ones(2, 2)), TypeError, "float32"),
        (
            lambda: solve(lambda p: (0.0, p), torch.ones(2, 2).double(), tolerance=0.0),
            ValueError,
            "got 0.0",
        ),
        (lambda: tilted([1.0], [1.0, 2.0], [1.0]), ValueError, r"'starts': \(2,\)"),
        (lambda: tilted([1.0], [-1.0], [1.0]), ValueError, "starts must be positive"),
        (lambda: tilted([1.0], [1.0], [1.0], coupling=1.0), ValueError, r"\[0, 1\), got 1.0"),
        (lambda: water_filling([1.0], [1.0], [1.0, 2.0]), ValueError, "increase from 0"),
        (
            lambda: Rows(torch.zeros(2, 3), torch.zeros(2)),
            TypeError,
            "expected float64, got torch.float32",
        ),
        (
            lambda: LeastSquares(
                Rows(torch.eye(2).double(), torch.zeros(2).double()),
                Rows(torch.eye(3).double(), torch.zeros(3).double()),
                initial=torch.zeros(2).double(),
            ),
            ValueError,
            "desired inputs have 3 columns",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_page_parameters_are_checked():
    from llbook.parameters import ParameterError

    with pytest.raises(ParameterError, match="halvings: got 0"):
        GradientFlowConfig.from_flat({"halvings": 0})
    with pytest.raises(ParameterError, match="did you mean 'intervals'"):
        MaximumPrincipleConfig.from_flat({"interval": 3})
