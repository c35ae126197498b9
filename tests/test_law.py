"""Contributions, similarity and the first-order gap, against definitions written out in NumPy."""

import numpy as np
import pytest
import torch

from llbook.data.teacher import teacher_data
from llbook.measures.law import (
    contributions,
    first_order_gap,
    future_contributions,
    permuted_similarity,
    similarity,
    zero_weight_share,
)
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import train
from llbook.tasks.perceptron import Perceptron, initial_parameters
from llbook.theory.flows import derivatives


@pytest.fixture
def task():
    data = teacher_data(size=9, desired_size=20, dimension=4, seed=5, dtype=torch.float64)
    initial = initial_parameters("normal", 4, seed=5, dtype=torch.float64)
    return Perceptron(data.training, data.desired, data.test, initial=initial, learning_rate=0.2)


@pytest.fixture
def policy():
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(6, 9)) * (rng.random((6, 9)) < 0.6)
    weights[2] = np.eye(9)[3]
    return torch.from_numpy(weights / weights.sum(1, keepdims=True))


def test_contributions_are_products_of_gradients(task, policy):
    process = train(task, policy)
    for examples in (None, task.test):
        result = contributions(task, process, examples=examples).numpy()
        for t, theta in enumerate(process.trajectory[:-1]):
            theta = theta.clone().requires_grad_(True)
            wanted = task.desired if examples is None else examples
            (slope,) = torch.autograd.grad(task.mean_loss(theta, wanted), theta)
            expected = derivatives(task, theta.detach().numpy()).gradients @ slope.numpy()
            np.testing.assert_allclose(result[t], expected, rtol=1e-12)


def test_weighted_contributions_are_the_speed_of_learning(task, policy):
    task.learning_rate = 1e-6
    process = train(task, policy)
    losses = task.trajectory_losses(process.trajectory, task.desired)
    speed = -(losses[1:] - losses[:-1]) / task.learning_rate
    mean = (policy * contributions(task, process)).sum(1)
    torch.testing.assert_close(mean, speed, rtol=1e-4, atol=0)


def test_the_last_future_contribution_is_an_instant_one_a_step_later(task, policy):
    process = train(task, policy)
    future = future_contributions(task, policy_gradient(task, policy, process)).numpy()
    end = derivatives(task, process.trajectory[-1].numpy()).desired_gradient
    before = derivatives(task, process.trajectory[-2].numpy()).gradients
    np.testing.assert_allclose(future[-1], before @ end, rtol=1e-12)


def test_similarity_is_its_definition(policy):
    values = torch.from_numpy(np.random.default_rng(1).normal(size=policy.shape))
    result = similarity(values, policy).numpy()
    assert np.isnan(result[2])  # one example in use
    for t in (0, 1, 3, 4, 5):
        weight, value = policy[t].numpy(), values[t].numpy()
        mean = (weight * value).sum()
        deviations = (value - mean)[weight != 0]
        np.testing.assert_allclose(result[t], mean / np.sqrt(np.mean(deviations**2)), rtol=1e-12)


def test_similarity_of_equal_contributions_is_infinite(policy):
    equal = similarity(torch.full_like(policy, 2.0), policy)
    assert bool((equal[[0, 1, 3, 4, 5]] > 1e12).all())


def test_similarity_of_contributions_whose_squares_underflow():
    values = torch.tensor([[1.0, 3.0, 2.0]])
    policy = torch.tensor([[0.5, 0.5, 0.0]])
    for size in (1.0, 1e-25, 1e25):
        found = similarity(size * values, policy)
        torch.testing.assert_close(found, torch.tensor([2.0]))


def test_similarity_ignores_examples_that_are_not_in_use(policy):
    values = torch.from_numpy(np.random.default_rng(2).normal(size=policy.shape))
    spoiled = torch.where(policy == 0, 1e6, values)
    torch.testing.assert_close(
        similarity(values, policy), similarity(spoiled, policy), equal_nan=True
    )


def test_small_supports_are_alike_by_chance():
    """Rows of four random examples have a largest SIM_t far above that of rows of forty."""
    generator = torch.Generator().manual_seed(0)
    values = 0.1 + torch.randn(200, 80, generator=generator, dtype=torch.float64)

    def rows(members):
        return torch.nn.functional.pad(
            torch.full((200, members), 1 / members, dtype=torch.float64), (0, 80 - members)
        )

    few, many = (permuted_similarity(values, rows(members)) for members in (4, 40))
    assert few.shape == (20,) and float(few.median()) > 2 and float(many.max()) < 1
    assert len(set(few.tolist())) == 20
    torch.testing.assert_close(few, permuted_similarity(values, rows(4)), rtol=0, atol=0)
    assert bool(permuted_similarity(values, rows(1), draws=3).isnan().all())
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        permuted_similarity(values, rows(4), draws=0)


def test_a_deal_that_changes_nothing_gives_the_largest_similarity_itself(policy):
    values = torch.from_numpy(np.random.default_rng(1).normal(size=policy.shape))
    equal = torch.full_like(policy, 1 / policy.shape[1])
    largest = similarity(values, equal).max()
    torch.testing.assert_close(permuted_similarity(values, equal, draws=2), largest.expand(2))


def test_gap_is_zero_exactly_on_the_best_examples():
    future = torch.tensor([[1.0, 3.0, 3.0], [1.0, 3.0, 3.0], [-1.0, -2.0, -4.0]]).double()
    policy = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]).double()
    gap = first_order_gap(future, policy)
    assert gap.absolute.tolist() == [0.0, 1.0, 1.0]
    assert gap.relative.tolist() == [0.0, 0.5, 0.5]
    assert gap.mean.tolist() == [3.0, 2.0, -2.0]


def test_share_of_zero_weights():
    contribution = torch.tensor([[-1.0, 0.0, 2.0], [-1.0, 1.0, 1.0]])
    policy = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    assert zero_weight_share(contribution, policy) == pytest.approx(2 / 3)
    assert np.isnan(zero_weight_share(contribution.abs() + 1, policy))


@pytest.mark.parametrize(
    "measure", [similarity, permuted_similarity, first_order_gap, zero_weight_share]
)
def test_shapes_that_differ_are_named(measure):
    with pytest.raises(ValueError, match=r"\(T, N\).*\(3, 2\) and \(2, 3\)"):
        measure(torch.zeros(3, 2), torch.zeros(2, 3))
