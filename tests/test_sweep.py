"""Sweeps: the points, the processes that compute them, the table and what is drawn from it."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from pydantic.fields import FieldInfo
from scipy import stats

from llbook.cli import main
from llbook.experiments.experiment import registry
from llbook.figures import style
from llbook.figures import sweep as figures
from llbook.parameters import ParameterError, Parameters
from llbook.publish import schema as schemas
from llbook.publish import sweep as sweeps
from llbook.publish.kernel import Settings
from llbook.publish.profiles import overrides
from llbook.publish.schema import read_points
from llbook.publish.sweep import sweep_points
from llbook.report.sweep import interval, read_table, recorded_table
from llbook.runs.store import RunStore

PERCEPTRON = schemas.schema(ROOT / "book", "perceptron")
SMALL = overrides("smoke", "perceptron")


# the points


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ([("seed", "0..2")], [{"seed": 0}, {"seed": 1}, {"seed": 2}]),
        ([("search.step_size", "1e-6, 2")], [{"step_size": 1e-6}, {"step_size": 2.0}]),
        ([("seed", "1,3..4,1")], [{"seed": 1}, {"seed": 3}, {"seed": 4}]),
        ([("schedule", "constant")], [{"schedule": "constant"}]),
        ([], [{}]),
    ],
)
def test_points_of_a_grid(axes, expected):
    assert sweep_points(PERCEPTRON, axes) == expected


def test_a_path_is_no_range():
    text = schemas.Parameter("text", "text", "", FieldInfo(annotation=str), "")
    toy = schemas.Schema("toy", {"text": text}, Parameters, {"text": str}, None)
    points = sweep_points(toy, [("text", "../a,b..c")])
    assert points == [{"text": "../a"}, {"text": "b..c"}]


def test_points_combine_a_list_with_the_grid(tmp_path):
    (tmp_path / "p.yaml").write_text("- {data: {size: 9}, seed: 7}\n- {}\n")
    sets = read_points(tmp_path / "p.yaml")
    points = sweep_points(PERCEPTRON, [("seed", "0,1"), ("steps", "5,6")], sets, {"size": 8})
    assert len(points) == 8
    assert points[0] == {"size": 9, "seed": 0, "steps": 5}
    assert points[-1] == {"size": 8, "seed": 1, "steps": 6}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([("sede", "0..2")], "did you mean 'seed'"),
        ([("seed", "2..1")], "seed: got '2..1'; expected first..last"),
        ([("seed", "0..")], "seed: got '0..'; expected first..last, both whole numbers"),
        ([("size", "1e2..1e3")], "size: got '1e2..1e3'; expected first..last, both whole"),
        ([("seed", ",")], "seed: got ','; expected values with commas between"),
        ([("seed", "0,,1")], "seed: got '0,,1'; expected values with commas between"),
        ([("seed", "0..3"), ("seed", "7")], "seed: given twice"),
        ([("size", "0,many,3")], "(?s)got 0; expected an integer.*got 'many'; expected an integer"),
        ([("seed", "0..99999999999")], r"1 to 10,000 points, got 100,000,000,000 values of seed"),
        ([("seed", "0..200"), ("size", "1..200")], "got 40,200"),
    ],
)
def test_bad_points_are_refused(axes, message):
    with pytest.raises(ParameterError, match=message):
        sweep_points(PERCEPTRON, axes)


@pytest.mark.parametrize("content", ["seed: 1", "[1, 2]", "[{a: 1]", "3", "- {seed: 1, seed: 2}"])
def test_file_that_is_no_list_of_sets_is_refused(tmp_path, content):
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(ParameterError, match="p.yaml"):
        read_points(tmp_path / "p.yaml")


def test_what_stands_in_the_place_of_sets_is_said(tmp_path):
    (tmp_path / "p.yaml").write_text("- {seed: 1}\n- 2\n")
    with pytest.raises(ParameterError, match="each a mapping; got int"):
        read_points(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("seed: 1")
    with pytest.raises(ParameterError, match="each a mapping; got dict"):
        read_points(tmp_path / "p.yaml")


@pytest.fixture
def build(tmp_path, monkeypatch):
    folder = tmp_path / "build"
    monkeypatch.setenv("LLBOOK_BUILD", str(folder))
    monkeypatch.delenv("LLBOOK_PROFILE", raising=False)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["perceptron", "-p", "seed=0..x"], "got '0..x'"),
        (["perceptron", "-p", "seed"], "expected NAME=VALUE"),
        (["objective", "-p", "seed=0..1"], "stores no run"),
        (["perceptron", "--scheduler", "tcp://a:1", "--workers", "2"], "has its own"),
        (["perceptron", "--workers", "0"], "--workers"),
        (["language_model", "-p", "path=none.txt"], "data.path: got 'none.txt'; expected the name"),
    ],
)
def test_command_refuses_before_anything_starts(build, arguments, message):
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert not build.exists()


def test_without_dask_the_message_says_what_to_install(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = CliRunner().invoke(main, ["sweep", "perceptron", "--profile", "smoke"])
    assert result.exit_code == 1
    assert "python -m pip install 'llbook[sweep]'" in result.stderr
    assert not build.exists()


# real processes


def rows_of(build):
    (table,) = (build / "runs" / "sweeps").glob("*/table.csv")
    with open(table, newline="") as file:
        return list(csv.DictReader(file)), table.parent


def test_sweep_with_a_failing_point_and_again(build, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "points.yaml").write_text("- seed: 0\n- device: cuda\n- seed: 1\n")
    arguments = ["sweep", "perceptron", "-f", str(tmp_path / "points.yaml"), "--profile", "smoke"]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 1
    assert "3 points, 0 of them stored" in first.stdout
    assert "1 failed:\ndevice = cuda: RuntimeError: device: got 'cuda'" in first.stderr
    assert "Traceback" not in first.stderr
    rows, folder = rows_of(build)
    assert [row["state"] for row in rows] == ["computed", "failed", "computed"]
    assert [row["seed"] for row in rows] == ["0", "0", "1"]
    for row in rows[::2]:
        run = RunStore(build / "runs").load(row["run"])
        assert float(row["auc"]) == run.arrays["history_auc"][-1]
        assert run.config["data"]["size"] == SMALL["size"] == int(row["data.size"])
    names = {path.name for path in folder.iterdir()}
    assert names == {"table.csv", "points.yaml", "sweep.json", "sweep.ipynb"}
    assert json.loads((folder / "sweep.json").read_text())["points"] == 3
    drawn = nbformat.read(folder / "sweep.ipynb", as_version=4)
    outputs = [o for c in drawn.cells if c.cell_type == "code" for o in c.outputs]
    assert any("image/svg+xml" in o.get("data", {}) for o in outputs)
    assert {path.name for path in build.iterdir()} == {"runs"}

    monkeypatch.setattr(sweeps, "execute_once", lambda *_, **__: (drawn, []))
    again = CliRunner().invoke(main, arguments)
    assert "3 points, 2 of them stored" in again.stdout
    assert "3/3 device = cuda: failed" in again.stdout
    rows, _ = rows_of(build)
    assert [row["state"] for row in rows] == ["stored", "failed", "stored"]


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the drawing out where a test is about the points."""
    monkeypatch.setattr(sweeps, "execute_once", lambda *_, **__: (nbformat.v4.new_notebook(), []))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def start(build, *arguments):
    # a group of its own, so that it can be stopped with all that it started
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"LLBOOK_BUILD": str(build), "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def holders(folder):
    """Processes that have a lock of the store open, by Linux' own list."""
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(folder)) and target.endswith(".lock"):
            found[int(link.parts[2])] = target
    return found


