"""The build on a small book: what it refuses, what it reuses, and what it leaves alone."""

import asyncio
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from filelock import FileLock
from matplotlib.image import imread

import llbook.cli
from llbook.publish import executor, notebooks, site
from llbook.publish.browser import NoBrowserError, chromium_path
from llbook.publish.execution import execution_text
from llbook.publish.extension import LAUNCH_BRANCH, _list_modules
from llbook.publish.notebooks import NotebookError
from llbook.publish.site import BookError, external_requests, longest_first
from llbook.runs.provenance import cores

NOTEBOOK = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A notebook

See [the page](page.md) and {eq}`eq-one`.

```{code-cell} ipython3
:tags: [parameters]
steps: int = 3  # how many
```

```{code-cell} ipython3
print("steps", steps)
```
"""
PAGE = """# A page

$$
x = 1
$$ (eq-one)

Back to [the notebook](intro.md).
"""


def test_pages_with_a_run_are_begun_first(tmp_path):
    for name in ("intro", "theory", "runs", "more"):
        head = NOTEBOOK if name != "runs" else NOTEBOOK.replace("---\n", "---\nexperiment: x\n", 1)
        (tmp_path / f"{name}.md").write_text(head, encoding="utf-8")
    order = longest_first(tmp_path, ["intro", "theory", "runs", "more"])
    assert order == ["runs", "intro", "theory", "more"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "book").mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n- file: page\n- file: guide\n"
    )
    (folder / "book" / "intro.md").write_text(NOTEBOOK)
    (folder / "book" / "page.md").write_text(PAGE)
    (folder / "book" / "guide.md").write_text("# A guide\n")
    return folder


@pytest.fixture
def lines():
    return []


@pytest.fixture
def build(root, lines, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(**options):
        lines.clear()
        settings = {"profile": "smoke", "overrides": lambda profile, notebook: {}} | options
        return site.build(root, root / "build", report=lines.append, **settings)

    return run


@pytest.fixture
def no_site(monkeypatch):
    """Leaves jupyter-book out where a test is about notebooks alone."""
    monkeypatch.setattr(
        site, "_make_site", lambda root, stage, build, *names: build / "html" / "index.html"
    )


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def outputs(root):
    notebook = nbformat.read(root / "build" / "notebooks" / "intro.ipynb", as_version=4)
    return "".join(o.text for c in notebook.cells if c.cell_type == "code" for o in c.outputs)


def test_build_then_a_failure_leaves_the_site_alone_then_prose_reuses(build, root, lines):
    index = build()
    assert index == root / "build" / "html" / "index.html"
    first = {p: p.read_bytes() for p in (root / "build" / "html").glob("*.html")}
    assert "steps 3" in (index.parent / "intro.html").read_text()
    assert 'href="page.html"' in (index.parent / "intro.html").read_text()
    assert lines[0] == "intro: run: not yet executed"

    # a reference that leads nowhere, a failing cell: no new site, not a byte of the old one changed
    edit(root / "book" / "intro.md", "{eq}`eq-one`", "{eq}`eq-two`")
    with pytest.raises(BookError, match=r"book/intro\.md, cell \d+, line \d+.*eq-two"):
        build()
    assert lines[0].startswith("intro: reused (unchanged)")
    edit(root / "book" / "intro.md", "{eq}`eq-two`", "{eq}`eq-one`")
    edit(root / "book" / "intro.md", 'print("steps", steps)', "1 // 0")
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        build()
    assert {p: p.read_bytes() for p in (root / "build" / "html").glob("*.html")} == first

    edit(root / "book" / "intro.md", "1 // 0", 'print("steps", steps)')
    edit(root / "book" / "intro.md", "# A notebook", "# Other words")
    build()
    assert lines[0].startswith("intro: reused (unchanged)")
    page = (index.parent / "intro.html").read_text()
    assert "Other words" in page
    assert "steps 3" in page
    facts = json.loads((root / "build" / "notebooks" / "execution.json").read_text())
    assert facts["notebooks"]["intro"]["reused"]
    assert not [p.name for p in (root / "build").iterdir() if p.name.startswith(".run")]
    assert sorted(p.name for p in root.iterdir()) == ["_config.yml", "_toc.yml", "book", "build"]


def test_what_sphinx_has_read_serves_while_only_pages_change(build, root):
    def site_files():
        folder = root / "build" / "html"
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def read_at():
        folder = root / "build" / "sphinx" / "_build" / ".doctrees"
        return {name: (folder / f"{name}.doctree").stat().st_mtime_ns for name in ("intro", "page")}

    circle = "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"
    edit(root / "book" / "intro.md", 'print("steps", steps)', circle)
    build()
    first = read_at()
    assert any(path.suffix == ".svg" for path in site_files())

    edit(root / "book" / "page.md", "# A page", "# Another page")
    build()
    second = read_at()
    assert second["intro"] == first["intro"]
    assert second["page"] > first["page"]
    found = site_files()
    assert "Another page" in found[Path("intro.html")].decode()  # in its list of pages

    # a page that was not read again still has its references looked at
    edit(root / "book" / "page.md", "(eq-one)", "(eq-two)")
    with pytest.raises(BookError, match=r"book/intro\.md.*eq-one"):
        build()
    assert site_files() == found
    edit(root / "book" / "page.md", "(eq-two)", "(eq-one)")
    build()  # all is read anew after a failure, and comes out the same
    third = read_at()
    assert third["intro"] > second["intro"]
    assert site_files() == found

    edit(root / "_config.yml", "displayAlign: center", "displayAlign: left")
    build()
    assert read_at()["intro"] > third["intro"]


@pytest.mark.parametrize("change", ["nothing", "page", "toc", "bibliography", "revision", "added"])
def test_reading_depends_on_all_but_the_pages_text(root, monkeypatch, change):
    stage = root / "book"
    before = site._reading_key(root, stage, ["intro", "page"])
    if change == "page":
        edit(stage / "page.md", "# A page", "# Another page")
    elif change == "toc":
        edit(root / "_toc.yml", "- file: page", "- file: page\n  title: Other")
    elif change == "bibliography":
        edit(stage / "references.bib", "@", "% changed\n@")
    elif change == "revision":
        monkeypatch.setenv("LLBOOK_REVISION", "0123abc")
    elif change == "added":
        (stage / "image.svg").write_text("<svg/>")
    after = site._reading_key(root, stage, ["intro", "page"])
    assert (after == before) == (change in ("nothing", "page"))


def test_reading_depends_on_the_package_and_what_is_installed(root, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr("llbook.__file__", str(package / "__init__.py"))

    def key():
        return site._reading_key(root, root / "book", ["intro", "page"])

    keys = [key()]
    (package / "__init__.py").write_text('"""Other words."""')
    keys.append(key())
    (tmp_path / "sphinx_new-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    keys.append(key())
    assert len(set(keys)) == 3


def test_what_was_read_by_a_clock_since_set_back_is_read_again(build, root):
    build()
    folder = root / "build" / "sphinx"
    assert (folder / "key").is_file()
    tomorrow = time.time() + 86400
    os.utime(folder / "key", (tomorrow, tomorrow))
    read = folder / "_build" / ".doctrees" / "intro.doctree"
    before = read.stat().st_mtime_ns
    build()
    assert read.stat().st_mtime_ns > before


def test_launch_buttons_lead_to_what_the_build_makes(build, root, monkeypatch):
    monkeypatch.setenv("LLBOOK_REPOSITORY", "https://github.com/owner/name")
    monkeypatch.setenv("LLBOOK_REVISION", "0123abc")
    (root / "locks").mkdir()
    (root / "locks" / "cpu.txt").write_text("torch==1.0 --hash=sha256:0\n")
    page = build().with_name("intro.html").read_text()
    base = rf"owner/name/(?:blob/)?{LAUNCH_BRANCH}(?:\?urlpath=lab/tree)?/"
    colab, binder = (
        re.findall(rf'href="(https://{host}/[^"]+)"', page)
        for host in ("colab.research.google.com/github", "mybinder.org/v2/gh")
    )
    for (address,) in (colab, binder):
        launched = root / "build" / "launch" / re.split(base, address)[1]
        first, *rest = nbformat.read(launched, as_version=4).cells
        assert '"llbook @ git+https://github.com/owner/name@0123abc"' in first.source
        assert "--constraint https://github.com/owner/name/raw/0123abc/requirements.lock" in (
            first.source
        )
        assert 'cpu = "" if has_gpu else "--extra-index-url https://download' in first.source
        assert any("steps" in cell.source for cell in rest)
    launch = root / "build" / "launch"
    assert (launch / "requirements.txt").read_text() == (root / "locks" / "cpu.txt").read_text()
    assert os.access(launch / "postBuild", os.X_OK)
    installed = '--no-deps "llbook @ git+https://github.com/owner/name@0123abc"'
    assert installed in (launch / "postBuild").read_text()


def test_the_printed_book_is_offered_where_there_is_one(build, root, monkeypatch, tmp_path):
    site = build().parent
    assert "book.pdf" not in (site / "intro.html").read_text()
    (tmp_path / "printed.pdf").write_bytes(b"%PDF-1.7")
    monkeypatch.setenv("LLBOOK_PDF", str(tmp_path / "printed.pdf"))
    build()
    for name in ("intro", "page"):
        (address,) = re.findall(r'href="([^"]+\.pdf)"', (site / f"{name}.html").read_text())
        assert (site / address).read_bytes() == b"%PDF-1.7"
    monkeypatch.setenv("LLBOOK_PDF", str(tmp_path / "none.pdf"))
    with pytest.raises(BookError, match=r"LLBOOK_PDF: got '.*none\.pdf'; expected a file"):
        build()


def test_a_site_with_an_address_can_be_found_and_shared(build, root, lines, monkeypatch):
    monkeypatch.setenv("LLBOOK_REPOSITORY", "https://github.com/owner/name")
    (root / "locks").mkdir()
    (root / "locks" / "cpu.txt").write_text("torch==1.0 --hash=sha256:0\n")
    edit(
        root / "_config.yml", "# baseurl: https://example.org/", "baseurl: https://example.org/book"
    )
    edit(
        root / "book" / "page.md",
        "# A page\n",
        "# A page\n\n```{figure} line.svg\n:alt: A line\n```\n",
    )
    (root / "book" / "line.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><path fill="#0173b2" d="M0 0h30v20H0z"/></svg>'
    )
    folder = build().parent
    for name in ("intro", "page"):
        text, address = (
            (folder / f"{name}.html").read_text(),
            f"https://example.org/book/{name}.html",
        )
        assert f'<link rel="canonical" href="{address}"' in text
        assert f'<meta property="og:url" content="{address}"' in text
        assert f'<meta name="citation_public_url" content="{address}"' in text
        assert f"<loc>{address}</loc>" in (folder / "sitemap.xml").read_text()
        assert 'href="https://github.com/owner/name/issues/new' in text
        (card,) = re.findall(
            r'property="og:image" content="https://example.org/book/([^"]+)"', text
        )
        pixels = imread(folder / card)
        assert pixels.shape[:2] == (600, 1146)
        blue = (
            np.isclose(pixels[..., :3], [1 / 255, 115 / 255, 178 / 255], atol=0.02).all(-1).mean()
        )
        try:
            drawn = name == "page" and bool(chromium_path())
        except NoBrowserError:
            drawn = False
            assert any("social cards of words alone: no Chromium" in line for line in lines)
        assert (blue > 0.2) == drawn


@pytest.mark.usefixtures("no_site")
def test_repository_must_be_an_address(build, monkeypatch):
    monkeypatch.setenv("LLBOOK_REPOSITORY", "owner/name")
    with pytest.raises(BookError, match="got 'owner/name'; expected https://github.com/OWNER/NAME"):
        build()


@pytest.mark.usefixtures("no_site")
def test_failing_cell_is_named_with_its_traceback_once(build, root):
    build()
    before = (root / "build" / "notebooks" / "intro.ipynb").read_bytes()
    edit(root / "book" / "intro.md", 'print("steps", steps)', "def fall(n):\n    1 // n\nfall(0)")
    with pytest.raises(NotebookError) as caught:
        build(overrides=lambda profile, notebook: {"steps": 4})
    message = str(caught.value)
    assert message.startswith("intro: code cell 2 failed:\n    def fall(n):")
    assert message.count("ZeroDivisionError: ") == 1
    assert "\x1b" not in message
    assert (root / "build" / "notebooks" / "intro.ipynb").read_bytes() == before
    assert (root / "build" / "failed" / "intro.ipynb").is_file()


@pytest.mark.usefixtures("no_site")
def test_runs_again_for_what_changed_and_says_what(build, root, lines, monkeypatch):
    build()
    ids = [cell.id for cell in nbformat.read(root / "build/notebooks/intro.ipynb", 4).cells]

    build(overrides=lambda profile, notebook: {"steps": 5})
    assert lines[0] == "intro: run: parameters: steps none → 5"
    assert outputs(root) == "steps 5\n"
    build(overrides=lambda profile, notebook: {"steps": 5})
    assert lines[0].startswith("intro: reused")
    assert outputs(root) == "steps 5\n"

    edit(root / "book" / "intro.md", '"steps", steps', '"number", steps')
    build(overrides=lambda profile, notebook: {"steps": 5})
    assert lines[0] == "intro: run: cells changed: code cell 2"
    assert outputs(root) == "number 5\n"

    edit(root / "book" / "intro.md", '"number", steps', '"steps", steps')
    build(force=True)
    assert lines[0] == "intro: run: forced"
    assert [c.id for c in nbformat.read(root / "build/notebooks/intro.ipynb", 4).cells] == ids

    (root / "book" / "records").mkdir()
    (root / "book" / "records" / "toy.npz").write_bytes(b"1")
    monkeypatch.setattr(
        executor,
        "run_notebook",
        lambda *_: (nbformat.read(root / "build/notebooks/intro.ipynb", 4), []),
    )
    build()
    assert lines[0] == "intro: run: records new: toy.npz"
    # corpus=auto would now read another text
    (root / "stories.txt").write_text("Once.")
    monkeypatch.setenv("LLBOOK_TINYSTORIES", str(root / "stories.txt"))
    build()
    assert lines[0] == "intro: run: text changed: corpus=auto"
    (root / "stories.txt").write_text("Twice.")
    build()
    assert lines[0] == "intro: run: text changed: corpus=auto"
    build()
    assert lines[0].startswith("intro: reused")
    monkeypatch.setattr(executor, "source_hashes", lambda names: {"llbook/cli.py": "0" * 64})
    build()
    assert "code changed: llbook/cli.py" in lines[0]


@pytest.mark.usefixtures("no_site")
def test_key_of_a_notebook(build, root, lines):
    edit(root / "book" / "intro.md", ":tags: [parameters]", ":tags: [parameters, hide-input]")
    build(overrides=lambda profile, notebook: {"steps": 4})
    notebook = nbformat.read(root / "build" / "notebooks" / "intro.ipynb", as_version=4)
    parts = {"cells", "parameters", "code", "versions", "Python", "device", "records", "text"}
    assert notebook.metadata["llbook"]["parts"].keys() == parts
    defaults, injected, _ = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert injected.source.endswith("steps = 4\n")
    assert defaults.metadata["tags"] == ["parameters", "hide-input"]
    assert injected.metadata["tags"] == ["hide-input", "injected-parameters"]
    # how a cell is shown does not matter
    edit(root / "book" / "intro.md", ", hide-input]", ", hide-cell]")
    build(overrides=lambda profile, notebook: {"steps": 4})
    assert lines[0].startswith("intro: reused")


@pytest.mark.usefixtures("no_site")
def test_unknown_parameter_is_refused(build):
    with pytest.raises(NotebookError, match=r"unknown parameter 'step' \(value 5\).*has: steps"):
        build(overrides=lambda profile, notebook: {"step": 5})


@pytest.mark.usefixtures("no_site")
def test_cell_over_its_time_is_stopped(build, root):
    edit(root / "book" / "intro.md", 'print("steps", steps)', "import time; time.sleep(600)")
    with pytest.raises(NotebookError, match="intro: a cell took more than 2 s"):
        build(timeout=2)


def in_two(root, cell):
    """A second notebook beside the first one, both with this cell."""
    edit(root / "book" / "intro.md", 'print("steps", steps)', cell)
    shutil.copy(root / "book" / "intro.md", root / "book" / "page.md")


@pytest.mark.usefixtures("no_site")
def test_notebooks_run_at_once_and_share_the_cores(build, root):
    # each waits for what the other one writes
    meet = """import os, pathlib, time
