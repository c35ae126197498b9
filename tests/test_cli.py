"""The command line: what it refuses before anything starts, one notebook run, the run store."""

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import nbformat
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, run_llbook
from filelock import FileLock

import llbook.cli
from llbook.cli import main
from llbook.parameters import ParameterError, Parameters
from llbook.publish import listing, runner, tables
from llbook.publish import schema as schemas
from llbook.publish.profiles import PROFILES, overrides
from llbook.publish.site import pages
from llbook.runs.entries import entries
from llbook.runs.run import write_run
from llbook.runs.store import RunStore

NOTEBOOK = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A toy

```{code-cell} ipython3
:tags: [parameters]
count: int = 3  # how many
rate: float = 0.5  # how fast
word: str = "yes"  # what to say
aloud: bool = False
```

```{code-cell} ipython3
import sys

print(word * count, rate, aloud)
print("thinking", file=sys.stderr)
```

```{code-cell} ipython3
print(12 // (count - 7))
```
"""
CODE = ("llbook.runs.store",)


@pytest.fixture
def build(tmp_path, monkeypatch):
    folder = tmp_path / "build"
    monkeypatch.setenv("LLBOOK_BUILD", str(folder))
    monkeypatch.delenv("LLBOOK_PROFILE", raising=False)
    return folder


@pytest.fixture
def toy(tmp_path, monkeypatch, build):
    """A repository with the one notebook ``toy``."""
    root = tmp_path / "root"
    (root / "book").mkdir(parents=True)
    (root / "book" / "toy.md").write_text(NOTEBOOK)
    (root / "book" / "plain.md").write_text("# No notebook\n")
    monkeypatch.setattr(llbook.cli, "repository_root", lambda: root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return root


def call(*arguments, expect=0):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == expect, result.output
    assert result.exception is None or type(result.exception) is SystemExit  # no traceback
    return result


def text_of(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return "".join(o.get("text", "") for cell in cells for o in cell.outputs)


def the_folder(build):
    (folder,) = (build / "runs" / "notebooks").iterdir()
    return folder


# what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["perceptrn"], r"no notebook 'perceptrn'; did you mean 'perceptron'\?"),
        (["language-model", "-p", "seed=1"], "did you mean 'language_model'"),
        (["outlook"], "'outlook' is a page without code"),
        (["outlooks"], "no notebook 'outlooks'"),
        (["perceptron", "-p", "sede=3"], r"'sede' \(value '3'\); did you mean 'seed'\?"),
        (["perceptron", "-p", "search.epoch=3"], "did you mean 'search.epochs'"),
        (["perceptron", "-p", "data=3"], "data: got '3'; expected a value for each of data.size"),
        (["perceptron", "-p", "data.epochs=3"], "did you mean 'search.epochs'"),
        (["perceptron", "-p", "zz=3"], "known: seed, data.size, .*recompute_records"),
        (["perceptron", "-p", "size=0"], "data.size: got 0; .*integer, 1 to 1,048,576"),
        (["perceptron", "-p", "size=many"], "data.size: got 'many'; expected an integer, 1 to"),
        (["perceptron", "-p", "size=1.5"], "got '1.5'; expected an integer"),
        (["perceptron", "-p", "learning_rate=nan"], "got nan; .*above 0, at most 1,000"),
        (["perceptron", "-p", "schedule=cosine"], "one of 'constant', 'linear'"),
        (["perceptron", "-p", "recompute_records=maybe"], "got 'maybe'; expected bool"),
        (["perceptron", "-p", "seed"], "expected NAME=VALUE, got 'seed'"),
        (["language_model", "-p", "heads=5"], "heads must divide hidden, got 5 heads for 32"),
        (["compression", "-p", "hidden=6"], "a multiple of 4"),
        (["language_model", "-p", "path=none.txt"], "data.path: got 'none.txt'; expected the name"),
        (["compression", "-p", "corpus=none.txt"], "corpus: got 'none.txt'; expected the name of"),
        (["perceptron", "--profile", "huge"], "'huge' is not one of 'smoke', 'laptop', 'paper'"),
        (["perceptron", "-o", "out.html"], "'out.html'; a notebook's name ends in .ipynb"),
        (["perceptron", "-o", "none/out.ipynb"], "there is no folder none"),
        (["findings", "-p", "seed=3"], "unknown parameter 'seed' .*findings has none"),
        (["perceptron", "-f", "none.yaml"], "none.yaml"),
    ],
)
def test_run_refuses_before_anything_starts(build, monkeypatch, arguments, message):
    monkeypatch.setattr(runner, "run", lambda *_, **__: pytest.fail("started"))
    result = call("run", *arguments, expect=2)
    assert re.search(message, result.output, re.DOTALL), result.output
    assert not build.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected a mapping of parameters, got list"),
        ("seed: [1", "p.yaml"),
        ("seed: 1\nseed: 2", "'seed' is there twice"),
        ("1: 2", "must be text, got 1"),
        ("seed: [1, 2]", r"seed: got \[1, 2\]; expected an integer"),
        ("search: {epoch: 3}", "did you mean 'search.epochs'"),
        ("seed: -1\nsearch: {epochs: -2}", "seed: got -1.*search.epochs: got -2"),
    ],
)
def test_run_refuses_a_file_of_parameters(build, tmp_path, content, message):
    (tmp_path / "p.yaml").write_text(content)
    result = call("run", "perceptron", "-f", tmp_path / "p.yaml", expect=2)
    assert re.search(message, result.output, re.DOTALL), result.output
    assert not build.exists()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("count: int = 3", "count: list = [3]", r"'count: list = \[3\]'"),
        ("count: int = 3", "count: int = three", "'count: int = three'"),
        ("count: int = 3", "count = 3", "'count: None = 3'"),
        ('word: str = "yes"', 'word: str = "a=b"', "a line that papermill does not read"),
    ],
)
def test_parameters_cell_that_cannot_be_read(toy, before, after, message):
    page = toy / "book" / "toy.md"
    page.write_text(page.read_text().replace(before, after))
    wanted = "toy: expected 'name: type = default  # meaning' in its parameters cell, got "
    assert re.search(wanted + message, call("params", "toy", expect=1).stderr)


@pytest.mark.parametrize(
    ("experiment", "status", "message"),
    [
        ("perceptrn", 2, "no experiment 'perceptrn'; did you mean 'perceptron'?"),
        ("perceptron", 1, "got parameters of Parameters; the experiment 'perceptron' expects Perc"),
    ],
)
def test_experiment_of_the_front_matter_must_be_the_notebooks(toy, experiment, status, message):
    page = toy / "book" / "toy.md"
    page.write_text(page.read_text().replace("kernelspec", f"experiment: {experiment}\nkernelspec"))
    for command in ("sweep", "search"):
        assert message in call(command, "toy", expect=status).stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ParameterError("seed: got -1"), 2, "Error: seed: got -1\n"),
        (schemas.UnknownName("no run 'x'"), 2, "Error: no run 'x'\n"),
        (OSError(28, "No space left", "a.npz"), 1, "[Errno 28] No space left: 'a.npz'\n"),
        (FloatingPointError("diverged"), 1, "diverged\n"),
        (
            KeyboardInterrupt(),
            130,
            "\nInterrupted; the same command goes on from what is stored.\n",
        ),
        (runner.Interrupted("what ran is in x"), 130, "what ran is in x\n"),
    ],
)
def test_errors_are_a_line_and_an_exit_status(build, monkeypatch, error, status, said):
    def fail(folder):
        raise error

    monkeypatch.setattr(listing, "stored", fail)
    assert call("runs", expect=status).output == said


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), BrokenPipeError()])
def test_defects_keep_their_traceback(build, monkeypatch, error):
    def fail(folder):
        raise error

    monkeypatch.setattr(listing, "stored", fail)
    assert CliRunner().invoke(main, ["runs"], standalone_mode=False).exception is error


def test_build_with_a_text_that_is_not_there(build, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLBOOK_TINYSTORIES", "none.txt")
    said = call("build", "--profile", "smoke", expect=1).stderr
    assert said.startswith("The book was not built")
    assert f"LLBOOK_TINYSTORIES: got '{tmp_path / 'none.txt'}'; expected the name of a file" in said


def test_build_where_nothing_can_be_written(build):
    build.touch()
    assert f"cannot write to the folder: File exists: '{build}'" in call("build", expect=1).stderr


def test_pdf_of_a_build_that_did_not_end(build):
    for name in pages(ROOT):
        (build / "html" / f"{name}.html").parent.mkdir(parents=True, exist_ok=True)
        (build / "html" / f"{name}.html").touch()
    said = call("pdf", expect=1).stderr
    assert said.startswith("No PDF was made")
    assert f"no {build / 'notebooks' / 'execution.json'}: build the book first" in said


def test_names_and_types_of_parameters(tmp_path, monkeypatch):
    schema = schemas.schema(ROOT / "book", "perceptron")
    (tmp_path / "p.yaml").write_text("search: {epochs: 3, step_size: 5e-6}\ndata.size: 9\nseed: 1")
    pairs = [*schemas.read_file(tmp_path / "p.yaml"), ("seed", "2"), ("search.epochs", "7")]
    pairs += [("recompute_records", "True"), ("learning_rate", 1)]
    expected = {"epochs": 7, "step_size": 5e-6, "size": 9, "seed": 2, "recompute_records": True}
    values = schema.values(pairs)
    assert values == expected | {"learning_rate": 1.0}
    assert type(values["learning_rate"]) is float
    monkeypatch.chdir(tmp_path)  # notebooks run elsewhere
    schema_of_text = schemas.schema(ROOT / "book", "language_model")
    assert schema_of_text.values([("path", "p.yaml")]) == {"path": str(tmp_path / "p.yaml")}
    config = schema.config(values)
    assert (config.search.epochs, config.data.size, config.training.steps) == (7, 9, 2000)


@pytest.mark.parametrize("name", schemas.notebook_names(ROOT / "book"))
def test_params_of_every_notebook(build, name):
    schema = schemas.schema(ROOT / "book", name)
    assert (schema.model is not Parameters) == bool(schema.parameters)
    listed = json.loads(call("params", name, "--json").output)
    assert [p["short"] for p in listed] == list(schema.parameters)
    text = call("params", name).output
    for parameter in listed:
        assert parameter["name"].rpartition(".")[2] == parameter["short"]
        assert {"type", "default", "range", "meaning"} <= parameter.keys()
        assert re.search(
            rf"^{re.escape(parameter['name'])} +{parameter['type']} .*"
            rf"{re.escape(parameter['range'])} +{re.escape(parameter['meaning'])}$",
            text,
            re.MULTILINE,
        )
    # its profiles are within its ranges
    for profile in PROFILES:
        schema.values(overrides(profile, name).items())
        assert profile in main.commands["build"].get_help(click.Context(main))
    # it names the experiment whose run it shows
    text = (ROOT / f"book/{name}.md").read_text()
    shown = re.findall(r"(\w+)(?:_|\.)run\((?:config=)?config", text)
    assert schema.experiment == (shown[0].lower().replace("_", "-") if shown else None)
    if shown:
        assert schema.stored_experiment().config is schema.model
    assert not build.exists()


def test_params_without_a_notebook_lists_them(build):
    listed = {row["notebook"]: row for row in json.loads(call("params", "--json").output)}
    assert listed["perceptron"]["run"] and listed["perceptron"]["parameters"] > 9
    assert listed["findings"] == {
        **{"notebook": "findings", "parameters": 0, "run": False, "title": "What was found"},
    }
    assert re.search(r"^findings +0 +false +What was found$", call("params").output, re.M)
    assert call("params", "findings").output == "findings has no parameters.\n"


def test_an_output_that_cannot_be_written(monkeypatch, tmp_path):
    """Permissions do not stop root: the file itself is tried."""

    def refused(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(runner.tempfile, "TemporaryFile", refused)
    with pytest.raises(ParameterError, match="-o: cannot write to .*: Read-only file system"):
        runner.check_output(tmp_path / "out.ipynb")


def test_params_as_json(build):
    listed = {p["name"]: p for p in json.loads(call("params", "perceptron", "--json").output)}
    assert listed["data.label_noise"] == {
        "name": "data.label_noise",
        "short": "label_noise",
        "type": "float",
        "default": 0.0,
        "range": "0 to 0.5",
        "minimum": 0,
        "maximum": 0.5,
        "meaning": "share of training labels flipped",
    }
    assert listed["search.schedule"]["enum"] == ["constant", "linear"]
    assert listed["training.learning_rate"]["exclusiveMinimum"] == 0


# one notebook


def test_run_leaves_notebook_parameters_and_provenance_together(toy, build, tmp_path):
    output = tmp_path / "out.ipynb"
    result = call("run", "toy", "-p", "count=2", "-p", "rate=2e-3", "-o", output)
    # one line, where there is no terminal
    assert result.output == f"toy: done: {output}\n"
    folder = the_folder(build)
    assert {p.name for p in folder.iterdir()} == {"toy.ipynb", "parameters.yaml", "run.json"}
    assert text_of(folder / "toy.ipynb") == "yesyes 0.002 False\n-3\n"
    assert output.read_bytes() == (folder / "toy.ipynb").read_bytes()
    facts = json.loads((folder / "run.json").read_text())
    assert facts["state"] == "done"
    assert facts["changed"] == {"count": 2, "rate": 0.002}
    assert {"device", "commit", "versions", "python", "seconds", "runs"} <= facts.keys()
    assert [p.name for p in build.iterdir()] == ["runs"]

    # its parameters give it again, beside the first
    call("run", toy / "book" / "toy.md", "-f", folder / "parameters.yaml", "-p", "word=no")
    (second,) = set((build / "runs" / "notebooks").iterdir()) - {folder}
    assert text_of(second / "toy.ipynb") == "nono 0.002 False\n-3\n"
    parameters = yaml.safe_load((second / "parameters.yaml").read_text())
    assert parameters == {"count": 2, "rate": 0.002, "word": "no", "aloud": False}


def test_run_notes_the_device_that_it_was_told_to_use(toy, build):
    notebook = toy / "book" / "toy.md"
    notebook.write_text(notebook.read_text().replace("aloud:", 'device: str = "auto"\naloud:'))
    call("run", "toy", "-p", "device=cuda")
    facts = json.loads((the_folder(build) / "run.json").read_text())
    assert facts["device_kind"] == "cuda"


def test_run_with_a_failing_cell(toy, build, tmp_path):
    result = call("run", "toy", "-p", "count=7", "-o", tmp_path / "out.ipynb", expect=1)
    assert result.stdout == ""
    assert "toy: code cell 3 failed" in result.stderr
    assert result.stderr.count("Traceback (most recent call last)") == 1
    assert not (tmp_path / "out.ipynb").exists()
    folder = the_folder(build)
    assert str(folder / "toy.ipynb") in result.stderr
    notebook = nbformat.read(folder / "toy.ipynb", as_version=4)
    assert notebook.metadata["llbook"]["state"] == "failed"
    assert "did not come to its end" in notebook.cells[0].source
    assert text_of(folder / "toy.ipynb").startswith("yes" * 7)
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    assert [p.name for p in build.iterdir()] == ["runs"]
    assert "failed" in call("runs").output


def test_run_where_nothing_can_be_written(toy, build):
    build.touch()
    result = call("run", "toy", expect=1)
    assert "cannot make the folder" in result.output
    assert str(build) in result.output


def test_run_without_a_kernel(toy, build, monkeypatch):
    from jupyter_client import kernelspec

    def none(self, name):
        raise kernelspec.NoSuchKernel(name)

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", none)
    result = call("run", "toy", expect=1)
    assert "python -m ipykernel install --sys-prefix" in result.stderr


def test_kernel_that_dies(toy, build):
    path = toy / "book" / "toy.md"
    path.write_text(NOTEBOOK.replace("print(12", "import os; os.kill(os.getpid(), 9)\nprint(12"))
    result = call("run", "toy", expect=1)
    assert "runs out of memory" in result.stderr
    assert text_of(the_folder(build) / "toy.ipynb") == "yesyesyes 0.5 False\nthinking\n"


SEARCH = (
    NOTEBOOK.replace("count: int = 3", "epochs: int = 3").partition(
        "```{code-cell} ipython3\nimport"
    )[0]
    + """
