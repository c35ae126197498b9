"""The baselines of the benchmarks find what the engine finds, and the counts are right."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import busy, floors, suite
from benchmarks.baselines import (
    AsDescribed,
    BareProgram,
    QuadraticProgram,
    project_by_sorting,
    unrolled,
)
from benchmarks.floors import gemm_rate, take_turns, transformer_flops
from benchmarks.growth import fit_line, transformer
from benchmarks.in_jax import policy_gradient_in_jax
from benchmarks.inner import GENERAL, costs
from llbook.experiments.perceptron import PerceptronConfig, build_task
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.inner import OPTIMIZERS
from llbook.optimal.process import constant_policy, train
from llbook.optimal.simplex import project
from llbook.report import speed as speed_report
from llbook.tasks.transformer import PAD

STEPS = 6
TINY = {"size": 4, "vocabulary": 20, "length": 6, "hidden": 16}


def perceptron_task():
    sizes = {"size": 24, "dimension": 5, "desired_size": 12, "precision": "float64"}
    return build_task(PerceptronConfig.from_flat({**sizes, "device": "cpu"}))


def transformer_task():
    task = transformer(size=6, vocabulary=19, length=7, hidden=16, learning_rate=0.2)
    sets = (task.training, task.desired, task.test)
    return type(task)(
        task.architecture, *sets, initial=task.initial.double(), learning_rate=task.learning_rate
    )


TASKS = {"perceptron": perceptron_task, "transformer": transformer_task}


def some_policy(task):
    draw = torch.rand(
        STEPS, task.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return project(2 * draw / draw.sum(1, keepdim=True))


@pytest.mark.parametrize("kind", TASKS)
def test_baselines_find_the_same_gradient(kind):
    task = TASKS[kind]()
    policy = some_policy(task)
    assert (policy == 0).any()  # examples that the baseline leaves out
    process = train(task, policy)
    expected = policy_gradient(task, policy, process)
    described = AsDescribed(task)
    states = torch.stack(list(described.states(policy)))
    torch.testing.assert_close(states, process.states, rtol=1e-12, atol=1e-12)
    rows = list(described.backward(policy, states))
    found = torch.stack(rows[::-1])
    assert suite.error(found, expected) < 1e-10
    assert suite.error(unrolled(task, policy, process), expected) < 1e-10
    assert all(described.seconds[p] > 0 for p in ("training", "contributions", "curvature"))
    last = list(described.backward(policy, states, until=STEPS - 2))
    assert [row.tolist() for row in last] == [row.tolist() for row in rows[:2]]
    if kind == "transformer":
        parts = AsDescribed(task, micro_batch=4)
        rows = list(parts.backward(policy, list(parts.states(policy))))
        assert suite.error(torch.stack(rows[::-1]), expected) < 1e-10


def test_described_search_needs_a_task_it_knows():
    with pytest.raises(TypeError, match=r"expected a Perceptron or a Transformer, got int"):
        AsDescribed(3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_baselines_project_alike(scale):
    generator = torch.Generator().manual_seed(1)
    v = scale * torch.randn(9, 33, generator=generator, dtype=torch.float64)
    expected = project(v)
    torch.testing.assert_close(project_by_sorting(v), expected, rtol=0, atol=1e-12)
    program = QuadraticProgram(33, eps_abs=1e-10, eps_rel=1e-10)
    for row, projected in zip(v.numpy(), expected.numpy(), strict=True):
        np.testing.assert_allclose(program(row), projected, atol=1e-6)
    bare = BareProgram(33)
    for row, projected in zip(v.numpy(), expected.numpy(), strict=True):
        np.testing.assert_allclose(bare(row), projected, atol=1e-4)


def test_counted_products_are_those_that_run():
    """PyTorch's own counter agrees; of fused attention it need not count all."""
    aten = torch.ops.aten
    counting = {
        aten.addmm_: lambda _, a, b, **more: 2 * a[0] * a[1] * b[1]
    }  # in place, it is not counted
    task = transformer(size=3, vocabulary=40, length=5, hidden=16, kernel="operators")
    flops = transformer_flops(task.architecture, 3, 5)
    attention = 2.0 * 15 * 2 * task.architecture.layers * 5 * 16
    weights = torch.full((3,), 1 / 3)
    direction = torch.randn_like(task.initial)
    with FlopCounterMode(display=False, custom_mapping=counting) as counter:
        task.costate_products(task.initial, weights, direction)
    assert counter.get_total_flops() == pytest.approx(flops["costate_products"], rel=1e-12)
    with FlopCounterMode(display=False, custom_mapping=counting) as counter:
        task.gradient(task.initial, weights)
    assert 0 <= counter.get_total_flops() - (flops["gradient"] - 3 * attention) <= 4 * attention


def test_rate_of_what_lasts_longer_than_its_time():
    assert 0 < gemm_rate(torch.float32, shape=(2, 2, 2), lasting=0.0) < float("inf")


def test_turns_and_lines():
    calls = []
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}
    fit = fit_line([1, 2, 3], [5.0, 7.0, 9.0])
    assert fit["slope"] == pytest.approx(2)
    assert fit["intercept"] == pytest.approx(3)
    assert fit["r2"] == pytest.approx(1)


