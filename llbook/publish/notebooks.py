"""Text notebooks → executed notebooks, each run only when something that decides it changed.

``book/X.md`` (jupytext, md:myst) becomes ``notebooks-src/X.ipynb``, which plain
papermill can run too, and, executed, ``notebooks/X.ipynb``. An executed notebook
carries the parts of its key in its metadata; while they all hold, its outputs
are put into the present text instead of running it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from llbook.runs.files import replacing, scratch
from llbook.runs.key import explain, source_hashes
from llbook.runs.provenance import device_kind, versions

__all__ = [
    "Execution",
    "NotebookError",
    "Settings",
    "check_executed",
    "execute",
    "execute_once",
    "is_notebook",
    "published",
    "read_text_notebook",
]

# Libraries whose version can change what a notebook shows.
LIBRARIES = (
    "constriction",
    "ipykernel",
    "jupytext",
    "matplotlib",
    "numba",
    "numpy",
    "papermill",
    "pydantic",
    "scipy",
    "seaborn",
    "sympy",
    "torch",
    "zstandard",
)
_PARAMETERS = "parameters"
_INJECTED = "injected-parameters"
# Tags that change what is executed; all others only change how it is shown.
_DECIDING_TAGS = frozenset({_PARAMETERS, "raises-exception"})
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A notebook that cannot be executed or must not be published; the message says all."""


@dataclass(frozen=True)
class Settings:
    """How notebooks are executed.

    Attributes:
        source: folder of the text notebooks.
        build: the build folder; nothing is written outside of it.
        force: run even what did not change.
        timeout: seconds that one cell may take.
        report: receives a line about each notebook.
    """

    source: Path
    build: Path
    force: bool = False
    timeout: int = 24 * 3600
    report: Callable[[str], None] = print


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


def is_notebook(path: Path) -> bool:
    """Whether a ``.md`` file is a text notebook: its front matter names a kernel or jupytext."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != "---":
        return False
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise NotebookError(f"{path}: the front matter that begins on line 1 does not end")
    try:
        head = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError as error:
        raise NotebookError(f"{path}: front matter: {error}") from error
    return isinstance(head, Mapping) and ("jupytext" in head or "kernelspec" in head)


def read_text_notebook(path: Path, name: str) -> NotebookNode:
    """A text notebook as an unexecuted one, with cell ids that depend on its content alone."""
    import jupytext

    notebook = jupytext.read(path, fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    _name_cells(notebook, name)
    return notebook


def execute(
    name: str,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    records: Mapping[str, str] | None = None,
) -> Execution:
    """Bring ``notebooks/<name>.ipynb`` up to date, running it where that is needed.

    Args:
        name: path of the notebook below ``settings.source``, without suffix.
        settings: folders, time limit and reporting.
        parameters: flat name → value, for the cell tagged ``parameters``.
        records: file → SHA-256 of the recorded runs, part of the key.

    Raises:
        NotebookError: an unknown parameter, a failing cell, a cell over its time
            limit. The executed notebook of before, if any, stays.
    """
    text = read_text_notebook(settings.source / f"{name}.md", name)
    unexecuted = settings.build / "notebooks-src" / f"{name}.ipynb"
    executed = settings.build / "notebooks" / f"{name}.ipynb"
    _write(text, unexecuted)
    _check_parameters(name, unexecuted, parameters)

    parts = _parts(text, parameters, records or {})
    before = _read_executed(executed)
    why = _why(before, parts) if not settings.force else "forced"
    start = time.perf_counter()
    if before is not None and not why:
        facts = before.metadata["llbook"]
        result = _with_outputs(text, before, name)
        runs, stderr, ran = facts["runs"], [], facts["seconds"]
    else:
        settings.report(f"{name}: run: {why}")
        raw, runs = _papermill(name, unexecuted, settings, parameters)
        result = _with_outputs(text, raw, name)
        ran = round(time.perf_counter() - start, 3)
        check_executed(result, name)
        stderr = _clean_outputs(result)
    result.metadata["llbook"] = {"parts": parts, "runs": runs, "seconds": ran}
    _write(result, executed)
    seconds = time.perf_counter() - start
    if why:
        settings.report(f"{name}: done in {seconds:.1f} s{_describe(runs)}")
        for line in stderr:
            settings.report(f"{name}: on stderr, not published: {line}")
    else:
        settings.report(f"{name}: reused (unchanged), {seconds:.1f} s")
    return Execution(
        name, dict(parameters), not why, why or "unchanged", round(ran, 3), runs, stderr
    )


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
        KeyboardInterrupt: the kernel has been shut down.
    """
    text = read_text_notebook(settings.source / f"{name}.md", name)
    with scratch(settings.build, ".run-") as folder:
        unexecuted = folder / f"{Path(name).name}.ipynb"
        _write(text, unexecuted)
        _check_parameters(name, unexecuted, parameters)
        raw, runs = _papermill(
            name, unexecuted, settings, parameters, partial=partial, progress=progress
        )
    result = _with_outputs(text, raw, name)
    check_executed(result, name)
    _clean_outputs(result)
    return result, runs