```{code-cell} ipython3
from llbook.experiments.perceptron import PerceptronConfig, perceptron_run

small = {"size": 64, "dimension": 8, "desired_size": 32, "steps": 30, "measure_every": 2}
run = perceptron_run(PerceptronConfig.from_flat(small | {"epochs": epochs}), progress=True)
```
"""
)


@pytest.fixture
def start(toy, build):
    """Starts ``llbook`` in a process group of its own, over a repository with a notebook ``toy``
    that searches."""
    (toy / "book" / "toy.md").write_text(SEARCH)
    code = "import llbook.cli as cli, pathlib; cli.repository_root = lambda: pathlib.Path({!r}); "

    def start(*arguments, **options):
        return subprocess.Popen(
            [sys.executable, "-c", code.format(str(toy)) + "cli.main()", *arguments],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
            **options,
        )

    return start


def test_run_on_a_terminal_shows_progress(start):
    """A bar over the cells, and what the kernel says on stderr, above it."""
    terminal, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 100))
    process = start("run", "toy", "-p", "epochs=400", stderr=other)
    os.close(other)
    shown = b""
    while True:
        try:
            shown += (part := os.read(terminal, 4096))
        except OSError:  # the other end is closed
            break
        if not part:
            break
    os.close(terminal)
    assert process.wait(60) == 0
    process.stdout.close()
    assert re.search(rb"toy: +\d+%\|.*cell", shown)
    assert re.search(rb"evaluation.*CR=", shown)


def children(process):
    """Processes that ``process`` started, by Linux' own list."""
    found = Path(f"/proc/{process}/task").glob("*/children")  # of each thread
    return [int(child) for children in found for child in children.read_text().split()]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def gone(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle_of_a_search(start, build, how):
    process = start("run", "toy", "-p", "epochs=1000000", stderr=subprocess.PIPE, text=True)
    # it computes once it holds the lock of its run
    wait_for(lambda: list((build / "runs").glob("perceptron-*.lock")))
    (kernel,) = children(process.pid)
    os.killpg(process.pid, how)
    output, errors = process.communicate(timeout=60)
    wait_for(lambda: gone(kernel))
    assert output == ""
    assert not [p for p in (build / "runs").iterdir() if re.search(r"-[0-9a-f]{12}\.npz$", p.name)]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert errors.startswith("toy: interrupted; what ran of it is in")
        assert "Traceback" not in errors
        folder = the_folder(build)
        assert json.loads((folder / "run.json").read_text())["state"] == "interrupted"
        assert [p.name for p in build.iterdir()] == ["runs"]
    else:
        # the next one is not held up by what is left
        call("run", "toy")


# the run store


@pytest.fixture
def store(build):
    made = RunStore(build / "runs", report=lambda line: None)
    for seed in (0, 3):
        config = {"seed": seed, "search": {"epochs": 500}, "device": "cpu"}
        made.load_or_compute("perceptron", config, lambda: {"a": np.arange(3)}, CODE)
    made.load_or_compute("toy", {"x": 1, "device": "cpu"}, lambda: {"a": np.zeros(2)}, CODE)
    return made


def ids(store, state="stored"):
    return {entry.id for entry in entries(store.folder) if entry.state == state}


def test_runs_lists_what_there_is(store):
    text = call("runs").output
    assert re.search(r"^perceptron-[0-9a-f]{12} +stored +\d.* kB +\d+ s .* seed = 3", text, re.M)
    assert re.search(r"^perceptron-[0-9a-f]{12} .* device = cpu$", text, re.M)
    rows = json.loads(call("runs", "--json").output)["runs"]
    assert {row["id"] for row in rows} == ids(store)
    assert all(row["size"] > 100 and row["machine"] for row in rows)


def test_runs_of_an_empty_build(build):
    assert "No runs in" in call("runs").output
    assert "Nothing to remove" in call("runs", "prune").output
    assert not build.exists()


def test_runs_show(store):
    (toy,) = (id for id in ids(store) if id.startswith("toy"))
    text = call("runs", "show", "toy").output
    assert re.search(r"outdated: no\n(.*\n)*parameters\n(.*\n)*  x +1\n(.*\n)*arrays\n  a ", text)
    assert json.loads(call("runs", "show", toy, "--json").output)["parameters"]["x"] == 1
    assert "is the beginning of 2" in call("runs", "show", "perc", expect=2).output
    assert "no run 'what'" in call("runs", "show", "what", expect=2).output
    file = store.folder / f"{toy}.npz"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert f"{toy} is damaged: " in call("runs", "show", "toy", expect=1).output


def test_runs_why(build):
    small = overrides("smoke", "perceptron")
    arguments = ["runs", "why", "perceptron", *(f"-p{k}={v}" for k, v in small.items())]
    assert "there is no run of its kind" in call(*arguments).output
    assert not build.exists()
    schema = schemas.schema(ROOT / "book", "perceptron")
    run = schema.run(small)
    assert call(*arguments).output.startswith(f"{run.id}: stored, ")
    text = call(*arguments, "-p", "seed=3", "-p", "steps=61").output
    assert "not stored; it would be computed" in text
    assert (
        f"  {run.id} differs in (stored → asked for)\n    config: seed 0 → 3\n    config: training.steps 60 → 61"
        in text
    )
    there = re.search(r"^(\S+): not stored", text)[1]
    (build / "runs" / f"{there}.checkpoint.safetensors").touch()
    text = call(*arguments, "-p", "seed=3", "-p", "steps=61").output
    assert text == f"{there}: interrupted; it would go on from its checkpoint\n"
    (build / "runs" / f"{run.id}.npz").write_bytes(b"")
    assert "damaged: File is not a zip file" in call(*arguments).output
    assert (build / "runs" / f"{run.id}.npz").is_file()
    assert "stores no run" in call("runs", "why", "objective", expect=2).output
    assert "did you mean 'seed'" in call("runs", "why", "perceptron", "-psede=1", expect=2).output


def stopped(checkpoint):
    checkpoint.write_bytes(b"half")
    raise KeyboardInterrupt


def test_runs_prune_removes_what_is_of_no_use(store):
    kept = ids(store)
    (store.folder / "toy-000000000000.npz.damaged-1").touch()
    (store.folder / ".toy-000000000001.npz.7.partial").touch()
    (store.folder / "toy-000000000002.npz").touch()  # without run.json
    old = store.load_or_compute("toy", {"x": 2, "device": "cpu"}, lambda: {}, CODE)
    old.provenance["parts"]["versions"]["torch"] = "1.0"
    write_run(old, store.folder / f"{old.id}.npz")
    checkpoint = store.folder / "toy-000000000003.checkpoint.safetensors"
    checkpoint.write_bytes(b"x" * 1000)
    left_over = store.folder.parent / ".run-abc"
    left_over.mkdir()
    os.utime(left_over, (0, 0))
    for x in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            store.load_or_compute("toy", {"x": x, "device": "cpu"}, stopped, CODE, resumable=True)
    text = call("runs").output
    outdated, resumable = (
        re.search(rf"^(toy-[0-9a-f]+) +interrupted .* x = {x}, device = cpu$", text, re.M)[1]
        for x in (3, 4)
    )
    notes = store.folder / f"{outdated}.checkpoint.json"
    notes.write_text(notes.read_text().replace(f'"torch": "{version("torch")}"', '"torch": "1.1"'))
    before = {p.name for p in store.folder.iterdir()}

    both = call("runs", "prune", min(kept), "--older-than", "1", expect=2).output
    assert "older than: got 1 and runs by name; expected one of them" in both
    assert "--json stands after show" in call("runs", "--json", "show", min(kept), expect=2).output
    text = call("runs", "prune", "--dry-run").output
    assert "torch 1.0 → " in text
    assert re.search(rf"^{outdated}.checkpoint .* torch 1.1 → ", text, re.M)
    assert re.search(r"^.run-abc .* unfinished", text, re.M)
    assert "nobody to ask" in call("runs", "prune", expect=2).output
    assert {p.name for p in store.folder.iterdir()} == before
    assert "Removed 6" in call("runs", "prune", "--yes").output
    assert not left_over.exists()
    assert ids(store) == kept
    assert checkpoint.exists()
    left = {p.name for p in store.folder.iterdir() if not p.name.endswith(".lock")}
    notes = {f"{resumable}.checkpoint.{end}" for end in ("json", "safetensors")}
    assert left == {f"{id}.npz" for id in kept} | {checkpoint.name} | notes
    assert (
        json.loads(call("runs", "show", f"{resumable}.ch", "--json").output)["parameters"]["x"] == 4
    )
    assert "Removed 1" in call("runs", "prune", "--yes", "toy-000000000003").output
    assert not checkpoint.exists()
    assert "Removed 4" in call("runs", "prune", "--yes", "--older-than", "0").output
    assert not entries(store.folder)


def test_runs_prune_leaves_what_a_process_uses(store):
    (toy,) = (id for id in ids(store) if id.startswith("toy"))
    with FileLock(store.folder / f"{toy}.lock"):
        text = call("runs", "prune", "--yes", toy, expect=1).output
    assert "a process is using it" in text
    assert toy in ids(store)


def test_executed_notebooks_are_listed_shown_and_pruned(toy, build):
    call("run", "toy", "-p", "count=1")
    folder = the_folder(build)
    assert "count = 1" in call("runs").output
    shown = json.loads(call("runs", "show", "toy-", "--json").output)
    assert shown["parameters"]["count"] == 1
    assert shown["id"] == folder.name
    assert "Nothing to remove" in call("runs", "prune", "--older-than", "1").output
    for days in ("-1", "nan"):
        refused = call("runs", "prune", "--older-than", days, expect=2).output
        assert f"older than: got {days}; expected days, at least 0" in refused
    assert f"{folder.name}  " in call("runs", "prune", "--dry-run", "--older-than", "0").output
    assert folder.is_dir()
    call("runs", "prune", "--yes", folder.name)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        *(("size", 99_999, "100.0 kB"), ("size", 100_000, "0.1 MB"), ("age", 59.4, "59 s")),
        *(("age", 60, "1 min"), ("age", 3600, "1 h"), ("age", 86400 * 3, "3 d")),
        *(("", True, "true"), ("", "", '""'), ("", [], "defaults"), ("", ["a", 1], "a, 1")),
    ],
)
def test_values_of_a_table(column, value, shown):
    assert tables.readable(column, value) == shown


