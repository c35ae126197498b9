"""Learning rates as what is searched for, and the experiment about them."""

import math

import numpy as np
import pytest
import torch
from small_tasks import Quadratic, perceptron, random_policy

from llbook.experiments.language_model import load_examples
from llbook.experiments.schedule import (
    KINDS,
    LANGUAGE_MODEL,
    PEAKS,
    WEIGHTS,
    LanguageScheduleConfig,
)
from llbook.measures.objective import loss_auc
from llbook.optimal import schedules
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import Inner
from llbook.optimal.process import constant_policy, train
from llbook.optimal.schedules import factor_gradient, search_schedule
from llbook.parameters import ParameterError
from llbook.tasks.least_squares import LeastSquares, Rows

TOY = {
    **{"corpus": "grammar", "size": 24, "desired_size": 16, "hidden": 8, "length": 12},
    **{"steps": 12, "knots": 4, "evaluations": 6, "draws": 2, "epochs": 5},
}


def objective(task, policy, inner):
    states = train(task, policy, inner=inner).trajectory
    return float(task.trajectory_losses(states, task.desired)[1:].sum())


@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize("task", [Quadratic(), perceptron()[0]], ids=["quadratic", "perceptron"])
def test_the_derivative_in_the_factors_is_that_of_differences(task, batch):
    factors = np.array([1.5, 0.7, 0.2, 1.1, 0.9])
    policy = random_policy(task, 5)
    inner = Inner(schedule=tuple(factors), batch=batch)
    process = train(task, policy, inner=inner)
    found = factor_gradient(task, policy, policy_gradient(task, policy, process), process)
    for t in range(5):
        there = []
        for sign in (1, -1):
            moved = factors.copy()
            moved[t] += sign * 1e-5
            there.append(objective(task, policy, Inner(schedule=tuple(moved), batch=batch)))
        assert found[t] == pytest.approx((there[0] - there[1]) / 2e-5, rel=1e-6, abs=1e-9)


def line(eta=0.1, curvature=4.0):
    """l = curvature θ²/2, from θ_0 = 3."""
    rows = Rows(torch.tensor([[curvature**0.5]], dtype=torch.float64), torch.zeros(1).double())
    return LeastSquares(rows, rows, initial=torch.tensor([3.0]).double(), learning_rate=eta)


def test_newtons_step_is_found():
    """One step to the minimum has ηf = 1/curvature; nothing is left for the others."""
    task = line()
    found = search_schedule(task, constant_policy(task, 3), knots=3, evaluations=60)
    first = found.inner.factors(3)[0]
    assert 0.1 * first == pytest.approx(1 / 4, rel=1e-2)
    assert np.nanmin(found.history) == pytest.approx(0, abs=1e-3)
    assert found.history[0] == pytest.approx(objective(task, constant_policy(task, 3), Inner()))


def test_the_best_rates_met_are_the_ones_returned():
    task = perceptron()[0]
    policy = constant_policy(task, 20)
    found = search_schedule(task, policy, knots=5, evaluations=12, least=0.5, most=2.0)
    assert len(found.history) <= 12 and min(found.history) < found.history[0]
    factors = np.array(found.inner.factors(20))
    assert objective(task, policy, found.inner) == pytest.approx(min(found.history), abs=1e-12)
    assert factors.min() >= 0.5 * (1 - 1e-12) and factors.max() <= 2 * (1 + 1e-12)
    # straight in the logarithm between the knots
    np.testing.assert_allclose(np.diff(np.log(factors[:5]), 2), 0, atol=1e-12)


def test_a_search_begins_at_the_rates_it_is_given():
    task = perceptron()[0]
    policy = constant_policy(task, 9)
    inner = Inner(schedule=tuple(np.geomspace(1, 0.2, 9)))
    found = search_schedule(task, policy, inner=inner, knots=3, evaluations=1)
    assert len(found.history) == 1
    np.testing.assert_allclose(found.inner.factors(9), inner.factors(9), rtol=1e-12)


def test_rates_that_diverge_are_only_avoided():
    task = line(eta=0.4)  # at 4 × 0.4 × 4 = 6.4 a step multiplies θ by -5.4
    policy = constant_policy(task, 600)
    found = search_schedule(task, policy, knots=2, evaluations=30, most=4.0)
    assert math.isfinite(objective(task, policy, found.inner))
    assert np.nanmin(found.history) < found.history[0]


def test_a_wall_is_stepped_back_from(monkeypatch):
    task = perceptron()[0]
    policy = constant_policy(task, 20)
    failed = []

    def fail(*args, inner, **options):
        if max(inner.factors(20)) > 1.5:
            failed.append(1)
            raise FloatingPointError("diverged here")
        return train(*args, inner=inner, **options)

    monkeypatch.setattr(schedules, "train", fail)
    found = search_schedule(task, policy, knots=3, evaluations=30)
    assert failed and sum(map(math.isnan, found.history)) == len(failed)
    assert max(found.inner.factors(20)) <= 1.5 and np.nanmin(found.history) < found.history[0]
    with pytest.raises(FloatingPointError, match="diverged here"):
        search_schedule(task, policy, inner=Inner(schedule=(2.0,) * 20))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"knots": 1}, "knots must be from 2 to T = 6, got 1"),
        ({"knots": 7}, "knots must be from 2 to T = 6, got 7"),
        ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
        ({"least": 2.0, "most": 1.0}, "got least 2.0, most 1.0"),
        ({"inner": Inner(optimizer="adam")}, "got optimizer 'adam'"),
        ({"inner": Inner(weight_decay=0.1)}, "weight_decay 0.1"),
    ],
)
def test_what_cannot_be_searched_is_named(options, match):
    task = perceptron()[0]
    with pytest.raises(ValueError, match=match):
        search_schedule(task, constant_policy(task, 6), **({"knots": 3} | options))


