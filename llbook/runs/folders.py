"""Where things lie: ``LLBOOK_BUILD`` and ``LLBOOK_RECORDS``, or folders of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import llbook

__all__ = ["build_folder", "records_folder", "repository_root"]


def repository_root() -> Path | None:
    """The repository that this package is used from, or None when it is installed elsewhere."""
    root = Path(llbook.__file__).resolve().parent.parent
    return root if (root / "_toc.yml").is_file() and (root / "pyproject.toml").is_file() else None


def build_folder() -> Path:
    """``LLBOOK_BUILD``, or ``build/`` of the repository, or the user's cache folder."""
    if folder := os.environ.get("LLBOOK_BUILD"):
        return Path(folder).resolve()
    if (root := repository_root()) is not None:
        return root / "build"
    import platformdirs

    return platformdirs.user_cache_path("llbook", appauthor=False)


def records_folder() -> Path:
    """``LLBOOK_RECORDS``, or ``book/records/`` of the repository, or what came with the package.

    Raises:
        FileNotFoundError: there is neither.
    """
    if folder := os.environ.get("LLBOOK_RECORDS"):
        return Path(folder).resolve()
    if (root := repository_root()) is not None:
        return root / "book" / "records"
    if (installed := Path(llbook.__file__).parent / "records").is_dir():
        return installed
    raise FileNotFoundError(
        "the recorded runs did not come with the installed package; "
        "set LLBOOK_RECORDS to the folder book/records of the repository"
    )