in_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="looks processes up in /proc"
)


@in_proc
def test_lost_worker_is_replaced(build, undrawn):
    # long enough to be met while they are computed
    small = SMALL | {"epochs": 500, "measure_every": 250}
    options = [option for name, value in small.items() for option in ("-p", f"{name}={value}")]
    killed = []

    def kill():
        worker = wait_for(lambda: next(iter(holders(build / "runs")), None))
        killed.append(worker)
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = CliRunner().invoke(main, ["sweep", "perceptron", *options, "-p", "seed=0..2"])
    killer.join()
    assert killed and os.getpid() not in killed
    assert result.exit_code == 0, result.output
    rows, _ = rows_of(build)
    assert [row["state"] for row in rows] == ["computed"] * 3
    assert "Traceback" not in result.output


@in_proc
def test_interrupted_sweep_leaves_no_process(tmp_path):
    build = tmp_path / "build"
    small = SMALL | {"epochs": 1_000_000}
    options = [option for name, value in small.items() for option in ("-p", f"{name}={value}")]
    process = start(build, *("-m", "llbook", "sweep", "perceptron"), *options, "-p", "seed=0..1")
    wait_for(lambda: holders(build / "runs"))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted; the same command goes on from what is stored" in errors
    assert "Traceback" not in errors
    wait_for(lambda: not holders(build / "runs"))
    assert {path.name for path in build.iterdir()} == {"runs"}


SCHEDULER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
        cluster.scale(1)
        sys.stdin.readline()
