"""Executed notebooks and pages → the static site.

The site is made in a fresh folder and takes the place of the one of before only
when all of it succeeded: jupyter-book's incremental builds forget warnings and keep
pages that are gone. What Sphinx has read of pages without a warning is kept, and
serves as long as nothing but pages changes; all pages are always written. The site
needs no network: MathJax is part of it, and a page that would fetch anything from
elsewhere is refused.
"""

from __future__ import annotations

import filecmp
import hashlib
import html.parser
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

import llbook
from llbook.data.stories import text_at_hand
from llbook.publish.browser import NoBrowserError
from llbook.publish.cards import draw_cards
from llbook.publish.execution import MARK, execution_text
from llbook.publish.executor import LIBRARIES, execute_all
from llbook.publish.extension import PDF, book_pdf, repository
from llbook.publish.kernel import ANSI, Settings
from llbook.publish.notebooks import front_matter, is_notebook, published
from llbook.publish.reading import arrange
from llbook.runs.files import locked, write_json
from llbook.runs.provenance import cores, device_kind, provenance

__all__ = [
    "BookError",
    "build",
    "external_requests",
    "launch_notebooks",
    "longest_first",
    "pages",
]

# Of the MathJax that sphinx-mathjax-offline brings, what the pages load.
_MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
_CPU_BUILD = "--extra-index-url https://download.pytorch.org/whl/cpu"
_WARNING = re.compile(r"(WARNING|ERROR|CRITICAL|Exception|Traceback)")
_LINK = re.compile(r"\]\((?P<path>[\w./-]+)\.md(?P<rest>(?:#[^)\s]*)?)\)")
_PLACE = re.compile(r"(book/\S+)\.ipynb:(\d+)(\d{4}):")


class BookError(RuntimeError):
    """The book cannot be built; the message says why."""


