"""Methods of data selection: each against a case by hand, what they cost, and what is refused."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from conftest import run_llbook

from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.figures import selection as figures
from llbook.figures import style
from llbook.measures.law import future_contributions
from llbook.measures.objective import loss_auc
from llbook.measures.ranking import agreement, auroc
from llbook.optimal import search as searching
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import PLAIN, Inner
from llbook.optimal.process import constant_policy, train
from llbook.optimal.starts import greedy, static
from llbook.parameters import ParameterError
from llbook.report import selection as report
from llbook.runs.run import Run
from llbook.selection import experiment, studies
from llbook.selection.experiment import BEST, ORDER, SELECTION, TOTALS, SelectionConfig
from llbook.selection.greed import coupled_price, tilted_price
from llbook.selection.methods import METHODS, Method, mixture
from llbook.selection.methods.by_loss import ByLoss
from llbook.selection.methods.controller import Controller
from llbook.selection.methods.grad_match import GradMatch, pursuit
from llbook.selection.methods.greedy import Greedy
from llbook.selection.methods.groups import Groups
from llbook.selection.methods.influence import Influence, solved
from llbook.selection.methods.look_ahead import BASE_SHARE, LookAhead, costates
from llbook.selection.methods.mean_mixture import ExcessLoss, MeanMixture
from llbook.selection.methods.metagradient import Metagradient
from llbook.selection.methods.mixture import BestMixture, MixingLaw
from llbook.selection.methods.pds import PDS, OneSweep
from llbook.selection.methods.rho import Rho
from llbook.selection.methods.self_paced import SelfPaced
from llbook.selection.methods.tracin import TracIn
from llbook.selection.methods.uniform import Uniform
from llbook.selection.selector import (
    PASSES,
    SelectionError,
    Selector,
    evaluation_cost,
    select,
    top,
)
from llbook.selection.tuning import tuned
from llbook.tasks.task import Task

TOY = {"size": 40, "dimension": 4, "desired_size": 20, "steps": 12, "epochs": 12}
POINTS = [[1.0, 0.0], [0.0, 0.5], [-1.5, 0.0], [2.0, 0.0]]


class Points(Task):
    """l(x, θ) = |θ - x|²/2, from θ_0 = 0 towards (1, 0): CT is 1, 0, -1.5, 2 at θ_0."""

    vocabulary = 2

    def __init__(self, learning_rate=0.5):
        self.initial = torch.zeros(2, dtype=torch.float64)
        self.learning_rate = learning_rate
        self.training = torch.tensor(POINTS, dtype=torch.float64)
        self.desired = self.test = torch.tensor([[1.0, 0.0]], dtype=torch.float64)

    def losses(self, theta, examples):
        return (theta - examples).square().sum(1) / 2


def perceptron(**changes):
    flat = {name: value for name, value in TOY.items() if name != "epochs"}
    return build_task(PerceptronConfig.from_flat(flat | {"precision": "float64"} | changes))


def first(selector, steps=1, task=None):
    """γ_0 as a list."""
    return select(task or Points(), selector, steps).policy[0].tolist()


def one(n, size=4):
    return [float(m == n) for m in range(size)]


def test_the_methods_of_the_losses():
    assert first(Uniform()) == [0.25] * 4
    assert first(ByLoss(0.25)) == one(3)  # losses 0.5, 0.125, 1.125, 2
    assert first(ByLoss(0.25, sign=-1)) == one(1)
    paced = select(Points(), SelfPaced(1.0), 10).policy
    assert paced[0].tolist() == one(1)
    assert paced[-1].tolist() == [0.25] * 4
    # losses at (1, 0) are 0, 0.625, 3.125, 0.5: what can be learned is 0.5, -0.5, -2, 1.5
    assert first(Rho(0.25), 60) == one(3)
    assert first(Rho(0.5), 60) == [0.5, 0, 0, 0.5]


def test_greedy_is_the_start_of_that_name():
    task = perceptron()
    found = select(task, Greedy(0.1), 12)
    torch.testing.assert_close(found.policy, greedy(task, 12, chosen=4, equal_share=0.0))
    assert first(Greedy(0.5)) == [0.5, 0, 0, 0.5]


def test_gradient_matching():
    found = pursuit(np.eye(3, 2), np.array([3.0, 1.0]), 2)
    np.testing.assert_allclose(found, [0.75, 0.25, 0], atol=1e-3)
    np.testing.assert_allclose(pursuit(np.eye(3, 2), np.array([3.0, 1.0]), 1), [1, 0, 0])
    np.testing.assert_allclose(pursuit(np.eye(2), np.array([-1.0, -1.0]), 2), [0.5, 0.5])
    # ∇L_dsr = (-1, 0) is a multiple of the last gradient, the longest one
    assert first(GradMatch(1)) == one(3)


def test_the_controller_moves_weight_to_what_is_above_the_mean():
    # CT less its mean: 0.625, -0.375, -1.875, 1.625
    expected = np.exp(np.array([0.625, -0.375, -1.875, 1.625]) / 1.875)
    np.testing.assert_allclose(first(Controller(1.0)), expected / expected.sum())


def test_static_scores():
    tracin, sweep, influence = TracIn(0.25), OneSweep(0.25), Influence(0.25)
    assert first(tracin) == first(sweep) == first(influence) == one(3)
    np.testing.assert_allclose(tracin.scores, [0.5, 0, -0.75, 1])
    # θ_1 = (0.1875, 0.0625), ∇L_dsr there (-0.8125, 0.0625), and η = 0.5
    np.testing.assert_allclose(sweep.scores, [0.40625, -0.015625, -0.609375, 0.8125])
    # H is the identity and δ a hundredth of it; there gradients are θ_1 - x_n
    slope, there = np.array([-0.8125, 0.0625]), np.array([0.1875, 0.0625])
    np.testing.assert_allclose(influence.scores, (there - np.array(POINTS)) @ slope / 1.01)


def test_influence_where_the_curvature_is_not_positive():
    def curved(vector):
        return vector * torch.tensor([1.0, -1.0], dtype=torch.float64)

    # g·Hg = 8 and δ = 0.008: one step along g, as the next direction bends down
    slope = torch.tensor([3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(solved(curved, slope), slope * 10 / 8.08)
    down = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(solved(curved, down), down)


def test_pds_is_the_static_start():
    task = perceptron()
    found = select(task, PDS(30), 12)
    torch.testing.assert_close(found.policy, static(task, 12, sweeps=30, equal_share=0.0))
    before, after = (
        task.trajectory_losses(train(task, policy).states, task.desired).sum()
        for policy in (constant_policy(task, 12), found.policy)
    )
    assert after < before


def test_metagradient_changes_counts_by_its_sign():
    # less their mean the scores of one step are 0.26, -0.16, -0.76, 0.66: two change
    assert first(Metagradient(0.5, outer=1)) == [0.25, 0.25, 0, 0.5]


def test_groups():
    # means of CT: 0.5 and 0.25
    members = torch.tensor([0, 0, 1, 1])
    mixture = np.exp([1.0, 0.5])
    mixture /= mixture.sum()
    np.testing.assert_allclose(first(Groups(1.0, members)), np.repeat(mixture / 2, 2))
    with pytest.raises(ValueError, match=r"groups: expected shape \(4,\), got \(2,\)"):
        first(Groups(1.0, members[:2]))


GROUPS = torch.tensor([0, 1, 1, 0])
"""The points (1, 0) and (2, 0), whose mean is (1.5, 0), and (0, 0.5) and (-1.5, 0)."""


def test_mean_mixtures_are_those_of_their_proxy():
    proxy = select(Points(), Groups(1.0, GROUPS), 5).policy
    for row in select(Points(), MeanMixture(1.0, GROUPS), 5).policy:
        torch.testing.assert_close(row, proxy.mean(0))
    # half of the mean point is the reference (0.1875, 0.0625): excess losses by hand
    excess = np.maximum(
        0, [0.5 - 0.33203125, 0.125 - 0.11328125, 1.125 - 1.425781250, 2 - 1.644531250]
    )
    worth = np.array([excess[[0, 3]].mean(), excess[[1, 2]].mean()])
    share = np.exp(worth / worth.max())
    found = first(MeanMixture(1.0, GROUPS, ExcessLoss))
    np.testing.assert_allclose(found, (share / share.sum() / 2)[GROUPS])


def test_the_best_mixture_is_that_of_the_line():
    """Of one long step the best mixture leads to the point of the line between the means nearest to (1, 0)."""
    task = Points(1.0)
    one_step = select(task, BestMixture(200, GROUPS), 1).policy[0]
    near, far = torch.tensor([1.5, 0.0]), torch.tensor([-0.75, 0.25])
    along = near - far
    share = float((torch.tensor([1.0, 0.0]) - far) @ along / (along @ along))
    assert 0 < share < 1
    np.testing.assert_allclose(
        one_step, np.array([share, 1 - share, 1 - share, share]) / 2, atol=1e-3
    )


def test_the_best_mixture_may_be_one_group():
    """A corner, which a few multiplicative steps do not reach."""
    assert first(BestMixture(2, GROUPS)) == [0.5, 0, 0, 0.5]


def test_a_group_that_diverges_alone_is_not_the_best(monkeypatch):
    def failing(task, weights, *rest):
        if weights[0] > 0:
            raise FloatingPointError("θ is not finite")
        return real(task, weights, *rest)

    real = mixture._area
    monkeypatch.setattr(mixture, "_area", failing)
    assert first(BestMixture(2, GROUPS)) != [0.5, 0, 0, 0.5]


def test_a_mixing_law_prefers_one_group():
    assert first(MixingLaw(GROUPS)) == [0.5, 0, 0, 0.5]
    mixtures = np.array([[1.0, 0], [0, 1], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    areas = 2.0 + np.exp(mixtures @ [0.4, -1.0])
    np.testing.assert_allclose(MixingLaw()._fit(mixtures, areas), [0.4, -1.0], atol=0.02)


def test_greed_costs_nothing_where_flows_commute():
    free, dear = (tilted_price(kappa, seed=1, iterations=1500) for kappa in (0.0, 0.8))
    assert free.greedy == pytest.approx(free.best, rel=1e-4) and free.best < 0.9 * free.usual
    assert dear.greedy > 1.02 * dear.best
    assert max(free.gap, dear.gap) < 1e-3


def test_flows_that_commute_are_not_enough_for_greed():
    """Greed feeds the first example first; the least area leaves it alone, at any length of step."""
    for steps in (120, 240):
        found = coupled_price(steps=steps)
        assert found.gap < 1e-6
        assert 1.04 < found.greedy / found.best < 1.05
        assert found.greedy < found.usual
    with pytest.raises(ValueError, match="got steps = 0"):
        coupled_price(steps=0)


def test_an_evaluation_of_a_search_goes_over_the_desired_examples_as_well():
    task = perceptron()  # N = 40, K = 20
    assert evaluation_cost(task, 3) == pytest.approx(3 * (PASSES + 2 * 20 / 40) / PASSES)
    # what one sweep of PDS costs, less the training under its weights
    assert select(task, OneSweep(0.5), 12).evaluations == pytest.approx(
        evaluation_cost(task) + 2 / PASSES
    )


def test_the_best_is_no_worse_than_greed_after_one_gradient():
    found = tilted_price(0.8, iterations=1)
    assert found.best <= min(found.usual, found.greedy) * (1 + 1e-12)


@pytest.mark.parametrize("wrong", [{"size": 1}, {"steps": 0}, {"coupling": 1.0}])
def test_a_price_of_greed_that_cannot_be_had(wrong):
    with pytest.raises(ValueError, match="size|coupling"):
        tilted_price(**{"coupling": 0.0} | wrong)


def test_look_ahead_has_the_costate_of_a_greedy_training():
    task = perceptron()
    policy = greedy(task, 12, chosen=round(BASE_SHARE * 40), equal_share=0.0)
    future = future_contributions(task, policy_gradient(task, policy, train(task, policy)))
    costate = costates(task, task.initial, [1.0] * 12)[0]
    torch.testing.assert_close(task.directional_derivatives(task.initial, costate), future[0])
    whole = select(task, LookAhead(0.1), 12)
    torch.testing.assert_close(whole.policy[0], top(future[0], 0.1))
    # a step ahead of a short step the slope is as it was
    assert first(LookAhead(0.25, 1), task=Points(1e-3)) == one(3)
    with pytest.raises(ValueError, match="horizon must be a whole number of at least 1, got 0"):
        LookAhead(0.1, 0)


def test_look_ahead_knows_the_rates_that_follow():
    task, falling = perceptron(), Inner(schedule="linear")
    weights = greedy(task, 12, chosen=round(BASE_SHARE * 40), equal_share=0.0, inner=falling)
    gradient = policy_gradient(task, weights, train(task, weights, inner=falling))
    future = future_contributions(task, gradient)
    costate = costates(task, task.initial, falling.factors(12))[0]
    torch.testing.assert_close(task.directional_derivatives(task.initial, costate), future[0])
    found = select(task, LookAhead(0.1), 12, inner=falling)
    torch.testing.assert_close(found.policy[0], top(future[0], 0.1))


# what the others choose depends on where the training is, and so on its rates
NO_RATE = {"uniform", "grad-match", "mixing-law"}


def chosen(name, eta, inner=PLAIN):
    """The policy of a method on twelve steps, or its scores."""
    method = METHODS[name]
    knobs = {method.knob: method.values[-1]} if method.knob else {}
    selector = method.make(**knobs)
    policy = select(perceptron(learning_rate=eta), selector, 12, inner=inner).policy
    return policy if selector.scores is None else selector.scores


@pytest.mark.parametrize("name", METHODS)
def test_rates_are_those_of_the_training_in_every_method(name):
    """A factor of one half at all steps is half of η, and something else than η."""
    halved = chosen(name, 4.0, Inner(schedule=(0.5,) * 12))
    torch.testing.assert_close(halved, chosen(name, 2.0))
    assert torch.allclose(halved, chosen(name, 4.0)) == (name in NO_RATE)


def test_the_trainings_of_a_mixing_law_have_the_rates_of_the_one_it_chooses_for(monkeypatch):
    falling, seen = Inner(schedule="linear"), []

    def spy(task, policy, *, inner):
        seen.append(inner)
        return train(task, policy, inner=inner)

    monkeypatch.setattr(mixture, "train", spy)
    select(perceptron(), MixingLaw(), 12, inner=falling)
    assert len(seen) > 3 and set(seen) == {falling}


def test_scores_of_a_training_whose_rate_falls():
    falling = Inner(schedule=(1.0, 0.5))  # η_t = 0.5 and 0.25
    tracin, sweep = TracIn(0.25), OneSweep(0.25)
    for selector in (tracin, sweep):
        select(Points(), selector, 2, inner=falling)
    # ∇L_dsr at θ_0 = 0 and at θ_1 = (0.1875, -0.0625), with θ_1 the mean gradient's step
    at = np.array([[0.0, 0.0], 0.5 * np.mean(POINTS, 0)])
    slopes = at - [1.0, 0.0]
    instant = np.array(
        [(theta - np.array(POINTS)) @ s for theta, s in zip(at, slopes, strict=True)]
    )
    np.testing.assert_allclose(tracin.scores, 0.5 * instant[0] + 0.25 * instant[1])
    # λ_2 = ∇L_dsr(θ_2), λ_1 = ∇L_dsr(θ_1) + (1 - 0.25) λ_2
    last = at[1] + 0.25 * (np.mean(POINTS, 0) - at[1]) - [1.0, 0.0]
    future = [slopes[1] + 0.75 * last, last]
    by_step = [(theta - np.array(POINTS)) @ f for theta, f in zip(at, future, strict=True)]
    np.testing.assert_allclose(sweep.scores, 0.5 * by_step[0] + 0.25 * by_step[1])


@pytest.mark.parametrize(
    "inner", [Inner("momentum"), Inner(weight_decay=0.1), Inner(batch=2), Inner("adam")]
)
def test_methods_select_for_gradient_descent_on_full_batches(inner):
    with pytest.raises(ValueError, match="at any rates, got {"):
        select(Points(), Uniform(), 3, inner=inner)


def test_a_schedule_of_another_length_than_the_training_is_refused():
    with pytest.raises(ValueError, match="each of T = 3 steps, got 2"):
        select(Points(), Uniform(), 3, inner=Inner(schedule=(1.0, 0.5)))


class Given(Selector):
    """Equal weights, until it gives something else."""

    def __init__(self, given, step=3):
        self.given, self.step = given, step

    def weigh(self, view):
        equal = torch.full((4,), 0.25, dtype=torch.float64)
        return self.given if view.step == self.step else equal


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(3, dtype=torch.float64) / 3, r"weights of shape \(3,\), expected \(4,\)"),
        ([0.25] * 4, "weights of shape list"),
        (torch.full((4,), 0.25), "float32 on cpu, expected torch.float64"),
        (torch.tensor([1, math.nan, 0, 0], dtype=torch.float64), "weight nan of example 1"),
        (torch.tensor([1.2, -0.2, 0, 0], dtype=torch.float64), "off the simplex: smallest -0.2"),
        (torch.tensor([0.5, 0.4, 0, 0], dtype=torch.float64), "sum 0.9"),
    ],
)
def test_bad_weights_are_named_with_their_step(given, message):
    with pytest.raises(SelectionError, match=f"step 3: Given returned .*{message}"):
        select(Points(), Given(given), 5)


def test_a_method_cannot_see_the_test_set_and_divergence_is_named():
    class Peeks(Selector):
        def weigh(self, view):
            return view.task.test

    with pytest.raises(AttributeError, match="test"):
        select(Points(), Peeks(), 2)
    with pytest.raises(FloatingPointError, match="not finite from step"):
        select(Points(1e3), Uniform(), 400)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        select(Points(), Uniform(), 0)
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, got 0"):
        top(torch.ones(3), 0)
    with pytest.raises(FloatingPointError, match="as scores, got nan for example 1"):
        top(torch.tensor([1.0, math.nan, 3.0]), 0.5)
    with pytest.raises(
        FloatingPointError, match="the reference diverged: θ is not finite after 400"
    ):
        select(Points(1e3), Rho(0.5), 400)
    with pytest.raises(FloatingPointError, match="at no value of the knob is the area"):
        tuned(Points(4.0), Method(ByLoss, "share", (0.25,)), 500)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradMatch(0), "atoms must be a whole number of at least 1, got 0"),
        (lambda: PDS(2.5), "sweeps must be a whole number of at least 1, got 2.5"),
        (lambda: BestMixture(0), "sweeps must be a whole number of at least 1, got 0"),
        (lambda: Metagradient(2.0), "changed must be above 0 and at most 1, got 2.0"),
        (lambda: Metagradient(0.1, outer=0), "outer must be a whole number of at least 1, got 0"),
        (lambda: Controller(-1), "gain must be above 0 and finite, got -1"),
        (lambda: MeanMixture(math.inf), "rate must be above 0 and finite, got inf"),
        (lambda: SelfPaced(0), "until must be above 0 and at most 1, got 0"),
        (lambda: TracIn(2), "share must be above 0 and at most 1, got 2"),
        (lambda: LookAhead(math.nan), "share must be above 0 and at most 1, got nan"),
    ],
)
def test_knobs_out_of_range_are_refused_before_anything_is_trained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("selector", "passes"),
    [
        (Uniform(), 24),
        (ByLoss(0.1), 24),
        (Rho(0.1), 24 + 1 + 2 * 12 / 2),
        (Greedy(0.1), 12 * (2 + 1 + 2 / 2)),
        (Controller(0.1), 12 * (2 + 1 + 2 / 2)),
        (Groups(0.1), 12 * (2 + 1 + 2 / 2) + 1),
        (MeanMixture(0.1), 24 + 12 * (2 + 1 + 2 / 2) + 1),
        (MeanMixture(0.1, online=ExcessLoss), 24 + 24 + 1 + 24 + 1),
        (BestMixture(3), 24 + 3 * 12 * (PASSES + 2 / 2) + 8 * 12 * (2 + 1 / 2) + 1),
        (MixingLaw(), 24 + 17 * 12 * (2 + 1 / 2) + 1),
        (GradMatch(2), 24 + 1 + 2 / 2),
        (TracIn(0.1), 24 + 12 * (3 + 2 / 2)),
        (OneSweep(0.1), 24 + 12 * (PASSES + 2 / 2)),
        (PDS(3), 24 + 3 * 12 * (PASSES + 2 / 2)),
        (Metagradient(0.1, outer=2), 24 + 2 * (12 * PASSES + 2 / 2)),
        (LookAhead(0.1, 1), 12 * (2 + 1 + 2 + 4 / 2)),
        (LookAhead(0.1), 12 * 3 + 190 + 68 / 2),  # looks of 12, 9, 6 and 3 steps
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Selector) else "",
)
def test_costs(selector, passes):
    """K is half of N."""
    found = select(perceptron(), selector, 12)
    assert found.passes == pytest.approx(passes)
    assert found.evaluations == pytest.approx(passes / (6 * 12))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_on_a_task_without_closed_forms(name):
    method = METHODS[name]
    knobs = {method.knob: method.values[0]} if method.knob else {}
    policy = select(Points(0.1), method.make(**knobs), 6).policy
    assert policy.shape == (6, 4)
    torch.testing.assert_close(policy.sum(1), torch.ones(6, dtype=torch.float64))


def test_tuning_keeps_the_least_area_and_passes_over_what_diverges():
    method = Method(ByLoss, "share", (0.25, 0.5, 1.0))
    found = tuned(Points(), method, 8)
    areas = []
    for share in method.values:
        states = select(Points(), ByLoss(share), 8).process.states
        areas.append(float(Points().trajectory_losses(states, Points().desired)[1:].sum()))
    assert found.value == method.values[int(np.argmin(areas))]
    assert found.evaluations == pytest.approx(3 * 2 / PASSES)

    class Fails(Uniform):
        def __init__(self, power):
            self.power = power

        def weigh(self, view):
            if self.power == 1:
                raise FloatingPointError("diverged")
            return super().weigh(view)

    assert tuned(Points(), Method(Fails, "power", (1, 2)), 3).value == 2
    with pytest.raises(FloatingPointError, match="diverged"):
        tuned(Points(), Method(Fails, "power", (1,)), 3)


def test_products_of_the_perceptron_are_those_of_any_task():
    task = perceptron()
    theta, direction, weights = torch.randn(
        3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    theta, direction, weights = theta[:4], direction[:4], weights.softmax(0)
    torch.testing.assert_close(task.gradient(theta, weights), Task.gradient(task, theta, weights))
    for own, general in zip(
        task.costate_products(theta, weights, direction),
        Task.costate_products(task, theta, weights, direction),
        strict=True,
    ):
        torch.testing.assert_close(own, general)


def test_order_without_selection_and_selection_without_order():
    task = perceptron()
    policy = studies.order_alone(task, 12, 30)
    np.testing.assert_allclose(policy.sum(0), 12 / 40, rtol=1e-3)
    np.testing.assert_allclose(policy.sum(1), 1)
    losses = [
        float(task.trajectory_losses(train(task, p).states, task.desired)[1:].sum())
        for p in (constant_policy(task, 12), policy)
    ]
    assert losses[1] < losses[0]
    spread = studies.totals_alone(policy * torch.arange(1, 41) / 20)
    torch.testing.assert_close(spread[3] * 12, (policy * torch.arange(1, 41) / 20).sum(0))


def test_quanta_are_whole_and_sum():
    policy = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    assert studies.quantised(policy, 4).tolist() == [[2, 1, 1], [4, 0, 0]]


def test_the_code_of_policies_is_one():
    """Kraft: 2 to the minus bits, over all rows of 4 quanta on 3 examples, sums to one."""
    prior = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    rows = [row for row in product(range(5), repeat=3) if sum(row) == 4]
    bits = [studies._bits(torch.tensor([row], dtype=torch.float64), 4, 2.0, prior) for row in rows]
    assert sum(2**-b for b in bits) == pytest.approx(1)
    # one quantum on one of two examples is a bit, and its code is one of six
    assert studies.policy_bits(torch.tensor([[1, 0]])) == pytest.approx(1 + math.log2(6))
    still = torch.tensor([[1, 0], [1, 0]])
    assert studies.policy_bits(still) == studies.policy_bits(still[:1])
    assert studies.policy_bits(torch.tensor([[1, 0], [0, 1]])) > 1 + math.log2(6)


def test_auroc_and_agreement():
    positive = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor([4.0, 3, 2, 1]), positive) == 1
    assert auroc(torch.tensor([4.0, 2, 3, 1]), positive) == 0.75
    assert auroc(torch.ones(4), positive) == 0.5
    assert math.isnan(auroc(torch.ones(4), torch.ones(4) > 0))
    future = torch.tensor([[3.0, 1, 2], [0.0, 5, 1]])
    assert agreement(future.square(), future) == pytest.approx(1)
    assert agreement(-future, future) == pytest.approx(-1)
    assert math.isnan(agreement(torch.ones(2, 3), future))


def test_wrong_labels_are_the_flipped_ones():
    config = SelectionConfig.from_flat(TOY | {"label_noise": 0.3})
    flipped = experiment.spoilt(config)
    assert 0 < int(flipped.sum()) < 40
    clean = build_task(
        config.model_copy(update={"data": config.data.model_copy(update={"label_noise": 0.0})})
    )
    noisy = build_task(config)
    signs = (noisy.training.signed * clean.training.signed).sum(1).sign()
    assert flipped.tolist() == (signs < 0).tolist()


@pytest.mark.parametrize("rates", ["constant", "linear"])
def test_a_run_has_a_row_for_every_policy(rates):
    flat = TOY | {"methods": "greedy, groups", "label_noise": 0.2, "studies": True}
    flat |= {"best_starts": 2, "epochs": 30, "rate_schedule": rates}
    config = SelectionConfig.from_flat(flat)
    arrays = SELECTION.compute(config)
    assert arrays["names"].tolist() == ["uniform", "greedy", "groups", BEST, TOTALS, ORDER]
    wrong = float(experiment.spoilt(config).double().mean())
    assert arrays["history_spoilt_weight"][0] == pytest.approx(wrong) and wrong > 0
    assert arrays["history_ar"][0] == 1
    assert arrays["history_overlap"][3] == pytest.approx(1)
    assert arrays["history_objective"][3] < arrays["history_objective"][0]
    assert arrays["curves"].shape == (6, 13)
    assert arrays["maps"].shape == (6, 40, 12)
    np.testing.assert_allclose(arrays["maps"].mean(1), 1, rtol=1e-5)
    assert all(len(values) == 6 for name, values in arrays.items() if name.startswith("history_"))
    assert (arrays["history_bits"][1:] > 0).all()
    _postage_is_counted_on_test(config, arrays)
    task, inner = build_task(config), Inner(schedule=rates)
    usual = train(task, constant_policy(task, 12), inner=inner)
    np.testing.assert_allclose(
        arrays["curves"][0], task.trajectory_losses(usual.states, task.test), rtol=1e-6
    )
    without = SELECTION.compute(SelectionConfig.from_flat(TOY | {"epochs": 0, "methods": "rho"}))
    assert without["names"].tolist() == ["uniform", "rho"] and "maps" not in without


def _postage_is_counted_on_test(config, arrays):
    task, quanta = build_task(config), int(arrays["history_quanta"][1])
    inner = config.inner.build()
    made = select(task, Greedy(float(arrays["history_value"][1])), 12, inner=inner)
    pays = {}
    for count in experiment.QUANTA:
        counts = studies.quantised(made.policy, count)
        states = train(task, counts.to(made.policy) / count, inner=inner).states
        for kind, examples in (("desired_auc", task.desired), ("auc", task.test)):
            usual = arrays[f"history_{kind}"][0]
            saved = 12 * (usual - loss_auc(task.trajectory_losses(states, examples)))
            pays[count, kind] = studies.policy_bits(counts) * math.log(2) / saved
    assert quanta == min(experiment.QUANTA, key=lambda count: pays[count, "desired_auc"])
    assert arrays["history_symbols"][1] == pytest.approx(pays[quanta, "auc"], rel=1e-5)
    assert pays[quanta, "auc"] != pytest.approx(pays[quanta, "desired_auc"], rel=1e-2)


def test_interrupted_the_search_for_the_best_goes_on(tmp_path, monkeypatch):
    flat = TOY | {"methods": "greedy", "best_starts": 3, "epochs": 30}
    config, path = SelectionConfig.from_flat(flat), tmp_path / "run.safetensors"
    trained, real = 0, searching.train

    def failing(*args, **options):
        nonlocal trained
        trained += 1
        if trained == 35:  # in the second search
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(searching, "train", failing)
    with pytest.raises(KeyboardInterrupt):
        SELECTION.compute(config, checkpoint=path)
    assert len(list(tmp_path.iterdir())) == 2
    trained = 100
    again = SELECTION.compute(config, checkpoint=path)
    resumed, trained = trained - 100, 100
    assert not list(tmp_path.iterdir())
    whole = SELECTION.compute(config)
    assert resumed < trained - 100 - 20, "what was done before is done again"
    for name, array in whole.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    few = SelectionConfig.from_flat(flat | {"epochs": 12})
    trained = 100
    with pytest.raises(ValueError, match="start 'static' needs at least"):
        SELECTION.compute(few)
    assert trained == 100  # nothing was searched before


def test_the_language_model_has_its_perturbed_stories():
    small = {"corpus": "grammar", "size": 12, "desired_size": 8, "length": 10, "vocabulary": 120}
    small |= {"hidden": 8, "heads": 2, "steps": 4, "epochs": 0, "methods": "greedy,groups"}
    config = experiment.LanguageSelectionConfig.from_flat(small)
    assert int(experiment.spoilt(config).sum()) == 6
    arrays = experiment.LANGUAGE_MODEL.compute(config)
    assert arrays["names"].tolist() == ["uniform", "greedy", "groups"]
    # two weights in all, by group: one above the other, whichever it is
    assert arrays["history_auroc"][2] in (0, 1)
    with pytest.raises(TypeError, match="expected a perceptron or a language model, got _Methods"):
        experiment.spoilt(experiment._Methods.model_construct())


def test_parameters_are_checked():
    with pytest.raises(ParameterError, match="methods: got 'gredy'; did you mean 'greedy'"):
        SelectionConfig.from_flat({"methods": "uniform,gredy"})
    with pytest.raises(ParameterError, match="studies: got true with epochs = 0"):
        SelectionConfig.from_flat({"studies": True, "epochs": 0})
    with pytest.raises(ParameterError, match="at any rates, got {'optimizer': 'adam'}"):
        SelectionConfig.from_flat({"optimizer": "adam"})
    with pytest.raises(ParameterError, match="start: got 'equal'; expected its default, auto"):
        SelectionConfig.from_flat({"start": "equal"})
    assert SelectionConfig().names() == list(METHODS)


def test_shares_of_the_attainable_gain():
    areas = np.array([[4.0, 3, 5, 2], [4, 2, 4, 0]])
    np.testing.assert_allclose(
        report.attained(areas, areas[:, 3]), [[0, 0.5, -0.5, 1], [0, 0.5, 0, 1]]
    )
    # a best known policy that gains nothing leaves nothing to have a share of
    assert np.isnan(report.attained(areas, areas[:, 0])).all()
    assert report.percent([0.5, -0.25]) == "12% (−25 to 50)"
    assert report.percent([math.nan]) == "–"
    assert report.percent([-0.001]) == "0%"
    chosen = {"methods": "rho, greedy", "studies": False}
    config = {"selection": chosen, "search": {"epochs": 9}}
    swept = Run("x", "selection-x", config, {}, {"course_auc": areas})
    shares = report.shares_over(swept, np.array([True, False]))
    assert {name: values.tolist() for name, values in shares.items()} == {
        "uniform": [0],
        "rho": [0.5],
        "greedy": [-0.5],
        BEST: [1],
    }
    given = report.shares_over(swept, np.array([False, True]), best=[2])
    assert given["rho"].tolist() == [1]


def test_the_seeds_of_a_sweep():
    many = Run("x", "x", {"seed": 0}, {}, {"seconds": np.ones(2), "seed": np.array([3, 4])})
    one = Run("x", "x", {"seed": 7}, {}, {"seconds": np.ones(1)})
    assert report.seeds(many) == [3, 4] and report.seeds(one) == [7]


def test_a_sweep_beside_the_searches_of_its_points():
    config = {"selection": {"methods": "rho", "studies": False}, "search": {"epochs": 0}}
    config |= {"data": {"size": 6}, "training": {"steps": 4}}
    columns = {
        "auc": [[4.0, 3], [4, 2]],
        "desired_auc": [[4.0, 2], [4, 2]],
        "ar": [[1.0, 2], [1, 4]],
        "evaluations": [[0.33, 0.5], [0.33, 0.7]],
        "spoilt_weight": [[0.5, 0.1], [0.5, 0.3]],
        "auroc": [[math.nan, 0.75], [math.nan, 0.75]],
    }
    arrays = {f"course_{name}": np.array(values) for name, values in columns.items()}
    swept = Run("x", "language-selection-x", config, {}, arrays)
    searches = [
        Run(
            "y",
            "language-model",
            {"data": {"size": 6, "desired_size": 9}, "training": {"steps": 4}},
            {},
            {
                "history_auc": np.array([4.0, 2]),
                "history_desired_auc": np.array([4.0, 0]),
                "history_ar": np.array([1.0, ar]),
                "history_epoch": np.array([0, 10]),
                "clean_weight": np.array([[0.5, 0.5], [0.7, 0.9]]),
            },
        )
        for ar in (3.0, 5.0)
    ]
    # two passes over nine desired examples are three of the training set's, of six a step;
    # ten updates, and the last policy
    assert report.search_cost(searches[0]) == 16.5
    counted = replace(searches[0], arrays=searches[0].arrays | {"history_evaluations": [1, 20]})
    assert report.search_cost(counted) == 30
    assert report.beside(swept, searches) == {
        "rho": {
            "desired": "50% (50 to 50)",
            "test": "75% (50 to 100)",
            "AR": "3.00 (2.00–4.00)",
            "cost": "0.60",
            "on spoilt": "20% (10 to 30)",
            "AUROC": "0.75 (0.75–0.75)",
        },
        BEST: {
            "desired": "100%",
            "test": "100%",
            "AR": "4.00 (3.00–5.00)",
            "cost": "16",
            "on spoilt": "20% (20 to 20)",
            "AUROC": "–",
        },
    }
    half = [
        replace(one, arrays=one.arrays | {"history_auc": np.array([4.0, 3.5])}) for one in searches
    ]
    both = report.beside(swept, searches, others={"half": half})
    assert list(both) == ["rho", "half", BEST]
    assert both["half"]["test"] == "25% (25 to 25)"
    assert both["half"]["desired"] == "100% (100 to 100)"
    assert both[BEST] == report.beside(swept, searches)[BEST]
    # on the desired examples a search ends lower in both, on test examples in none
    assert report.below(swept, "rho", [one.arrays for one in half]) == "0 of 2"
    poor = [one.arrays | {"history_desired_auc": np.array([4.0, 3])} for one in half]
    assert report.below(swept, "rho", poor) == "2 of 2"
    other = replace(swept, config=config | {"training": {"steps": 8}})
    with pytest.raises(ValueError, match="steps: got a search with 4; expected .* sweep, 8"):
        report.beside(other, searches)


def test_figures_show_what_they_are_given():
    shown = style.shown_data(
        figures.gain_against_cost(
            ["good", "harmful"], np.array([1.0, 2]), np.array([0.5, -3]), np.array([0.6, -2])
        )
    )
    assert "test,1,0.5" in shown and "desired,1,0.6" in shown and "test,2,-0.2" in shown
    curves = {"uniform": np.array([4.0, 2, 2]), "half": np.array([4.0, 1, 1])}
    assert "line 2,2,0.5" in style.shown_data(figures.areas(np.arange(3), curves))
    ahead = figures.look_ahead(["greedy", "1"], {"test": np.array([0.25, 0.75])})
    assert "test,1,0.75" in style.shown_data(ahead)
    greed = figures.price_of_greed(
        np.array([0, 0, 0.1]), np.array([1, 2, 3.0]), np.ones(3), cause="noise"
    )
    assert "mean,0,1.5" in style.shown_data(greed)
    settings = {
        "small": {"good": np.array([0.5, 0.7]), "bad": np.array([-0.1])},
        "large": {"bad": np.array([0.2]), "good": np.array([math.nan])},
    }
    stories = figures.shares_of_settings(settings)
    assert [text.get_text() for text in stories.axes[0].get_yticklabels()] == ["bad", "good"]
    shown = style.shown_data(stories)
    assert "small,0.7,1.1" in shown and "large,0.2,-0.1" in shown
    maps = figures.weight_maps({"one": np.ones((4, 6)), "other": np.zeros((4, 6))}, 12)
    assert [axes.get_title() for axes in maps.axes[:2]] == ["one", "other"]


def test_labels_of_near_points_are_apart():
    heights = figures._apart(np.array([1.0, 1, 100]), np.array([0.5, 0.49, 0.5]), 0.1)
    np.testing.assert_allclose(heights, [0.5, 0.4, 0.5])


def test_the_page_with_two_methods(tmp_path):
    options = ("--profile", "smoke", "-p", "methods=greedy,rho", "-p", "label_noise=0.2")
    done = run_llbook("run", "yardstick", *options, build=tmp_path / "build")
    assert done.returncode == 0, done.stderr
    bad = run_llbook("run", "yardstick", "-p", "methods=gredy", build=tmp_path / "build")
    assert bad.returncode == 2 and "did you mean 'greedy'" in bad.stderr
