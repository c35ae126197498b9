"""The language model's engine and experiment: derivatives, precision, resuming, what a run holds."""

import gc
import weakref

import numpy as np
import pytest
import torch

from llbook.experiments.collecting import InnerParameters
from llbook.experiments.language_model import (
    LANGUAGE_MODEL,
    LanguageModelConfig,
    precision_errors,
)
from llbook.optimal import keeping
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.checkpoint import (
    decode_policy,
    encode_policy,
    load_checkpoint,
    save_checkpoint,
)
from llbook.optimal.process import TRAJECTORIES, constant_policy, train
from llbook.tasks import head, micro_batches
from llbook.tasks.language import Transformer
from llbook.tasks.task import Task
from llbook.tasks.transformer import PAD, Architecture, initial_parameters

compute = LANGUAGE_MODEL.compute

TINY = Architecture(vocabulary=50, context=12, hidden=16, heads=4, initial_scale=0.2)
SMALL = LanguageModelConfig.from_flat(
    {
        "corpus": "grammar",
        "size": 12,
        "desired_size": 8,
        "length": 10,
        "vocabulary": 100,
        "hidden": 8,
        "heads": 2,
        "steps": 5,
        "epochs": 4,
        "measure_every": 2,
        "step_size": 2.0,
    }
)


def build(dtype=torch.float64, **options) -> Transformer:
    generator = torch.Generator().manual_seed(1)
    sets = [torch.randint(0, 50, (20, 13), generator=generator) for _ in range(3)]
    sets[0][0, 5:] = PAD
    sets[0][3, 2:] = PAD
    initial = initial_parameters(TINY, 0, dtype=dtype)
    return Transformer(TINY, *sets, initial=initial, **options)


def weights_and_direction(task):
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(20, generator=generator, dtype=torch.float64)
    weights[[1, 5, 6]] = 0
    direction = torch.randn(task.initial.shape, generator=generator, dtype=torch.float64)
    return (weights / weights.sum()).to(task.initial), direction.to(task.initial)


def error(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("scores", [60, 2**18])
@pytest.mark.parametrize("micro_batch", [1, 7, 256])
def test_derivatives_against_automatic_ones(micro_batch, scores, monkeypatch):
    """Whatever the sizes of micro-batches and of blocks of scores."""
    monkeypatch.setattr(head, "BLOCK_SCORES", scores)
    task = build(micro_batch=micro_batch, kernel="operators")
    theta, (weights, direction) = task.initial, weights_and_direction(task)
    assert error(task.gradient(theta, weights), Task.gradient(task, theta, weights)) < 1e-12
    slopes, curvature = task.costate_products(theta, weights, direction)
    expected_slopes, expected = Task.costate_products(task, theta, weights, direction)
    assert error(slopes, expected_slopes) < 1e-12
    assert error(curvature, expected) < 1e-12
    assert error(task.directional_derivatives(theta, direction), expected_slopes) < 1e-12
    value, slope = task.mean_gradient(theta, task.training)
    expected_value, expected = Task.mean_gradient(task, theta, task.training)
    assert error(slope, expected) < 1e-12 and abs(value - expected_value) < 1e-12
    assert abs(task.trajectory_losses([theta], task.training)[0] - expected_value) < 1e-12


def test_micro_batches_do_not_matter_in_float32():
    options = {"dtype": torch.float32, "kernel": "operators"}
    whole, cut = build(**options), build(micro_batch=3, **options)
    weights, direction = weights_and_direction(whole)
    wanted = whole.costate_products(whole.initial, weights, direction)
    for got, expected in zip(cut.costate_products(cut.initial, weights, direction), wanted):
        assert error(got, expected) < 1e-4
    gradients = [task.gradient(task.initial, weights) for task in (whole, cut)]
    assert error(*gradients) < 1e-4


def test_examples_without_weight_cost_no_derivative(monkeypatch):
    """Neither a gradient nor a second one: only their slopes are computed."""
    task, rows = build(kernel="operators"), []
    real = micro_batches._Windows

    def counted(examples, weights, dtype):
        if weights is not None:
            rows.append(len(examples))
        return real(examples, weights, dtype)

    monkeypatch.setattr(micro_batches, "_Windows", counted)
    weights, direction = weights_and_direction(task)
    task.gradient(task.initial, weights)
    assert sum(rows) == 17
    rows.clear()
    task.costate_products(task.initial, weights, direction)
    assert sum(rows) == 17


@pytest.mark.parametrize(("products", "most"), [("full", 1e-5), ("bfloat16", 0.15)])
def test_error_of_each_precision(products, most):
    exact, task = build(), build(torch.float32, products=products)
    weights, direction = weights_and_direction(exact)
    wanted = exact.costate_products(exact.initial, weights, direction)
    got = task.costate_products(task.initial, weights.float(), direction.float())
    errors = [error(a.double(), b) for a, b in zip(got, wanted)]
    assert max(errors) < most
    if products == "bfloat16":
        assert min(errors) > 1e-5, "nothing was rounded"


def test_bad_options():
    with pytest.raises(ValueError, match="micro_batch.*got 0"):
        build(micro_batch=0)
    with pytest.raises(ValueError, match="got 'half'"):
        build(products="half")
    with pytest.raises(ValueError, match="CUDA"):
        build(torch.float32, products="tf32")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9, 10])
