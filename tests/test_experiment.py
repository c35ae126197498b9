"""What an experiment is: one file and one line make a new one; runs, sweeps and texts of those there are."""

import json
import math
import os
import re
import sys
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT

from llbook.cli import main
from llbook.experiments import experiment
from llbook.experiments.collecting import condense
from llbook.experiments.experiment import Recorded, registry
from llbook.experiments.language_model import LANGUAGE_MODEL, LanguageModelConfig, load_examples
from llbook.experiments.perceptron import PERCEPTRON
from llbook.optimal import distributed
from llbook.publish import listing
from llbook.report.sweep import recorded_table
from llbook.runs.records import load_record

THIRD = '''
"""Linear regression on noisy targets: a third experiment."""

import torch
from pydantic import Field

from llbook.experiments.collecting import (
    LawMeasures, SearchConfig, SearchParameters, TrainingParameters
)
from llbook.experiments.experiment import Experiment, Recorded
from llbook.parameters import Section
from llbook.tasks.least_squares import LeastSquares, Rows


class Data(Section):
    size: int = Field(12, ge=1, le=1000, description="N, training examples")
    noise: float = Field(0.5, ge=0, le=10, description="of the training targets")


class LeastSquaresConfig(SearchConfig):
    data: Data = Data()
    training: TrainingParameters = TrainingParameters(learning_rate=0.05, steps=8)
    search: SearchParameters = SearchParameters(
        epochs=6, step_size=1e-2, schedule="constant", objective="sum", measure_every=2
    )


def build_task(config):
    generator = torch.Generator().manual_seed(config.seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    teacher, inputs, desired = draw(3), draw(config.data.size, 3), draw(20, 3)
    noisy = inputs @ teacher + config.data.noise * draw(config.data.size)
    return LeastSquares(
        Rows(inputs, noisy),
        Rows(desired, desired @ teacher),
        initial=torch.zeros(3, dtype=torch.float64),
        learning_rate=config.training.learning_rate,
    )


LEAST_SQUARES = Experiment(
    name="least-squares",
    config=LeastSquaresConfig,
    build=build_task,
    measure=LawMeasures,
    code=("third", "llbook.tasks.least_squares"),
    recorded={"usual": Recorded(), "quiet": Recorded({"noise": 0.1}, seeds=(0,))},
)
'''

NOTEBOOK = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
experiment: least-squares
---

# A third experiment

```{code-cell} ipython3
:tags: [parameters]
seed: int = 0  # seed of data and θ_0
size: int = 12  # N, training examples
noise: float = 0.5  # of the training targets
```

```{code-cell} ipython3
from third import LeastSquaresConfig
from llbook.parameters import from_notebook

config, _ = from_notebook(globals(), LeastSquaresConfig)

from third import LEAST_SQUARES

run = LEAST_SQUARES.run(config=config)
print("objective:", run.arrays["history_objective"][-1])
```

