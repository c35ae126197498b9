"""∂J/∂γ: every strategy against every other, NumPy sensitivities and finite differences."""

import numpy as np
import numpy_perceptron
import pytest
import torch
from small_tasks import Quadratic, perceptron, random_policy, relative

from llbook.optimal.adjoint import STRATEGIES, policy_gradient
from llbook.optimal.process import check_policy, constant_policy, train
from llbook.tasks import closed_form
from llbook.tasks.perceptron import Perceptron


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("spread", [0.05, 3.0], ids=["dense", "sparse"])
def test_strategies_agree_on_the_perceptron(dtype, bound, spread):
    task, _ = perceptron(dtype)
    policy = random_policy(task, 60, spread=spread)
    process = train(task, policy)
    reference = policy_gradient(task, policy, process, strategy="unrolled")
    for strategy in STRATEGIES:
        assert (
            relative(policy_gradient(task, policy, process, strategy=strategy), reference) < bound
        )
    assert torch.equal(
        policy_gradient(task, policy, process),
        policy_gradient(task, policy, process, strategy="closed-form"),
    )


def test_strategies_agree_on_a_task_without_closed_form():
    task = Quadratic()
    policy = random_policy(task, 40, spread=0.3)
    process = train(task, policy)
    reference = policy_gradient(task, policy, process, strategy="unrolled")
    assert relative(policy_gradient(task, policy, process), reference) < 1e-9
    with pytest.raises(ValueError, match="Quadratic"):
        policy_gradient(task, policy, process, strategy="closed-form")


def test_agrees_with_numpy_sensitivities():
    task, data = perceptron()
    policy = random_policy(task, 50)
    process = train(task, policy)
    numpy = [part.numpy() for part in (*data.training, *data.desired)]
    path = numpy_perceptron.train(*numpy[:2], task.initial.numpy(), 0.1, policy.numpy())
    assert np.abs(process.trajectory.numpy() - path).max() < 1e-12
    expected = numpy_perceptron.policy_gradient(*numpy, task.initial.numpy(), 0.1, policy.numpy())
    assert relative(policy_gradient(task, policy, process), torch.from_numpy(expected)) < 1e-9
    losses = [numpy_perceptron.mean_loss(*numpy[2:], theta) for theta in path]
    ours = task.trajectory_losses(process.trajectory, task.desired)
    assert np.abs(ours.numpy() - losses).max() < 1e-12


@pytest.mark.parametrize("make", [lambda: perceptron()[0], Quadratic], ids=["closed", "generic"])
def test_agrees_with_central_differences(make):
    task = make()
    policy = random_policy(task, 12, spread=0.02)
    gradient = policy_gradient(task, policy, train(task, policy))

    def objective(weights):
        # off the simplex on purpose: the gradient is that of J as a function of free weights
        theta = task.initial
        total = 0.0
        for row in weights:
            theta = theta - task.learning_rate * task.gradient(theta, row)
            total += float(task.mean_loss(theta, task.desired))
        return total

    step = 1e-5
    numeric = torch.zeros_like(policy)
    for t in range(policy.shape[0]):
        for n in range(policy.shape[1]):
            shift = torch.zeros_like(policy)
            shift[t, n] = step
            numeric[t, n] = (objective(policy + shift) - objective(policy - shift)) / (2 * step)
    assert relative(numeric, gradient) < 1e-6


@pytest.mark.parametrize("spread", [0.05, 3.0], ids=["dense", "sparse"])
def test_compiled_and_tensor_sweeps_agree(spread, monkeypatch):
    task, _ = perceptron()
    policy = random_policy(task, 30, spread=spread)
    process = train(task, policy)
    compiled = policy_gradient(task, policy, process)
    # the route of other devices, taken on the CPU
    monkeypatch.setattr(closed_form, "_on_cpu", lambda tensor: False)
    assert relative(train(task, policy).trajectory, process.trajectory) < 1e-12
    assert relative(policy_gradient(task, policy, process), compiled) < 1e-12


def test_does_not_depend_on_the_number_of_threads():
    numba = pytest.importorskip("numba")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    task, _ = perceptron(torch.float32, size=3000, dimension=40)
    policy = random_policy(task, 40, spread=0.01)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            process = train(task, policy)
            results.append((process.trajectory, policy_gradient(task, policy, process)))
    finally:
        numba.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


class _Clock:
    """In which a step takes ``by_all`` of the time that it takes by one thread."""

    def __init__(self, by_all, by_one=1.0):
        self.by_all, self.by_one, self.now, self.stretches = by_all, by_one, 0.0, []

    def perf_counter(self):
        return self.now

    def set_num_threads(self, threads):
        self.threads = threads

    def get_num_threads(self):
        return 2

    def steps(self, first, last):
        self.stretches.append((self.threads, last - first))
        self.now += (last - first) * self.by_one * (1 if self.threads == 1 else self.by_all)


def run_by(monkeypatch, clock, crew, count=3000):
    monkeypatch.setattr(closed_form, "time", clock)
    for name in ("set_num_threads", "get_num_threads"):
        monkeypatch.setattr(closed_form, name, getattr(clock, name))
    clock.stretches.clear()
    crew.run(clock.steps, count, torch.empty(closed_form.SMALL))
    assert sum(steps for _, steps in clock.stretches) == count and clock.threads == 2
    return [steps for threads, steps in clock.stretches if threads == 1]


