"""A search that is killed loses at most an epoch, and nothing of its result."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SEARCHES = {
    "perceptron": {
        "size": 256,
        "desired_size": 64,
        "dimension": 16,
        "steps": 200,
        "epochs": 60,
        "measure_every": 1,
    },
    "language-model": {
        "corpus": "grammar",
        "size": 16,
        "desired_size": 8,
        "length": 12,
        "vocabulary": 64,
        "hidden": 16,
        "steps": 4,
        "epochs": 50,
        "measure_every": 1,
        "micro_batch": 16,
        "step_size": 1.0,
    },
}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("perceptron", "projected-gradient"),
        ("perceptron", "two-stage"),
        ("language-model", "projected-gradient"),
    ],
)
def test_killed_at_random_moments_it_goes_on(kind, method, tmp_path):
    script = Path(__file__).with_name("killed_search.py")
    flat = SEARCHES[kind] | {"method": method, "start": "equal"}
    command = [sys.executable, script, tmp_path, kind, json.dumps(flat), "20"]
    subprocess.run([str(part) for part in command], check=True, timeout=600)
    kills = json.loads((tmp_path / "kills.json").read_text())
    assert len(kills) == 20
    for begun, updates in kills:
        # that epoch was lost, or had been stored already
        assert begun <= updates <= begun + 1
    assert [updates for _, updates in kills] == sorted(updates for _, updates in kills)
    assert 0 < kills[-1][1] < SEARCHES[kind]["epochs"]
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "resumed.npz") as resumed:
        assert sorted(whole) == sorted(resumed)
        for name in whole:
            np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
            assert whole[name].dtype == resumed[name].dtype, name
