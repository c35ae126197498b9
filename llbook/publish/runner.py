"""One notebook with other parameters: what ``llbook run`` does, and what it leaves."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml

from llbook.parameters import ParameterError
from llbook.publish.executor import LIBRARIES, execute_once
from llbook.publish.kernel import Settings
from llbook.publish.notebooks import NotebookError
from llbook.publish.schema import Schema
from llbook.runs.files import in_use, replacing, unwritable, write_json
from llbook.runs.provenance import provenance

__all__ = ["Interrupted", "check_output", "executed_notebooks", "run"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; the message says what was kept."""


def run(
    schema: Schema,
    settings: Settings,
    values: Mapping[str, Any],
    *,
    profile: str = "laptop",
    output: Path | None = None,
    progress: bool = False,
) -> Path:
    """Execute a notebook; it, its parameters and its provenance lie together in a folder.

    The folder is ``runs/notebooks/<name>-<time>/`` of the build, with
    ``<name>.ipynb``, ``parameters.yaml`` (all of them, so that it gives the same
    run again) and ``run.json``. It is there when the notebook ended, or failed.

    Args:
        schema: the notebook's.
        settings: folders, time limit.
        values: short name → value, of :meth:`Schema.values`.
        profile: where some of the values come from, to be written down.
        output: the executed notebook is copied there, if it succeeds.
        progress: show on stderr which cell runs.

    Returns:
        The executed notebook.

    Raises:
        NotebookError: it failed; the message says where the part that ran lies.
        Interrupted: likewise.
        OSError: something cannot be written; the path is in the message.
    """
    start = time.perf_counter()
    file = f"{Path(schema.notebook).name}.ipynb"
    parameters = {short: p.default for short, p in schema.parameters.items()} | dict(values)
    facts: dict[str, Any] = {
        "notebook": schema.notebook,
        "profile": profile,
        "changed": {schema.parameters[short].name: value for short, value in values.items()},
        "parameters": {schema.parameters[short].name: v for short, v in parameters.items()},
        **provenance(parameters.get("device", "auto"), LIBRARIES),
    }
    began = datetime.fromisoformat(facts["date"])
    folder, unfinished = _new_folders(settings.build / "runs" / "notebooks", schema.notebook, began)

    def keep(state: str, runs: Sequence[Mapping[str, Any]] = ()) -> None:
        facts.update(state=state, seconds=round(time.perf_counter() - start, 3), runs=list(runs))
        (unfinished / "parameters.yaml").write_text(
            yaml.safe_dump(facts["parameters"], sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
        write_json(unfinished / "run.json", facts)
        unfinished.rename(folder)

    try:
        try:
            with in_use(unfinished):
                notebook, runs = execute_once(
                    schema.notebook, settings, values, partial=unfinished / file, progress=progress
                )
        except NotebookError as error:
            _mark(unfinished / file, "failed", str(error).partition("\n")[0])
            keep("failed")
            raise NotebookError(f"{error}\n\n{_kept(folder, file)}") from None
        except KeyboardInterrupt:
            _mark(unfinished / file, "interrupted", f"{schema.notebook}: interrupted")
            keep("interrupted")
            raise Interrupted(
                f"{schema.notebook}: interrupted; {_kept(folder, file)}\n"
                "A search that can be resumed goes on from its last epoch in the next run."
            ) from None
        notebook.metadata["llbook"] = {"state": "done", "parameters": facts["parameters"]}
        nbformat.write(notebook, unfinished / file)
        keep("done", runs)
    except OSError as error:
        raise unwritable(error, error.filename or unfinished, "write") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if output is None:
        return folder / file
    with replacing(output) as temporary:
        shutil.copyfile(folder / file, temporary)
    return output


def check_output(path: Path) -> None:
    """Raise unless a notebook can be copied to ``path``.

    Raises:
        ParameterError: another suffix than ``.ipynb``, a folder that is not there or that
            cannot be written to.
    """
    if path.suffix != ".ipynb":
        raise ParameterError(f"-o: got {str(path)!r}; a notebook's name ends in .ipynb")
    if not path.absolute().parent.is_dir():
        raise ParameterError(f"-o: there is no folder {path.parent}")
    try:
        # permissions do not tell of file systems that are read-only, or none
        tempfile.TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise ParameterError(f"-o: cannot write to {path.parent}: {error.strerror}") from None


def executed_notebooks(build: Path) -> dict[Path, dict[str, Any]]:
    """Folder → facts of what :func:`run` left below the build folder, the newest first."""
    found = {}
    for file in (build / "runs" / "notebooks").glob("*/run.json"):
        try:
            facts = json.loads(file.read_bytes())
            facts["date"], facts["state"], facts["changed"].items()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        found[file.parent] = facts
    return dict(sorted(found.items(), key=lambda item: item[1]["date"], reverse=True))


def _new_folders(parent: Path, notebook: str, date: datetime) -> tuple[Path, Path]:
    """A name that no folder has, and the folder to fill first, whose being there reserves the name."""
    stem = f"{notebook.replace('/', '-')}-{date:%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        unfinished = folder.with_name(f".{folder.name}.partial")
        try:
            unfinished.mkdir(parents=True)
        except FileExistsError:
            continue  # of a process that began in the same second
        except OSError as error:
            raise unwritable(error, parent, "make the folder") from None
        if not folder.exists():
            return folder, unfinished
        unfinished.rmdir()
    raise AssertionError("unreachable")


def _mark(path: Path, state: str, why: str) -> None:
    """Say in the notebook itself that it did not come to its end."""
    if not path.exists():
        return
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["llbook"] = {"state": state, "why": why}
    note = nbformat.v4.new_markdown_cell(f"**This notebook did not come to its end.** {why}")
    notebook.cells.insert(0, note)
    nbformat.write(notebook, path)


def _kept(folder: Path, file: str) -> str:
    what = folder / file
    return f"what ran of it is in {what}" if what.exists() else f"its parameters are in {folder}"
