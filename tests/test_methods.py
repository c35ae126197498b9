"""Methods of the search: they count what they cost, return the best, go on bit by bit, and arrive."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from llbook.data.teacher import teacher_data
from llbook.experiments.collecting import SearchParameters
from llbook.measures.law import first_order_gap, future_contributions
from llbook.optimal.adjoint import gradient_and_losses, policy_gradient
from llbook.optimal.methods import METHODS, Settings
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import search
from llbook.optimal.starts import STARTS, greedy, static
from llbook.tasks.least_squares import LeastSquares, Rows
from llbook.tasks.perceptron import Perceptron, initial_parameters

OTHERS = [name for name in METHODS if name != "projected-gradient"]


class Counted(Perceptron):
    """Counts backward sweeps, and keeps J of each."""

    def adjoint(self, policy, trajectory):
        found = super().adjoint(policy, trajectory)
        self.__dict__.setdefault("values", []).append(float(found[1].sum()))
        return found


def make(kind=Perceptron, *, dtype=torch.float64, size=40, **options):
    data = teacher_data(
        size=size, desired_size=64, dimension=4, dtype=dtype, **({"label_noise": 0.1} | options)
    )
    initial = initial_parameters("normal", 4, dtype=dtype)
    return kind(data.training, data.desired, data.test, initial=initial)


@pytest.mark.parametrize("name", METHODS)
def test_costs_are_counted_and_the_best_policy_is_returned(name):
    task = make(Counted)
    found = search(task, 30, epochs=40, method=name, step_size=0.3, measure_every=7)
    values = task.values
    assert found.history[-1]["evaluations"] == len(values) + STARTS[METHODS[name].start][1]
    most = 41 if name == "projected-gradient" else 40
    # the paper's method pays one more where its last policy is not the best
    assert found.history[-1]["evaluations"] <= most + (values[-1] == min(values[:-1]))
    assert found.history[-1]["objective"] == pytest.approx(min(values), abs=1e-12)
    assert torch.equal(train(task, found.policy).trajectory, found.process.trajectory)
    assert (found.policy.sum(1) - 1).abs().max() < 1e-12 and found.policy.min() >= 0
    assert found.history[0]["ar"] == 1 and found.history[0]["epoch"] == 0


def test_a_policy_that_grew_worse_is_not_the_one_returned():
    task = make(Counted)
    found = search(task, 30, epochs=6, step_size=3.0)
    assert task.values[6] > min(task.values[:6])
    assert found.history[-1]["objective"] == pytest.approx(min(task.values))
    assert found.history[-1]["evaluations"] == 8


@pytest.mark.parametrize("name", OTHERS)
def test_fewer_evaluations_find_more(name):
    task = make(size=200)
    plain = min(
        search(task, 60, epochs=60, step_size=step).history[-1]["objective"]
        for step in (1e-3, 1e-2, 1e-1)
    )
    found = search(task, 60, epochs=60, method=name)
    assert found.history[-1]["objective"] < 0.99 * plain


def test_a_single_step_is_solved_as_a_solver_solves_it():
    task = make(size=12)

    def objective(weights):
        policy = torch.from_numpy(weights)[None]
        process = train(task, policy / policy.sum())
        gradient, losses = gradient_and_losses(task, policy / policy.sum(), process)
        return float(losses.sum()), gradient[0].numpy()

    best = minimize(
        objective,
        np.full(12, 1 / 12),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * 12,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    for name in ("spectral", "two-stage"):
        found = search(task, 1, epochs=200, method=name, stop_at_gap=1e-9)
        assert found.history[-1]["objective"] == pytest.approx(best.fun, abs=1e-9)
        gradient = policy_gradient(task, found.policy, found.process)
        gap = first_order_gap(future_contributions(task, gradient), found.policy)
        assert float(gap.relative.max()) <= 1e-9
        assert found.history[-1]["evaluations"] < 200


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", ["float32", "uint16"])
def test_an_interrupted_search_goes_on_bit_by_bit(name, form, tmp_path):
    task = make(dtype=torch.float32)
    options = {"epochs": 30, "method": name, "step_size": 0.1, "policy_storage": form}
    whole = search(task, 20, **options)
    # two moments of the search: in the first stage of two, and in the second
    for moment in (9, 26):
        path = tmp_path / f"{moment}.safetensors"

        def stop(epoch, moment=moment):
            if epoch.number == moment:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(task, 20, **options, checkpoint=path, callback=stop)
        assert path.is_file()
        resumed = search(task, 20, **options, checkpoint=path)
        assert torch.equal(whole.policy, resumed.policy)
        assert whole.history == resumed.history


@pytest.mark.parametrize("form", ["float32", "uint16", "uint8"])
def test_an_interrupted_return_to_the_best_goes_on_with_it(form, tmp_path):
    task, path = make(), tmp_path / "search.safetensors"
    options = {"epochs": 6, "step_size": 3.0, "policy_storage": form}
    whole = search(task, 30, **options)
    assert whole.history[-1]["epoch"] == 7

    def stop(epoch):
        if epoch.final:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(task, 30, **options, checkpoint=path, callback=stop)
    resumed = search(task, 30, **options, checkpoint=path)
    assert torch.equal(whole.policy, resumed.policy)
    objectives = ([row["objective"] for row in one.history] for one in (whole, resumed))
    assert next(objectives) == next(objectives)  # AR can be nan


def test_the_least_budget_that_is_named_is_enough():
    for name in METHODS:
        for start, (_, price) in STARTS.items():
            if start != "equal":
                with pytest.raises(ValueError, match="needs at least (.*) epochs") as refused:
                    search(make(), 3, epochs=price, method=name, start=start, step_size=0.1)
                least = int(str(refused.value).split("least ")[1].split()[0])
                search(make(), 3, epochs=least, method=name, start=start, step_size=0.1)


def test_a_budget_too_small_for_the_start_of_a_method_starts_from_equal_weights():
    found = search(make(), 3, epochs=2, method="two-stage")
    assert [row["evaluations"] for row in found.history] == [1]
    assert torch.equal(found.policy, constant_policy(make(), 3))


def test_configurations_offer_all_methods_and_starts():
    fields = SearchParameters.model_fields
    assert get_args(fields["method"].annotation) == tuple(METHODS)
    assert get_args(fields["start"].annotation) == ("auto", *STARTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label_noise": 0.2}, "task"),
        ({"seed": 1}, "task"),
    ],
)
def test_a_checkpoint_of_another_task_is_refused(changed, message, tmp_path):
    path = tmp_path / "search.safetensors"

    def stop(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(make(), 20, epochs=5, step_size=0.1, checkpoint=path, callback=stop)
    with pytest.raises(ValueError, match=f"another search: {message}: "):
        search(make(**changed), 20, epochs=5, step_size=0.1, checkpoint=path)
    slower = make()
    slower.learning_rate = 0.05
    with pytest.raises(ValueError, match="another search: task: "):
        search(slower, 20, epochs=5, step_size=0.1, checkpoint=path)
    with pytest.raises(ValueError, match="rate: 0.3 there, 0.2 asked for"):
        search(make(), 20, epochs=5, step_size=0.1, rate=0.2, checkpoint=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "method must be one of .*'two-stage'.*got 'newton'"),
        ({"method": "projected-gradient"}, "needs a step_size"),
        ({"start": "cold"}, "start must be one of .*'greedy'.*got 'cold'"),
        ({"start": "static"}, "start 'static' needs at least 24 epochs, got 10"),
        ({"rate": 0.0}, "rate must be above 0 and at most 10, got 0.0"),
        ({"rate": math.inf}, "rate must be above 0 and at most 10, got inf"),
        ({"policy_storage": "uint8"}, "policy_storage of mirror must be one of .*got 'uint8'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        search(make(), 5, **({"epochs": 10, "method": "mirror"} | options))


def test_greedy_takes_the_steepest_descent_of_the_next_loss():
    task = make()
    policy = greedy(task, 3, chosen=2, equal_share=0.0)
    theta = task.initial
    for weights in policy:
        slope = task.mean_gradient(theta, task.desired)[1]
        products = task.example_gradients(theta) @ slope
        best = products.argsort(descending=True)[:2]
        assert sorted(best.tolist()) == weights.nonzero()[:, 0].tolist()
        assert weights[best].tolist() == [0.5, 0.5]
        theta = theta - task.learning_rate * weights @ task.example_gradients(theta)
    mixed = greedy(task, 3, chosen=2, equal_share=0.25)
    assert torch.allclose(mixed, 0.75 * policy + 0.25 / 40)
    for bad, message in (({"chosen": 0}, "chosen"), ({"equal_share": 1.5}, "equal_share")):
        with pytest.raises(ValueError, match=f"{message} must be .* got"):
            greedy(task, 3, **bad)


def test_a_greedy_training_that_diverges_is_named():
    """Two examples, η a² = 3: equal weights take half of that step, and converge."""
    one = Rows(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    task = LeastSquares(one, one, initial=torch.ones(2, dtype=torch.float64), learning_rate=3.0)
    states = train(task, constant_policy(task, 4000)).trajectory
    assert float(states[-1].abs().max()) < 1e-9
    with pytest.raises(FloatingPointError, match=r"greedy training diverged.* at step \d+"):
        greedy(task, 4000, chosen=1)


def test_static_has_one_weight_for_all_steps_and_descends():
    task = make()
    policy = static(task, 30, equal_share=0.0)
    assert torch.equal(policy, policy[:1].expand_as(policy).contiguous())

    def area(weights):
        return float(
            task.trajectory_losses(train(task, weights).trajectory, task.desired)[1:].sum()
        )

    assert area(policy) < area(constant_policy(task, 30))


def test_weights_of_the_mirror_method_can_return():
    """A row whose gradient squared is nothing is left as it is, and no weight is lost."""
    task = make(dtype=torch.float32)
    found = search(task, 20, epochs=60, method="mirror", rate=3.0)
    assert bool(torch.isfinite(found.policy).all()) and float(found.policy.min()) > 0


@pytest.fixture
def task():
    return make()


def _failing(monkeypatch, at):
    """Let the trainings of these numbers diverge; the count of them all."""
    count = []

    def fail(*args, **options):
        count.append(1)
        if len(count) in at:
            raise FloatingPointError("diverged here")
        return train(*args, **options)

    monkeypatch.setattr("llbook.optimal.search.train", fail)
    return count


@pytest.mark.parametrize("method", ["mirror", "spectral", "two-stage"])
def test_goes_back_where_a_training_diverges(task, method, monkeypatch):
    options = {"method": method, "start": "equal", "measure_every": 1}
    usual = search(task, 30, epochs=12, **options)
    count = _failing(monkeypatch, at=(4, 8))
    found = search(task, 30, epochs=12, **options)
    assert len(count) == found.history[-1]["evaluations"] <= 12
    values = [row["objective"] for row in found.history]
    assert values[:3] == [row["objective"] for row in usual.history[:3]]
    assert values[3] == min(values[:3])  # the best one, once more
    assert values[4] < values[3]  # and on from there
    assert values[-1] == min(values)


def _first_step(task, **options):
    """The most that ln γ changes in the first step from equal weights."""
    seen = []
    search(
        task,
        30,
        method="mirror",
        measure_every=1,
        callback=lambda epoch: seen.append(epoch.policy.clone()),
        **options,
    )
    start = constant_policy(task, 30)
    moved = [policy for policy in seen if not torch.equal(policy, start)]
    return float((moved[0] / start).log().abs().max())


def test_a_shorter_step_follows_a_diverged_one(task, monkeypatch):
    usual = _first_step(task, start="equal", epochs=6)
    _failing(monkeypatch, at=(2,))
    assert 0.4 < _first_step(task, start="equal", epochs=6) / usual < 0.55


def test_the_papers_method_does_not_go_back(task, monkeypatch):
    _failing(monkeypatch, at=(3,))
    with pytest.raises(FloatingPointError, match="diverged here"):
        search(task, 30, epochs=5, step_size=1e-3)


@pytest.mark.parametrize("method", ["mirror", "spectral"])
def test_a_first_training_that_diverges_is_an_error(task, method, monkeypatch):
    _failing(monkeypatch, at=(1,))
    with pytest.raises(FloatingPointError, match="diverged here"):
        search(task, 30, method=method, epochs=5)


def test_a_derivative_that_is_no_number_is_named(task, monkeypatch):
    def broken(*args):
        gradient, losses = gradient_and_losses(*args)
        gradient[2, 1] = math.nan
        return gradient, losses

    monkeypatch.setattr("llbook.optimal.search.gradient_and_losses", broken)
    with pytest.raises(FloatingPointError, match="∂J/∂γ nan"):
        search(task, 30, method="mirror", start="equal", epochs=5)


def _walled(monkeypatch, wall, stop=None):
    """Let the trainings of policies with a weight above ``wall`` diverge; these policies, and all."""
    failed, seen = [], []

    def fail(task, policy, **options):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(policy.clone())
        if float(policy.max()) > wall:
            failed.append(len(seen) - 1)
            raise FloatingPointError("diverged here")
        return train(task, policy, **options)

    monkeypatch.setattr("llbook.optimal.search.train", fail)
    return failed, seen


@pytest.mark.parametrize("method", ["mirror", "spectral", "two-stage"])
def test_a_search_goes_on_beside_a_wall(task, method, monkeypatch):
    failed, seen = _walled(monkeypatch, wall=0.2)
    found = search(task, 30, epochs=40, method=method, start="equal", measure_every=1)
    assert failed and len(seen) <= 40
    best = min(row["objective"] for row in found.history)
    assert found.history[-1]["objective"] == best
    before = min(row["objective"] for row in found.history[: failed[0]])
    assert best < before  # of those met before the first failure
    if method == "spectral":  # whose step grows again at once
        start = seen[failed[0] + 1]  # the best one, once more
        moved = float((seen[failed[0]] - start).abs().max())
        after = zip(seen[failed[0] + 1 :], seen[failed[0] + 2 :], strict=False)
        assert all(float((b - a).abs().max()) < 0.51 * moved for a, b in after)


@pytest.mark.parametrize("form", ["float32", "uint16"])
@pytest.mark.parametrize("method", ["mirror", "spectral", "two-stage"])
def test_goes_on_bit_by_bit_after_a_retreat(method, form, monkeypatch, tmp_path):
    task = make(dtype=torch.float32)
    options = {"epochs": 16, "method": method, "start": "equal", "policy_storage": form}
    options["measure_every"] = 1
    with monkeypatch.context() as patch:
        failed, seen = _walled(patch, wall=0.06)
        whole = search(task, 30, **options)
    assert failed and failed[0] < len(seen) - 2
    for stop in range(failed[0], len(seen), 2):
        path = tmp_path / f"{stop}.pt"
        with monkeypatch.context() as patch:
            _walled(patch, wall=0.06, stop=stop)
            with pytest.raises(KeyboardInterrupt):
                search(task, 30, checkpoint=path, **options)
        with monkeypatch.context() as patch:
            _walled(patch, wall=0.06)
            again = search(task, 30, checkpoint=path, **options)
        assert torch.equal(again.policy, whole.policy) and again.history == whole.history


def test_a_start_that_diverges_does_not_shorten_the_steps(task, monkeypatch):
    usual = _first_step(task, start="equal", epochs=9)
    _failing(monkeypatch, at=(2,))  # after equal weights
    assert _first_step(task, start="greedy", epochs=9) == pytest.approx(usual, rel=1e-6)


def test_a_derivative_that_nothing_follows_from_may_be_no_number(task, monkeypatch):
    """An area at a high rate is known though its derivative overflows."""

    def broken(*args):
        gradient, losses = gradient_and_losses(*args)
        return gradient.fill_(math.nan), losses

    monkeypatch.setattr("llbook.optimal.search.gradient_and_losses", broken)
    found = search(task, 30, method="mirror", start="equal", epochs=0)
    assert math.isfinite(found.history[-1]["objective"])
    assert math.isnan(found.history[-1]["relative_gap"])


def test_the_mirror_method_bears_derivatives_whose_squares_overflow():
    task = make(dtype=torch.float32)
    descent = METHODS["mirror"](task, Settings(steps=2, updates=20))
    policy = constant_policy(task, 2)
    slope = torch.randn(policy.shape, generator=torch.Generator().manual_seed(0))
    descent.propose(policy.clone(), 1e25 * slope, 1.0)
    first = descent.propose(policy.clone(), slope, 1.0)
    after = [descent.propose(policy.clone(), slope, 1.0) for _ in range(3)][-1]
    assert bool(torch.isfinite(after).all()) and bool((after != first).all())
