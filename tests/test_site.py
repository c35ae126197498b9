"""Every page of the book as a browser shows it, from disk and without a network."""

import csv
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.figure import Figure

from llbook.figures import style
from llbook.publish.notebooks import is_notebook
from llbook.publish.site import pages

PAGES = [*pages(ROOT), "index", "search", "genindex"]
NOTEBOOKS = [name for name in pages(ROOT) if is_notebook(ROOT / "book" / f"{name}.md")]

# What a reader would see of a page that did not come out right
FAULTS = r"""async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  const faults = [];
  for (const image of document.images)
    if (!image.naturalWidth) faults.push('image missing: ' + image.src);
  for (const image of document.querySelectorAll('article img'))
    if (!image.alt || image.alt.includes('/')) faults.push('no alt text: ' + image.src);
  for (const maths of document.querySelectorAll('.math'))
    if (!maths.querySelector('mjx-container')) faults.push('not typeset: ' + maths.textContent);
  // MathJax marks what it does not know by an error element, or in red
  for (const wrong of document.querySelectorAll('mjx-merror, mjx-container [style*="color: red"]'))
    faults.push('maths: ' + wrong.closest('mjx-container').outerHTML.slice(0, 300));
  const text = document.createTreeWalker(document.querySelector('article') ?? document.body, 4);
  while (text.nextNode()) {
    const node = text.currentNode;
    if (node.parentElement.closest('pre, code, dt, script, style, mjx-container')) continue;
    if (/\\[([a-zA-Z]|\$\$|\{(glue|doc|cite|eq|ref|numref)/.test(node.data))
      faults.push('markup in the text: ' + node.data.trim());
  }
  let before = 0;
  for (const heading of document.querySelectorAll('article :is(h1, h2, h3, h4, h5, h6)')) {
    const level = Number(heading.tagName[1]);
    if (level > before + 1) faults.push(`h${level} after h${before}: ` + heading.textContent);
    before = level;
  }
  return faults;
}"""


# Height of code within the first screen, height of the page, and what is cut off at the right
READING = r"""async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  const code = 'article :is(div.cell_input, div.highlight, details.hide)';
  let shown = 0;
  for (const block of document.querySelectorAll(code)) {
    if (block.parentElement.closest(code) || !block.checkVisibility()) continue;
    const {top, bottom} = block.getBoundingClientRect();
    shown += Math.max(0, Math.min(900, bottom) - Math.max(0, top));
  }
  const height = document.documentElement.scrollHeight;
  document.querySelectorAll('details').forEach(part => part.open = true);
  const cut = [...document.querySelectorAll('article :is(pre, div.highlight, .cell_output > .output)')]
    .filter(block => block.scrollWidth > block.clientWidth + 1)
    .map(block => block.textContent.slice(0, 80));
  return [shown, height, cut];
}"""


# What scrolls sideways, though it is neither code nor a table nor a formula
SCROLLS = r"""() => [...document.querySelectorAll('article *')].filter(box =>
    box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX)
    && !box.matches('pre, div.math, mjx-container, :has(table)')
  ).map(box => box.outerHTML.slice(0, 200))"""


@pytest.fixture
def tab(chromium):
    """An empty tab that keeps in ``tab.heard`` what went wrong in it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.heard = []

    def request(made):
        if not made.url.startswith(("file:", "data:", "blob:")):
            page.heard.append(f"request to elsewhere: {made.url}")

    def console(message):
        if message.type in ("error", "warning"):
            page.heard.append(f"console: {message.text}")

    page.on("request", request)
    page.on("requestfailed", lambda failed: page.heard.append(f"not found: {failed.url}"))
    page.on("console", console)
    page.on("pageerror", lambda error: page.heard.append(f"script: {error}"))
    yield page
    context.close()


def axe(tab, *, rules=None):
    """Violations that axe-core calls serious or critical, one line an element."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = rules
    # the thousands of elements inside typeset maths have the colours of the text around them
    results = Axe().run(tab, context={"exclude": [["mjx-container"]]}, options=options)
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in results.response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_page_is_complete_without_a_network_and_accessible(book, tab, name):
    tab.goto((book / "html" / f"{name}.html").as_uri())
    if name == "index":
        tab.wait_for_url("**/intro.html")
    assert tab.evaluate(FAULTS) == []
    tab.add_style_tag(content="* { animation: none !important; transition: none !important }")
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert axe(tab) == []
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert axe(tab, rules=["color-contrast"]) == []
    assert tab.heard == []


