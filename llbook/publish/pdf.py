"""The built site → one PDF: each page printed by Chromium, put together in the order of the contents.

Links between pages become links inside the document, every page of the book has a bookmark, and the
numbers in the footer run through. What is folded away on the site (solutions) is open; code that
the site hides is left out.
"""

from __future__ import annotations

import html.parser
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin

import yaml
from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.annotations import Link
from pypdf.generic import Fit, NameObject, RectangleObject, TextStringObject

from llbook.publish.browser import chromium
from llbook.publish.site import BookError, pages
from llbook.runs.files import locked, replacing

if TYPE_CHECKING:
    from playwright.sync_api import Page, PdfMargins

__all__ = ["print_book"]

_MARGINS: PdfMargins = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
_SCALE = 0.8
# A4 less the margins, in the pixels of a page printed at that scale
_WIDTH = round((210 - 32) / 25.4 * 96 / _SCALE)

# Makes a page ready to be printed; returns what is wrong with it.
_PREPARE = r"""async ([anchors, width]) => {
  document.documentElement.dataset.theme = 'light';
  if (window.MathJax?.startup) await MathJax.startup.promise;
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  for (const folded of document.querySelectorAll('.toggle-hidden')) folded.classList.remove('toggle-hidden');
  for (const part of document.querySelectorAll('details:not(.hide)')) part.open = true;
  // what is wider than its place is made smaller; an equation is centred and has its number beside it
  const shrink = (element, share) => {
    if (share < 1) element.style.fontSize = `${Math.floor(100 * share) - 1}%`;
  };
  for (const maths of document.querySelectorAll('article div.math')) {
    const typeset = maths.querySelector('mjx-math');
    const number = maths.querySelector('.eqno')?.offsetWidth ?? 0;
    if (typeset) shrink(typeset.parentElement, (maths.clientWidth - 2 * number - 8) / typeset.offsetWidth);
  }
  for (const table of document.querySelectorAll('article table'))
    shrink(table, Math.min(width, table.parentElement.clientWidth) / table.offsetWidth);
  // a place that another page links to: Chromium keeps only those that the page itself links to
  const article = document.querySelector('article');
  for (const name of anchors) {
    if (!document.getElementById(name)) continue;
    const link = document.createElement('a');
    link.href = '#' + name;
    link.textContent = '\u00a0';
    link.className = 'print-anchor';
    article.append(link);
  }
  const faults = [...document.images].filter(image => !image.naturalWidth).map(image => 'no image: ' + image.src);
  if (document.querySelector('mjx-merror')) faults.push('maths that MathJax could not set');
  return faults;
}"""


@dataclass(frozen=True)
class _Chapter:
    """A page of the book, printed."""

    name: str
    title: str
    reader: PdfReader


def print_book(root: Path, build_folder: Path, *, report: Callable[[str], None] = print) -> Path:
    """Print the site in ``build_folder/html`` to ``build_folder/llbook.pdf``; returns its path.

    Args:
        root: folder with ``_config.yml`` and ``_toc.yml``.
        build_folder: of a finished build.
        report: receives the progress, line by line.

    Raises:
        BookError: there is no site, or a page of it is not fit to be printed.
        NoBrowserError: there is no Chromium.
    """
    waiting = partial(report, f"waiting for a build in {build_folder}")
    with locked(build_folder / ".lock", waiting):  # which would put another site in its place
        return _print_site(root, build_folder, report)


def _print_site(root: Path, build_folder: Path, report: Callable[[str], None]) -> Path:
    site = build_folder / "html"
    names = pages(root)
    if missing := [name for name in names if not (site / f"{name}.html").is_file()]:
        raise BookError(f"no page {site / missing[0]}.html: build the book first")
    execution = build_folder / "notebooks" / "execution.json"
    if not execution.is_file():
        raise BookError(f"no {execution}: build the book first")
    facts = json.loads(execution.read_bytes())
    anchors = _anchors(site, names)
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": _WIDTH, "height": 1100}, color_scheme="light")
        tab.emulate_media(media="print")
        chapters = []
        for name in names:
            tab.goto((site / f"{name}.html").as_uri())
            if faults := tab.evaluate(_PREPARE, [sorted(anchors[name]), _WIDTH]):
                raise BookError(f"{name}: {'; '.join(faults)}")
            title = tab.locator("article h1").first.evaluate(_OWN_TEXT)
            chapters.append(_Chapter(name, title, PdfReader(BytesIO(_printed(tab)))))
            report(f"pdf: {name}, {len(chapters[-1].reader.pages)} pages")
        front = _front(tab, root, site, facts, chapters)
        total = len(front.pages) + sum(len(chapter.reader.pages) for chapter in chapters)
        numbers = _numbers(tab, total)
    target = build_folder / "llbook.pdf"
    title = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["title"]
    _write(target, title, site, front, chapters, numbers)
    report(f"pdf: {target} ({total} pages, {target.stat().st_size / 1e6:.1f} MB)")
    return target


# the heading without the sign that links to it
_OWN_TEXT = """heading => [...heading.childNodes]
  .filter(part => !(part.classList?.contains('headerlink'))).map(part => part.textContent).join('').trim()"""


def _printed(tab: Page) -> bytes:
    return tab.pdf(format="A4", margin=_MARGINS, scale=_SCALE, print_background=True)


class _Links(html.parser.HTMLParser):
    """The addresses that a page links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (address := dict(attrs).get("href")):
            self.found.add(address)


def _anchors(site: Path, names: Sequence[str]) -> dict[str, set[str]]:
    """Page → the places on it that links on other pages lead to."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        path = site / f"{name}.html"
        for address in _Links(path.read_text(encoding="utf-8")).found:
            page, place = _target(site, urljoin(path.as_uri(), address))
            if place and page in found and page != name:
                found[page].add(place)
    return found


