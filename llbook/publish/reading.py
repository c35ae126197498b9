"""An executed notebook as its page shows it: arranged for who reads, not for who runs it.

- Parameters stand in one closed box before the first section.
- A line ``% figure: NAME`` is the place of a figure that a later cell draws: a page can begin
  with what it ends in.
- A figure is a file of its own, with a line of links below it: full size, data, vector file,
  source, run.
- The small print of a run is said once, in a list at the foot, and marked where it applies.

The executed notebook that a page offers is left as it is.
"""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from llbook.publish.notebooks import (
    INJECTED,
    PARAMETERS,
    NotebookError,
    code_cells,
    parameters_cell,
    tags,
)
from llbook.report.companion import rows_of_figures
from llbook.report.numbers import table

__all__ = ["arrange"]

_SMALL_PRINT = re.compile(r'<p class="provenance">(.*)</p>', re.DOTALL)
_RECORD = re.compile(r"run ([\w.-]+)(?= · recorded run)")
_PLACE = re.compile(r"^% figure: (\S+)$", re.MULTILINE)
_SECTION = re.compile(r"^(?:\([\w-]+\)=\n)?## ", re.MULTILINE)
_PICTURES = {"image/svg+xml": "svg", "image/png": "png"}
_NAMED = 3  # changed parameters that the title of the closed box names at most


def arrange(notebook: NotebookNode, name: str, stage: Path) -> None:
    """Change an executed notebook into what the page ``name`` is made from.

    Args:
        notebook: executed; changed in place.
        name: of the page, as a path without suffix.
        stage: folder with the pages' sources; pictures and data go below its ``_data``.

    Raises:
        NotebookError: a parameters cell with a line that is no parameter; a place for a figure
            that there is not.
    """
    page = _Page(name, stage)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            page.show(cell)
        elif not {PARAMETERS, INJECTED} & set(tags(cell)):
            page.code(cell)
    if known := parameters_cell(notebook, name):
        page.put_before_sections(_parameters_box(name, known, _injected(notebook)))
    page.place_figures()
    page.list_runs()
    notebook.cells = page.cells