"""


def test_sweep_on_a_scheduler_that_is_there(build, tmp_path, undrawn):
    (tmp_path / "scheduler.py").write_text(SCHEDULER)
    cluster = subprocess.Popen(
        [sys.executable, str(tmp_path / "scheduler.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    heard = []

    def report(line):
        heard.append(line)
        if "no workers so far: waiting" in line:
            cluster.stdin.write("\n")  # as a queue that gets round to it
            cluster.stdin.flush()

    late = threading.Timer(300, cluster.kill)  # a sweep waits for workers as long as it takes
    late.start()
    try:
        address = cluster.stdout.readline().strip()
        settings = Settings(ROOT / "book", build, report=report)
        points = sweep_points(PERCEPTRON, [("seed", "4,5")], base=SMALL)
        done = sweeps.sweep(PERCEPTRON, settings, points, scheduler=address)
        assert done.failed == []
        assert address in heard[1]
        assert heard[-1].startswith("2/2 seed = ")
        rows, _ = rows_of(build)
        assert [row["state"] for row in rows] == ["computed"] * 2
    finally:
        late.cancel()
        cluster.communicate("\n", timeout=60)


def test_scheduler_that_does_not_answer(build, monkeypatch):
    monkeypatch.setattr("llbook.publish.sweep._PATIENCE", 1)
    arguments = ["sweep", "perceptron", "--profile", "smoke", "--scheduler", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "--scheduler tcp://127.0.0.1:9: no answer" in result.stderr


# the table and the figure


def test_interval_is_students():
    found = interval([1.0, 2.0, 4.0], 0.9)
    expected = stats.t.interval(0.9, 2, np.mean([1, 2, 4]), stats.sem([1, 2, 4]))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.mean == pytest.approx(7 / 3)
    assert math.isnan(interval([3.0], 0.9).low)
    undefined = interval([3.0, 4.0, math.nan], 0.9)  # without the last the mean would be too high
    assert math.isnan(undefined.mean) and math.isnan(undefined.low) and len(undefined.values) == 3
    ratio = interval([2.0, 8.0], 0.9, logarithm=True)
    assert ratio.mean == pytest.approx(4)
    assert math.log(ratio.high / 4) == pytest.approx(stats.t.ppf(0.95, 1) * math.log(2))
    assert ratio.low > 0
    share = interval([0.0, 0.01, 0.0], 0.95, least=0.0, most=1.0)
    assert share.low == 0 and share.high == interval([0.0, 0.01, 0.0], 0.95).high
    endless = interval([1.0, 2.0, math.inf], 0.9)
    assert endless.mean == math.inf and math.isnan(endless.low)


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(2, 3, (2000, 4))
    found = [interval(row, 0.8) for row in draws]
    covered = np.mean([one.low <= 2 <= one.high for one in found])
    assert covered == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 2000))


TABLE = """seed,data.size,search.epochs,run,state,seconds,error,auc,ar
0,8,5,r-0,computed,1.5,,0.5,1.0
1,8,5,r-1,stored,1.5,,0.7,nan
0,9,5,r-2,computed,1.5,,0.1,2.0
1,9,5,,failed,,ValueError: no,,
"""


def test_table_falls_into_groups(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    table = read_table(tmp_path / "table.csv")
    assert table.varying == ("seed", "data.size")
    assert table.measures == ("auc", "ar")
    assert (len(table.rows), table.failed) == (3, 1)
    assert {k: len(v) for k, v in table.groups("seed").items()} == {"size = 8": 2, "size = 9": 1}
    assert list(table.groups("size")) == ["seed = 0", "seed = 1"]
    found = table.intervals("seed", "auc", 0.95)
    assert found["size = 8"].mean == pytest.approx(0.6)
    assert found["size = 9"].values == (0.1,)
    with pytest.raises(ValueError, match="over must be one of seed, data.size, got 'steps'"):
        table.groups("steps")


def test_a_measure_that_not_all_points_have(tmp_path):
    """Some are taken only of a training that is not gradient descent."""
    path = tmp_path / "table.csv"
    path.write_text(TABLE.replace("0.1,2.0", "0.1,").replace("0.7,nan", "0.7,3.0"))
    found = read_table(path).intervals("data.size", "ar", 0.95)
    assert math.isnan(found["seed = 0"].values[1]) and math.isnan(found["seed = 0"].mean)
    assert found["seed = 1"].mean == pytest.approx(3)


def test_table_that_is_none_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not the table of a sweep"):
        read_table(path)
    path.write_text("".join(TABLE.splitlines(keepends=True)[::4]))
    with pytest.raises(ValueError, match="none of its 1 points has a result"):
        read_table(path)


def test_recorded_table():
    table = recorded_table()
    assert table.varying == ("setting", "seed")
    seeds = sorted(len(setting.seeds) for setting in registry()["perceptron"].recorded.values())
    assert sorted(len(rows) for rows in table.groups("seed").values()) == seeds
    assert {"auc", "ar", "similarity"} <= set(table.measures)


def test_the_page_says_what_each_column_is():
    page = (ROOT / "book" / "sweep.md").read_text(encoding="utf-8")
    columns = {"run", "state", "seconds", "error", "preconditioned_similarity", "evaluations"}
    for column in columns.union(recorded_table().measures):
        assert f"`{column}`" in page, column


def test_figure_has_every_point_and_every_mean(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    table = read_table(tmp_path / "table.csv")
    panels = {name: table.intervals("seed", name, 0.95) for name in table.measures}
    figure = figures.intervals(panels)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["size = 8", "size = 9"]
    points = list(csv.DictReader(style.shown_data(figure).splitlines()))
    marks = [float(p["x"]) for p in points if p["x_axis"] == "auc" and p["series"] == "points"]
    assert marks == [0.5, 0.7, 0.1]
    assert len([p for p in points if p["x_axis"] == "ar" and p["series"] == "points"]) == 2
    figure.savefig(tmp_path / "figure.svg")
    assert re.search("mean and interval", (tmp_path / "figure.svg").read_text())