def _target(site: Path, url: str) -> tuple[str, str]:
    """(page, place) of a link into the site; no page for any other."""
    address, place = urldefrag(url)
    start = f"{site.as_uri()}/"
    if not address.startswith(start) or not address.endswith(".html"):
        return "", ""
    return unquote(address.removeprefix(start).removesuffix(".html")), unquote(place)


def _front(
    tab: Page, root: Path, site: Path, facts: Mapping[str, Any], chapters: Sequence[_Chapter]
) -> PdfReader:
    """Title and contents, with the numbers of the pages."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    captions = {part["chapters"][0]["file"]: part["caption"] for part in toc["parts"]}
    made = (
        f"Built at the profile {facts['profile']} by llbook {facts['llbook']} on "
        f"{facts['device']} ({facts['platform']})."
    )
    length = 0
    while True:
        lines, number = [], length + 1
        for chapter in chapters:
            if caption := captions.get(chapter.name):
                lines.append(f"<h2>{escape(caption)}</h2>")
            address = (site / f"{chapter.name}.html").as_uri()
            lines.append(
                f'<p><a href="{address}">{escape(chapter.title)}</a><span>{number}</span></p>'
            )
            number += len(chapter.reader.pages)
        tab.set_content(
            _FRONT.format(
                title=escape(config["title"]),
                author=escape(config["author"]),
                made=escape(made),
                lines="\n".join(lines),
            )
        )
        reader = PdfReader(BytesIO(_printed(tab)))
        # its own length moves the numbers in it
        if len(reader.pages) == length:
            return reader
        length = len(reader.pages)


def _numbers(tab: Page, count: int) -> PdfReader:
    """So many empty pages with their numbers at the foot."""
    tab.set_content(
        '<div style="break-after: page">&nbsp;</div>' * (count - 1) + "<div>&nbsp;</div>"
    )
    number = '<span class="pageNumber"></span>'
    style = "color: #555; font: 9px sans-serif; text-align: center; width: 100%"
    printed = tab.pdf(
        format="A4",
        margin=_MARGINS,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=f'<div style="{style}">{number}</div>',
    )
    return PdfReader(BytesIO(printed))


def _write(
    target: Path,
    title: str,
    site: Path,
    front: PdfReader,
    chapters: Sequence[_Chapter],
    numbers: PdfReader,
) -> None:
    writer = PdfWriter()
    first: dict[str, int] = {}
    places: dict[tuple[str, str], tuple[int, float]] = {}
    page = len(front.pages)
    for chapter in chapters:
        first[chapter.name] = page
        for place, destination in chapter.reader.named_destinations.items():
            at = chapter.reader.get_destination_page_number(destination)
            if at is not None:
                key = chapter.name, unquote(place.lstrip("/"))
                places[key] = page + at, float(destination.top or 0)
        page += len(chapter.reader.pages)
    readers = [("", front), *((chapter.name, chapter.reader) for chapter in chapters)]
    links: list[tuple[int, Link]] = []
    for name, reader in readers:
        for sheet in reader.pages:
            at = len(writer.pages)
            for area, goal in _sheet_links(sheet, name, site):
                if isinstance(goal, str):
                    links.append((at, Link(rect=area, url=goal)))
                elif (found := places.get(goal)) or goal[0] in first:
                    number, top = found or (first[goal[0]], 0.0)
                    fit = Fit.xyz(left=None, top=top) if top else Fit.fit_horizontally()
                    links.append((at, Link(rect=area, target_page_index=number, fit=fit)))
            if "/Annots" in sheet:
                del sheet["/Annots"]
            added = writer.add_page(sheet)
            if at:  # none on the title
                added.merge_page(numbers.pages[at])
            added.compress_content_streams()
    for at, link in links:
        writer.add_annotation(at, link)
    for chapter in chapters:
        writer.add_outline_item(title=chapter.title, page_number=first[chapter.name])
    writer.add_metadata({"/Title": title})
    writer.root_object[NameObject("/Lang")] = TextStringObject("en")
    writer.compress_identical_objects()
    with replacing(target) as temporary, open(temporary, "wb") as file:
        writer.write(file)


def _sheet_links(
    sheet: PageObject, name: str, site: Path
) -> Iterator[tuple[RectangleObject, str | tuple[str, str]]]:
    """Where the links of a printed page are, and what they lead to: an address, or (page, place)."""
    for reference in sheet.get("/Annots") or []:
        note = reference.get_object()
        if note.get("/Subtype") != "/Link":
            continue
        area = RectangleObject(note["/Rect"])
        if (place := note.get("/Dest")) is not None:
            yield area, (name, unquote(str(place).lstrip("/")))
        elif url := (note.get("/A") or {}).get("/URI"):
            goal = _target(site, str(url))
            if goal[0]:
                yield area, goal
            elif not str(url).startswith("file:"):  # downloads are not part of the document
                yield area, str(url)


_FRONT = """<!doctype html><html lang="en"><meta charset="utf-8"><style>
body {{ font: 17px/1.5 "DejaVu Sans", Verdana, Arial, sans-serif; margin: 0; }}
header {{ break-after: page; padding-top: 30vh; text-align: center; }}
h1 {{ font-size: 34px; line-height: 1.3; text-wrap: balance; }}
h2 {{ break-after: avoid; font-size: 19px; margin: 26px 0 6px; }}
p {{ display: flex; justify-content: space-between; gap: 2em; margin: 4px 0; }}
header p {{ display: block; margin-top: 1.5em; }}
a {{ color: inherit; text-decoration: none; }}
</style><header><h1>{title}</h1><p>{author}</p><p>{made}</p></header>
<main><h1>Contents</h1>{lines}</main></html>"""
