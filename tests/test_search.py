"""The search: it descends, states its conventions, and never looks at the test set."""

import math

import pytest
import torch

from llbook.data.teacher import Labelled, teacher_data
from llbook.measures.law import contributions, future_contributions, similarity
from llbook.measures.objective import acceleration_ratio, compression_ratio, loss_auc
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import search
from llbook.tasks.perceptron import Perceptron, initial_parameters


@pytest.fixture(scope="module")
def task():
    data = teacher_data(size=40, desired_size=64, dimension=4, label_noise=0.1, dtype=torch.float64)
    initial = initial_parameters("normal", 4, dtype=torch.float64)
    return Perceptron(data.training, data.desired, data.test, initial=initial)


def test_descends_and_measures(task):
    seen = []
    found = search(
        task, 30, epochs=25, step_size=0.01, measure_every=10, callback=lambda e: seen.append(e)
    )
    assert [row["epoch"] for row in found.history] == [0, 10, 20, 25] == [e.number for e in seen]
    objective = [row["objective"] for row in found.history]
    assert objective == sorted(objective, reverse=True) and objective[-1] < 0.99 * objective[0]
    first, last = found.history[0], found.history[-1]
    assert first["ar"] == 1
    assert last["cr_mixed"] == pytest.approx(last["cr"] / math.log(2))
    desired = task.trajectory_losses(found.process.trajectory, task.desired)
    assert last["objective"] == pytest.approx(float(desired[1:].sum()))
    assert torch.equal(train(task, found.policy).trajectory, found.process.trajectory)
    assert (found.policy.sum(1) - 1).abs().max() < 1e-12


def test_the_mean_convention_is_the_sum_with_t_times_the_step(task):
    runs = [
        search(task, 30, epochs=5, step_size=step, objective=objective, schedule="linear").policy
        for step, objective in ((0.01, "sum"), (0.3, "mean"))
    ]
    assert torch.allclose(*runs, atol=1e-14, rtol=0)


def test_linear_decay_reaches_zero_after_the_last_update(task):
    policies = []
    search(
        task,
        10,
        epochs=4,
        step_size=1e-6,  # small enough for the projection to be linear and J nearly so
        schedule="linear",
        callback=lambda e: policies.append(e.policy.clone()),
    )
    moves = [float((b - a).norm()) for a, b in zip(policies, policies[1:], strict=False)]
    assert [move / moves[0] for move in moves] == pytest.approx([1, 0.75, 0.5, 0.25], rel=1e-3)


def test_never_optimises_on_the_test_set(task):
    swapped = Perceptron.__new__(Perceptron)
    swapped.__dict__ |= task.__dict__
    swapped.test = task.training
    a = search(task, 20, epochs=3, step_size=0.01)
    b = search(swapped, 20, epochs=3, step_size=0.01)
    assert torch.equal(a.policy, b.policy)
    assert a.history[-1]["auc"] != b.history[-1]["auc"]


def test_is_deterministic_and_leaves_the_first_policy_alone(task):
    start = constant_policy(task, 20)
    kept = start.clone()
    runs = [
        search(task, 20, epochs=4, step_size=0.01, initial_policy=start).policy for _ in range(2)
    ]
    assert torch.equal(*runs) and torch.equal(start, kept)


def test_stops_early_only_when_asked(task):
    loose = search(task, 20, epochs=50, step_size=0.01, stop_at_gap=1e9)
    assert [row["epoch"] for row in loose.history] == [0]
    full = search(task, 20, epochs=3, step_size=0.01)
    assert full.history[-1]["epoch"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"epochs": -1}, "epochs must be a whole number of at least 0, got -1"),
        ({"measure_every": 0}, "measure_every must be a whole number of at least 1, got 0"),
        ({"step_size": -0.1}, "step_size must be at least 0 and finite, got -0.1"),
        ({"step_size": float("nan")}, "step_size"),
        ({"steps": -3}, "steps must be a whole number of at least 1, got -3"),
        ({"epochs": 6.5}, "epochs must be a whole number of at least 0, got 6.5"),
        ({"measure_every": 1.5}, "measure_every must be a whole number"),
        ({"step_size": float("inf")}, "step_size must be at least 0 and finite, got inf"),
        ({"steps": 3.5}, "steps must be a whole number of at least 1, got 3.5"),
        ({"schedule": "cosine"}, "schedule must be one of .*'cosine'"),
        ({"objective": "max"}, "objective must be one of .*'max'"),
    ],
)
def test_bad_options_are_named(task, options, message):
    values = {"steps": 5, "epochs": 1, "step_size": 0.1} | options
    with pytest.raises(ValueError, match=message):
        search(task, values.pop("steps"), **values)