def test_a_trajectory_is_the_same_wherever_it_is_kept(steps):
    task = build()
    policy = constant_policy(task, steps)
    kept = {name: train(task, policy, trajectory=name) for name in TRAJECTORIES}
    whole = kept["memory"].trajectory
    for process in kept.values():
        assert process.steps == steps and len(list(process.trajectory)) == steps + 1
        for t in [*range(steps + 1), *range(steps, -1, -1), -1]:
            assert torch.equal(process.trajectory[t], whole[t])
    gradients = [policy_gradient(task, policy, process) for process in kept.values()]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    with pytest.raises(ValueError, match="got 'disk'"):
        train(task, policy, trajectory="disk")


@pytest.mark.parametrize(("form", "levels"), [("uint16", 2**16 - 2), ("uint8", 2**8 - 2)])
def test_error_of_a_stored_policy(form, levels):
    policy = torch.rand(40, 300, dtype=torch.float64) ** 4
    policy[policy < 0.05] = 0
    policy[0] = 1 / 300
    policy[1] = 0
    policy[1, 7] = 1
    policy /= policy.sum(1, keepdim=True)
    policy = policy.float()
    again = decode_policy(encode_policy(policy, form), policy)
    assert torch.equal(again == 0, policy == 0)
    positive = torch.where(policy > 0, policy, torch.inf)
    bound = (policy.amax(1) - positive.amin(1)) / (2 * levels)
    # the division by the sum moves a row by no more than its mean error
    assert bool(((again - policy).abs().amax(1) <= 2.5 * bound + 1e-6 * policy.amax(1)).all())
    assert torch.allclose(again.sum(1), torch.ones(40), atol=1e-6)
    assert torch.allclose(again[:2], policy[:2], rtol=1e-6, atol=0)


def test_a_policy_of_the_papers_scale_fits_64_mib(tmp_path):
    """T × N of Table 2, row 3, at one byte a weight; by its size per step."""
    steps, size = 4000, 2**14
    policy = torch.rand(8, size)
    path = tmp_path / "search.safetensors"
    save_checkpoint(path, encode_policy(policy / policy.sum(1, keepdim=True), "uint8"), {})
    header = 1024
    assert (path.stat().st_size - header) / 8 * steps < 64 * 2**20


def test_no_subnormal_numbers_arise():
    """They would slow a CPU down; nothing in a search comes near them."""
    task, steps = build(torch.float32), 12
    policy = constant_policy(task, steps)
    process = train(task, policy)
    gradient = policy_gradient(task, policy, process)
    slope = task.mean_gradient(process.trajectory[steps], task.desired)[1]
    for tensor in (*process.trajectory, gradient, slope):
        assert not bool(((tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)).any())


