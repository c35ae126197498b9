"""The commands of the guide, every one of them, at toy size."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from llbook.data.grammar import grammar_stories
from llbook.data.stories import SEPARATOR
from llbook.runs.entries import entries

GUIDE = (ROOT / "book" / "guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)

# What makes a command of the guide small, or keeps it inside of the test's folder.
SMALLER = {
    "source .venv/bin/activate": "type llbook python",
    "make ": "make -C {root} BIN={bin} READY={ready} ",
    "build/notebooks-src/": "$LLBOOK_BUILD/notebooks-src/",
    "-p epochs 50": "-p epochs 2 -p size 32 -p steps 9 -p dimension 4 -p measure_every 1",
    "seed=0..9": "seed=0..1",
    '"size": 1024,': '"size": 64, "dimension": 8, "desired_size": 64,',
    "task, 500, epochs=200": "task, 20, epochs=14",
    "Mine(), 500": "Mine(), 20",
    "data.desired_size=512,4096": "data.desired_size=16,32",
    "--profile paper": "--profile smoke",
    "-p precision=tf32": "-p precision=float32",
    "llbook records": 'python -c "import toy_scale; from llbook.cli import main; main()" records',
    "dask scheduler --port 8786": "dask scheduler --port {port} --no-dashboard --host 127.0.0.1 &",
    "--nthreads 1": "--nthreads 1 --no-dashboard &",
    "tcp://localhost:8786": "tcp://127.0.0.1:{port}",
    "--sys-prefix": "--prefix $PWD/prefix",
    # the profile's own text would be the grammar's
    "stories.txt llbook run language_model": "stories.txt llbook run language_model -p corpus=auto",
}

# The paper's scales as those of the profile smoke.
TOY_SCALE = """
from dataclasses import replace
from llbook.experiments.language_model import LANGUAGE_MODEL
from llbook.publish.profiles import overrides

toy = overrides("smoke", "language_model")
for name, setting in LANGUAGE_MODEL.recorded.items():
    if setting.optional:
        LANGUAGE_MODEL.recorded[name] = replace(setting, changes=toy)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def shell(tmp_path_factory, book):
    """Runs a block of commands; all blocks share a folder and a build, as a reader's would."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(book, folder / "build")
    (folder / "bin").mkdir()
    (folder / "records").mkdir()
    for command, module in (("llbook", "llbook"), ("papermill", "papermill"), ("dask", "dask")):
        file = folder / "bin" / command
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        file.chmod(0o755)
    (folder / "toy_scale.py").write_text(TOY_SCALE)
    stories = f"\n{SEPARATOR}\n".join(grammar_stories(60, seed=5))
    (folder / "stories.txt").write_text(stories, encoding="utf-8")
    # newer than the lock, so that make has nothing to set up
    (folder / "ready").write_text("default\n")
    scripts = Path(sys.executable).parent
    places = {"root": ROOT, "bin": scripts, "ready": folder / "ready", "port": free_port()}
    # what this make was told is not for those of the guide
    told = {"TORCH", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in told}
    environment |= {
        "LLBOOK_BUILD": str(folder / "build"),
        "LLBOOK_PROFILE": "smoke",
        "LLBOOK_RECORDS": str(folder / "records"),
        "PATH": os.pathsep.join([str(folder / "bin"), str(scripts), os.environ["PATH"]]),
        "PROFILE": "smoke",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    for record in (ROOT / "book" / "records").iterdir():
        (folder / "records" / record.name).symlink_to(record)

    def run(commands):
        for large, small in SMALLER.items():
            commands = commands.replace(large, small.format(**places))
        script = f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nset -eu\n{commands}"
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert result.returncode == 0, f"{commands}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    run.folder = folder
    return run


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_commands_of_the_guide(shell, block):
    output = shell(block)
    if "-o out.ipynb" in block:
        assert (shell.folder / "out.ipynb").is_file()
    if "llbook records" in block:
        name = re.search(r"llbook records (\S+)", block)[1]
        assert (shell.folder / "records" / f"{name}.npz").is_file()
    if "mine.py" in block:
        assert re.search(r"^share of the attainable gain: -?\d", output, re.MULTILINE)
    if "runs why" in block:
        assert "config: seed" in output
    if "stories.txt" in block:
        stored = entries(shell.folder / "build" / "runs")
        assert "file" in {entry.config.get("corpus_name") for entry in stored}
    if "sweep" in block:
        assert "table:" in output
    if "make book" in block:
        assert "perceptron: reused (unchanged)" in output


def test_every_replacement_is_of_something_in_the_guide():
    for large in SMALLER:
        assert any(large in block for block in BLOCKS), large


def test_commands_in_the_text_exist():
    """The commands in running text: the first words of each are a command with that name."""
    from llbook.cli import main

    inline = re.findall(r"`llbook ([a-z]+)(?: ([a-z]+))?", GUIDE)
    assert inline
    for command, sub in inline:
        found = main.commands[command]
        if sub and hasattr(found, "commands"):
            assert sub in found.commands
