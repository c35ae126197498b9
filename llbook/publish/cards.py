"""The pictures that others show beside a link to a page: its first figure, under its title.

With an address configured (``html: baseurl:``), sphinxext-opengraph gives every page a card of words.
Pages with a figure have theirs drawn anew, by the Chromium that also prints the book.
"""

from __future__ import annotations

import base64
import mimetypes
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

from llbook.publish.browser import chromium

__all__ = ["draw_cards"]

_CARD = """<style>
  body {{ display: flex; flex-direction: column; font: 34px sans-serif; gap: 16px; height: 552px; margin: 24px 36px }}
  p {{ color: #555; font-size: 22px; margin: 0 }}
  h1 {{ font-size: 40px; margin: 0 }}
  img {{ flex: 1; min-height: 0; object-fit: contain; width: 100% }}
</style><p>{site}</p><h1>{title}</h1><img src="data:{kind};base64,{picture}">"""


def draw_cards(site: Path) -> int:
    """Draw the cards of the pages that have a figure; returns how many.

    Args:
        site: the folder of the built site; pictures that its pages name in ``og:image`` are replaced.

    Raises:
        NoBrowserError: there are cards to draw, and no Chromium.
    """
    cards = {}
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        if "og:image" not in text:
            continue
        page = BeautifulSoup(text, "html.parser")
        said = {str(tag["property"]): str(tag["content"]) for tag in page.select("meta[property]")}
        figure = page.select_one("article figure img[src]")
        if figure is None or "og:image" not in said:
            continue
        source = urlsplit(str(figure["src"]))  # quoted as in every page
        picture = path.parent / unquote(source.path)
        if source.scheme or not picture.is_file():
            continue
        file = site / "_images" / "social_previews" / said["og:image"].rpartition("/")[2]
        cards[file] = _CARD.format(
            site=escape(said["og:site_name"]),
            title=escape(said["og:title"]),
            kind=mimetypes.guess_type(picture.name)[0],
            picture=base64.b64encode(picture.read_bytes()).decode("ascii"),
        )
    if cards:
        with chromium() as browser:
            # the size that sphinxext-opengraph has, and says in the page
            tab = browser.new_page(viewport={"width": 1146, "height": 600})
            for file, card in cards.items():
                tab.set_content(card)
                tab.screenshot(path=file)
    return len(cards)
