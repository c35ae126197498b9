"""The book as one PDF, and the browser that prints it."""

import re
import shutil
import threading
import unicodedata
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import ROOT, run_llbook
from filelock import FileLock
from matplotlib.image import imread, imsave

from llbook.publish import browser, cards
from llbook.publish.pdf import print_book
from llbook.publish.site import BookError, pages


@pytest.fixture(scope="module")
def printed(book, chromium, tmp_path_factory):
    """What ``llbook pdf`` made of the book, as pypdf reads it, and its text without spaces."""
    pypdf = pytest.importorskip("pypdf")
    folder = tmp_path_factory.mktemp("pdf") / "build"
    folder.mkdir()
    for name in ("html", "notebooks"):
        (folder / name).symlink_to(book / name)
    result = run_llbook("pdf", build=folder)
    assert result.returncode == 0, result.stderr
    return pypdf.PdfReader(folder / "llbook.pdf")


def words(text):
    return re.sub(r"\W+", "", unicodedata.normalize("NFKC", text))  # ligatures are two letters


def test_every_page_of_the_book_is_in_it_with_a_bookmark(printed, book):
    text = [words(sheet.extract_text()) for sheet in printed.pages]
    assert len(text) > len(pages(ROOT))
    assert "MathProcessingError" not in "".join(text)
    bookmarks = printed.outline
    assert len(bookmarks) == len(pages(ROOT))
    starts = [printed.get_destination_page_number(mark) for mark in bookmarks]
    assert starts == sorted(set(starts))
    contents = "".join(text[1 : starts[0]])
    for name, mark, start in zip(pages(ROOT), bookmarks, starts, strict=True):
        page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
        title = re.search(r"<title>(.*?) &#8212;", page, re.DOTALL)[1]
        assert words(title.replace("&amp;", "&")) == words(mark.title)
        assert words(mark.title) in text[start]
        assert words(mark.title) in contents
    assert all(sheet.endswith(str(number)) for number, sheet in enumerate(text[1:], 2))


def test_every_equation_and_figure_is_in_it(printed, book):
    text = "".join(words(sheet.extract_text()) for sheet in printed.pages)
    figures = 0
    for name in pages(ROOT):
        page = (book / "html" / f"{name}.html").read_text(encoding="utf-8")
        for number in re.findall(r'class="caption-number">Fig\. (\d+)', page):
            assert f"Fig{number}" in text
            figures += 1
        for number in re.findall(r'class="eqno">\((\d+)\)', page):
            assert number in text
    assert figures > 30


def test_links_stay_inside_and_name_no_path_of_this_machine(printed, book):
    inside = 0
    for sheet in printed.pages:
        for note in sheet.get("/Annots") or []:
            link = note.get_object()
            address = str(link.get("/A", {}).get("/URI", ""))
            assert not address.startswith("file:")
            inside += not address
    assert inside > 200
    assert str(book) not in str(printed.metadata)
    assert printed.metadata.title.startswith("Towards Optimal Learning")


def test_a_book_that_is_not_built_is_not_printed(tmp_path):
    with pytest.raises(BookError, match="build the book first"):
        print_book(ROOT, tmp_path)


def test_a_build_that_goes_on_is_waited_for(tmp_path):
    said, waiting = [], threading.Event()

    def report(line):
        said.append(line)
        waiting.set()

    def print_it():
        with pytest.raises(BookError, match="build the book first"):
            print_book(ROOT, tmp_path, report=report)
        said.append("ended")

    with FileLock(tmp_path / ".lock"):
        thread = threading.Thread(target=print_it)
        thread.start()
        assert waiting.wait(60)
        assert said == [f"waiting for a build in {tmp_path}"]
    thread.join(60)
    assert said[-1] == "ended"


def test_no_browser_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("LLBOOK_CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(browser.NoBrowserError, match="LLBOOK_CHROMIUM"):
        browser.chromium_path()
    monkeypatch.setenv("LLBOOK_CHROMIUM", "/no/such/program")
    with pytest.raises(browser.NoBrowserError, match="'/no/such/program', which is no program"):
        browser.chromium_path()


def test_cards_have_pictures_of_any_name(chromium, tmp_path, monkeypatch):
    """Sphinx quotes them; a picture from elsewhere, or none, is no card."""
    monkeypatch.setattr(cards, "chromium", lambda: nullcontext(chromium))
    (tmp_path / "_images" / "social_previews").mkdir(parents=True)
    imsave(tmp_path / "_images" / "a ä.png", np.zeros((4, 4, 3)))
    sources = {
        "one": 'src="_images/a%20%C3%A4.png"',
        "two": 'src="https://example.org/a.png"',
        "three": 'src="_images/none.png"',
        "four": "",
    }
    for name, source in sources.items():
        said = {"image": f"https://example.org/{name}.png", "title": name, "site_name": "book"}
        head = "".join(f'<meta property="og:{key}" content="{it}">' for key, it in said.items())
        page = f"{head}<article><figure><img {source}></figure></article>"
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    assert cards.draw_cards(tmp_path) == 1
    drawn = [path.name for path in (tmp_path / "_images" / "social_previews").iterdir()]
    assert drawn == ["one.png"]
    assert imread(tmp_path / "_images" / "social_previews" / "one.png").shape[:2] == (600, 1146)
