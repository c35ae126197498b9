"""Stories in simple words: TinyStories, a local file, or the grammar of this project.

The grammar is what tests and the pages built on a laptop use.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llbook.data.grammar import grammar_stories

__all__ = [
    "SEPARATOR",
    "Corpus",
    "download_tinystories",
    "load_corpus",
    "read_stories",
    "stories",
    "text_at_hand",
    "text_file",
    "text_name",
]

SEPARATOR = "<|endoftext|>"

HUB_REPOSITORY = "roneneldan/TinyStories"
HUB_REVISION = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
HUB_FILE = "TinyStories-train.txt"
# As several public repositories give it. It was not checked against the hub by this project.
HUB_SHA256 = "c5cf5e22ff13614e830afbe61a99fbcbe8bcb7dd72252b989fa1117a368d401f"
# Corpus.sha256 of files known to be taken from it.
TINYSTORIES = ("a61af7600bd5b7f14e367de571eceaa23706d2223c7e3664b38bd1d55ef172b7",)
# All 2 million are far more than any experiment here takes, and minutes of tokenising.
MOST_STORIES = 50_000
_INSTRUCTIONS = (
    "give a text file with the parameter path or the variable LLBOOK_TINYSTORIES, "
    "or use corpus='grammar'"
)


def read_stories(path: str | os.PathLike[str], count: int | None = None) -> list[str]:
    """Read stories from a UTF-8 text file (``.gz`` or plain), a ``<|endoftext|>`` line between two.

    Args:
        count: stop after this many; all of them by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a count below 1, text that is not UTF-8, or no story at all.
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    path = Path(path)
    found: list[str] = []
    lines: list[str] = []

    def close() -> None:
        story = "".join(lines).strip()
        lines.clear()
        if story:
            found.append(story)

    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for line in file:
                if line.strip() == SEPARATOR:
                    close()
                    if count is not None and len(found) == count:
                        return found
                else:
                    lines.append(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    close()
    if not found:
        raise ValueError(f"expected stories separated by {SEPARATOR!r} lines, got none in {path}")
    return found


def stories(count: int, seed: int = 0, path: str = "") -> list[str]:
    """Stories from ``path``, else from the file named by ``LLBOOK_TINYSTORIES``, else the grammar's.

    Raises:
        ValueError: see the two sources; and a file with fewer than ``count`` stories.
    """
    path = path or os.environ.get("LLBOOK_TINYSTORIES", "")
    if not path:
        return grammar_stories(count, seed)
    found = read_stories(path, count)
    if len(found) < count:
        raise ValueError(f"asked for {count} stories, {path} has {len(found)}")
    return found


@dataclass(frozen=True)
class Corpus:
    """Stories, and which they are.

    Attributes:
        name: ``"tinystories"``, from the hub or a file known to be of it; ``"file"``; or ``"grammar"``.
        texts: the stories.
        sha256: of the stories in UTF-8, joined by lines with the separator.
        notice: one line that says what was used, to be shown.
    """

    name: str
    texts: tuple[str, ...]
    sha256: str
    notice: str


def load_corpus(
    source: str = "auto", path: str = "", *, count: int | None = None, seed: int = 0
) -> Corpus:
    """The stories of an experiment.

    Args:
        source: ``"auto"``: the file at ``path``, else the one that
            ``LLBOOK_TINYSTORIES`` names, else TinyStories where it was downloaded
            before, else the grammar, with a notice that says so. ``"tinystories"``:
            the file named, else the hub's, downloaded where it has to be.
            ``"grammar"``: the grammar.
        path: a UTF-8 text file, plain or ``.gz``.
        count: at most this many stories, from the front; 50,000 unless given. The
            grammar draws so many (2,000 by default).
        seed: of the grammar's draw.

    Raises:
        ValueError: an unknown source, a file without stories; a download that is
            not the file expected.
        FileNotFoundError: no such file.
        ConnectionError: TinyStories was asked for by name and could not be had.
    """
    file = text_file(source, path)
    if file is None:
        notice = "Text: stories drawn from this book's own grammar, NOT TinyStories."
        if source == "auto":
            notice += (
                " TinyStories is neither here nor was it asked for by name; to use real text, "
                "set LLBOOK_TINYSTORIES, the parameter path, or corpus='tinystories'."
            )
        return _corpus("grammar", grammar_stories(2000 if count is None else count, seed), notice)
    texts = read_stories(file, MOST_STORIES if count is None else count)
    if path or os.environ.get("LLBOOK_TINYSTORIES"):
        return _corpus("file", texts, f"Text: {len(texts):,} stories of {file.name}.")
    notice = f"Text: the first {len(texts):,} stories of TinyStories."
    return _corpus("tinystories", texts, notice)


def text_file(source: str = "auto", path: str = "") -> Path | None:
    """The file that :func:`load_corpus` reads, now; None where it draws from the grammar.

    Raises:
        ValueError, ConnectionError: as there.
        FileNotFoundError: ``LLBOOK_TINYSTORIES`` names no file.
    """
    if source not in ("auto", "tinystories", "grammar"):
        raise ValueError(f"corpus must be 'auto', 'tinystories' or 'grammar', got {source!r}")
    if source == "grammar":
        if path:
            raise ValueError(f"corpus='grammar' reads no file, got path={path!r}")
        return None
    if path:
        return Path(path)
    if named := os.environ.get("LLBOOK_TINYSTORIES", ""):
        if not Path(named).is_file():
            raise FileNotFoundError(
                f"LLBOOK_TINYSTORIES: got {named!r}; expected the name of a file that exists"
            )
        return Path(named)
    return download_tinystories(cached_only=source == "auto")


def text_at_hand() -> str:
    """What ``"auto"`` without a path reads now: the SHA-256 of the file, or ``"grammar"``.

    Raises:
        FileNotFoundError: ``LLBOOK_TINYSTORIES`` names no file.
        OSError: it cannot be read.
        ValueError: a download that is not the file expected.
    """
    file, named = text_file(), os.environ.get("LLBOOK_TINYSTORIES", "")
    if file is None:
        return "grammar"
    if not named:
        return HUB_SHA256  # checked already
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _corpus(name: str, texts: Sequence[str], notice: str) -> Corpus:
    digest = hashlib.sha256(f"\n{SEPARATOR}\n".join(texts).encode()).hexdigest()
    return Corpus(text_name(name, digest), tuple(texts), digest, notice)


def text_name(name: str, sha256: str) -> str:
    """Which text it is, by its digest where that is known, else as it was called."""
    return "tinystories" if sha256 in TINYSTORIES else name


def download_tinystories(*, cached_only: bool = False, sha256: str = HUB_SHA256) -> Path | None:
    """TinyStories' training text from the Hugging Face hub, checked before use.

    ``huggingface_hub`` caches it, and goes on with a download that was interrupted.
    The variables HF_ENDPOINT and HF_HOME work as everywhere. A file that was
    checked is not hashed again until its size or time changes.

    Args:
        cached_only: make no request; None where it was not downloaded before.
        sha256: the checksum expected.

    Raises:
        ConnectionError: it cannot be downloaded; says what else to do.
        ValueError: its checksum is another; the file is not used.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        if cached_only:
            return None
        raise ConnectionError(
            f"TinyStories needs huggingface_hub (pip install huggingface_hub); or {_INSTRUCTIONS}"
        ) from error
    try:
        path = Path(
            hf_hub_download(
                HUB_REPOSITORY,
                HUB_FILE,
                repo_type="dataset",
                revision=HUB_REVISION,
                local_files_only=cached_only,
                token=False,
            )
        )
    except LocalEntryNotFoundError as error:
        if cached_only:
            return None
        raise ConnectionError(
            f"no network and no cached TinyStories ({error}); {_INSTRUCTIONS}"
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"TinyStories was not downloaded ({error}); {_INSTRUCTIONS}"
        ) from error
    facts = path.stat()
    mark = path.with_name(f"{path.name}.checked")
    checked = f"{sha256} {facts.st_size} {facts.st_mtime_ns}"
    if mark.is_file() and mark.read_text() == checked:
        return path
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        raise ValueError(
            f"{path} has SHA-256 {got}, expected {sha256}; it is not used. Delete it to download "
            f"it again; or {_INSTRUCTIONS}"
        )
    with suppress(OSError):  # a cache that is read only is checked each time
        mark.write_text(checked)
    return path