```{code-cell} ipython3
from llbook.report.numbers import small_print

small_print(run, "third", LeastSquaresConfig())
```
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A build folder and a folder of records of one's own."""
    monkeypatch.setenv("LLBOOK_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("LLBOOK_RECORDS", str(tmp_path / "records"))
    return tmp_path / "build"


@pytest.fixture
def third(tmp_path, monkeypatch):
    """A new experiment: one file, and one line in the registry."""
    (tmp_path / "third.py").write_text(THIRD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(experiment, "REGISTERED", (*experiment.REGISTERED, "third:LEAST_SQUARES"))
    yield registry()["least-squares"]
    del sys.modules["third"]


def test_a_new_experiment_runs_and_is_found_again(build, third, capsys):
    config = third.config.from_flat({"noise": 1.0, "seed": 3})
    run = third.run(config)
    assert run.kind == "least-squares" and run.config["data"] == {"size": 12, "noise": 1.0}
    objective = run.arrays["history_objective"]
    assert objective[-1] < objective[0]
    assert list(run.arrays["curve_epochs"]) == [0, 2, 4, 6]
    assert run.arrays["similarity"].shape == (4, 8)
    capsys.readouterr()
    again = third.run(config)
    assert again.provenance == run.provenance and capsys.readouterr().out == ""
    assert any(file.endswith("third.py") for file in run.provenance["parts"]["code"])


def test_a_new_experiment_is_listed_with_what_differs_from_its_defaults(build, third):
    third.run(third.config.from_flat({"noise": 1.0, "seed": 3}))
    (row,) = listing.stored(build)
    assert row["state"] == "stored" and row["parameters"] == ["noise = 1", "seed = 3"]


def test_a_new_experiment_is_recorded_and_reported(build, third):
    listed = CliRunner().invoke(main, ["records"]).output
    assert "least-squares-quiet-seed0" in listed
    result = CliRunner().invoke(main, ["records", "least-squares-*"])
    assert result.exit_code == 0, result.output
    records = third.load_records()
    assert {name: len(runs) for name, runs in records.items()} == {"usual": 3, "quiet": 1}
    table = recorded_table("least-squares")
    assert {"auc", "similarity", "relative_gap"} <= set(table.measures)
    means = table.intervals("seed", "auc", 0.95)
    expected = np.mean([run.arrays["history_auc"][-1] for run in records["usual"]])
    assert means["usual"].mean == pytest.approx(expected) and math.isnan(means["quiet"].low)


def test_a_new_experiments_notebook_is_searched_run_and_listed(build, third, tmp_path, monkeypatch):
    """By the ordinary commands; a call that names its argument is nothing special."""
    root = tmp_path / "root"
    (root / "book").mkdir(parents=True)
    (root / "book" / "third.md").write_text(NOTEBOOK)
    monkeypatch.setattr("llbook.cli.repository_root", lambda: root)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))

    def call(*arguments):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    assert "data.noise" in call("params", "third")
    searched = re.search(r"least-squares-[0-9a-f]{12}", call("search", "third", "-p", "noise=1"))
    done = re.search(r"done: (\S+)", call("run", "third", "-p", "data.noise=1"))
    notebook = nbformat.read(done[1], as_version=4)
    shown = "".join(str(cell.get("outputs")) for cell in notebook.cells)
    assert f"run {searched[0]}" in shown and "noise = 1" in shown
    listed = json.loads(call("runs", "--json"))
    assert [row["id"] for row in listed["runs"]] == [searched[0]], "it was computed once"
    assert listed["notebooks"][0]["parameters"] == ["data.noise = 1.0"]


def test_a_record_that_was_not_made_is_none_of_the_optional_ones(build, third):
    some = replace(third, recorded={"small": Recorded(), "large": Recorded(optional=True)})
    some.write_records()
    assert list(some.load_records()) == ["small"]
    some.write_records(["least-squares-large-seed0"])
    assert list(some.load_records()) == ["small"], "not every seed is there"
    some.write_records(["least-squares-large-seed1", "least-squares-large-seed2"])
    assert list(some.load_records()) == ["small", "large"]
    assert [run.config["seed"] for run in some.load_records()["large"]] == [0, 1, 2]


def test_a_run_with_another_optimiser_knows_both_similarities(build):
    small = {"size": 32, "desired_size": 16, "dimension": 4, "steps": 6, "epochs": 2}
    run = PERCEPTRON.run(PERCEPTRON.config.from_flat(small | {"optimizer": "adam", "batch": 8}))
    assert run.config["inner"]["batch"] == 8
    both = [run.arrays[f"{of}similarity"] for of in ("", "preconditioned_")]
    assert both[0].shape == both[1].shape and not np.allclose(*both, equal_nan=True)
    kept = PERCEPTRON.measure.condense(run.arrays)
    assert kept["preconditioned_similarity"].shape == kept["similarity"].shape
    assert len(run.arrays["history_preconditioned_similarity"]) == 2
    usual = PERCEPTRON.run(PERCEPTRON.config.from_flat(small))
    assert "inner" not in usual.config and "preconditioned_similarity" not in usual.arrays


def test_a_record_keeps_few_curves_and_few_steps():
    epochs, steps = np.arange(0, 310, 10), np.arange(1201)
    curves = 1e4 * epochs[:, None] + steps
    arrays = {
        "curve_epochs": epochs,
        "curve_steps": steps,
        "history_auc": epochs / 7,
        "test_curves": curves,
        "similarity": curves[:, :-1],
        "gap": steps[:-1],
        "weight_spread": np.stack([steps[:-1], -steps[:-1]]),
        "example_weight": steps[:7],
    }
    kept = condense(arrays, curves=("test_curves", "similarity"), steps=("gap", "weight_spread"))
    rows, columns = kept["curve_epochs"], kept["curve_steps"]
    assert (len(rows), rows[0], rows[-1]) == (11, 0, 300)
    assert (len(columns), columns[0], columns[-1]) == (501, 0, 1200)
    np.testing.assert_array_equal(kept["test_curves"], 1e4 * rows[:, None] + columns)
    np.testing.assert_array_equal(kept["similarity"], 1e4 * rows[:, None] + columns[:-1])
    np.testing.assert_array_equal(kept["gap"], columns[:-1])
    np.testing.assert_array_equal(kept["weight_spread"], [columns[:-1], -columns[:-1]])
    for name in ("history_auc", "example_weight"):
        np.testing.assert_array_equal(kept[name], arrays[name])