class _Page:
    """The cells of a page, as they come."""

    def __init__(self, name: str, stage: Path) -> None:
        self.cells: list[NotebookNode] = []
        self._name, self._stage, self._up = name, stage, "../" * name.count("/")
        self._runs: list[str] = []
        self._figures: dict[str, list[NotebookNode]] = {}
        self._tools: NotebookNode | None = None  # of a figure that nothing has followed yet

    def show(self, cell: NotebookNode) -> None:
        self.cells.append(cell)
        self._tools = None

    def code(self, cell: NotebookNode) -> None:
        """Put a code cell: its figure, its runs, and what else it shows."""
        marks = self._take_small_print(cell)
        figure = cell.metadata.get("mystnb", {}).get("figure")
        drawn = [o for o in cell.outputs if figure and _PICTURES.keys() & o.get("data", {}).keys()]
        for output in drawn:
            self._figure(cell, output.data)
        cell.outputs = [output for output in cell.outputs if output not in drawn]
        said = [output for output in cell.outputs if not _is_for_the_prose(output)]
        if "remove-cell" in tags(cell) or (not said and (figure or "remove-input" in tags(cell))):
            cell.metadata["tags"] = ["remove-cell"]
            self.cells.append(cell)
        else:
            self.show(cell)
        if marks:
            self._mark_runs(marks, cell.id)

    def put_before_sections(self, box: str) -> None:
        """Put text before the first section, or at the end where there is none."""
        for cell in self.cells:
            found = _SECTION.search(cell.source) if cell.cell_type == "markdown" else None
            if found:
                parts = (cell.source[: found.start()], box, cell.source[found.start() :])
                cell.source = "\n\n".join(part.strip() for part in parts).strip()
                return
        self._text(box, "parameters")

    def place_figures(self) -> None:
        """Move figures to the places that the text has for them."""

        def placed(match: re.Match[str]) -> str:
            if match[1] not in self._figures:
                raise NotebookError(f"{self._name}: no figure {match[1]!r} to place")
            moved = self._figures.pop(match[1])
            self.cells = [cell for cell in self.cells if cell not in moved]
            return "\n\n".join(cell.source for cell in moved)

        for cell in list(self.cells):
            if cell.cell_type == "markdown":
                cell.source = _PLACE.sub(placed, cell.source)

    def list_runs(self) -> None:
        """Put the small print of all runs, each once."""
        if self._runs:
            record = rf'<a href="{self._up}execution.html#record-\1">run \1</a>'
            items = "\n".join(
                f'<li id="{self._run(n)}"><p class="provenance">{_RECORD.sub(record, line)}</p></li>'
                for n, line in enumerate(self._runs, 1)
            )
            self._text(f'## Runs of this page\n\n<ol class="runs">\n{items}\n</ol>', "runs")

    def _take_small_print(self, cell: NotebookNode) -> list[int]:
        """The numbers of the runs that a cell names, whose lines are taken out of it."""
        marks, kept = [], []
        for output in cell.outputs:
            said = _SMALL_PRINT.fullmatch(output.get("data", {}).get("text/html", "").strip())
            if said is None:
                kept.append(output)
                continue
            if said[1] not in self._runs:
                self._runs.append(said[1])
            marks.append(self._runs.index(said[1]) + 1)
        cell.outputs = kept
        return list(dict.fromkeys(marks))

    def _mark_runs(self, marks: list[int], id: str) -> None:
        links = ", ".join(f'<a href="#{self._run(n)}">{n}</a>' for n in marks)
        said = f'<span class="run-mark">{"Run" if len(marks) == 1 else "Runs"} {links}</span>'
        if self._tools is None:
            self._text(f"{{.run-marks}}\n{said}", f"runs-{id}")
        else:
            self._tools.source = self._tools.source.replace("\n\n<details", f"\n{said}\n\n<details")
            self._tools = None

    def _figure(self, cell: NotebookNode, data: NotebookNode) -> None:
        told = cell.metadata["mystnb"]
        kind = next(kind for kind in _PICTURES if kind in data)
        name, suffix = told["figure"]["name"], _PICTURES[kind]
        file = self._file(f"{name}.{suffix}")
        if kind == "image/png":
            file.write_bytes(base64.b64decode(data[kind]))
        else:
            file.write_text(data[kind], encoding="utf-8")
        address = f"{self._up}_images/{file.name}"
        lines = [f"```````{{figure}} {self._place(file)}", f":name: {name}", f":target: {address}"]
        if alt := told.get("image", {}).get("alt", "").strip():
            lines.append(f":alt: {alt}")
        lines += ["", told["figure"].get("caption", "").strip(), "```````"]
        self._text("\n".join(lines), f"figure-{cell.id}")

        links = [f'<a href="{address}">Full size</a>']
        if "text/csv" in data:
            points = self._file(f"{name}.csv")
            points.write_text(data["text/csv"], encoding="utf-8")
            links.append(f"{{download}}`Data (CSV) <{self._place(points)}>`")
        links.append(f'<a href="{address}" download="{file.name}">{suffix.upper()}</a>')
        if row := rows_of_figures().get(name):
            links.append(f'<a href="{self._up}companion.html#{row}">Paper and companion</a>')
        source = (
            f"<details><summary>Source</summary>\n\n```python\n{cell.source}\n```\n\n</details>"
        )
        tools = ["::::{container} figure-tools", *links, "", source, "::::"]
        self._text("\n".join(tools), f"tools-{cell.id}")
        self._tools = self.cells[-1]
        self._figures[name] = self.cells[-2:]

    def _file(self, name: str) -> Path:
        file = self._stage / "_data" / self._name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _place(self, file: Path) -> str:
        return f"/{file.relative_to(self._stage).as_posix()}"

    def _run(self, number: int) -> str:
        return f"run-{self._name.replace('/', '-')}-{number}"

    def _text(self, source: str, id: str) -> None:
        self.show(nbformat.v4.new_markdown_cell(source, id=id[:64]))


def _parameters_box(
    name: str, known: Mapping[str, tuple[Any, str]], here: Mapping[str, Any]
) -> str:
    """A closed box; what differs from the defaults stands in its title."""
    changed = [
        f"{key} = {here[key]}" for key, (usual, _) in known.items() if here.get(key, usual) != usual
    ]
    said = ", ".join(changed[:_NAMED]) or "the defaults"
    if more := changed[_NAMED:]:
        said += f" and {len(more)} more"
    rows = [
        [f"`{key}`", f"`{here.get(key, usual)!r}`", f"`{usual!r}`", meaning]
        for key, (usual, meaning) in known.items()
    ]
    return "\n".join(
        [
            f":::::{{dropdown}} Parameters of this page: {said}",
            table(["parameter", "here", "default", "meaning"], rows),
            "",
            f"Other values: `llbook run {name} -p {next(iter(known))}=…`.",
            ":::::",
        ]
    )


def _injected(notebook: NotebookNode) -> dict[str, Any]:
    """What papermill has set."""
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for cell in code_cells(notebook)
        if INJECTED in tags(cell)
        for line in ast.parse(cell.source).body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def _is_for_the_prose(output: NotebookNode) -> bool:
    """Whether an output was handed to the text by ``glue``."""
    data = output.get("data", {})
    return bool(data) and all(kind.startswith("application/papermill.record/") for kind in data)
