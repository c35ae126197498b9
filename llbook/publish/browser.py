"""The Chromium that prints the book and, in the tests, opens every page of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["NAMES", "NoBrowserError", "chromium", "chromium_path"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Programs that will do, the first found is taken."""


class NoBrowserError(RuntimeError):
    """No Chromium, or nothing to drive it with; the message says what to do."""


def chromium_path() -> str:
    """Where Chromium is: ``LLBOOK_CHROMIUM``, or the first of :data:`NAMES` on ``PATH``.

    Raises:
        NoBrowserError: there is none.
    """
    if path := os.environ.get("LLBOOK_CHROMIUM"):
        if shutil.which(path) is None:
            raise NoBrowserError(f"LLBOOK_CHROMIUM: got {path!r}, which is no program")
        return path
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise NoBrowserError(
        f"no Chromium: none of {', '.join(NAMES)} is on PATH, and LLBOOK_CHROMIUM is not set; "
        "install one (Debian: apt install chromium), or set LLBOOK_CHROMIUM to its path"
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, driven by Playwright, which is no download: it uses the installed one.

    Raises:
        NoBrowserError: no Chromium, or no Playwright.
    """
    path = chromium_path()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NoBrowserError(
            "Playwright is not installed: pip install 'llbook[book]', or make setup"
        ) from None
    with sync_playwright() as driver:
        # in containers there is neither a sandbox nor much shared memory
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()
