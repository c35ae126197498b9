"""All that lies in a run store, to be listed and removed: runs, checkpoints, and what is of no use."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock

from llbook.runs.files import remove, size, unwritable
from llbook.runs.key import outdated
from llbook.runs.run import read_head
from llbook.runs.store import CHECKPOINT, STARTED

__all__ = ["Entry", "entries"]

_RUN = re.compile(r"(?P<id>[a-z][a-z0-9_-]*-[0-9a-f]{12})(?P<end>\..*)?\Z")


@dataclass(frozen=True)
class Entry:
    """One of :func:`entries`.

    Attributes:
        id: its name in the store.
        path: where it lies.
        state: ``"stored"``; ``"interrupted"``, a computation to go on with;
            ``"damaged"``, moved aside or no run that can be read;
            ``"unfinished"``, left by a process that was killed while it stored.
        size: bytes.
        modified: when it was written.
        config, provenance: of the run; empty where they cannot be read.
    """

    id: str
    path: Path
    state: str
    size: int
    modified: datetime
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The experiment."""
        return self._run.rpartition("-")[0]

    @property
    def age(self) -> timedelta:
        """Time since it was written."""
        return datetime.now(UTC) - self.modified

    def outdated(self) -> list[str]:
        """Why this machine, as it is now, would never ask for it; empty when it might."""
        return outdated(self.provenance.get("parts", {}))

    def remove(self) -> None:
        """Remove it.

        Raises:
            Timeout: a process holds the run's lock: it computes it.
            OSError: it cannot be removed; the path is in the message.
        """
        # the lock itself stays: another process may be waiting for it
        with FileLock(self.path.with_name(f"{self._run}.lock"), timeout=0):
            try:
                remove(self.path)
                if self.state == "interrupted":
                    self.path.with_name(f"{self._run}{STARTED}").unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(error, self.path, "remove the run") from error

    @property
    def _run(self) -> str:
        return self.id.lstrip(".").partition(".")[0]


def entries(folder: Path) -> list[Entry]:
    """All that lies in a store, the newest first. Checksums are not compared."""
    found = []
    for path in folder.glob("*"):
        if (state := _state(path)) is None:
            continue
        try:
            bytes_ = size(path)
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:  # another process has just removed it
            continue
        id, known = path.name, {}
        if state in ("stored", "interrupted"):
            id = path.name.partition(".")[0]
            try:
                if state == "stored":
                    head = read_head(path)
                    modified = datetime.fromisoformat(head["provenance"]["date"])
                else:
                    head = json.loads(path.with_name(f"{id}{STARTED}").read_bytes())
                known = {name: dict(head[name]) for name in ("config", "provenance")}
            except (OSError, ValueError, LookupError, TypeError):
                state = "damaged" if state == "stored" else state
        found.append(Entry(id, path, state, bytes_, modified, **known))
    return sorted(found, key=lambda entry: (entry.modified, entry.id), reverse=True)


def _state(path: Path) -> str | None:
    name = path.name
    if re.search(r"\.damaged-\d+\Z", name):
        return "damaged"
    if name.endswith(".partial"):
        return "unfinished"
    if not (run := _RUN.match(name)):
        return None
    match run["end"]:
        case ".npz":
            return "stored"
        case None:  # a folder, as runs were stored formerly
            return "damaged"
        case ".checkpoint.safetensors":
            return "interrupted"
        case ".checkpoint.json":  # killed before there was a checkpoint
            return None if path.with_name(f"{run['id']}{CHECKPOINT}").exists() else "interrupted"
        case _:
            return None
