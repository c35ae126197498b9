"""What links to theorems, equations, figures, symbols and references show before they are followed.

The fragments of all pages stand in one script, ``_static/previews.js``, which a page loads when a
link is first pointed at: this works from disk and without a network.
"""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bs4 import BeautifulSoup, Tag

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["fragments", "setup"]

_SHOWN = "div.proof[id], div.exercise[id], div.math[id], figure[id], div.citation[id]"
_NOT_SHOWN = ".headerlink, .eqno, .backrefs"


def fragments(body: str) -> dict[str, str]:
    """Id → HTML of what can be shown of a page, without ids and links of its own."""
    page = BeautifulSoup(body, "html.parser")
    found = {str(own["id"]): str(_alone(own)) for own in page.select(_SHOWN)}
    for row in page.select("tr:has([id^=symbol-])"):  # of the notation, as a line
        cells = [_alone(cell).decode_contents() for cell in row.select("td > p")[:2]]
        if len(cells) < 2:
            raise ValueError(f"a row of the notation needs a symbol and a meaning, got {row}")
        name, meaning = cells
        found[str(row.select("[id^=symbol-]")[0]["id"])] = f"<p>{name}: {meaning}</p>"
    return found


def _alone(own: Tag) -> Tag:
    tag = copy(own)  # an equation in a theorem is shown alone too
    for inner in tag.select(_NOT_SHOWN):
        inner.decompose()
    for inner in (tag, *tag.select("[id]")):
        del inner["id"]
    for link in tag.select("a"):
        link.unwrap()
    return tag


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    found: dict[str, str] = {}

    def collect(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
        if tree:
            address = app.builder.get_target_uri(page)
            found.update({f"{address}#{k}": html for k, html in fragments(context["body"]).items()})

    def write(app: Sphinx, exception: Exception | None) -> None:
        if exception is None and app.builder.format == "html":
            data = json.dumps(found, ensure_ascii=False, sort_keys=True)
            file = Path(app.outdir) / "_static" / "previews.js"
            file.write_text(f"window.llbookPreviews = {data};\n", encoding="utf-8")

    app.connect("html-page-context", collect)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
