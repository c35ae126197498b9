"""What a notebook is: a text notebook (jupytext, md:myst), and what is shown of an executed one."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from llbook.runs.folders import repository_root

__all__ = [
    "INJECTED",
    "PARAMETERS",
    "NotebookError",
    "check_executed",
    "clean_outputs",
    "code_cells",
    "front_matter",
    "is_notebook",
    "parameters_cell",
    "published",
    "read_text_notebook",
    "tags",
    "with_outputs",
]

PARAMETERS = "parameters"
INJECTED = "injected-parameters"
"""papermill's tags."""

_TYPES = {"bool": bool, "float": float, "int": int, "str": str}


class NotebookError(RuntimeError):
    """A notebook that cannot be executed or must not be published; the message says all."""


def front_matter(path: Path) -> dict[str, Any]:
    """The YAML between two lines ``---`` at the head of a page; empty where there is none.

    Raises:
        NotebookError: it does not end, or is no YAML.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise NotebookError(f"{path}: the front matter that begins on line 1 does not end")
    try:
        head = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError as error:
        raise NotebookError(f"{path}: front matter: {error}") from error
    return head if isinstance(head, dict) else {}


def is_notebook(path: Path) -> bool:
    """Whether a ``.md`` file is a text notebook: its front matter names a kernel or jupytext."""
    return not front_matter(path).keys().isdisjoint({"jupytext", "kernelspec"})


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


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def parameters_cell(notebook: NotebookNode, name: str) -> dict[str, tuple[Any, str]]:
    """Parameter → default and meaning, as papermill reads them.

    Raises:
        NotebookError: a line that is not ``name: type = default  # meaning``.
    """
    from papermill.translators import PythonTranslator

    found: dict[str, tuple[Any, str]] = {}
    for cell in code_cells(notebook):
        if PARAMETERS not in tags(cell):
            continue
        wanted = f"{name}: expected 'name: type = default  # meaning' in its parameters cell"
        for line in PythonTranslator.inspect(cell):
            try:
                default = _TYPES[line.inferred_type_name](ast.literal_eval(line.default))
            except (LookupError, SyntaxError, ValueError):
                got = f"{line.name}: {line.inferred_type_name} = {line.default}"
                raise NotebookError(f"{wanted}, got {got!r}") from None
            found[line.name] = (default, line.help)
        if len(ast.parse(cell.source).body) != len(found):
            raise NotebookError(f"{wanted}, got a line that papermill does not read")
    return found


def check_executed(notebook: NotebookNode, name: str) -> None:
    """Raise :class:`NotebookError` for a code cell that was not executed, or whose output is an error."""
    for number, cell in enumerate(code_cells(notebook), 1):
        if not cell.source.strip():
            continue
        where = f"{name}: code cell {number} ({_first_line(cell.source)!r})"
        if cell.execution_count is None:
            raise NotebookError(f"{where} was not executed")
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"{where} ended with {output.ename}: {output.evalue}")


def published(path: Path, name: str) -> NotebookNode:
    """The executed notebook as it goes into the site: checked, without the build's own facts."""
    notebook = nbformat.read(path, as_version=4)
    check_executed(notebook, name)
    notebook.metadata.pop("llbook", None)
    return notebook


def with_outputs(text: NotebookNode, executed: NotebookNode, name: str) -> NotebookNode:
    """The text's cells with the outputs of the executed ones, injected parameters included."""
    result = nbformat.from_dict(json.loads(json.dumps(text)))
    done = code_cells(executed)
    injected = [cell for cell in done if INJECTED in tags(cell)]
    rest = iter([cell for cell in done if INJECTED not in tags(cell)])
    cells = []
    for cell in result.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        source = next(rest)
        cell.outputs, cell.execution_count = source.outputs, source.execution_count
        if PARAMETERS in tags(cell):
            for extra in injected:
                # seen as the parameters cell itself is seen
                extra.metadata["tags"] = [*(t for t in tags(cell) if t != PARAMETERS), INJECTED]
            cells.extend(injected)
    result.cells = cells
    for cell in code_cells(result):
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    _name_cells(result, name)
    return result


def clean_outputs(notebook: NotebookNode) -> list[str]:
    """Take out what belongs to this machine: paths and stderr, whose first lines are returned."""
    heard = []
    for number, cell in enumerate(code_cells(notebook), 1):
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


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