def test_away_from_a_repository(monkeypatch, build):
    monkeypatch.setattr(llbook.cli, "repository_root", lambda: None)
    for command in (["run", "perceptron"], ["params", "perceptron"], ["build"]):
        assert "installed away from one" in call(*command, expect=1).output


@pytest.mark.parametrize(
    "code",
    [
        "import llbook",
        "from llbook.cli import main\nmain(['params', 'gradient_flow'], standalone_mode=False)",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(build, code):
    code += "\nimport sys; print('loaded:', sorted({'torch', 'numba'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "loaded: []"


def test_module_is_the_command(tmp_path):
    assert shutil.which("python") is not None
    result = run_llbook("params", "gradient_flow", build=tmp_path / "build")
    assert result.returncode == 0
    assert result.stdout.startswith("name ")


def test_records_are_listed_and_written(build, tmp_path, monkeypatch):
    from llbook.experiments import perceptron
    from llbook.experiments.experiment import Recorded
    from llbook.runs.records import load_record

    monkeypatch.setenv("LLBOOK_RECORDS", str(tmp_path))
    small = {"size": 16, "desired_size": 8, "dimension": 4, "steps": 9, "epochs": 2}
    toys = dict.fromkeys(("toy", "other"), Recorded(small))
    monkeypatch.setattr(perceptron, "PERCEPTRON", replace(perceptron.PERCEPTRON, recorded=toys))
    listed = call("records").output
    assert re.search(r"perceptron-toy-seed2 +none", listed)
    assert "language-model-table-2-row-1-seed0" in listed
    assert "whose?" in call("records", "--policies", str(tmp_path), expect=2).output
    written = call("records", "perceptron-toy-*").output
    for seed in toys["toy"].seeds:
        path = tmp_path / f"perceptron-toy-seed{seed}.npz"
        assert f"record: {path}" in written
        assert load_record(path).config["seed"] == seed
    assert re.search(r"perceptron-toy-seed2 +there", call("records").output)
    deposited = call("records", "perceptron-toy-seed1", "--policies", str(tmp_path / "made")).output
    assert "url='releases/download/v" in deposited and "error=" in deposited
    assert (tmp_path / "made" / "perceptron-toy-seed1.npz").is_file()
    refused = call("records", "perceptron-other-*", "perceptron-tyo-seed2", expect=2).output
    assert "did you mean 'perceptron-toy-seed2'" in refused
    assert not [*tmp_path.glob("perceptron-other*")]


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path):
    began = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
    (tmp_path / "perceptron-20260131-120000-2").mkdir()
    made = [runner._new_folders(tmp_path, "perceptron", began) for _ in range(3)]
    assert [folder.name for folder, _ in made] == [
        f"perceptron-20260131-120000{end}" for end in ("", "-3", "-4")
    ]
    assert all(unfinished.is_dir() and not folder.exists() for folder, unfinished in made)
