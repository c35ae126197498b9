"""Learning rates: the edge of stability, areas of a recorded sweep, and their figures."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_runs import made_up, run_of
from small_tasks import Quadratic, perceptron, random_policy
from torch.func import hessian

from llbook.figures import rates as figures
from llbook.optimal.process import constant_policy, train
from llbook.optimal.stability import parting, sharpness, sharpness_over_steps
from llbook.report.rates import (
    areas_of,
    draw_spread,
    parts_table,
    rules_of_equal,
    rules_table,
    saved_by_schedules,
    saved_of_best_equal,
    schedules_table,
    searches_table,
    share_of_policy,
)
from llbook.runs.run import Run
from llbook.tasks.least_squares import LeastSquares, Rows


def whole(task, theta, weights):
    """The Hessian by automatic differentiation, shape (P, P)."""
    return hessian(lambda p: weights @ task.losses(p, task.training))(theta)


@pytest.mark.parametrize("task", [Quadratic(), perceptron()[0]], ids=["quadratic", "perceptron"])
def test_sharpness_is_the_largest_eigenvalue(task):
    policy = random_policy(task, 6)
    process = train(task, policy)
    found = sharpness_over_steps(task, policy, process, [0, 5])
    for value, t in zip(found, (0, 5), strict=True):
        exact = torch.linalg.eigvalsh(whole(task, process.trajectory[t], policy[t]))[-1]
        assert value == pytest.approx(float(exact), rel=1e-3)


def test_sharpness_is_signed():
    """The largest eigenvalue, not that of largest size."""
    task = Quadratic()
    weights = -constant_policy(task, 1)[0]
    values = torch.linalg.eigvalsh(whole(task, task.initial, weights))
    assert abs(values[0]) > 2 * abs(values[-1])
    assert sharpness(task, task.initial, weights) == pytest.approx(float(values[-1]), rel=1e-3)


def squares(eta):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 3, generator=draw, dtype=torch.float64)
    rows = Rows(inputs, torch.zeros(12, dtype=torch.float64))
    initial = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    return LeastSquares(rows, rows, initial=initial, learning_rate=eta), inputs


def test_neighbours_part_where_the_rate_passes_the_edge():
    steps = 60
    hessian_ = (lambda a: a.T @ a / 12)(squares(0.1)[1])
    top = float(torch.linalg.eigvalsh(hessian_)[-1])
    for factor, grows in ((1.8, False), (2.2, True)):
        task, _ = squares(factor / top)
        course = parting(task, steps)
        assert course.shape == (steps + 1,) and course[0] == 1
        # of a quadratic δ_t = (1 - ηH)^t δ_0: at the end the largest eigenvalue decides
        assert (course[-1] > course[-2] > 1) == grows
        assert course[-1] / course[-2] == pytest.approx(abs(1 - factor), rel=0.15)


@pytest.mark.parametrize("change", [0.0, -1e-6, float("nan"), float("inf")])
def test_a_change_must_be_one(change):
    with pytest.raises(ValueError, match="change must be above 0"):
        parting(squares(0.1)[0], 5, change=change)


def test_a_change_that_rounds_to_nothing_is_named():
    lost = r"change: got 1e-20, which is lost in torch.float64; expected at least 2e-16"
    with pytest.raises(ValueError, match=lost):
        parting(squares(0.1)[0], 5, change=1e-20)


def test_nothing_can_be_changed_relative_to_zero():
    task, _ = squares(0.1)
    task.initial = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="θ_0 is 0"):
        parting(task, 5)


def test_sharpness_of_nothing_and_of_what_is_not_finite():
    task, _ = squares(0.1)
    assert sharpness(task, task.initial, torch.zeros(12, dtype=torch.float64)) == 0
    with pytest.raises(FloatingPointError, match="second derivatives are not finite"):
        sharpness(task, task.initial, torch.full((12,), torch.nan, dtype=torch.float64))


def sweep(drop=0):
    """Two rates, two seeds, three draws, in an order of its own; areas 10·rate + seed + draw."""
    points = [
        (rate, seed, 0.1 * (1 + k * 1e-6), 10 * rate + seed + k * size)
        for k in (2, 0, 1)
        for seed in (1, 0)
        for rate, size in ((0.5, 1e-1), (0.1, 1e-4))
    ][drop:]
    rate, seed, scale, area = np.array(points).T
    columns = {"learning_rate": rate, "seed": seed, "initial_scale": scale}
    areas = {f"history_{n}": np.stack([area, area], 1) for n in ("desired_auc", "auc")}
    return Run("k", "language-model", {}, {}, columns | areas)


def test_areas_stand_by_rate_seed_and_draw():
    areas = areas_of(sweep())
    assert list(areas.rates) == [0.1, 0.5] and list(areas.seeds) == [0, 1]
    assert areas.desired.shape == (2, 2, 3)
    assert areas.desired[0, 1] == pytest.approx([2, 2.0001, 2.0002])
    assert areas.least() == pytest.approx([1, 2])
    assert areas.spreads()[1] == pytest.approx([0.2 / 5.1, 0.2 / 6.1])
    assert areas.settled() == 0.1


def test_a_sweep_without_draws_has_one():
    single = sweep()
    first = single.arrays.pop("initial_scale") == 0.1
    arrays = {name: column[first] for name, column in single.arrays.items()}
    areas = areas_of(replace(single, arrays=arrays))
    assert areas.desired.shape == (2, 2, 1)
    assert areas.desired[..., 0].tolist() == [[1, 2], [5, 6]]


def test_a_sweep_that_is_no_grid_is_named():
    with pytest.raises(ValueError, match="got 11 points, 11 of them different; expected a grid"):
        areas_of(sweep(drop=1))
    twice = sweep()
    for column in twice.arrays.values():
        column[1] = column[0]
    with pytest.raises(ValueError, match="got 12 points, 11 of them different"):
        areas_of(twice)


def test_a_sweep_at_one_seed_is_named():
    one = sweep()
    del one.arrays["seed"]
    with pytest.raises(ValueError, match="got one seed throughout"):
        areas_of(one)


def test_a_rate_at_which_one_training_diverged_is_not_the_best():
    areas = areas_of(sweep())
    areas.desired[0, 0, 0] = np.nan  # the mean of the others would be the least
    assert areas.best() == 1 and areas.least() == pytest.approx([1.0001, 2])


def test_searches_are_measured_against_their_rate_and_against_every_rate():
    areas = areas_of(sweep())
    arrays = made_up()
    arrays |= {
        "history_desired_auc": np.array([2.0, 0.9]),
        "history_auc": np.array([2.0, 1.1]),
    }
    text = searches_table(areas, [("found", [run_of(arrays)])])
    row = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    with pytest.raises(ValueError, match=r"seed: got 0; expected one of \[1\]"):
        searches_table(replace(areas, seeds=np.array([1])), [("found", [run_of(arrays)])])
    assert row == ["found", "0.10", "0.9000", "+55.0%", "+45.0%", "+10.0%", "−10.0%"]


def test_rules_are_measured_against_their_rate_and_against_every_rate():
    areas = areas_of(sweep())
    arrays = {
        "seed": np.array([0, 1]),
        "seconds": np.ones(2),
        "course_desired_auc": np.array([[2.0, 0.9, 1.0], [4.0, 1.8, 3.0]]),
        "course_auc": np.array([[2.0, 1.1, 1.0], [4.0, 2.2, 2.0]]),
        "course_spoilt_weight": np.array([[0.5, 0.1, 0.2], [0.5, 0.3, 0.2]]),
    }
    config = {"selection": {"methods": "rho,greedy", "studies": False}, "search": {"epochs": 0}}
    text = rules_table(areas, Run("k", "language-selection", config, {}, arrays))
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    clean = arrays | {"course_spoilt_weight": np.zeros((2, 3))}
    without = rules_table(areas, Run("k", "selection", config, {}, clean))
    assert "perturbed" in text and "perturbed" not in without
    assert "beyond" in text and "beyond" in without
    least = clean | {
        f"course_{name}": np.array([[1.0, 0.9], [2.0, 1.8]]) for name in ("auc", "desired_auc")
    }
    one = {"selection": {"methods": "rho", "studies": False}, "search": {"epochs": 0}}
    at_best = rules_table(areas, Run("k", "selection", one, {}, least))
    assert "beyond" not in at_best and at_best.splitlines()[-1].count("+10.0%") == 2
    own = rules_of_equal(Run("k", "language-selection", config, {}, arrays))
    assert list(own) == ["uniform", "rho", "greedy"]
    assert own["rho"].tolist() == pytest.approx([0.55, 0.55])
    assert own["greedy"].tolist() == pytest.approx([0.5, 0.25])
    # after equal weights the best on test examples first
    assert [row[0] for row in rows[2:]] == ["equal weights", "greedy", "rho"]
    assert rows[2][1] == rows[2][2] == "+0.0% (+0.0 to +0.0)"
    assert rows[4][1:] == [
        "+55.0% (+55.0 to +55.0)",
        "+45.0% (+45.0 to +45.0)",
        "+10.0% (+10.0 to +10.0)",
        "−10.0% (−10.0 to −10.0)",
        "20% (10 to 30)",
    ]


def test_figures_show_what_they_are_given():
    areas = areas_of(sweep())
    ratios = (areas.desired / areas.least()[:, None]).reshape(2, -1)
    drawn = figures.areas_at_rates(areas.rates, ratios, {"found": ([0.1], np.array([[0.9, 0.8]]))})
    lines = {line.get_label(): line for line in drawn.axes[0].lines}
    assert list(lines["found"].get_ydata()) == pytest.approx([-10, -20])
    assert len(lines["equal weights"].get_ydata()) == 12
    far = figures.areas_at_rates(areas.rates, ratios, {"found": ([0.1], [[0.9]])}, far=True)
    assert far.axes[0].get_yscale() == "log" and far.axes[0].lines[-2].get_ydata() == [0.9]
    far.savefig(io.BytesIO(), format="svg")
    wide = figures.spreads(areas.rates, areas.spreads(), [3, 7])
    assert [line.get_label() for line in wide.axes[0].lines] == ["seed 3", "seed 7"]
    both = figures.edge(np.array([0, 4]), {"a": np.array([1, 3.0])}, {"a": np.array([1, 9.0])})
    assert list(both.axes[0].lines[1].get_ydata()) == [2, 2]
    for figure in (drawn, wide, both):
        figure.savefig(io.BytesIO(), format="svg")


def test_parts_of_a_policy_stand_in_the_order_of_their_names():
    areas = areas_of(sweep())
    each = np.array([[[9, 1.0], [9, 0.5], [9, 0.9], [9, 0.8], [9, 0.95]]] * 2)
    arrays = {"desired": each, "test": each, "moved_desired": each[:, :2]}
    run = Run("k", "language-schedule", {"seed": 0}, {}, arrays)
    text = parts_table(areas, [run], ["constant"])
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["constant", "equal weights", "+0.0%"],
        ["constant", "length alone", "+10.0%"],
        ["constant", "direction alone", "+20.0%"],
        ["constant", "the policy", "+50.0%"],
        ["constant", "intact stories alone", "+5.0%"],
    ]
    saved = saved_by_schedules(areas, [run])
    assert share_of_policy(saved, 0, "direction") == pytest.approx([0.4])
    moved = saved_by_schedules(areas, [run], moved=True)
    assert moved[..., 0] == pytest.approx(np.array([[0, 0.5]] * 2))


def schedule_run(seed=0):
    """Two kinds of rates, two draws; least of equal weights at a constant rate: 1."""
    areas = np.array([[[9.0, 1.0], [9.0, 0.8]], [[9.0, 0.9], [9.0, 0.72]]])
    arrays = {"desired": areas, "test": areas + 1, "clean_weight": np.array([0.7, 0.6])}
    return Run("k", "language-schedule", {"seed": seed}, {}, arrays)


def test_rates_are_measured_on_draws_that_no_search_saw():
    areas = areas_of(sweep())
    saved = saved_by_schedules(areas, [schedule_run()])
    assert saved[..., 0] == pytest.approx(np.array([[0, 0.2], [0.1, 0.28]]))
    assert saved_of_best_equal(saved, 0) == pytest.approx([1 - 0.8 / 0.9])
    assert saved_of_best_equal(saved - 0.2, 0) == pytest.approx([0])  # of the constant rates
    text = schedules_table(areas, [schedule_run()], ["constant", "falling"])
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert rows == [
        ["constant", "+0.0%", "−100.0%", "+20.0%", "−80.0%", "+20.0%", "+10.0%"],
        ["falling", "+10.0%", "−90.0%", "+28.0%", "−72.0%", "+20.0%", "+9.5%"],
    ]
    assert draw_spread([schedule_run()], 1, 1) == pytest.approx(8.28 / 4.86)
    drawn = figures.schedules(["a", "b"], np.ones((1, 2, 5)), {"desired": saved})
    marks = drawn.axes[1].lines
    assert list(marks[1].get_ydata()) == pytest.approx([20, 28])
    drawn.savefig(io.BytesIO(), format="svg")
