"""What several test files share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_llbook(*arguments, build, **environment):
    """``python -m llbook …`` in a process of its own, with its build folder at ``build``."""
    return subprocess.run(
        [sys.executable, "-m", "llbook", *arguments],
        capture_output=True,
        text=True,
        cwd=build.parent,
        env=os.environ | {"LLBOOK_BUILD": str(build), "PYTHONPATH": str(ROOT)} | environment,
    )


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The build folder of the whole book at the profile ``smoke``, built once."""
    build = tmp_path_factory.mktemp("book") / "build"
    result = run_llbook("build", "--profile", "smoke", build=build)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return build