def build(
    root: Path,
    build_folder: Path,
    *,
    profile: str,
    overrides: Callable[[str, str], Mapping[str, Any]],
    force: bool = False,
    timeout: int = 24 * 3600,
    jobs: int | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Build the whole book; returns the path of its first page.

    Args:
        root: folder with ``_config.yml``, ``_toc.yml`` and ``book/``.
        build_folder: nothing is written outside of it.
        profile: handed to ``overrides``, and written into ``execution.json``.
        overrides: (profile, notebook) → the flat parameters to set in it.
        force: run every notebook, changed or not.
        timeout: seconds that one cell of a notebook may take.
        jobs: notebooks that run at once, with the cores shared out to them; without a number
            one where there is a GPU, else one a core, 4 at most.
        report: receives the progress, line by line.

    Raises:
        BookError: a page that is missing, a warning of Sphinx, a page that needs the network.
        NotebookError: a notebook that fails or must not be published.
        OSError: the build folder cannot be written, ``LLBOOK_TINYSTORIES`` cannot be read.

    After any of them, the site of before is untouched.
    """
    waiting = partial(report, f"waiting for another build in {build_folder}")
    with locked(build_folder / ".lock", waiting):
        start = time.perf_counter()
        try:
            repository(), book_pdf()
        except ValueError as error:
            raise BookError(str(error)) from None
        source = root / "book"
        jobs = jobs or (1 if device_kind() == "cuda" else min(4, cores()))
        settings = Settings(
            source, build_folder, force, timeout, report, threads=max(1, cores() // jobs)
        )
        # as records_folder() has it, for the book at this root
        recorded = Path(os.environ.get("LLBOOK_RECORDS") or source / "records")
        records = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((*recorded.glob("*.npz"), *recorded.glob("*.json")))
        }
        inputs = {"records": records, "text": {"corpus=auto": text_at_hand()}}
        documents = pages(root)
        notebooks = [name for name in documents if is_notebook(source / f"{name}.md")]
        executions = execute_all(
            longest_first(source, notebooks),
            settings,
            partial(overrides, profile),
            jobs=jobs,
            inputs=inputs,
        )
        done = {execution.notebook: asdict(execution) for execution in executions}
        facts = {
            "profile": profile,
            **provenance(libraries=LIBRARIES),
            "notebooks": {name: done[name] for name in notebooks},
        }
        write_json(build_folder / "notebooks" / "execution.json", facts)
        stage = _stage(source, build_folder, documents, notebooks, facts)
        report(f"site: {len(documents)} pages, {len(notebooks)} of them notebooks")
        index = _make_site(root, stage, build_folder, documents, notebooks)
        try:
            draw_cards(index.parent)
        except NoBrowserError as error:
            report(f"site: social cards of words alone: {error}")
        report(f"site: {index} ({time.perf_counter() - start:.1f} s in all)")
        return index


def pages(root: Path) -> list[str]:
    """The documents of ``_toc.yml`` in order, as paths below ``book/`` without suffix.

    Raises:
        BookError: a document has no ``.md`` file.
    """
    from sphinx_external_toc.parsing import MalformedError, parse_toc_yaml

    try:
        documents = list(parse_toc_yaml(root / "_toc.yml"))
    except (OSError, MalformedError) as error:
        raise BookError(f"_toc.yml: {error}") from error
    for document in documents:
        if not (root / "book" / f"{document}.md").is_file():
            raise BookError(f"_toc.yml: no page book/{document}.md")
    return documents


def longest_first(source: Path, notebooks: Sequence[str]) -> list[str]:
    """These notebooks, in the order in which to begin them: first those that show a stored run.

    It takes longest, and another page that shows it would wait for it.
    """
    return sorted(
        notebooks, key=lambda name: "experiment" not in front_matter(source / f"{name}.md")
    )


def external_requests(folder: Path) -> list[str]:
    """What the pages and style sheets of a site would fetch from another origin.

    Links in the text are no requests. Returns ``"page: address"`` lines, sorted.
    """
    found = set()
    for path in folder.rglob("*.html"):
        parser = _Requests()
        parser.feed(path.read_text(encoding="utf-8"))
        found |= {f"{path.relative_to(folder).as_posix()}: {url}" for url in parser.urls}
    for path in folder.rglob("*.css"):
        text = path.read_text(encoding="utf-8", errors="replace")
        for url in _css_urls(text):
            found.add(f"{path.relative_to(folder).as_posix()}: {url}")
    return sorted(found)


def _stage(
    source: Path,
    build_folder: Path,
    documents: list[str],
    notebooks: list[str],
    facts: Mapping[str, Any],
) -> Path:
    """A fresh copy of what jupyter-book reads: pages, executed notebooks, and files beside them.

    A file with the bytes of before has the time of before: Sphinx reads what is newer.
    """
    stage, before = build_folder / "stage", build_folder / "stage.before"
    shutil.rmtree(before, ignore_errors=True)
    if stage.exists():
        stage.rename(before)
    shutil.copytree(
        source,
        stage,
        ignore=shutil.ignore_patterns("*.md", "records", ".*", "__pycache__"),
        copy_function=shutil.copyfile,
    )
    for name in documents:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        if name in notebooks:
            notebook = _linked(build_folder, name, notebooks)
            arrange(notebook, name, stage)
            nbformat.write(notebook, stage / f"{name}.ipynb")
        else:
            text = (source / f"{name}.md").read_text(encoding="utf-8")
            staged = _staged_links(text, name, notebooks)
            if f"\n{MARK}\n" in staged:
                staged = staged.replace(f"\n{MARK}\n", f"\n{execution_text(facts)}\n")
            (stage / f"{name}.md").write_text(staged, encoding="utf-8")
    for file in filter(Path.is_file, stage.rglob("*")):
        old = before / file.relative_to(stage)
        if old.is_file() and filecmp.cmp(old, file, shallow=False):
            os.utime(file, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    shutil.rmtree(before, ignore_errors=True)
    return stage


def _reading_key(root: Path, stage: Path, documents: list[str]) -> str:
    """Names all that what Sphinx reads of a page depends on, but for the pages' own text."""
    package = Path(llbook.__file__).parent
    own = {stage / f"{name}{suffix}" for name in documents for suffix in (".md", ".ipynb")}
    files = [*package.rglob("*.py"), root / "_config.yml", root / "_toc.yml"]
    files += [file for file in stage.rglob("*") if file.is_file() and file not in own]
    # name and version of each, without reading what it says of itself
    installed = sorted(info.name for place in sys.path for info in Path(place).glob("*.dist-info"))
    settings = [sys.version, str(stage), repository(), os.environ.get("LLBOOK_REVISION"), installed]
    total = hashlib.sha256(json.dumps(settings).encode())
    for file in sorted(files):
        total.update(f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _linked(build_folder: Path, name: str, notebooks: list[str]) -> nbformat.NotebookNode:
    """An executed notebook whose links lead to what is published."""
    notebook = published(build_folder / "notebooks" / f"{name}.ipynb", name)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _staged_links(cell.source, name, notebooks)
    return notebook


def _staged_links(text: str, document: str, notebooks: list[str]) -> str:
    """Links between the sources name ``X.md``; what is staged of a notebook is ``X.ipynb``."""

    def staged(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(document), match["path"]))
        suffix = "ipynb" if target in notebooks else "md"
        return f"]({match['path']}.{suffix}{match['rest']})"

    return _LINK.sub(staged, text)


def launch_notebooks(
    unexecuted: Path,
    folder: Path,
    notebooks: list[str],
    url: str,
    revision: str | None = None,
    *,
    lock: Path,
) -> None:
    """Write what the Colab and Binder buttons open: a folder to be published as a branch.

    Args:
        unexecuted: folder with ``<name>.ipynb``.
        folder: replaced by a new one, with the notebooks, each with a first cell that installs
            ``llbook`` and the locked versions where it is missing, with PyTorch's CPU build where
            there is no GPU; and with what Binder, which has none, reads.
        notebooks: names, without suffix.
        url: the repository, ``https://github.com/OWNER/NAME``.
        revision: the commit to install; the default branch unless given.
        lock: the requirements with hashes of Linux without a GPU.
    """
    requirement = f"llbook @ git+{url}" + (f"@{revision}" if revision else "")
    versions = f"{url}/raw/{revision or 'HEAD'}/requirements.lock"
    shutil.rmtree(folder, ignore_errors=True)
    for name in notebooks:
        notebook = nbformat.read(unexecuted / f"{name}.ipynb", as_version=4)
        source = (
            "# Where the book's package is not installed yet, as on Colab\n"
            "import importlib.util\nimport shutil\n\n"
            'if importlib.util.find_spec("llbook") is None:\n'
            '    has_gpu = shutil.which("nvidia-smi") is not None\n'
            f'    cpu = "" if has_gpu else "{_CPU_BUILD}"\n'
            f'    %pip install --quiet {{cpu}} --constraint {versions} "{requirement}" myst-nb'
        )
        notebook.cells.insert(0, nbformat.v4.new_code_cell(source, id="install-llbook"))
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
    shutil.copyfile(lock, folder / "requirements.txt")
    (folder / "runtime.txt").write_text("python-3.12\n", encoding="utf-8")
    after = folder / "postBuild"  # pip takes no repository among files with hashes
    after.write_text(f'#!/bin/sh\npip install --no-deps "{requirement}"\n', encoding="utf-8")
    after.chmod(0o755)


def _make_site(
    root: Path, stage: Path, build_folder: Path, documents: list[str], notebooks: list[str]
) -> Path:
    work = build_folder / "sphinx"  # after a build: what was read, sealed with the reading's key
    seal, key = work / "key", _reading_key(root, stage, documents)
    known = (
        seal.is_file()
        and seal.read_text(encoding="utf-8") == key
        # else the clock was set back, and what is newer than the reading does not look it
        and seal.stat().st_mtime_ns < stage.stat().st_mtime_ns
    )
    seal.unlink(missing_ok=True)  # set again by a build that succeeds
    if not known:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    shutil.rmtree(work / "_build" / "html", ignore_errors=True)
    try:
        configuration = [
            f"--config={(root / '_config.yml').resolve()}",
            f"--toc={(root / '_toc.yml').resolve()}",
        ]
        result = subprocess.run(
            [
                *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"),
                *(str(stage), *configuration, f"--path-output={work}"),
                *("-W", "-n", "--keep-going", *([] if known else ["--all"])),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=build_folder,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )
        built = work / "_build" / "html"
        if result.returncode != 0 or not (built / "index.html").is_file():
            raise BookError(_complaints(result.stdout, stage))
        _trim_mathjax(built / "_static" / "mathjax")
        for name in notebooks:
            shutil.copyfile(root / "book" / f"{name}.md", built / "_sources" / f"{name}.md")
            offered = _linked(build_folder, name, notebooks)
            nbformat.write(offered, built / "_sources" / f"{name}.ipynb")
        if pdf := book_pdf():
            shutil.copyfile(pdf, built / PDF)
        if urls := external_requests(built):
            listed = "\n".join(f"  {url}" for url in urls)
            raise BookError(f"the site would need the network:\n{listed}")
        if url := repository():
            revision = os.environ.get("LLBOOK_REVISION")
            unexecuted = build_folder / "notebooks-src"
            launch, lock = build_folder / "launch", root / "locks" / "cpu.txt"
            launch_notebooks(unexecuted, launch, notebooks, url, revision, lock=lock)
        site, before = build_folder / "html", build_folder / "html.before"
        if before.exists() and not site.exists():
            before.rename(site)  # a build was killed between the next two lines
        shutil.rmtree(before, ignore_errors=True)
        if site.exists():
            site.rename(before)
        try:
            built.rename(site)
        except OSError:
            if before.exists():
                before.rename(site)
            raise
        shutil.rmtree(before, ignore_errors=True)
        if key == _reading_key(root, stage, documents):  # nothing was edited meanwhile
            seal.write_text(key, encoding="utf-8")
    finally:
        if not seal.is_file():
            shutil.rmtree(work, ignore_errors=True)
    return site / "index.html"


def _complaints(output: str, stage: Path) -> str:
    """The warnings in jupyter-book's output, each once, with the pages' own names."""
    text = ANSI.sub("", output).replace(f"{stage}{os.sep}", "book/")
    # myst-nb counts lines from ten thousand times the number of the cell
    text = _PLACE.sub(lambda m: f"{m[1]}.md, cell {m[2]}, line {int(m[3])}:", text)
    warnings = list(dict.fromkeys(line for line in text.splitlines() if _WARNING.search(line)))
    said = [line for line in warnings if "build finished with problems" not in line]
    said = [line for line in said if not line.startswith(("RuntimeError", "Traceback"))]
    return "jupyter-book, warnings counted as errors:\n" + ("\n".join(said) or text[-8000:])


def _trim_mathjax(folder: Path) -> None:
    """Keep what the pages load: 3 MB of 17."""
    if not folder.is_dir():
        raise BookError("the site has no MathJax: is sphinx-mathjax-offline among the extensions?")
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif not any(name == kept or name.startswith(f"{kept}/") for kept in _MATHJAX):
            path.unlink()


class _Requests(html.parser.HTMLParser):
    """Collects the addresses on other origins that a browser fetches for a page."""

    _SOURCES = frozenset({"src", "srcset", "poster", "data"})
    _FETCHED_LINKS = frozenset(
        {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        values = {name: value or "" for name, value in attrs}
        for name, value in values.items():
            fetched = name in self._SOURCES
            if tag == "link" and name == "href":
                fetched = bool(self._FETCHED_LINKS & set(values.get("rel", "").lower().split()))
            if fetched and re.search(r"(?:^|[\s,])(?:https?:)?//", value):
                self.urls.append(value)
        self.urls += _css_urls(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.urls += _css_urls(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._style = False


def _css_urls(text: str) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    pattern = r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)"""
    return re.findall(pattern, text)
