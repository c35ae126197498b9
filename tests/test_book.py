"""The whole book, really built at the profile ``smoke``, warnings as errors."""

import html.parser
import json
import os
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, untracked_files

from llbook.publish.notebooks import is_notebook
from llbook.publish.site import external_requests, pages

PAGES = pages(ROOT)
NOTEBOOKS = [name for name in PAGES if is_notebook(ROOT / "book" / f"{name}.md")]


class Page(html.parser.HTMLParser):
    """Local addresses of a page, and its ids."""

    def __init__(self, text):
        super().__init__()
        self.local, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        for name in ("src", "href"):
            address = values.get(name) or ""
            if address and "//" not in address and not address.startswith(("data:", "mailto:")):
                self.local.append(address)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_there_and_its_links_lead_somewhere(book, name):
    file = book / "html" / f"{name}.html"
    page = Page(file.read_text(encoding="utf-8"))
    for address in page.local:
        path = address.partition("#")[0].partition("?")[0]
        assert not path or (file.parent / path).exists(), address


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_is_executed_without_error_and_without_paths(book, name):
    notebook = nbformat.read(book / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    assert cells
    for cell in cells:
        assert cell.execution_count is not None
        assert not cell.metadata.keys() & {"papermill", "execution"}
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert str(ROOT) not in json.dumps(output)


def test_no_page_needs_the_network(book):
    assert external_requests(book / "html") == []
    assert (book / "html" / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert "mathjax/tex-chtml.js" in (book / "html" / "index.html").read_text() + (
        book / "html" / f"{PAGES[0]}.html"
    ).read_text(encoding="utf-8")


def test_execution_is_written_down(book):
    facts = json.loads((book / "notebooks" / "execution.json").read_text())
    assert facts["profile"] == "smoke"
    assert list(facts["notebooks"]) == NOTEBOOKS
    for notebook in facts["notebooks"].values():
        assert notebook["seconds"] > 0
        assert not notebook["reused"]


def test_nothing_is_written_outside_of_the_build_folder(book, files_before):
    assert {path.name for path in book.iterdir()} <= {
        *("html", "notebooks", "notebooks-src", "runs", "sphinx", "stage", ".lock")
    }
    if files_before is None:
        pytest.skip("not a git checkout")
    assert untracked_files() - files_before == set()


def test_plain_papermill_runs_from_any_folder_with_other_parameters(book, tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"),
            *(str(book / "notebooks-src" / "perceptron.ipynb"), "out.ipynb"),
            *("-p", "seed", "3", "-y", "{size: 32, dimension: 4, desired_size: 8, steps: 6}"),
            *("-y", "{epochs: 2, measure_every: 1}"),
        ],
        cwd=tmp_path,
        env=os.environ | {"LLBOOK_BUILD": str(tmp_path / "build")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    injected = [
        cell.source
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    assert "seed = 3" in injected[0]