def test_a_sweep_is_one_record_that_keeps_what_diverged(build, third):
    points = [{"epochs": 2, "learning_rate": rate} for rate in (0.05, 0.1, 1e3)]
    swept = replace(third, sweeps={"rates": [*points[:2], points[2] | {"steps": 900}]})
    assert "least-squares-rates" in swept.record_names()
    swept.write_records(["least-squares-rates"])
    run = load_record("least-squares-rates")
    np.testing.assert_array_equal(run.arrays["learning_rate"], [0.05, 0.1, 1e3])
    np.testing.assert_array_equal(run.arrays["steps"], [8, 8, 900])
    auc = run.arrays["history_auc"]
    for point, ends in zip(points[:2], auc, strict=False):
        alone = swept.run(swept.config.from_flat(point))
        np.testing.assert_array_equal(ends, alone.arrays["history_auc"][[0, -1]])
        assert alone.id in run.provenance["runs"]
    assert np.isnan(auc[2]).all() and run.provenance["runs"][2] == "diverged"
    # what the points share is told by the configuration, and nothing else
    assert run.config["search"]["epochs"] == 2
    assert "learning_rate" not in run.config["training"]


def test_a_sweep_of_which_nothing_is_left_is_refused(build, third):
    swept = replace(third, sweeps={"rates": [{"learning_rate": 1e3, "steps": 900}]})
    with pytest.raises(ValueError, match="comes to an end, got 1 that do not"):
        swept.sweep("rates")


def test_names_of_experiments_are_the_registrys():
    assert list(registry())[:2] == ["perceptron", "language-model"]
    for name, one in registry().items():
        assert one.name == name and isinstance(one.config(), one.config)


def test_an_experiment_that_cannot_be_shared_says_so(monkeypatch):
    monkeypatch.setattr(experiment, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="perceptron: several processes cannot share"):
        PERCEPTRON.shared_run(PERCEPTRON.config())


def test_processes_on_the_cpu_do_not_meet_through_gpus(monkeypatch):
    """Where there is a GPU, too."""
    met = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.set_device", met.append)
    monkeypatch.setattr(
        "torch.distributed.init_process_group", lambda backend, **_: met.append(backend)
    )
    assert distributed.start("cpu") and met == ["gloo"]
    distributed.start("auto")
    assert met == ["gloo", 0, "nccl"]


def stories(path, word, count=60):
    text = "\n<|endoftext|>\n".join(
        f"The {word} saw {word} number {n} and went home to tell the others about it at once."
        for n in range(count)
    )
    path.write_text(text)
    return path


def test_another_text_is_read_when_the_environment_names_one(tmp_path, monkeypatch):
    config = LanguageModelConfig.from_flat(
        {"size": 4, "desired_size": 4, "length": 8, "vocabulary": 25}
    )
    names = []
    for word in ("fox", "owl"):
        monkeypatch.setenv("LLBOOK_TINYSTORIES", str(stories(tmp_path / f"{word}.txt", word)))
        corpus, examples = load_examples(config)
        assert word in corpus.texts[0]
        names.append(examples.vocabulary.decode(examples.clean[0].tolist()))
    assert names[0] != names[1]
    # and when the file itself was changed
    stories(tmp_path / "owl.txt", "bear", 61)
    assert "bear" in load_examples(config)[0].texts[0]
    # while nothing changes, nothing is read or cut again
    assert load_examples(config)[1] is load_examples(config)[1]


def test_a_run_knows_its_text_and_not_where_it_lay(build, tmp_path, monkeypatch, capsys):
    """What was asked for by name is found again by path, and another text is another run."""
    small = {"size": 4, "desired_size": 4, "length": 8, "vocabulary": 25, "hidden": 8, "heads": 2}
    small |= {"steps": 2, "epochs": 1}
    fox, owl = (str(stories(tmp_path / f"{word}.txt", word)) for word in ("fox", "owl"))

    def run(**flat):
        return LANGUAGE_MODEL.run(LanguageModelConfig.from_flat(small | flat))

    monkeypatch.setenv("LLBOOK_TINYSTORIES", fox)
    by_name = run()
    assert by_name.config["corpus_name"] == "file" and by_name.config["corpus_stories"] == 60
    assert by_name.config["data"].keys().isdisjoint({"corpus", "path"})
    assert {"mistral-common", "sentencepiece"} <= by_name.provenance["versions"].keys()
    monkeypatch.delenv("LLBOOK_TINYSTORIES")
    capsys.readouterr()
    assert run(path=fox).id == by_name.id and capsys.readouterr().out == ""
    assert run(path=owl).id != by_name.id
