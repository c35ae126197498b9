"""Recorded runs: what they say of themselves, and that the code still makes them."""

import os

import numpy as np
import pytest

from llbook.experiments import inner, schedule
from llbook.experiments.experiment import registry
from llbook.experiments.language_model import (
    LANGUAGE_MODEL,
    build_task,
    example_hashes,
    load_examples,
)
from llbook.experiments.perceptron import PERCEPTRON
from llbook.measures.law import contributions, similarity
from llbook.optimal.process import constant_policy, train
from llbook.report.speed import speed_path
from llbook.runs.folders import records_folder
from llbook.runs.policies import manifest_path
from llbook.runs.records import load_record, record_path


def kept(experiment):
    """What has to be recorded; larger runs are welcome, not asked for."""
    asked = experiment.record_names(optional=False)
    configs = experiment.recorded_configs().items()
    return {name: c for name, c in configs if name in asked or record_path(name).is_file()}


PERCEPTRONS, LANGUAGE_MODELS = kept(PERCEPTRON), kept(LANGUAGE_MODEL)
INNER = kept(inner.INNER) | kept(inner.LANGUAGE_MODEL)
SCHEDULES = kept(schedule.LANGUAGE_MODEL)
CONFIGS = PERCEPTRONS | LANGUAGE_MODELS
SWEEPS = {
    f"{experiment.name}-{name}": points
    for experiment in registry().values()
    for name, points in experiment.sweeps.items()
}
MEASURES = ("auc", "desired_auc", "cr", "similarity", "future_similarity")


def record(name):
    return load_record(record_path(name))


def test_there_is_a_record_for_every_setting_and_nothing_else():
    files = set(records_folder().iterdir()) - {speed_path(), manifest_path()}
    assert files == {record_path(name) for name in (*CONFIGS, *INNER, *SCHEDULES, *SWEEPS)}


@pytest.mark.parametrize("name", CONFIGS)
def test_provenance_and_contents(name):
    run, config = record(name), CONFIGS[name]
    assert run.recorded
    known = {key: run.config[key] for key in type(config).model_fields if key in run.config}
    text = config.data.model_dump(include={"corpus", "path"})  # a run knows the text itself
    # parameters that came later have their defaults
    assert type(config)(**known | {"data": run.config["data"] | text}) == config
    assert {"commit", "device", "versions", "seconds", "date"} <= set(run.provenance)
    assert record_path(name).stat().st_size < 4 * 2**20
    if config.search.method == "projected-gradient":
        # one more where the search returns to an earlier policy
        assert run.arrays["history_epoch"][-1] - config.search.epochs in (0, 1)
    else:
        assert run.arrays["history_evaluations"][-1] <= config.search.epochs
    whole_policy = (config.training.steps, config.data.size)
    assert not any(array.shape == whole_policy for array in run.arrays.values())


@pytest.mark.parametrize("name", INNER)
def test_comparisons_of_optimisers_are_those_that_would_be_made_again(name):
    run, config = record(name), INNER[name]
    for section in ("training", "search", "model", "study"):
        assert run.config[section] == config.model_dump()[section]
    assert run.arrays["names"].tolist() == config.names()
    assert {"commit", "device", "versions", "seconds", "date"} <= set(run.provenance)
    own, conventional = run.arrays["desired"][1:].diagonal(), run.arrays["desired"][0]
    # where a search finds nothing better, it returns its start
    assert (own <= conventional).all() and (own < conventional).any()


