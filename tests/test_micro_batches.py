"""Micro-batches of a fixed shape, captured and replayed on a GPU, against those that run as they come."""

import pytest
import torch
from small_transformers import ARCHITECTURES, close, pair, results

from llbook.optimal.search import search
from llbook.tasks import micro_batches
from llbook.tasks.language import Transformer

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


def replayed(task, *, device="cpu", kernel="graphs", most=None):
    """The same task by replays, its micro-batches of at most so many windows."""
    sets = (part.to(device) for part in (task.training, task.desired, task.test))
    made = Transformer(
        task.architecture,
        *sets,
        initial=task.initial.to(device),
        learning_rate=0.1,
        kernel=kernel,
    )
    if most is not None:
        made._passes._most = most
    return made


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("most", [None, 4], ids=["at once", "in three parts"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_against_operators(name, most, device):
    _, other, weights, direction = pair(ARCHITECTURES[name])
    task = replayed(other, device=device, most=most)
    assert not task.by_window
    moved = weights.to(device), direction.to(device)
    results(task, *moved)  # captured; then replayed
    got = {name: each.cpu() for name, each in results(task, *moved).items()}
    close(got, results(other, weights, direction), 1e-12)


@pytest.mark.parametrize("most", [None, 4])
def test_operators_that_can_be_fused(monkeypatch, most):
    """What ``torch.compile`` gets, without it."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    _, other, weights, direction = pair(ARCHITECTURES["odd sizes"])
    expected = results(other, weights, direction)
    task = replayed(other, kernel="fused", most=most)
    monkeypatch.setattr(micro_batches, "weighted_loss", None)  # and not the other way
    close(results(task, weights, direction), expected, 1e-12)


def test_a_share_may_have_none_of_a_batch():
    _, other, weights, direction = pair(ARCHITECTURES["odd sizes"])
    task = replayed(other)
    none, theta = task.training[:0], task.initial
    value, slope = task._passes.gradient(theta, none, weights[:0])
    assert float(value) == 0 and not slope.any()
    slopes, total = task._passes.costate_products(theta, direction, none, weights[:0])
    assert slopes.shape == (0,) and not total.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fused_on_a_gpu():
    _, other, weights, direction = pair(ARCHITECTURES["gelu"])
    task = replayed(other, device="cuda", kernel="fused")
    got = results(task, weights.cuda(), direction.cuda())
    got = {name: each.cpu() for name, each in got.items()}
    close(got, results(other, weights, direction), 1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_windows_without_weight_take_no_part(device):
    _, other, weights, direction = pair(ARCHITECTURES["odd sizes"])
    nothing, direction = torch.zeros_like(weights).to(device), direction.to(device)
    expected = other.directional_derivatives(other.initial, direction.cpu())
    for most in (None, 4):
        task = replayed(other, device=device, most=most)
        assert not task.gradient(task.initial, nothing).any()
        products, curvature = task.costate_products(task.initial, nothing, direction)
        assert not curvature.any()
        torch.testing.assert_close(products.cpu(), expected, rtol=1e-12, atol=1e-12)


def test_only_what_has_weight_is_differentiated(monkeypatch):
    """Of eleven windows in parts of four, two without weight: three parts with, one of tangents."""
    _, other, weights, direction = pair(ARCHITECTURES["odd sizes"])
    task = replayed(other, most=4)
    ran = []
    for name in ("_products", "_tangents"):
        made = getattr(micro_batches, name)
        monkeypatch.setattr(
            micro_batches, name, lambda *given, of=made, name=name: ran.append(name) or of(*given)
        )
    task.costate_products(task.initial, weights, direction)
    assert ran == ["_products"] * 3 + ["_tangents"]


def test_narrow_models_have_larger_micro_batches():
    _, other, _, _ = pair(
        ARCHITECTURES["gelu"]
    )  # 20 tokens at width 16: 25 times less than 64 at 128
    sets = other.training, other.desired, other.test
    task = Transformer(
        other.architecture, *sets, initial=other.initial, kernel="graphs", micro_batch=2
    )
    assert task._passes._most == 50


def test_a_search_by_replays_is_the_search():
    _, other, _, _ = pair(ARCHITECTURES["gelu"])
    found = [search(task, 6, epochs=3, step_size=2.0).history for task in (other, replayed(other))]
    for there, here in zip(*found, strict=True):
        assert here == pytest.approx(there, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_is_of_either_kind(device):
    """How derivatives are computed, and what was captured for it, is no part of the task."""
    _, other, weights, direction = pair(ARCHITECTURES["odd sizes"])
    task = replayed(other, device=device)
    before = task.identity()
    results(task, weights.to(device), direction.to(device))
    assert task.identity() == before