def test_a_factor_of_zero_has_no_derivative_from_the_weights():
    task = Quadratic()
    policy = constant_policy(task, 3)
    process = train(task, policy, inner=Inner(schedule=(1.0, 0.0, 1.0)))
    with pytest.raises(ValueError, match="factors must be above 0, got 0 at step 1"):
        factor_gradient(task, policy, policy, process)


@pytest.fixture(scope="module")
def arrays():
    return LANGUAGE_MODEL.compute(LanguageScheduleConfig.from_flat(TOY))


def test_policies_are_searched_under_the_best_rates_of_equal_weights(arrays):
    assert arrays["kinds"].tolist() == list(KINDS)
    best = PEAKS[int(np.nanargmin(arrays["peak_area"]))]
    constant, falling, _ = arrays["schedules"]
    assert (constant == 0.25).all()
    np.testing.assert_allclose(falling, best * (1 - np.arange(12) / 12))
    # each from its begin, the better one kept
    starts = arrays["history_rates"][:, 0]
    assert starts[0] == pytest.approx(arrays["desired"][0, 0, 0], rel=1e-6)
    assert arrays["desired"][2, 0, 0] == pytest.approx(np.nanmin(arrays["history_rates"]), rel=1e-6)
    assert arrays["peak_area"].min() == pytest.approx(arrays["desired"][1, 0, 0], rel=1e-6)
    assert (arrays["desired"][:, 1, 0] < arrays["desired"][:, 0, 0]).all()
    np.testing.assert_allclose(arrays["desired"][:, :2, 0], arrays["history_policy"], rtol=1e-5)
    assert ((arrays["clean_weight"] > 0.5) & (arrays["clean_weight"] <= 1)).all()


def test_draws_are_trained_again_from_another_beginning(arrays):
    config = LanguageScheduleConfig.from_flat(TOY)
    task = LANGUAGE_MODEL.build(config)
    task.initial = task.initial * (1 + 1e-6)
    inner = Inner(schedule=tuple(arrays["schedules"][2] / 0.25))
    states = train(task, constant_policy(task, 12), inner=inner).trajectory
    for name, part in (("desired", task.desired), ("test", task.test)):
        area = loss_auc(task.trajectory_losses(states, part))
        assert arrays[name][2, 0, 1] == pytest.approx(area, rel=1e-7)


def area_of(task, policy, rates, part):
    inner = Inner(schedule=tuple(np.asarray(rates) / 0.25))
    states = train(task, policy, inner=inner).trajectory
    return loss_auc(task.trajectory_losses(states, part))


def test_length_and_direction_are_held_apart(arrays):
    """Areas of the five kinds of weights, computed again from what the run has."""
    config = LanguageScheduleConfig.from_flat(TOY)
    task = LANGUAGE_MODEL.build(config)
    equal = constant_policy(task, 12)
    rates, lengths = arrays["schedules"], arrays["lengths"]
    for i in range(3):
        policy = torch.from_numpy(arrays["policies"][i])
        states = train(task, policy, inner=Inner(schedule=tuple(rates[i] / 0.25))).trajectory
        for t in (0, 11):
            long = task.gradient(states[t], policy[t]).norm()
            assert lengths[i, t] == pytest.approx(
                float(long / task.gradient(states[t], equal[t]).norm()), rel=1e-5
            )
        for name, part in (("desired", task.desired), ("test", task.test)):
            assert arrays[name].shape == (3, len(WEIGHTS), 2)
            own = arrays[name][i, :, 0]
            assert own[1] == pytest.approx(area_of(task, policy, rates[i], part), rel=1e-6)
            length = area_of(task, equal, rates[i] * lengths[i], part)
            assert own[2] == pytest.approx(length, rel=1e-6)
            direction = area_of(task, policy, rates[i] / lengths[i], part)
            assert own[3] == pytest.approx(direction, rel=1e-6)
            moved = [area_of(task, policy, row, part) for row in rates]
            np.testing.assert_allclose(arrays[f"moved_{name}"][i, :, 0], moved, rtol=1e-6)


def test_the_filter_knows_which_stories_are_intact(arrays):
    config = LanguageScheduleConfig.from_flat(TOY)
    task = LANGUAGE_MODEL.build(config)
    intact = torch.from_numpy(~load_examples(config)[1].perturbed)
    policy = (intact / intact.sum()).float().expand(12, -1).contiguous()
    area = area_of(task, policy, arrays["schedules"][1], task.test)
    assert arrays["test"][1, 4, 0] == pytest.approx(area, rel=1e-6)
    shares = arrays["policies"][:, :, intact.numpy()].sum(-1).mean(-1)
    np.testing.assert_allclose(arrays["clean_weight"], shares, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"knots": 13, "steps": 12}, "knots: got 13; expected at most T = 12"),
        ({"optimizer": "adam"}, "expected the paper's gradient descent"),
        ({"rate_schedule": "linear"}, "expected the paper's gradient descent"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(ParameterError, match=match):
        LanguageScheduleConfig.from_flat(TOY | changes)
