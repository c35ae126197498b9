"""What a page shows of its executed notebook."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from llbook.publish.notebooks import NotebookError
from llbook.publish.reading import arrange

FIGURE = {"figure": {"name": "fig-a", "caption": "See."}, "image": {"alt": "A line."}}


def code(source, *outputs, tags=(), **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags), **metadata})


def shown(data):
    return new_output("display_data", data=data)


def small_print(line):
    return shown({"text/html": f'<p class="provenance">{line}</p>'})


def page(tmp_path, *cells, name="page"):
    notebook = new_notebook(cells=list(cells))
    arrange(notebook, name, tmp_path)
    nbformat.validate(notebook)
    return notebook.cells


@pytest.fixture
def figure():
    return code(
        "draw()",
        shown({"image/svg+xml": "<svg/>", "text/csv": "x,y\n", "text/plain": "Figure"}),
        tags=["hide-input"],
        mystnb=FIGURE,
    )


def test_parameters_become_a_closed_box_before_the_first_section(tmp_path):
    cells = page(
        tmp_path,
        new_markdown_cell("# Title\n\nOpening."),
        code("seed: int = 0  # a seed\nsize: int = 8  # N", tags=["parameters"]),
        code("# Parameters\nsize = 4", tags=["injected-parameters"]),
        code("import numpy", tags=["remove-cell"]),
        new_markdown_cell("More.\n\n(a-label)=\n## First\n\nText."),
    )
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown"]
    before, _, after = cells[-1].source.partition(":::::{dropdown} Parameters of this page: ")
    assert before == "More.\n\n"
    assert after.splitlines()[0] == "size = 4"
    assert "| `size` | `4` | `8` | N |" in after
    assert "| `seed` | `0` | `0` | a seed |" in after
    assert after.endswith(":::::\n\n(a-label)=\n## First\n\nText.")


def test_a_figure_is_a_file_with_its_tools(tmp_path, figure):
    drawn, tools = page(tmp_path, figure)[:2]
    assert drawn.source.startswith("```````{figure} /_data/page/fig-a.svg\n:name: fig-a\n")
    assert ":alt: A line." in drawn.source
    for part in ("_images/fig-a.svg", "</_data/page/fig-a.csv>", "```python\ndraw()\n```"):
        assert part in tools.source
    assert (tmp_path / "_data" / "page" / "fig-a.svg").read_text() == "<svg/>"
    assert (tmp_path / "_data" / "page" / "fig-a.csv").read_text() == "x,y\n"


def test_a_figure_comes_to_the_place_that_the_text_has_for_it(tmp_path, figure):
    first, *rest = page(tmp_path, new_markdown_cell("Answer.\n\n% figure: fig-a\n"), figure)
    assert "{figure} /_data/page/fig-a.svg" in first.source
    assert "<summary>Source</summary>" in first.source
    assert not any("fig-a" in cell.source for cell in rest)
    with pytest.raises(NotebookError, match="page: no figure 'fig-b' to place"):
        page(tmp_path, new_markdown_cell("% figure: fig-b"), figure)


def test_a_run_is_said_once_and_marked_where_it_applies(tmp_path, figure):
    cells = page(
        tmp_path,
        figure,
        code("small_print(a)", small_print("run a"), tags=["remove-input"]),
        new_markdown_cell("Text."),
        code("both", small_print("run b"), small_print("run a"), tags=["remove-input"]),
        code("table", small_print("run b"), shown({"text/markdown": "| |"}), tags=["remove-input"]),
    )
    sources = [cell.source for cell in cells]
    assert 'Run <a href="#run-page-1">1</a>' in sources[1]
    marks = [source for source in sources if source.startswith("{.run-marks}")]
    assert 'Runs <a href="#run-page-2">2</a>, <a href="#run-page-1">1</a>' in marks[0]
    assert 'Run <a href="#run-page-2">2</a>' in marks[1]
    assert sources[-1].count("<li") == sources[-1].count("run a") + sources[-1].count("run b") == 2


def test_what_a_cell_shows_besides_stays(tmp_path):
    glued = shown({"application/papermill.record/text/plain": "'1'"})
    (cell,) = page(tmp_path, code("f()", glued, shown({"text/plain": "(3, 4)"})))
    assert len(cell.outputs) == 2
    (cell,) = page(tmp_path, code("glue()", glued, tags=["remove-input"]))
    assert cell.metadata.tags == ["remove-cell"]
    assert cell.outputs == [glued]
