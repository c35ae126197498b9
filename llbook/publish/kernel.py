"""One notebook in a kernel of its own, by papermill."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import nbformat
from nbformat import NotebookNode

from llbook.publish.notebooks import INJECTED, NotebookError, code_cells, tags
from llbook.runs.files import scratch

__all__ = ["ANSI", "Settings", "run_notebook", "stop_kernels"]

ANSI = re.compile(r"\x1b\[[0-9;]*m")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_kernels: WeakSet[Any] = WeakSet()  # their managers


@dataclass(frozen=True)
class Settings:
    """How notebooks are executed.

    Attributes:
        source: folder of the text notebooks.
        build: the build folder; nothing is written outside of it.
        force: run even what did not change.
        timeout: seconds that one cell may take.
        report: receives a line about each notebook.
        threads: of the libraries in a kernel; 0 leaves them to themselves.
    """

    source: Path
    build: Path
    force: bool = False
    timeout: int = 24 * 3600
    report: Callable[[str], None] = print
    threads: int = 0


def run_notebook(
    name: str,
    source: Path,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    partial: Path | None = None,
    progress: bool = False,
) -> tuple[NotebookNode, list[dict[str, Any]]]:
    """Run it in an empty folder of its own; returns the raw notebook and the runs that it used.

    Several may run at once, each in a thread of its own, which the main one is not: an interrupt
    (:func:`stop_kernels`) finds no event loop there. Nothing of this process is changed for one.
    """
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
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        if settings.threads:
            environment |= dict.fromkeys(_THREADS, str(settings.threads))
        # of a kernel that dies the error raised here says it
        logging.getLogger("papermill").setLevel(logging.CRITICAL)
        # where the kernel is looked for, the same for all
        os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
        try:
            papermill.execute_notebook(
                str(source),
                str(output),
                parameters=dict(parameters),
                kernel_name="python3",
                kernel_manager_class=_manager(environment),
                progress_bar={"desc": name, "leave": False} if progress else False,
                stderr_file=_Aloud() if progress else None,
                # papermill's `cwd` is that of the whole process
                resources={"metadata": {"path": str(work)}},
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
            for cell in code_cells(nbformat.read(output, as_version=4))
            if INJECTED not in tags(cell) and "papermill-error-cell-tag" not in tags(cell)
        ]
        failed = [
            i
            for i, cell in enumerate(cells, 1)
            if any(output.output_type == "error" for output in cell.outputs)
        ]
        number = str(failed[-1]) if failed else "of the injected parameters"
    lines = error.source.strip().splitlines()
    source = "\n".join(f"    {line}" for line in lines[:6]) + "\n    …" * (len(lines) > 6)
    traceback = ANSI.sub("", "\n".join(error.traceback))
    return f"{name}: code cell {number} failed:\n{source}\n\n{traceback}"


def _keep_failed(output: Path, path: Path) -> None:
    if output.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(output, path)


def stop_kernels() -> None:
    """End the kernels that run; what waits for one ends with an error."""

    async def kill(running: list[Any]) -> None:
        await asyncio.gather(*(manager.provisioner.kill() for manager in running))

    if running := [manager for manager in _kernels if manager.has_kernel]:
        # of a thread of its own: the caller's may be inside an event loop
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, kill(running)).result()


def _manager(environment: Mapping[str, str]) -> type:
    """A kernel manager whose kernels have this environment beside the process's own."""
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            _kernels.add(self)
            await super().start_kernel(env={**os.environ, **environment}, **options)

    return Manager
