"""Text notebooks → executed notebooks, each run only when something that decides it changed.

``book/X.md`` (jupytext, md:myst) becomes ``notebooks-src/X.ipynb``, which plain
papermill can run too, and, executed, ``notebooks/X.ipynb``. An executed notebook
carries the parts of its key in its metadata; while they all hold, its outputs
are put into the present text instead of running it again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import nbformat
from nbformat import NotebookNode

from llbook.publish.kernel import Settings, run_notebook, stop_kernels
from llbook.publish.notebooks import (
    PARAMETERS,
    NotebookError,
    check_executed,
    clean_outputs,
    code_cells,
    parameters_cell,
    read_text_notebook,
    tags,
    with_outputs,
)
from llbook.runs.files import replacing, scratch
from llbook.runs.key import explain, source_hashes
from llbook.runs.provenance import device_kind, versions

T = TypeVar("T")

__all__ = ["LIBRARIES", "Execution", "execute", "execute_all", "execute_once"]

# Libraries whose version can change what a notebook shows.
LIBRARIES = (
    "constriction",
    "ipykernel",
    "jupytext",
    "matplotlib",
    "mistral-common",
    "numba",
    "numpy",
    "papermill",
    "pydantic",
    "scipy",
    "seaborn",
    "sentencepiece",
    "sympy",
    "torch",
    "zstandard",
)


@dataclass(frozen=True)
class Execution:
    """What became of a notebook: ``why`` it was run or that it was reused, and its runs."""

    notebook: str
    parameters: dict[str, Any]
    reused: bool
    why: str
    seconds: float
    runs: list[dict[str, Any]]
    stderr: list[str]


def execute_all(
    names: Sequence[str],
    settings: Settings,
    parameters: Callable[[str], Mapping[str, Any]],
    *,
    jobs: int = 1,
    inputs: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Execution]:
    """:func:`execute` each of these notebooks, as many at a time as there are ``jobs``.

    Args:
        parameters: name → its flat parameters.

    Raises:
        NotebookError: the first of them, in this order, that fails; those that run meanwhile
            come to their end, the others are not begun.
        KeyboardInterrupt: the kernels have been ended.
    """
    failed = Event()

    def one(name: str) -> Execution:
        if failed.is_set():
            raise CancelledError
        try:
            return execute(name, settings, parameters(name), inputs=inputs)
        except BaseException:
            failed.set()
            raise

    return _in_threads([bound(one, name) for name in names], jobs)


def _in_threads(work: Sequence[Callable[[], T]], jobs: int = 1) -> list[T]:
    """What each returns, run in threads, so that Ctrl-C ends their kernels in order.

    Where the interrupt comes, an event loop would be left in the middle of what it does.
    """
    from jupyter_core.utils import ensure_event_loop

    def one(part: Callable[[], T]) -> T:
        try:
            return part()
        finally:
            ensure_event_loop().close()  # Jupyter's, one a thread

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, part) for part in work]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            # again and again: one may be starting
            while isinstance(error, KeyboardInterrupt) and not all(
                future.done() for future in futures
            ):
                stop_kernels()
                time.sleep(0.1)
            raise


def execute(
    name: str,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    inputs: Mapping[str, Mapping[str, str]] | None = None,
) -> Execution:
    """Bring ``notebooks/<name>.ipynb`` up to date, running it where that is needed.

    Args:
        name: path of the notebook below ``settings.source``, without suffix.
        settings: folders, time limit and reporting.
        parameters: flat name → value, for the cell tagged ``parameters``.
        inputs: what else it reads, part of the key: kind → name → SHA-256.

    Raises:
        NotebookError: an unknown parameter, a failing cell, a cell over its time
            limit. The executed notebook of before, if any, stays.
    """
    start = time.perf_counter()
    text = read_text_notebook(settings.source / f"{name}.md", name)
    unexecuted = settings.build / "notebooks-src" / f"{name}.ipynb"
    executed = settings.build / "notebooks" / f"{name}.ipynb"
    _write(text, unexecuted)
    parts = _parts(text, parameters) | dict(inputs or {})
    before = _read_executed(executed)
    why = "forced" if settings.force else _why(before, parts)
    if before is not None and not why:
        facts = before.metadata["llbook"]
        result, stderr = with_outputs(text, before, name), list[str]()
        runs, seconds = facts["runs"], facts["seconds"]
    else:
        settings.report(f"{name}: run: {why}")
        result, runs, stderr = _executed(text, name, unexecuted, settings, parameters)
        seconds = round(time.perf_counter() - start, 3)
    result.metadata["llbook"] = {"parts": parts, "runs": runs, "seconds": seconds}
    _write(result, executed)
    taken = time.perf_counter() - start
    if why:
        settings.report(f"{name}: done in {taken:.1f} s{_describe(runs)}")
        for line in stderr:
            settings.report(f"{name}: on stderr, not published: {line}")
    else:
        settings.report(f"{name}: reused (unchanged), {taken:.1f} s")
    return Execution(name, dict(parameters), not why, why or "unchanged", seconds, runs, stderr)


def execute_once(
    name: str,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    partial: Path,
    progress: bool = False,
) -> tuple[NotebookNode, list[dict[str, Any]]]:
    """Run a notebook beside the book; nothing of the book's own executed notebooks is touched.

    Args:
        name, settings, parameters: as :func:`execute` has them.
        partial: where the notebook is left when it does not come to its end.
        progress: show on stderr which cell runs, and what it says there.

    Returns:
        The executed notebook, as the book would show it, and the runs it used.

    Raises:
        NotebookError: an unknown parameter, a failing cell, a cell over its time limit.
        KeyboardInterrupt: the kernel has been ended.
    """
    text = read_text_notebook(settings.source / f"{name}.md", name)
    with scratch(settings.build, ".run-") as folder:
        unexecuted = folder / f"{Path(name).name}.ipynb"
        _write(text, unexecuted)
        once = bound(_executed, text, name, unexecuted, settings, parameters)
        ((result, runs, _),) = _in_threads([bound(once, partial=partial, progress=progress)])
    return result, runs


def _executed(
    text: NotebookNode,
    name: str,
    unexecuted: Path,
    settings: Settings,
    parameters: Mapping[str, Any],
    **options: Any,
) -> tuple[NotebookNode, list[dict[str, Any]], list[str]]:
    """The text with its outputs, the runs that it used, and what it said on stderr."""
    known = parameters_cell(text, name) if parameters else {}
    for parameter, value in parameters.items():
        if parameter not in known:  # papermill only warns
            raise NotebookError(
                f"{name}: unknown parameter {parameter!r} (value {value!r}); "
                f"its parameters cell has: {', '.join(known) or 'none'}"
            )
    raw, runs = run_notebook(name, unexecuted, settings, parameters, **options)
    result = with_outputs(text, raw, name)
    check_executed(result, name)
    return result, runs, clean_outputs(result)


def _parts(notebook: NotebookNode, parameters: Mapping[str, Any]) -> dict[str, Any]:
    cells = {}
    for number, cell in enumerate(code_cells(notebook), 1):
        # all other tags only change how it is shown
        content = json.dumps([cell.source, PARAMETERS in tags(cell)], ensure_ascii=False)
        cells[f"code cell {number}"] = hashlib.sha256(content.encode()).hexdigest()
    return {
        "cells": cells,
        "parameters": dict(parameters),
        "code": source_hashes(["llbook"]),
        "versions": versions(LIBRARIES),
        "Python": platform.python_version(),
        "device": device_kind(),
    }


def _why(before: NotebookNode | None, parts: Mapping[str, Any]) -> str:
    """Why a notebook has to run; empty when it need not."""
    if before is None:
        return "not yet executed"
    try:
        differences = explain(before.metadata["llbook"]["parts"], parts)
        check_executed(before, "the executed notebook")
    except (LookupError, TypeError, AttributeError):
        return "the executed notebook is not one of this build"
    except NotebookError as error:
        return str(error)
    shown = "; ".join(differences[:3])
    return shown + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")


def _read_executed(path: Path) -> NotebookNode | None:
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def _write(notebook: NotebookNode, path: Path) -> None:
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def _describe(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"\n  run {run['id']}: {run['state']}"
        + (f" in {run['seconds']:.1f} s: {run['why']}" if run["state"] == "computed" else "")
        for run in runs
        if run["state"] != "recorded"
    ]
    recorded = sum(run["state"] == "recorded" for run in runs)
    return "".join(lines) + (f"\n  {recorded} recorded runs" if recorded else "")
