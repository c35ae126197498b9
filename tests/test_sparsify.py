"""Sparse representatives: the same process, at most P + 1 weights a step, chosen as asked."""

import numpy as np
import pytest
import torch

from llbook.data.teacher import teacher_data
from llbook.measures.law import (
    contributions,
    first_order_gap,
    similarity,
    support,
    zero_weight_share,
)
from llbook.optimal.inner import Inner
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import search
from llbook.optimal.sparsify import sparsify
from llbook.tasks.identity import example_checksums
from llbook.tasks.perceptron import Perceptron, initial_parameters
from llbook.tasks.task import Task


@pytest.fixture(scope="module")
def task():
    data = teacher_data(size=80, desired_size=64, dimension=4, label_noise=0.1, dtype=torch.float64)
    initial = initial_parameters("normal", 4, dtype=torch.float64)
    return Perceptron(data.training, data.desired, data.test, initial=initial)


@pytest.fixture(scope="module")
def found(task):
    return search(task, 40, epochs=40, method="mirror")


@pytest.mark.parametrize("objective", ["fewest", "idle"])
def test_the_same_states_from_few_weights(task, found, objective):
    sparse = sparsify(task, found.policy, found.process, objective=objective)
    assert (train(task, sparse).trajectory - found.process.trajectory).abs().max() < 1e-9
    assert int(support(found.policy).sum(1).max()) > 5 >= int(support(sparse).sum(1).max())
    assert (sparse.sum(1) - 1).abs().max() < 1e-12 and float(sparse.min()) >= 0
    assert torch.equal(sparsify(task, found.policy, found.process, objective=objective), sparse)


def test_least_weight_on_examples_that_do_not_contribute(task, found):
    instant = contributions(task, found.process)

    def idle_weight(policy):
        return float((policy * (instant <= 0)).sum())

    sparse = {
        objective: sparsify(task, found.policy, found.process, objective=objective)
        for objective in ("fewest", "idle")
    }
    assert idle_weight(sparse["idle"]) <= min(
        idle_weight(found.policy), idle_weight(sparse["fewest"])
    )
    assert zero_weight_share(instant, sparse["idle"]) > zero_weight_share(instant, found.policy)


def test_conventional_learning_too_has_sparse_representatives(task):
    policy = constant_policy(task, 10)
    process = train(task, policy)
    sparse = sparsify(task, policy, process, steps=[0, 7])
    assert sparse.shape == (2, 80) and int(support(sparse).sum(1).max()) <= 5
    for row, t in zip(sparse, (0, 7)):
        gradients = task.example_gradients(process.trajectory[t])
        assert torch.allclose(row @ gradients, policy[t] @ gradients, atol=1e-13)


def test_example_gradients_of_any_task(task):
    theta = task.initial
    assert torch.allclose(task.example_gradients(theta), Task.example_gradients(task, theta))


def test_errors(task, found):
    with pytest.raises(ValueError, match="objective must be one of .*'idle'.*got 'all'"):
        sparsify(task, found.policy, found.process, objective="all")
    with pytest.raises(ValueError, match="not on the simplex"):
        sparsify(task, 2 * found.policy, found.process)
    process = train(task, found.policy, inner=Inner(batch=4))
    with pytest.raises(ValueError, match="on full batches alone; got one of batches of 4"):
        sparsify(task, found.policy, process)


def test_what_is_no_support():
    policy = torch.tensor([[0.1, 0.9, 1e-16, 0.0], [0.5, 0.5, 1e-3, 0.0]], dtype=torch.float64)
    assert support(policy).tolist() == [[True, True, False, False], [True, True, True, False]]
    single = torch.tensor([[1.0, 1e-9]])
    assert support(single).tolist() == [[True, False]]
    # one rule for all: the similarity of a single example is not defined, its zero is a zero
    instant = torch.tensor([[1.0, -1.0]])
    assert bool(similarity(instant, single).isnan().all())
    assert zero_weight_share(instant, single) == 1


def test_rows_that_do_not_belong_together_are_refused(task, found):
    with pytest.raises(ValueError, match="steps must be from 0 to 39, got -1"):
        sparsify(task, found.policy, found.process, steps=[-1])
    with pytest.raises(ValueError, match="the policy has 5 steps, the process 40"):
        sparsify(task, found.policy[:5], found.process)


def test_examples_that_cannot_be_told_apart_are_no_identity():
    with pytest.raises(TypeError, match="a row for each of 2"):
        example_checksums(np.zeros((2, 3)).tolist())
    assert example_checksums(torch.zeros(2, 3)) != example_checksums(torch.ones(2, 3))


def test_a_row_that_nothing_depends_on_is_stationary():
    gap = first_order_gap(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))
    assert gap.relative.tolist() == [0, 0]