def test_threads_that_are_faster_do_all_but_the_first_steps(monkeypatch):
    assert run_by(monkeypatch, _Clock(0.5), closed_form._Crew()) == [closed_form.FEW]


def test_threads_that_wait_for_each_other_are_tried_less_and_less(monkeypatch):
    clock, crew = _Clock(20.0), closed_form._Crew()
    run_by(monkeypatch, clock, crew, 10_000)
    tried = [at for at, (threads, _) in enumerate(clock.stretches) if threads == 2]
    between = [b - a - 1 for a, b in zip(tried, tried[1:])]
    expected = [closed_form.SHORTEST * 2**k for k in range(len(between))]
    assert len(between) > 4
    assert between == [min(pause, closed_form.LONGEST) for pause in expected]
    # and are back when the cores are free again
    clock.by_all = 0.5
    run_by(monkeypatch, clock, crew, 10_000)
    assert run_by(monkeypatch, clock, crew) == [closed_form.FEW]


def test_steps_of_another_length_are_no_slower_threads(monkeypatch):
    """Sweeps of unlike cost, one after the other: each is compared with itself."""
    crew, clocks = closed_form._Crew(), [_Clock(0.5, by_one=5.0), _Clock(0.5)]
    for clock in 3 * clocks:
        assert run_by(monkeypatch, clock, crew, 100) == [closed_form.FEW]


def test_small_steps_are_one_thread_s_and_one_call(monkeypatch):
    clock = _Clock(0.5)
    monkeypatch.setattr(closed_form, "SMALL", 10)
    monkeypatch.setattr(closed_form, "time", clock)
    monkeypatch.setattr(closed_form, "set_num_threads", clock.set_num_threads)
    closed_form._Crew().run(clock.steps, 500, torch.empty(9))
    assert clock.stretches == [(1, 500)]


def test_sweeps_in_stretches_are_the_sweeps(monkeypatch):
    task, _ = perceptron(torch.float32, size=200, dimension=7)
    policy = random_policy(task, 41, spread=0.01)
    process = train(task, policy)
    gradient = policy_gradient(task, policy, process)
    for name, value in (("SMALL", 0), ("STRETCH", 3), ("FEW", 2)):
        monkeypatch.setattr(closed_form, name, value)
    again = train(task, policy)
    assert torch.equal(again.trajectory, process.trajectory)
    assert torch.equal(policy_gradient(task, policy, again), gradient)


def test_a_weight_of_zero_still_has_its_gradient():
    task, _ = perceptron()
    policy = constant_policy(task, 5)
    policy[:, 0] = 0
    policy = policy / policy.sum(1, keepdim=True)
    gradient = policy_gradient(task, policy, train(task, policy))
    assert (gradient[:, 0] != 0).all()


def test_bad_input_is_named():
    task, data = perceptron()
    policy = constant_policy(task, 5)
    process = train(task, policy)
    with pytest.raises(ValueError, match="3 steps, the process 5"):
        policy_gradient(task, policy[:3], process)
    with pytest.raises(ValueError, match=r"\(T, 31\) .*got \(5, 30\)"):
        policy_gradient(task, policy[:, 1:], process)
    with pytest.raises(ValueError, match="unknown strategy 'magic'"):
        policy_gradient(task, policy, process, strategy="magic")
    with pytest.raises(ValueError, match=r"shape \(T, 31\).*got \(5, 30\)"):
        check_policy(task, policy[:, :30])
    with pytest.raises(TypeError, match="float64.*float32"):
        check_policy(task, policy.float())
    broken = policy.clone()
    broken[3, 1] = -0.1
    with pytest.raises(ValueError, match="row 3.*smallest weight -0.1"):
        train(task, broken)
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match="row 3"):
        train(task, broken)
    with pytest.raises(ValueError, match="columns"):
        Perceptron(*data[:3], initial=torch.zeros(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="learning_rate must be positive and finite, got 0"):
        Perceptron(*data[:3], initial=task.initial, learning_rate=0)
    with pytest.raises(ValueError, match="-1 or \\+1"):
        Perceptron(
            data.training._replace(labels=data.training.labels * 2),
            *data[1:3],
            initial=task.initial,
        )


@pytest.mark.parametrize(("size", "steps"), [(1, 1), (1, 4), (5, 1)])
def test_smallest_problems_and_policies_that_ask_for_gradients(size, steps):
    task, _ = perceptron(size=size, dimension=2, desired_size=1)
    policy = constant_policy(task, steps).requires_grad_(True)
    process = train(task, policy)
    reference = policy_gradient(task, policy, process, strategy="unrolled")
    for strategy in STRATEGIES:
        gradient = policy_gradient(task, policy, process, strategy=strategy)
        assert relative(gradient, reference) < 1e-9
        assert not gradient.requires_grad


def test_divergence_is_an_error():
    task = Quadratic()
    task.learning_rate = 1e6
    with pytest.raises(FloatingPointError, match="not finite from step"):
        train(task, constant_policy(task, 60))
