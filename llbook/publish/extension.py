"""The book's own Sphinx extension: what the theme and the bibliography leave undone.

- The bibliography announces a list to screen readers whose children are no list items.
- Beside the executed notebook, a page offers the text that it was made from.
- The reference of the package lists what the modules have, without a list to keep.
- Pages describe themselves to search engines and to those who cite them, and say in their foot when and
  from which commit they were built. With ``html: baseurl:`` in ``_config.yml`` they have their canonical
  address, social cards and a sitemap.
- With ``LLBOOK_REPOSITORY`` (``https://github.com/OWNER/NAME``) set, notebooks get
  buttons that open them in Colab and Binder, from the branch :data:`LAUNCH_BRANCH`, and pages one for issues.
- With ``LLBOOK_PDF``, the path of the book as one PDF, every page offers it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llbook.runs.provenance import commit, now

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

__all__ = ["LAUNCH_BRANCH", "PDF", "book_pdf", "repository", "setup"]

LAUNCH_BRANCH = "notebooks"
PDF = "llbook.pdf"
_MODULES = re.compile(r"^% modules: ([\w.]+)$", re.MULTILINE)
_REPOSITORY = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")


def repository() -> str | None:
    """``LLBOOK_REPOSITORY``, or None where it is not set.

    Raises:
        ValueError: it is not the address of a repository on GitHub.
    """
    url = os.environ.get("LLBOOK_REPOSITORY", "").rstrip("/").removesuffix(".git")
    if not url:
        return None
    if not _REPOSITORY.fullmatch(url):
        raise ValueError(f"LLBOOK_REPOSITORY: got {url!r}; expected https://github.com/OWNER/NAME")
    return url


def book_pdf() -> Path | None:
    """``LLBOOK_PDF``, the printed book that the site is to offer, or None where it is not set.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(text) if (text := os.environ.get("LLBOOK_PDF")) else None
    if path is not None and not path.is_file():
        raise ValueError(f"LLBOOK_PDF: got {text!r}; expected a file, as `llbook pdf` makes it")
    return path and path.resolve()


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinxext.opengraph")
    app.setup_extension("llbook.publish.previews")
    app.connect("config-inited", _launch_buttons)
    app.connect("config-inited", _address)
    app.connect("source-read", _list_modules)
    app.connect("autodoc-process-docstring", _bars)
    app.connect("autodoc-skip-member", _skip)
    # after the theme has made its list of buttons, before it draws them
    app.connect("html-page-context", _page, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _launch_buttons(app: Sphinx, config: Config) -> None:
    if (url := repository()) is None:
        return
    config.html_theme_options |= {
        "repository_url": url,
        "repository_branch": LAUNCH_BRANCH,
        "path_to_docs": "",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }


def _address(app: Sphinx, config: Config) -> None:
    """The foot of the pages, and what depends on the address of the site."""
    built, found = now()[:10], commit()
    foot = f"Built on {built}"
    if name := found["commit"]:
        foot += f" from commit {name[:7]}" + " with changes" * bool(found["dirty"])
    config.html_theme_options["extra_footer"] = f"<p>{foot}.</p>"
    config.ogp_site_name = config.html_title
    if config.html_baseurl:  # a folder: its pages are below it
        config.html_baseurl = config.html_baseurl.rstrip("/") + "/"
    config.ogp_site_url = config.html_baseurl or ""
    config.ogp_social_cards = {"enable": bool(config.html_baseurl)}
    if config.html_baseurl:
        app.setup_extension("sphinx_sitemap")
        config.sitemap_url_scheme = "{link}"


def _citation(app: Sphinx, pagename: str, title: str) -> str:
    """Meta tags by which a page is found and cited."""
    facts = {
        "title": f"{re.sub('<[^>]*>', '', title)}. {app.config.html_title}",
        "author": app.config.author,
        "publication_date": app.config.copyright,
        "online_date": now()[:10].replace("-", "/"),
    }
    if address := app.config.html_baseurl:
        facts["public_url"] = address + app.builder.get_target_uri(pagename)
    return "".join(
        f'<meta name="citation_{name}" content="{escape(str(value), quote=True)}" />\n'
        for name, value in facts.items()
    )


def _list_modules(app: Sphinx, document: str, source: list[str]) -> None:
    """A line ``% modules: NAME`` becomes the documentation of a package's modules, or of a module."""

    def listed(match: re.Match[str]) -> str:
        spec = importlib.util.find_spec(match[1])
        if spec is None:
            raise ValueError(f"{document}: no module {match[1]!r}")
        inner = pkgutil.iter_modules(spec.submodule_search_locations or ())
        names = sorted(f"{match[1]}.{module.name}" for module in inner) or [match[1]]
        for name in names:
            # all before autodoc begins: it leaves pydantic's base classes changed, and what is
            # derived from them after that is not fully defined
            importlib.import_module(name)
        return "\n\n".join(
            f"### `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```"
            for name in names
        )

    source[0] = _MODULES.sub(listed, source[0])


def _bars(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """A bar in a docstring is that of an absolute value, no mark of a substitution."""
    for number, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[number] = "``".join(parts)


def _skip(
    app: Sphinx, what: str, name: str, of: object, skip: bool, options: object
) -> bool | None:
    """Leave out what Matplotlib adds to each kind of figure."""
    module = getattr(of, "__module__", "")
    return True if name == "set" and str(module).startswith("matplotlib") else None


def _page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    if "body" in context:
        context["body"] = (
            context["body"]
            .replace('<div role="list" class="citation-list">', '<div class="citation-list">')
            .replace(' role="doc-biblioentry"', "")
        )
    if doctree:
        context["metatags"] += _citation(app, pagename, context["title"])
    for group in context.get("header_buttons", []):
        if group.get("label") != "download-buttons" or not doctree:
            continue
        buttons = group["buttons"]
        for button in buttons:
            if button["label"] == "download-source-button" and button["text"] == ".ipynb":
                button |= {"tooltip": "Download the executed notebook"}
                text = {
                    "type": "link",
                    "url": button["url"].removesuffix(".ipynb") + ".md",
                    "text": ".md",
                    "tooltip": "Download the text that the notebook is made from",
                    "icon": "fas fa-file",
                    "label": "download-text-button",
                }
                buttons.insert(buttons.index(button) + 1, text)
                break
        if book_pdf():
            book = {
                "type": "link",
                "url": context["pathto"](PDF, 1),
                "text": "book.pdf",
                "tooltip": "Download the whole book as one PDF",
                "icon": "fas fa-book",
                "label": "download-book-button",
            }
            buttons.append(book)