meeting = pathlib.Path(os.environ["LLBOOK_BUILD"])
(meeting / f"{os.getpid()}.here").touch()
while len(list(meeting.glob("*.here"))) < 2:
    time.sleep(0.05)
print(os.environ["OMP_NUM_THREADS"], list(pathlib.Path.cwd().iterdir()))"""
    in_two(root, meet)
    build(jobs=2, timeout=60)
    assert outputs(root) == f"{max(1, cores() // 2)} []\n"


@pytest.mark.usefixtures("no_site")
def test_after_a_failure_no_further_notebook_is_begun(build, root, lines):
    in_two(root, "1 // 0")
    with pytest.raises(NotebookError, match="intro: code cell 2 failed"):
        build(jobs=1)
    assert lines == ["intro: run: not yet executed"]


def in_a_loop(work):
    """Call it as a notebook's cell or an asynchronous program would: while an event loop runs."""

    async def call():
        work()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(call())
    finally:
        loop.close()


@pytest.mark.usefixtures("no_site")
@pytest.mark.parametrize("call", [lambda work: work(), in_a_loop], ids=["plain", "in-a-loop"])
def test_interrupt_ends_the_kernels(build, root, call):
    in_two(
        root,
        """import os, pathlib, time
(pathlib.Path(os.environ["LLBOOK_BUILD"]) / f"{os.getpid()}.here").touch()
time.sleep(600)""",
    )

    def interrupt():
        while len(list((root / "build").glob("*.here"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        call(lambda: build(jobs=2))
    for file in (root / "build").glob("*.here"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.stem), 0)
    assert not list((root / "build").glob(".run-*"))


@pytest.mark.usefixtures("no_site")
def test_stderr_and_paths_are_not_published(build, root, lines):
    source = f"import sys; print('careful', file=sys.stderr); print('{ROOT}/book/x')"
    edit(root / "book" / "intro.md", 'print("steps", steps)', source)
    build()
    assert outputs(root) == "book/x\n"
    assert "intro: on stderr, not published: code cell 2: careful" in lines


def test_unexecuted_and_failed_cells_are_not_published():
    new = nbformat.v4
    notebook = new.new_notebook(cells=[new.new_code_cell("1 + 1")])
    with pytest.raises(NotebookError, match=r"toy: code cell 1 \('1 \+ 1'\) was not executed"):
        notebooks.check_executed(notebook, "toy")
    error = new.new_output("error", ename="ValueError", evalue="no", traceback=[])
    notebook.cells[0].execution_count = 1
    notebook.cells[0].outputs = [error]
    with pytest.raises(NotebookError, match="ended with ValueError: no"):
        notebooks.check_executed(notebook, "toy")


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("llbook.data", ["grammar", "perturb", "stories", "teacher", "tokens", "windows"]),
        ("llbook.parameters", []),
    ],
)
def test_reference_lists_the_modules_of_a_package_or_one_module(name, listed):
    source = [f"# Reference\n\n% modules: {name}\n"]
    _list_modules(None, "reference", source)
    modules = [f"{name}.{module}" for module in listed] or [name]
    assert re.findall(r"automodule:: (\S+)", source[0]) == modules


