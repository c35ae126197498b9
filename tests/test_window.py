"""The compiled kernel of the language model against PyTorch's operators and its own differentiation."""

import numba
import numpy as np
import pytest
import torch
from small_transformers import ARCHITECTURES, close, pair, results

from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.process import constant_policy, train
from llbook.tasks.lanes import exponential, padded, product, transpose
from llbook.tasks.language import Transformer
from llbook.tasks.task import Task

# torch's own, on the first forward-mode derivative of a process
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_kernel_against_operators(name):
    task, other, weights, direction = pair(ARCHITECTURES[name])
    assert task.by_window and not other.by_window
    close(results(task, weights, direction), results(other, weights, direction), 1e-12)


@pytest.mark.parametrize("name", ["odd sizes", "gelu"])
def test_kernel_in_float32(name):
    task, _, weights, direction = pair(ARCHITECTURES[name], torch.float32)
    _, other, *exact = pair(ARCHITECTURES[name])
    got = results(task, weights, direction)
    assert got["gradient"].dtype == torch.float32
    close(got, results(other, *exact), 5e-6)


def test_what_does_not_fit_is_refused():
    task, _, weights, direction = pair(ARCHITECTURES["gelu"])
    with pytest.raises(ValueError, match=r"θ̇ must have shape \(\d+,\), got \(11,\)"):
        task.costate_products(task.initial, weights, weights)
    with pytest.raises(ValueError, match="expected weights of 11 examples, got one of number"):
        task.gradient(task.initial, direction)
    known = task.architecture.vocabulary
    for examples, theta, message in (
        (task.training.repeat(1, 4), task.initial, r"expected tokens of shape \(n, L\) with 2 ≤ L"),
        (task.training + known, task.initial, rf"tokens must lie in \[0, {known}\) or be PAD"),
        (task.training - 2, task.initial, r"got -\d+\.\."),
        (task.training, task.initial[1:], r"θ must have shape \(\d+,\), got"),
    ):
        with pytest.raises(ValueError, match=message):
            task.mean_gradient(theta, examples)


def test_kernel_against_automatic_derivatives():
    task, _, weights, direction = pair(ARCHITECTURES["gelu"])
    got = task.costate_products(task.initial, weights, direction)
    expected = Task.costate_products(task, task.initial, weights, direction)
    close(dict(enumerate(got)), dict(enumerate(expected)), 1e-12)


def test_examples_without_weight_take_no_part():
    task, other, weights, direction = pair(ARCHITECTURES["odd sizes"])
    nothing = torch.zeros_like(weights)
    assert not task.gradient(task.initial, nothing).any()
    products, curvature = task.costate_products(task.initial, nothing, direction)
    assert not curvature.any()
    expected = other.directional_derivatives(other.initial, direction)
    torch.testing.assert_close(products, expected, rtol=1e-12, atol=1e-12)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    task, _, weights, direction = pair(ARCHITECTURES["gelu"], torch.float32)
    got = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        got.append(results(task, weights, direction))
    assert all(torch.equal(got[0][name], got[1][name]) for name in got[0])


def test_policy_gradient_through_the_kernel_and_unrolled():
    task, _, _, _ = pair(ARCHITECTURES["gelu"])
    policy = constant_policy(task, 3)
    policy[1, 2] = 0
    policy[1] /= policy[1].sum()
    process = train(task, policy)
    gradient = policy_gradient(task, policy, process)
    expected = policy_gradient(task, policy, process, strategy="unrolled")
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "options", [{"kernel": "fast"}, {"kernel": "window", "products": "bfloat16"}]
)
def test_kernels_that_there_are_not(options):
    task = pair(ARCHITECTURES["gelu"])[0]
    sets = task.training, task.desired, task.test
    with pytest.raises(ValueError, match="kernel.*got"):
        Transformer(task.architecture, *sets, initial=task.initial, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_and_exponentials(dtype):
    generator = np.random.default_rng(1)
    most = 4 * np.finfo(dtype).eps
    for rows, depth, width in ((4, 3, 16), (7, 1, 48), (1, 20, 33)):
        a = generator.normal(size=(depth, rows)).astype(dtype).T
        b = np.zeros((depth, padded(width)), dtype)
        transpose(generator.normal(size=(width, depth)).astype(dtype), b)
        assert not b[:, width:].any() and b[:, :width].all()
        c = np.full((rows, padded(width)), np.nan, dtype)
        product(c, a, b, True)
        np.testing.assert_allclose(c, a @ b, rtol=0, atol=depth * most)
        product(c, a, b, False)
        np.testing.assert_allclose(c, 2 * (a @ b), rtol=0, atol=2 * depth * most)
    x = -np.linspace(0, 80, 1001).astype(dtype)
    every = numba.vectorize(lambda value: exponential(value))
    np.testing.assert_allclose(every(x), np.exp(x.astype(np.longdouble)).astype(dtype), rtol=most)
    assert every(dtype(0)) == 1 and 0 <= every(dtype(-2000)) < 1e-37