def check_executed(notebook: NotebookNode, name: str) -> None:
    """Raise :class:`NotebookError` for a code cell that was not executed, or whose output is an
    error that the cell's tags do not announce."""
    for number, cell in enumerate(_code_cells(notebook), 1):
        if not cell.source.strip():
            continue
        where = f"{name}: code cell {number} ({_first_line(cell.source)!r})"
        if cell.execution_count is None:
            raise NotebookError(f"{where} was not executed")
        if "raises-exception" in _tags(cell):
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"{where} ended with {output.ename}: {output.evalue}")


def published(path: Path, name: str) -> NotebookNode:
    """The executed notebook as it goes into the site: checked, without the build's own facts."""
    notebook = nbformat.read(path, as_version=4)
    check_executed(notebook, name)
    notebook.metadata.pop("llbook", None)
    return notebook


def _papermill(
    name: str,
    source: Path,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    partial: Path | None = None,
    progress: bool = False,
) -> tuple[NotebookNode, list[dict[str, Any]]]:
    """Run it in an empty folder of its own; returns the raw notebook and the runs that it used."""
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    partial = partial or settings.build / "failed" / f"{name}.ipynb"
    with scratch(settings.build, ".run-") as folder:
        output, log = folder / "notebook.ipynb", folder / "runs.jsonl"
        (work := folder / "work").mkdir()
        environment = {
            "LLBOOK_BUILD": str(settings.build),
            "LLBOOK_RUN_LOG": str(log),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        try:
            with _environment(environment):
                papermill.execute_notebook(
                    str(source),
                    str(output),
                    parameters=dict(parameters),
                    kernel_name="python3",
                    progress_bar={"desc": name, "leave": False} if progress else False,
                    stderr_file=_Aloud() if progress else None,
                    cwd=str(work),
                    execution_timeout=settings.timeout,
                    extra_arguments=["--log-level=CRITICAL"],
                )
        except PapermillExecutionError as error:
            _keep_failed(output, partial)
            raise NotebookError(_failure(name, output, error)) from None
        except (CellTimeoutError, DeadKernelError) as error:
            _keep_failed(output, partial)
            reason = str(error).strip()
            if isinstance(error, CellTimeoutError):
                reason = f"a cell took more than {settings.timeout} s\n{reason}"
            else:
                reason += "; a system that runs out of memory ends a process in this way"
            raise NotebookError(f"{name}: {reason}") from None
        except NoSuchKernel:
            raise NotebookError(
                f"{name}: Jupyter finds no kernel 'python3'; make one for this environment: "
                "python -m ipykernel install --sys-prefix"
            ) from None
        except KeyboardInterrupt:
            _keep_failed(output, partial)
            raise
        raw = nbformat.read(output, as_version=4)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return raw, [json.loads(line) for line in lines]


class _Aloud:
    """What a kernel says on stderr, above papermill's progress bar."""

    def write(self, text: str) -> None:
        from tqdm import tqdm

        # of a progress bar that overwrites its line, the last state
        for line in text.split("\n"):
            if line := line.rstrip().rpartition("\r")[2].strip():
                tqdm.write(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def _failure(name: str, output: Path, error: Any) -> str:
    """Notebook, cell, the first lines of its source, and the traceback, once."""
    number = "?"
    if output.exists():
        cells = [
            cell
            for cell in _code_cells(nbformat.read(output, as_version=4))
            if _INJECTED not in _tags(cell) and "papermill-error-cell-tag" not in _tags(cell)
        ]
        failed = [
            i
            for i, cell in enumerate(cells, 1)
            if any(output.output_type == "error" for output in cell.outputs)
        ]
        number = str(failed[-1]) if failed else "of the injected parameters"
    lines = error.source.strip().splitlines()
    source = "\n".join(f"    {line}" for line in lines[:6]) + "\n    …" * (len(lines) > 6)
    traceback = _ANSI.sub("", "\n".join(error.traceback))
    return f"{name}: code cell {number} failed:\n{source}\n\n{traceback}"


def _keep_failed(output: Path, path: Path) -> None:
    if output.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(output, path)


def _check_parameters(name: str, notebook: Path, parameters: Mapping[str, Any]) -> None:
    """papermill only warns of a parameter that the notebook does not have."""
    if not parameters:
        return
    from papermill import inspect_notebook

    known = inspect_notebook(str(notebook))
    for parameter, value in parameters.items():
        if parameter not in known:
            raise NotebookError(
                f"{name}: unknown parameter {parameter!r} (value {value!r}); "
                f"its parameters cell has: {', '.join(known) or 'none'}"
            )


def _parts(
    notebook: NotebookNode, parameters: Mapping[str, Any], records: Mapping[str, str]
) -> dict[str, Any]:
    cells = {}
    for number, cell in enumerate(_code_cells(notebook), 1):
        deciding = sorted(_DECIDING_TAGS & set(_tags(cell)))
        content = json.dumps([cell.source, deciding], ensure_ascii=False)
        cells[f"code cell {number}"] = hashlib.sha256(content.encode()).hexdigest()
    return {
        "cells": cells,
        "parameters": dict(parameters),
        "code": source_hashes(["llbook"]),
        "records": dict(records),
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


def _with_outputs(text: NotebookNode, executed: NotebookNode, name: str) -> NotebookNode:
    """The text's cells with the outputs of the executed ones, injected parameters included."""
    result = nbformat.from_dict(json.loads(json.dumps(text)))
    done = _code_cells(executed)
    injected = [cell for cell in done if _INJECTED in _tags(cell)]
    rest = iter([cell for cell in done if _INJECTED not in _tags(cell)])
    cells = []
    for cell in result.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        source = next(rest)
        cell.outputs, cell.execution_count = source.outputs, source.execution_count
        if _PARAMETERS in _tags(cell):
            for extra in injected:
                # seen as the parameters cell itself is seen
                extra.metadata["tags"] = [*(t for t in _tags(cell) if t != _PARAMETERS), _INJECTED]
            cells.extend(injected)
    result.cells = cells
    for cell in _code_cells(result):
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    _name_cells(result, name)
    return result


def _clean_outputs(notebook: NotebookNode) -> list[str]:
    """Take out what belongs to this machine: paths and stderr, whose first lines are returned."""
    heard = []
    for number, cell in enumerate(_code_cells(notebook), 1):
        said = "".join(
            output.text
            for output in cell.outputs
            if output.output_type == "stream" and output.name == "stderr"
        )
        # a progress bar overwrites its line; one that ended is no news
        lines = [line.rpartition("\r")[2].strip() for line in said.rstrip().split("\n")]
        if line := next((line for line in lines if line and "%|" not in line), ""):
            heard.append(f"code cell {number}: {line}")
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = _without_paths(output.text)
            for kind, data in output.get("data", {}).items():
                if isinstance(data, str) and kind.startswith("text/"):
                    output.data[kind] = _without_paths(data)
    return heard


def _without_paths(text: str) -> str:
    from llbook.runs.folders import repository_root

    folders = {sys.prefix: "", str(repository_root() or sys.prefix): "", str(Path.home()): "~/"}
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder.rstrip("/") + "/", folders[folder])
    return text


def _name_cells(notebook: NotebookNode, name: str) -> None:
    """Ids from notebook, source and occurrence: the same text gives the same file."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        content = f"{name}\n{cell.cell_type}\n{cell.source}"
        seen[content] = seen.get(content, 0) + 1
        digest = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()
        cell["id"] = digest[:12]


def _write(notebook: NotebookNode, path: Path) -> None:
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _describe(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"\n  run {run['id']}: {run['state']}"
        + (f" in {run['seconds']:.1f} s: {run['why']}" if run["state"] == "computed" else "")
        for run in runs
        if run["state"] != "recorded"
    ]
    recorded = sum(run["state"] == "recorded" for run in runs)
    return "".join(lines) + (f"\n  {recorded} recorded runs" if recorded else "")


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
