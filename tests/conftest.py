"""What several test files share."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from llbook.publish import browser

# the jobs that a shell runs in the background, and their children, would ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
WORKER = "PYTEST_XDIST_WORKER" in os.environ  # one of several test processes
if WORKER:  # one thread each; read when PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
_PARAMETERS = re.compile(
    r"```\{code-cell\} ipython3\n:tags: \[parameters[^\]]*\]\n(.*?)```", re.DOTALL
)


def parameter_cell(name):
    """Name → (annotation, default, comment) of a notebook's parameters cell."""
    (source,) = _PARAMETERS.findall((ROOT / "book" / f"{name}.md").read_text(encoding="utf-8"))
    comments = [line.partition("  # ")[2] for line in source.splitlines()]
    return {
        node.target.id: (
            node.annotation.id,
            ast.literal_eval(node.value),
            comments[node.lineno - 1],
        )
        for node in ast.parse(source).body
    }


def run_llbook(*arguments, build, **environment):
    """``python -m llbook …`` in a process of its own, with its build folder at ``build``."""
    return subprocess.run(
        [sys.executable, "-m", "llbook", *arguments],
        capture_output=True,
        text=True,
        cwd=build.parent,
        env=os.environ | {"LLBOOK_BUILD": str(build), "PYTHONPATH": str(ROOT)} | environment,
    )


def untracked_files():
    """Files of the checkout that git does not have, ignored ones too; None outside of git.

    Left out are build/ and the environment, and what Python and the tools keep for themselves.
    """
    if not (ROOT / ".git").exists():
        return None
    own = (":!build", ":!.venv", ":(exclude,glob)**/__pycache__/**", ":(exclude,glob).*_cache/**")
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored", "-uall", "--", ".", *own],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line[3:] for line in status.stdout.splitlines() if line[:2] in ("??", "!!")}


@pytest.fixture(scope="session")
def files_before():
    """What :func:`untracked_files` gave before the book was built."""
    return untracked_files()


@pytest.fixture(scope="session")
def book(tmp_path_factory, files_before):
    """The build folder of the whole book at the profile ``smoke``, built once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if WORKER else folder
    build, failed = folder / "build", folder / "book.failed"
    with FileLock(folder / "book.lock"):
        if not build.exists():
            result = run_llbook("build", "--profile", "smoke", "--jobs", "2", build=build)
            if result.returncode:
                failed.write_text(f"{result.stdout}\n{result.stderr}", encoding="utf-8")
    assert not failed.exists(), failed.read_text(encoding="utf-8")
    return build


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium; without one the tests are skipped, or fail where it is required.

    Its driver has an event loop, in which other tests could not run theirs: it ends with each file.
    """
    try:
        browser.chromium_path()
    except browser.NoBrowserError as error:
        required = os.environ.get("LLBOOK_REQUIRE_BROWSER") == "1"
        pytest.fail(str(error)) if required else pytest.skip(str(error))
    pytest.importorskip("playwright.sync_api")
    with browser.chromium() as running:
        yield running
