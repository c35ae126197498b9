"""Recorded runs: what they say of themselves, and that the code still makes them."""

import numpy as np
import pytest

from llbook.experiments.config import PerceptronConfig
from llbook.experiments.perceptron import compute, recorded_configs
from llbook.experiments.runs import load_record, record_path, records_folder

CONFIGS = recorded_configs()


def record(name):
    return load_record(record_path(name))


def test_there_is_a_record_for_every_setting_and_nothing_else():
    assert {path.stem for path in records_folder().glob("perceptron-*")} == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_provenance_and_contents(name):
    run = record(name)
    assert run.recorded
    assert PerceptronConfig(**run.config) == CONFIGS[name]
    assert {"commit", "device", "versions", "seconds", "date"} <= set(run.provenance)
    assert record_path(name).stat().st_size < 4 * 2**20
    assert run.arrays["history_epoch"][-1] == CONFIGS[name].search.epochs
    assert not any(array.ndim == 2 and 4096 in array.shape for array in run.arrays.values())


def recompute(name, epochs):
    config = CONFIGS[name]
    search = config.search.model_copy(update={"epochs": epochs, "measure_every": 10})
    return compute(config.model_copy(update={"search": search}))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.endswith("seed0")])
def test_first_steps_come_out_again(name):
    """Ten search epochs where ε does not depend on their number, else conventional learning alone."""
    constant = CONFIGS[name].search.schedule == "constant"
    fresh, kept = recompute(name, 10 if constant else 0), record(name).arrays
    rows = len(fresh["history_epoch"])
    for measure in ("auc", "desired_auc", "cr", "similarity", "future_similarity"):
        expected = kept[f"history_{measure}"][:rows]
        # float32 over thousands of steps: another processor rounds otherwise
        assert fresh[f"history_{measure}"] == pytest.approx(expected, rel=2e-3), measure
    columns = kept["curve_steps"]
    assert np.allclose(fresh["test_curves"][0][columns], kept["test_curves"][0], rtol=1e-3)