def test_command_measures_and_writes(tmp_path, monkeypatch):
    small = {
        "perceptron": lambda device: suite.perceptron(device, steps=40, size=64, sample=2),
        "projection": lambda device: suite.projection(device, steps=40, size=64, sample=2),
        "language model": lambda device: suite.language_model(
            device, size=4, vocabulary=20, hidden=16, rounds=1, cases={"tiny": TINY}
        ),
    }
    monkeypatch.setattr(suite, "PARTS", small)
    output = tmp_path / "new" / "bench.json"
    result = CliRunner().invoke(command.main, ["-o", str(output)])
    assert result.exit_code == 0, result.output
    assert "times_faster" in result.output
    written = json.loads(output.read_text())
    assert list(written["parts"]) == list(small)
    assert written["machine"]
    assert written["parts"]["perceptron"]["agreement"] < 1e-3
    assert written["parts"]["perceptron"]["unrolled_agreement"] < 1e-3
    assert written["parts"]["projection"]["usual step"]["agreement"] < 1e-5
    assert max(written["parts"]["language model"]["agreement"].values()) < 1e-3
    narrow = written["parts"]["language model"]["bfloat16_error"]
    assert narrow == {} or 0 < narrow["curvature"] < 0.1


def test_jax_finds_the_same_gradient():
    pytest.importorskip("jax", reason="an optional baseline")
    task = transformer(**TINY, learning_rate=0.2)
    task.training[0, 4:] = PAD
    policy = constant_policy(task, STEPS)
    expected = policy_gradient(task, policy, train(task, policy))
    assert suite.error(policy_gradient_in_jax(task)(policy), expected) < 1e-4


def test_without_jax_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr(suite, "available", lambda: False)
    found, note = suite.ways({"tiny": TINY}, rounds=1)
    assert "not installed" in note
    assert set(found["tiny"]["seconds"]) == {"here", "operators"}
    assert found["tiny"]["agreement"]["operators"] < 1e-4
    results = {"parts": {"language model": {"ways": found}}}
    assert "PyTorch's operators" in speed_report.ways_table(results)
    assert speed_report.ways_table({"parts": {"language model": {}}}) == ""


def test_a_type_that_the_processor_lacks_is_left_out(monkeypatch):
    rates = {torch.bfloat16: 1.0, torch.float32: 5.0}
    monkeypatch.setattr(floors, "gemm_rate", lambda kind, **_: rates[kind])
    assert floors.worthwhile(torch.bfloat16)
    rates[torch.float32] = 400.0
    assert not floors.worthwhile(torch.bfloat16)
    monkeypatch.setattr(suite, "bandwidth", lambda **_: 1.0)
    monkeypatch.setattr(suite, "gemm_rate", lambda kind, **_: rates[kind])
    found = suite.machine("cpu")
    assert found["gemm_flops"] == {"float32": 400.0}
    parts = {"machine": found, "language model": {"bfloat16_error": {}}}
    assert "has no instructions for the type" in speed_report.narrow_sentence({"parts": parts})
    found["gemm_flops"]["bfloat16"] = 600.0
    parts["language model"]["bfloat16_error"] = {"contributions": 0.02, "curvature": 0.03}
    assert "are 1.5 times faster" in speed_report.narrow_sentence({"parts": parts})


def test_beside_jobs_nothing_is_left_running():
    with busy.beside(2) as running:
        assert [process.poll() for process in running] == [None, None]
    assert all(process.poll() is not None for process in running)


def test_what_other_jobs_cost_is_measured_and_shown():
    small = {"size": 8, "desired_size": 4, "steps": 3}
    found = busy.measure(perceptron=small, laptop=TINY, steps=1, rounds=1)
    seconds = found["perceptron"]["seconds"]
    assert list(seconds) == ["0", "1", "2"]
    assert found["perceptron"]["times_quiet"]["2"] == pytest.approx(seconds["2"] / seconds["0"])
    fixed = {"cores": 2, "perceptron": {"seconds": {"0": 0.002}, "times_quiet": {"1": 1.5, "2": 4}}}
    assert "| perceptron | 2.00 | 1.5 | 4.0 |" in speed_report.busy_table(
        {"parts": {"busy": fixed}}
    )


def test_page_expects_what_is_measured():
    assert tuple(suite.PARTS) == speed_report.PARTS
    assert set(suite.PARTS) > suite.ON_A_CPU


def test_what_was_measured_survives_a_part_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "PARTS", {"machine": lambda _: {"x": 1.0}, "seeds": lambda _: 1 / 0})
    output = tmp_path / "bench.json"
    result = CliRunner().invoke(command.main, ["-o", str(output)])
    assert isinstance(result.exception, ZeroDivisionError)
    assert json.loads(output.read_text())["parts"] == {"machine": {"x": 1.0}}
    result = CliRunner().invoke(command.main, ["--device", "cuda", "seeds", "-o", str(output)])
    assert result.exit_code == 2
    assert "got 'seeds', which is measured on a CPU alone" in result.output


def test_command_refuses_unknown_parts(tmp_path):
    result = CliRunner().invoke(command.main, ["perceptorn", "-o", str(tmp_path / "x.json")])
    assert result.exit_code == 2
    assert "perceptorn" in result.output
    assert not list(tmp_path.iterdir())


def test_costs_of_optimisers_are_held_against_gradient_descent_by_the_same_way():
    task = build_task(PerceptronConfig.from_flat({"size": 16, "desired_size": 8, "dimension": 3}))
    found = costs(task, 3, rounds=1)
    assert found["times"][GENERAL] == 1
    ratio = found["seconds"]["adam"] / found["seconds"][GENERAL]
    assert found["times"]["adam"] == pytest.approx(ratio)
    assert {*OPTIMIZERS[1:], "adam, batches"} < found["times"].keys()