@pytest.mark.parametrize("name", pages(ROOT))
def test_page_receives_its_reader(book, tab, name):
    """No wall of code before the subject, nothing cut off at the right, an end in sight."""
    tab.goto((book / "html" / f"{name}.html").as_uri())
    code, height, cut = tab.evaluate(READING)
    assert cut == []
    if name != "guide":  # which is about commands
        assert code <= 120
    if not name.startswith("reference"):
        assert height <= 14_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_begins_with_its_answer(book, name):
    """Before the first section or picture: a number of a run, and no parameters."""
    page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
    article = page[page.index("<h1>") :]
    opening = article[: min(article.find(mark) % len(article) for mark in ("<h2>", "<figure"))]
    assert "Parameters of this page" not in opening
    assert "Show code cell" not in opening


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_run_is_described_once(book, name):
    page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
    lines = re.findall(r'<p class="provenance">(.*?)</p>', page, re.DOTALL)
    assert len(lines) == len(set(lines))
    assert len(lines) == len(re.findall(rf'<li id="run-{name}-\d+">', page))
    for mark in re.findall(rf'href="#(run-{name}-\d+)"', page):
        assert f'<li id="{mark}">' in page


@pytest.mark.parametrize("name", pages(ROOT))
def test_page_fits_a_phone(book, tab, name):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto((book / "html" / f"{name}.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    # figures in one piece, and at a tap in full size; only code, tables and formulas scroll
    for image in tab.locator("article img").all():
        if (box := image.bounding_box()) is None:
            continue
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert image.locator("xpath=ancestor::a").get_attribute("href").startswith("_images/")
    assert tab.evaluate(SCROLLS) == []


def test_first_page_answers_within_two_seconds(book, tab):
    taken = []
    for _ in range(3):
        tab.goto("about:blank")
        tab.goto((book / "html" / f"{pages(ROOT)[0]}.html").as_uri())
        taken.append(
            tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        )
    assert min(taken) < 2000, taken


def test_served_site_asks_nobody_else(book, chromium):
    """As `make serve` shows it: at an address of its own, not from disk."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *arguments):
            pass

    handler = functools.partial(Quiet, directory=book / "html")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_port}/"
        asked, failed = [], []
        page = chromium.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda found: found.ok or failed.append(found.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        for name in (pages(ROOT)[0], "explorer", "live"):
            page.goto(f"{origin}{name}.html")
            assert page.evaluate(FAULTS) == []
        page.goto(f"{origin}search.html?q=simplex")
        page.wait_for_selector("#search-results li p.context")
        page.close()
        server.shutdown()
    assert [url for url in asked if not url.startswith((origin, "data:", "blob:"))] == []
    assert failed == []


def test_search_finds_pages_from_disk(book, tab):
    tab.goto((book / "html" / "search.html").as_uri() + "?q=simplex")
    tab.wait_for_selector("#search-results li a")
    links = tab.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("optimal_policy.html" in link for link in links)
    assert not [line for line in tab.heard if line.startswith(("request", "script"))]


def test_keyboard_reaches_content_buttons_and_navigation(book, tab):
    tab.goto((book / "html" / "objective.html").as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main-content")
    links, unmarked = set(), []
    for _ in range(100):
        tab.keyboard.press("Tab")
        tag, link, outline = tab.evaluate(
            """() => { const e = document.activeElement;
            return [e.tagName, e.getAttribute('href'), getComputedStyle(e).outlineStyle]; }"""
        )
        links.add(link)
        if outline == "none" and tag in ("A", "BUTTON"):
            unmarked.append((tag, link))
    assert unmarked == []
    assert "compression.html" in links  # the next chapter


@pytest.mark.parametrize("name", pages(ROOT))
def test_page_is_light(book, name):
    """A page with all that it loads (MathJax and the theme are shared): under 2 MB."""
    site = book / "html"
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    loaded = {
        (site / address).resolve()
        for address in re.findall(r'(?:src|data)="([^":?#]+)', text)
        if "_images/" in address or "_figures/" in address
    }
    size = len(text.encode()) + sum(path.stat().st_size for path in loaded)
    assert size < 2_000_000


def test_site_is_light(book):
    files: list[Path] = [path for path in (book / "html").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60_000_000


def link(book, name, text):
    """The file that the link with this icon and text in the header of a page leads to."""
    page = book / "html" / f"{name}.html"
    found = re.findall(
        rf'href="([^"]+)"[^>]*>(?:(?!</a>).)*?btn__text-container">{re.escape(text)}<',
        page.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert len(found) == 1, found
    return page.parent / found[0]


@pytest.mark.parametrize("name", pages(ROOT))
def test_page_can_be_taken_away(book, name):
    text = link(book, name, ".md")
    if name not in NOTEBOOKS:
        assert text.is_file()
        return
    assert text.read_bytes() == (ROOT / "book" / f"{name}.md").read_bytes()
    notebook = nbformat.read(link(book, name, ".ipynb"), as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in cells)
    page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
    assert "colab" not in page
    assert "mybinder" not in page


def test_figures_have_their_data_beside_them(book):
    found = 0
    for name in NOTEBOOKS:
        page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
        for address in re.findall(r'href="(_downloads/[^"]+\.csv)"', page):
            with open(book / "html" / address, encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            assert rows
            assert rows[0].keys() == {"panel", "x_axis", "y_axis", "series", "x", "y"}
            found += 1
        for figure, tools in re.findall(
            r'<figure [^>]*id="(fig-[^"]+)"(.*?)</details>', page, re.DOTALL
        ):
            assert f'href="_images/{figure}.svg"' in tools
            assert f'download="{figure}.svg"' in tools
            assert "<summary>Source</summary>" in tools
    assert found >= len(NOTEBOOKS)


@pytest.mark.parametrize("name", ["explore-perceptron", "explore-language"])
def test_explorer_follows_its_slider(book, tab, name):
    tab.goto((book / "html" / "explorer.html").as_uri())
    slider = tab.locator(f"#{name}-step")
    said = tab.locator(f"#{name} [aria-live]")
    slider.focus()
    tab.keyboard.press("Home")
    first = said.text_content()
    assert first.startswith("Step 0: test loss")
    marks = f"#{name} svg .used, #{name} svg .unused"
    shown = tab.locator(marks).count()
    assert shown == int(re.search(r"Shown: (\d+)", first)[1])
    in_use = tab.locator(f"#{name} svg .used").count()
    assert in_use == int(re.search(r"(\d+) of them in use", first)[1])
    tab.keyboard.press("ArrowRight")
    assert said.text_content().startswith("Step 1:")
    tab.keyboard.press("End")
    assert said.text_content() != first
    assert slider.get_attribute("aria-valuetext").split(" of ")[1] in tab.content()
    for width in (390, 1280):
        tab.set_viewport_size({"width": width, "height": 844})
        tab.wait_for_timeout(100)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.heard == []


def test_law_is_turned_by_keyboard_and_by_dragging(book, tab):
    tab.goto((book / "html" / "learning_law.html").as_uri())
    said = tab.locator("#law-3d [aria-live]")
    assert "They differ" in said.text_content()
    picture = tab.locator("#law-3d svg")
    before = picture.inner_html()
    tab.locator("#law-3d-turn").focus()
    tab.keyboard.press("ArrowRight")
    turned = picture.inner_html()
    assert turned != before
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    tab.mouse.move(box["x"] + 100, box["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 180, box["y"] + 120)
    tab.mouse.up()
    assert picture.inner_html() != turned
    assert tab.locator("#law-3d-turn").input_value() != "-67"
    tab.locator("#law-3d-equal").focus()
    tab.keyboard.press("End")
    assert "the law holds" in said.text_content()
    assert tab.heard == []


def test_companion_is_filtered_by_keyboard_and_a_link_shows_its_row(book, tab):
    tab.goto((book / "html" / "companion.html").as_uri())
    said = tab.locator(".companion-filter [role=status]")
    total = int(re.fullmatch(r"(\d+) of \1 items", said.text_content())[1])
    rows = tab.locator(".companion:not(.settings) tbody tr:visible")
    assert rows.count() == total
    verdict = tab.get_by_label("Verdict", exact=True)
    verdict.focus()
    tab.keyboard.press("ArrowDown")
    chosen = verdict.input_value()
    shown = rows.count()
    assert 0 < shown < total
    assert said.text_content() == f"{shown} of {total} items"
    for row in rows.all():
        words = row.locator("td").all_text_contents()
        assert words[-1].strip() == chosen or chosen == "proved or drawn"
    tab.get_by_label("Part", exact=True).select_option(index=2)
    assert rows.count() < shown
    tab.goto((book / "html" / "perceptron.html").as_uri())
    tab.locator(".figure-tools a", has_text="Paper and companion").first.click()
    assert tab.url.endswith("companion.html#item-5a")
    tab.locator("#item-5a").wait_for()
    assert tab.heard == []


def test_a_link_shows_what_it_leads_to(book, tab):
    tab.goto((book / "html" / "maximum_principle.html").as_uri())
    link = tab.locator("article a[href='#thm-mp-pontryagin']").first
    link.focus()
    preview = tab.get_by_role("tooltip")
    preview.wait_for()
    assert "Maximum principle" in preview.text_content()
    assert preview.locator("mjx-container").count() > 1
    assert link.get_attribute("aria-describedby") == preview.get_attribute("id")
    tab.keyboard.press("Escape")
    assert preview.count() == 0
    for address in ("#equation-", "#fig-", "bibliography.html#"):
        tab.mouse.move(0, 0)
        tab.locator(f"article p a.reference[href*='{address}']").first.hover()
        preview.wait_for()
        assert preview.text_content().strip()
    tab.goto((book / "html" / "findings.html").as_uri())
    tab.locator("article a[href='notation.html#symbol-costate']").first.hover()
    preview.wait_for()
    assert re.fullmatch(r"\S+: costate: gradient of .*", preview.text_content())
    assert tab.heard == []


@pytest.mark.parametrize("name", pages(ROOT))
def test_page_says_what_it_is_and_when_it_was_built(book, name):
    page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
    for mark in ('name="citation_title"', 'name="citation_author"', 'property="og:title"'):
        assert mark in page
    assert re.search(r"Built on \d{4}-\d\d-\d\d", page)
    assert 'rel="canonical"' not in page  # no address is configured
    for record in re.findall(r'href="execution.html#(record-[^"]+)"', page):
        execution = (book / "html" / "execution.html").read_text(encoding="utf-8")
        assert f'id="{record}"' in execution


def test_without_scripts_a_sentence_stands_for_what_is_interactive(book, chromium):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((book / "html" / "explorer.html").as_uri())
    assert page.locator(".interactive-fallback").count() == 2
    assert page.locator("article figure img").count() == 2
    context.close()


def test_data_of_a_figure():
    figure, (left, right) = style.subplots(1, 2)
    left.plot([0, 1], [2.5, np.nan], label="loss")
    left.axhline(0.25, label="the paper")
    left.stairs([3.0, 4.0], [0, 1, 2])
    left.set(title="Left", xlabel="step t", ylabel="nats")
    right.bar(["a", "b"], [1, 2], label="runs")
    right.scatter([1], [7])
    rows = list(csv.reader(style.shown_data(figure).splitlines()))
    assert rows[0] == ["panel", "x_axis", "y_axis", "series", "x", "y"]
    assert rows[1:] == [
        ["Left", "step t", "nats", "loss", "0", "2.5"],
        ["Left", "step t", "nats", "loss", "1", ""],
        ["Left", "step t", "nats", "the paper", "", "0.25"],
        ["Left", "step t", "nats", "steps 1, from x on", "0", "3"],
        ["Left", "step t", "nats", "steps 1, from x on", "1", "4"],
        ["2", "", "", "runs", "a", "1"],
        ["2", "", "", "runs", "b", "2"],
        ["2", "", "", "points 1", "1", "7"],
    ]


def test_heat_map_has_no_table():
    figure = Figure()
    figure.subplots().imshow(np.eye(3))
    assert style.shown_data(figure) == ""


def test_downloaded_notebook_runs_away_from_the_repository(book, tmp_path):
    """With ``llbook`` as its wheel has it, the recorded runs among it."""
    source = tmp_path / "source"
    (source / "book").mkdir(parents=True)
    for name in ("pyproject.toml", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "book" / "records", source / "book" / "records")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "llbook", source / "llbook", symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*pip, "install", "--quiet", *offline, "--target", tmp_path / "installed", source],
        check=True,
    )
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(book / "html" / "_sources" / "intro.ipynb", work)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "installed"),
        "LLBOOK_BUILD": str(tmp_path / "build"),
    }
    for name in ("LLBOOK_RECORDS", "LLBOOK_RUN_LOG"):
        environment.pop(name, None)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"),
            *("intro.ipynb", "out.ipynb"),
        ],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    origin = "import llbook; print(llbook.__file__)"
    imported = subprocess.run(
        [sys.executable, "-c", origin], cwd=work, env=environment, capture_output=True, text=True
    )
    assert imported.stdout.startswith(str(tmp_path / "installed"))