@pytest.mark.parametrize("name", SCHEDULES)
def test_comparisons_of_rates_are_those_that_would_be_made_again(name):
    run, config = record(name), SCHEDULES[name]
    for section in ("training", "search", "model", "rates"):
        assert run.config[section] == config.model_dump()[section]
    assert {"commit", "device", "versions", "seconds", "date"} <= set(run.provenance)
    assert record_path(name).stat().st_size < 4 * 2**20
    arrays, draws = run.arrays, config.rates.draws
    assert arrays["policies"].shape == (3, config.training.steps, config.data.size)
    np.testing.assert_allclose(arrays["policies"].sum(-1), 1, atol=1e-5)
    for measure in ("desired", "test"):
        assert arrays[measure].shape == (3, len(schedule.WEIGHTS), draws)
        own = arrays[f"moved_{measure}"].diagonal().T
        np.testing.assert_array_equal(arrays[measure][:, 1], own)
    # the searches end below what they began with, in the draw they saw
    assert (arrays["desired"][:, 1, 0] < arrays["desired"][:, 0, 0]).all()
    np.testing.assert_allclose(arrays["desired"][:, :2, 0], arrays["history_policy"], rtol=1e-6)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_hold_the_points_that_would_be_run_again(name):
    run, points = record(name), SWEEPS[name]
    rows = [run.arrays[key] for key in points[0] if key in run.arrays]
    varied = [[point[key] for point in points] for key in points[0] if key in run.arrays]
    np.testing.assert_array_equal(rows, varied)
    common = {key: value for key, value in points[0].items() if key not in run.arrays}
    experiment = next(e for e in registry().values() if name.startswith(f"{e.name}-"))
    config = experiment.config.from_flat(common).model_dump()
    for section in run.config.keys() & {"training", "search", "model", "computation"}:
        assert run.config[section].items() <= config[section].items()
    assert run.arrays["history_auc"].shape == (len(points), 2)
    assert {"commit", "device", "versions", "seconds", "date"} <= set(run.provenance)
    measured = [array for key, array in run.arrays.items() if key not in points[0]]
    assert all(array.dtype.kind in "fiub" for array in measured)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_records_of_the_language_model_hold_no_text(name):
    run = record(name)
    assert run.config["corpus_name"] in ("file", "tinystories", "grammar")
    assert len(run.config["corpus_sha256"]) == 64
    assert all(array.dtype.kind in "fiub" for array in run.arrays.values())
    assert run.arrays["example_hash"].shape == (CONFIGS[name].data.size,)


def first_epochs(config, epochs):
    """The configuration with fewer epochs, all of them measured as in the record."""
    search = config.search.model_copy(update={"epochs": epochs, "measure_every": max(epochs, 1)})
    return config.model_copy(update={"search": search})


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, config in PERCEPTRONS.items()
        if config.seed == 0 and config.search.method == "projected-gradient"
    ],
)
def test_first_steps_come_out_again(name):
    """Ten search epochs where ε does not depend on their number, else conventional learning alone."""
    constant = CONFIGS[name].search.schedule == "constant"
    fresh = PERCEPTRON.compute(first_epochs(CONFIGS[name], 10 if constant else 0))
    kept = record(name).arrays
    rows = len(fresh["history_epoch"])
    for measure in MEASURES:
        expected = kept[f"history_{measure}"][:rows]
        # float32 over thousands of steps: another processor rounds otherwise
        assert fresh[f"history_{measure}"] == pytest.approx(expected, rel=2e-3), measure
    columns = kept["curve_steps"]
    assert np.allclose(fresh["test_curves"][0][columns], kept["test_curves"][0], rtol=1e-3)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_first_steps_of_the_language_model_come_out_again(name):
    """The examples, from the same text, and the first steps of conventional learning on them."""
    if not os.environ.get("LLBOOK_TINYSTORIES"):
        pytest.skip("the records were made from real text: LLBOOK_TINYSTORIES does not name it")
    kept, config = record(name), CONFIGS[name]
    corpus, examples = load_examples(config)
    if corpus.sha256 != kept.config["corpus_sha256"]:
        pytest.skip(f"the record was made from another text than {corpus.name}")
    hashes = example_hashes(examples)
    np.testing.assert_array_equal(hashes, kept.arrays["example_hash"])
    for array in ("perturbed", "edits", "story"):
        np.testing.assert_array_equal(getattr(examples, array), kept.arrays[array], err_msg=array)
    steps = 10
    exact = config.precision == "float32"
    if not exact:  # this device may not have the record's precision
        config = config.model_copy(update={"precision": "float32"})
    task = build_task(config)
    policy = constant_policy(task, steps)
    process = train(task, policy)
    columns = kept.arrays["curve_steps"][kept.arrays["curve_steps"] <= steps]
    # a long training keeps fewer of its first steps
    assert len(columns) >= 2
    fresh = task.trajectory_losses(process.trajectory, task.test).numpy()[columns]
    expected = kept.arrays["test_curves"][0][: len(columns)]
    assert fresh == pytest.approx(expected, rel=1e-4 if exact else 1e-3)
    instant = contributions(task, process, examples=task.test)
    fresh = similarity(instant, policy).numpy()[columns[:-1]]
    expected = kept.arrays["similarity"][0][: len(columns) - 1]
    assert fresh == pytest.approx(expected, rel=1e-2 if exact else 5e-2)


def test_an_unknown_record_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="no record is called 'largest'"):
        LANGUAGE_MODEL.write_records(["language-model-short-seed0", "largest"])