def test_page_that_does_not_exist(root):
    (root / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n- file: gone\n")
    with pytest.raises(BookError, match=r"no page book/gone\.md"):
        site.pages(root)


@pytest.mark.parametrize(
    ("page", "requests"),
    [
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', 1),
        ('<img srcset="a.png 1x, https://x.example/b.png 2x">', 1),
        ("<style>@font-face { src: url(https://x.example/f.woff) }</style>", 1),
        ('<p style="background: url(http://x.example/a.png)">', 1),
        ('<a href="https://x.example">text</a><link rel="canonical" href="https://x.example">', 0),
        ('<script src="_static/x.js"></script><img src="a.png">', 0),
    ],
)
def test_requests_to_elsewhere_are_found(tmp_path, page, requests):
    (tmp_path / "x.html").write_text(page)
    assert len(external_requests(tmp_path)) == requests


@pytest.mark.usefixtures("no_site")
def test_second_build_waits_for_the_first(build, root, lines, monkeypatch):
    (root / "build").mkdir()
    held = FileLock(root / "build" / ".lock")
    held.acquire()

    def report(line):
        lines.append(line)
        if line.startswith("waiting"):
            held.release()

    site.build(root, root / "build", profile="smoke", overrides=lambda *_: {}, report=report)
    assert lines[0].startswith("waiting for another build")
    assert lines[1] == "intro: run: not yet executed"


def test_command_line_fails_without_a_traceback_of_its_own(root, monkeypatch):
    monkeypatch.setattr(llbook.cli, "repository_root", lambda: root)
    monkeypatch.setenv("LLBOOK_BUILD", str(root / "build"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    missing = "from llbook.runs.records import load_record; load_record('none')"
    edit(root / "book" / "intro.md", 'print("steps", steps)', missing)
    result = CliRunner().invoke(llbook.cli.main, ["build", "--profile", "laptop"])
    assert result.exit_code == 1
    assert type(result.exception) is SystemExit
    assert "intro: code cell 2 failed" in result.stderr
    assert "FileNotFoundError" in result.stderr
    assert "llbook/publish" not in result.stderr
    assert not (root / "build" / "html").exists()


def test_page_on_the_execution_says_what_ran():
    facts = {
        "profile": "smoke",
        "llbook": "0.1.0",
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "device": "a processor",
        "platform": "Linux x86_64",
        "notebooks": {
            "a": {
                "parameters": {"steps": 3},
                "reused": True,
                "seconds": 90.0,
                "runs": [
                    {"id": "toy-1", "state": "computed", "why": "", "seconds": 2.0},
                    {"id": "toy-2", "state": "recorded", "why": "toy.npz", "seconds": 7200.0},
                ],
            },
            "b": {"parameters": {}, "reused": False, "seconds": 1.0, "runs": []},
        },
    }
    text = execution_text(facts).replace("\N{NO-BREAK SPACE}", " ")
    assert "Of 2 notebooks, 1 ran in this build; 1 had not changed" in text
    row = "| {doc}`/a` | `steps = 3` | reused | 1.5 min | `toy-1` (computed in 2.0 s), 1 recorded |"
    assert row in text
    assert "| {doc}`/b` | none | ran | 1.0 s | none |" in text
    assert "`records`: 1, with 2.0 hours" in text
    row = '| <span id="record-toy-2"></span>`toy.npz` | `toy-2` | 120.0 min |'
    assert row in text
    assert "| torch | 2.13.0 |" in text
