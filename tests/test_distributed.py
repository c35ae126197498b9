"""One search over several processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from llbook.optimal.checkpoint import load_checkpoint
from llbook.optimal.distributed import share
from llbook.runs.store import RunStore

SCRIPT = Path(__file__).with_name("shared_search.py")


def start(*arguments, processes, **environment):
    """``torchrun`` on this machine, on CPUs."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        | environment,
    )


def searched(folder, processes, checkpoint="", dies_after=""):
    """Arrays by precision; where a process dies, what was printed."""
    result = start(SCRIPT, folder, checkpoint, dies_after, processes=processes)
    if dies_after:
        return result
    assert result.returncode == 0, result.stderr
    found = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            found[path.stem] = {name: file[name] for name in file}
    return found


def assert_same(got, expected, tolerance):
    """Every array of a run, but for its own shares of the work."""
    for name in expected.keys() - {"columns", "states"}:
        if expected[name].dtype.kind in "iub":
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
            continue
        scale = max(1e-12, np.nanmax(np.abs(expected[name])))
        np.testing.assert_allclose(
            got[name] / scale, expected[name] / scale, rtol=0, atol=tolerance, err_msg=name
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_find_what_one_finds(alone, tmp_path, processes):
    found = searched(tmp_path, processes)
    for name, tolerance in (
        ("float64", 1e-9),
        ("float32", 1e-4),
        ("two-stage", 1e-6),
        ("adam", 1e-6),
    ):
        got = found[name]
        assert got["columns"] <= -(-14 // processes), "a process holds more than its columns"
        assert got["states"] <= -(-8 // processes), "a process keeps more than its states"
        # curves and summaries are stored in float32 whatever the search computes in
        exact = {k: v for k, v in alone[name].items() if v.dtype != np.float32}
        assert_same(got, exact, tolerance)
        assert_same(got, alone[name], max(tolerance, 1e-6))


def test_a_process_that_dies_ends_the_others_and_the_search_goes_on(alone, tmp_path):
    path = tmp_path / "search.safetensors"
    result = searched(tmp_path, 3, checkpoint=path, dies_after=2)
    assert result.returncode != 0
    assert re.search(r"exitcode\s*:\s*9", result.stderr), result.stderr
    assert not list(tmp_path.glob("*.npz"))
    assert load_checkpoint(path)[1]["updates"] == 2
    got = searched(tmp_path, 2, checkpoint=path)["float64"]
    exact = {k: v for k, v in alone["float64"].items() if v.dtype != np.float32}
    assert_same(got, exact, 1e-9)


def test_the_command_stores_the_run_once(tmp_path):
    command = ("-m", "llbook", "search", "language_model", "--profile", "smoke")
    build = {"LLBOOK_BUILD": str(tmp_path)}
    first = start(*command, processes=2, **build)
    assert first.returncode == 0, first.stderr
    name = re.search(r"run (language-model-\w+)", first.stdout)[1]
    store = RunStore(tmp_path / "runs")
    stored = store.load(name)
    second = start(*command, processes=2, **build)
    assert second.returncode == 0 and name in second.stdout
    assert store.load(name).provenance["date"] == stored.provenance["date"]
    many = start(*command, "-p", "desired_size=1", processes=2, **build)
    assert many.returncode != 0
    assert "at least one of the desired examples for each process, got 1 for 2" in many.stderr


def test_one_process_has_everything():
    assert share(5, what="examples", rank=0) == slice(0, 5)