def test_a_checkpoint_is_whole_or_an_error(tmp_path):
    path = tmp_path / "a" / "search.safetensors"
    save_checkpoint(path, {"x": torch.arange(5)}, {"updates": 2})
    tensors, facts = load_checkpoint(path)
    assert tensors["x"].tolist() == list(range(5)) and facts == {"updates": 2}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)
    with pytest.raises(OSError, match="cannot write the checkpoint"):
        save_checkpoint(path / "below", {"x": torch.arange(5)}, {})


class Stop(Exception):
    pass


@pytest.mark.parametrize("form", ["float32", "uint16", "uint8"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_search_is_the_uninterrupted_one(tmp_path, monkeypatch, form, stop):
    config = LanguageModelConfig.from_flat(SMALL.flat() | {"policy_storage": form})
    whole = compute(config)
    path = tmp_path / "search.safetensors"
    real, calls = keeping.save_checkpoint, []

    def save(*arguments):
        real(*arguments)
        calls.append(1)
        if len(calls) == stop:
            raise Stop

    monkeypatch.setattr(keeping, "save_checkpoint", save)
    with pytest.raises(Stop):
        compute(config, checkpoint=path)
    monkeypatch.undo()
    assert load_checkpoint(path)[1]["updates"] == stop
    resumed = compute(config, checkpoint=path)
    assert resumed.keys() == whole.keys()
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    other = LanguageModelConfig.from_flat(config.flat() | {"step_size": 3.0})
    with pytest.raises(ValueError, match="of another search"):
        compute(other, checkpoint=path)
    with pytest.raises(ValueError, match="of another search"):
        compute(LanguageModelConfig.from_flat(config.flat() | {"seed": 1}), checkpoint=path)


@pytest.mark.parametrize("damage", ["altered", "truncated", "another file"])
def test_a_damaged_checkpoint_is_moved_aside(tmp_path, capsys, damage):
    path = tmp_path / "search.safetensors"
    whole = compute(SMALL, checkpoint=path)
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[-100] ^= 1
    elif damage == "truncated":
        del content[-100:]
    else:
        content[:] = b"something else"
    path.write_bytes(content)
    again = compute(SMALL, checkpoint=path)
    assert (
        "moved to search.safetensors.damaged-1, the search starts over" in capsys.readouterr().out
    )
    assert path.with_name("search.safetensors.damaged-1").read_bytes() == content
    for name in whole:
        np.testing.assert_array_equal(again[name], whole[name], err_msg=name)


def test_no_trajectory_is_kept_while_the_next_one_is_computed(monkeypatch):
    """At the paper's scale there is no room for two."""
    alive = weakref.WeakSet()
    real = train

    def counted(*arguments, **options):
        gc.collect()
        assert not alive
        process = real(*arguments, **options)
        alive.add(process)
        return process

    monkeypatch.setattr("llbook.optimal.search.train", counted)
    compute(SMALL)
    assert SMALL.search.epochs >= 2


def test_what_a_run_holds():
    arrays = compute(SMALL)
    epochs, steps, size = 3, SMALL.training.steps, SMALL.data.size
    assert arrays["test_curves"].shape == (epochs, steps + 1)
    assert arrays["clean_weight"].shape == (epochs, steps)
    np.testing.assert_allclose(arrays["clean_weight"][0], 1 - arrays["perturbed"].mean(), rtol=1e-5)
    np.testing.assert_allclose(arrays["example_weight"].sum(), steps, rtol=1e-5)
    for name in ("perturbed", "edits", "story", "example_hash", "example_contribution"):
        assert arrays[name].shape == (size,), name
    assert arrays["history_ar"][0] == 1
    assert arrays["history_objective"][-1] < arrays["history_objective"][0]
    assert arrays["weight_spread"].shape == (len(arrays["weight_quantiles"]), steps)


def test_precision_errors_are_those_of_the_whole_sweep():
    errors = precision_errors(SMALL)
    assert 0 < errors["float32"] < 1e-4 < errors["bfloat16"] < 0.1
    decayed = SMALL.model_copy(update={"inner": InnerParameters(weight_decay=1.0)})
    assert precision_errors(decayed) != errors, "they are those of its own optimiser"


def test_records_hold_no_text():
    assert not any(np.issubdtype(array.dtype, np.str_) for array in compute(SMALL).values())