def test_refuses_a_first_policy_of_another_length(task):
    with pytest.raises(ValueError, match="has 4 steps, expected 5"):
        search(task, 5, epochs=1, step_size=0.1, initial_policy=constant_policy(task, 4))


def test_objective_measures():
    curve = torch.tensor([4.0, 2.0, 1.0, 1.0])
    assert loss_auc(curve) == pytest.approx(4 / 3)
    assert compression_ratio(curve, 2) == pytest.approx(math.log(2) * 0.75)
    assert compression_ratio(curve, 2, unit="mixed") == pytest.approx(0.75)
    assert compression_ratio(torch.zeros(3), 2) == math.inf
    falling = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert acceleration_ratio(falling, falling) == 1
    assert acceleration_ratio(torch.tensor([4.0, 0.5, 9.0, 9.0]), falling) == 3
    rising = torch.tensor([4.0, 2.0, 1.0, 3.0, 3.0])
    assert acceleration_ratio(rising, rising) == 1
    assert acceleration_ratio(torch.tensor([4.0, 0.9, 9.0, 9.0, 9.0]), rising) == 2
    assert math.isnan(acceleration_ratio(torch.tensor([4.0, 3.0, 2.0, 1.5]), falling))
    for bad in (torch.zeros(1), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="loss curve"):
            loss_auc(bad)
    with pytest.raises(ValueError, match="4 and 3"):
        acceleration_ratio(falling, falling[:3])
    with pytest.raises(ValueError, match="vocabulary"):
        compression_ratio(curve, 1)
    with pytest.raises(ValueError, match="'nats'"):
        compression_ratio(curve, 2, unit="nats")


def test_teacher_data():
    options = {"size": 5000, "desired_size": 3000, "dimension": 3, "seed": 5}
    data = teacher_data(**options)
    assert data.training.inputs.var(0).mean() == pytest.approx(3, rel=0.05)
    assert data.desired.inputs.mean() == pytest.approx(0.5, abs=0.05)
    assert data.test.inputs.var(0).mean() == pytest.approx(1, rel=0.05)
    assert torch.equal(data.training.labels, (data.training.inputs @ data.teacher).sign())
    assert not torch.equal(data.desired.inputs, data.test.inputs)
    wide = teacher_data(**(options | {"dimension": 4096, "size": 1}))
    assert wide.teacher.var() == pytest.approx(64, rel=0.1)  # √4096
    noisy = teacher_data(**options, label_noise=0.2)
    assert torch.equal(noisy.training.inputs, data.training.inputs)
    assert torch.equal(noisy.test.labels, data.test.labels)
    flipped = (noisy.training.labels != data.training.labels).double().mean()
    assert flipped == pytest.approx(0.2, abs=0.02)
    double = teacher_data(**options, dtype=torch.float64)
    assert torch.equal(double.training.inputs.float(), data.training.inputs)
    with pytest.raises(ValueError, match="label_noise.*0.7"):
        teacher_data(**options, label_noise=0.7)
    with pytest.raises(ValueError, match="desired_size must be at least 1, got 0"):
        teacher_data(**(options | {"desired_size": 0}))
    with pytest.raises(ValueError, match="'ones'"):
        initial_parameters("ones", 3)


def test_two_ways_to_the_future_contribution(task):
    """λ·g from ∂J/∂γ has a larger spread over examples than nothing; at T = 1 it is ∇L(θ_1)·g."""
    policy = constant_policy(task, 1)
    found = search(task, 1, epochs=0, step_size=0.0)
    future = {}
    search(
        task,
        1,
        epochs=0,
        step_size=0.0,
        callback=lambda e: future.update(c=future_contributions(task, e.gradient)),
    )
    slope = task.trajectory_gradients(found.process.trajectory[1:], task.desired)[0]
    per_example = torch.func.jacrev(lambda p: task.losses(p, task.training))(task.initial)
    assert torch.allclose(future["c"][0], per_example @ slope, atol=1e-13)
    instant = contributions(task, found.process)
    slope_now = task.trajectory_gradients(found.process.trajectory[:1], task.desired)[0]
    assert torch.allclose(instant[0], per_example @ slope_now, atol=1e-13)
    assert similarity(instant, policy).shape == (1,)


def test_labelled_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2,\)"):
        Perceptron(*[Labelled(torch.ones(3, 2), torch.ones(2))] * 3, initial=torch.zeros(2))
