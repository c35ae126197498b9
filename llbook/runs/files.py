"""Files that are written whole or not at all, locks, and what killed processes leave behind."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

__all__ = [
    "in_use",
    "leftovers",
    "locked",
    "remove",
    "replacing",
    "scratch",
    "set_aside",
    "size",
    "unwritable",
    "write_json",
    "write_text",
]

_MARK = ".in-use"
_UNFINISHED = (".*.partial", ".run-*", ".dask-*")
_RESTING = 3600  # seconds without a change, after which nobody is still writing


@contextmanager
def replacing(path: Path, what: str = "write", *, durable: bool = False) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` at the end; after an error nothing is left of it.

    Args:
        path: the file to make or replace; its folder is made.
        what: for the message, "cannot ``what``".
        durable: let not even a power cut undo what was written.

    Raises:
        OSError: it cannot be written; the path is in the message.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable and os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)  # the name is the folder's
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException as error:
        with suppress(OSError):  # the message is about the first error
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(error, path, what) from error
        raise


def write_text(path: Path, text: str, what: str = "write") -> None:
    """Make or replace a file, in UTF-8; raises as :func:`replacing` does."""
    with replacing(path, what) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, what: str = "write") -> None:
    """Likewise, of a value of JSON types."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", what)


def unwritable(error: OSError, path: Path | str, what: str) -> OSError:
    """The error with the path, and with what could not be done."""
    return OSError(error.errno, f"cannot {what}: {error.strerror or error}", str(path))


def set_aside(path: Path) -> Path:
    """Rename what is damaged, to ``NAME.damaged-1`` or the next name that is free; returns that.

    Raises:
        OSError: it cannot be renamed; the path is in the message.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise unwritable(error, path, "move what is damaged aside") from error
    return aside


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, whose folder is made; ``waiting`` is called first if another has it.

    Raises:
        OSError: the folder cannot be written to; its path is in the message.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        raise unwritable(error, path.parent, "write to the folder") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """An empty folder below ``parent``, which is made, to work in; in the end it is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name, in_use(Path(name)):
        yield Path(name)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Mark a folder as no left-over, for as long as this process lives and does not leave."""
    mark = folder / _MARK
    try:
        with FileLock(mark):
            yield
    finally:
        mark.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """What killed processes left anywhere in a folder: files half written, folders to work in.

    A folder that a living process marked with :func:`in_use` is none, nor is what has no mark
    and changed within the last hour.
    """
    found = {path for pattern in _UNFINISHED for path in folder.rglob(pattern)}
    return sorted(path for path in found if found.isdisjoint(path.parents) and _abandoned(path))


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file())


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    mark = path / _MARK
    try:
        if not mark.is_file():
            return time.time() - path.stat().st_mtime > _RESTING
        with FileLock(mark, timeout=0):
            return True
    except OSError:  # a process holds the mark, or has just removed all of it
        return False
