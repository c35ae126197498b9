"""The run store: what an experiment computed, on disk, and found again by what decides it.

A stored run is a file ``<store>/<kind>-<first 12 digits of its key>.npz``, see
:mod:`llbook.runs.run`. The key is the SHA-256 over everything that decides the results: kind,
configuration (precision and data included), the source of the code that computes them, library
versions, Python version and device kind. When a run is not found, its key parts are held against
those of the nearest stored run, and the store says what differs.

While a run is computed that can be interrupted, ``<id>.checkpoint.safetensors`` is what its
computation keeps to go on from, and ``<id>.checkpoint.json`` says what it is of.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, cached_property, partial
from heapq import nsmallest
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from llbook.runs.files import locked, replacing, set_aside, write_json
from llbook.runs.folders import build_folder
from llbook.runs.key import digest, explain, flat, key_parts, plain
from llbook.runs.provenance import now, provenance
from llbook.runs.run import (
    RUN_LOG,
    DamagedRun,
    Run,
    check_arrays,
    log_use,
    read_head,
    read_run,
    write_run,
)

__all__ = [
    "CHECKPOINT",
    "STARTED",
    "NotStored",
    "RunStore",
    "default_store",
    "quietly",
    "stored_only",
]

CHECKPOINT, STARTED = ".checkpoint.safetensors", ".checkpoint.json"
"""How the names of the two files end."""

_NEAREST = 3  # so many are explained

_stored_only = ContextVar("_stored_only", default=False)
_quiet = ContextVar("_quiet", default=False)


class NotStored(LookupError):
    """A run that would have to be computed, see :func:`stored_only`.

    Attributes:
        id: what it would be stored as.
        damage: what is wrong with the stored run of this id; empty when there is none.
        begun: whether there is a checkpoint, from which it would go on.
    """

    def __init__(
        self, id: str, damage: str, begun: bool, find: Callable[[], dict[str, list[str]]]
    ) -> None:
        super().__init__(f"run {id} is not stored")
        self.id, self.damage, self.begun, self._find = id, damage, begun, find

    @cached_property
    def nearest(self) -> dict[str, list[str]]:
        """Some stored runs of its kind → the phrases of ``explain``, the fewest first.

        Looked for when it is asked for: every stored run has to be read.
        """
        return self._find()


def stored_only() -> AbstractContextManager[None]:
    """Within it, :meth:`RunStore.load_or_compute` raises :class:`NotStored` and computes nothing."""
    return _within(_stored_only)


def quietly() -> AbstractContextManager[None]:
    """Within it, stores do not say, and do not find out, why something is computed."""
    return _within(_quiet)


@contextmanager
def _within(setting: ContextVar[bool]) -> Iterator[None]:
    token = setting.set(True)
    try:
        yield
    finally:
        setting.reset(token)


class RunStore:
    """Runs in a folder, each computed once.

    Args:
        folder: where the runs lie; made when the first one is stored.
        report: receives the lines that say what was computed, and why.
            Default: ``print``, or, in a build of the book, the build's log.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, report: Callable[[str], None] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._report = report

    def load_or_compute(
        self,
        kind: str,
        config: Mapping[str, Any],
        compute: Callable[..., Mapping[str, NDArray[Any]]],
        code: Sequence[str],
        *,
        libraries: Sequence[str] = (),
        resumable: bool = False,
    ) -> Run:
        """The stored run of this key, or a new one.

        Of several processes that ask for the same run, one computes and the
        others wait for it. Nothing is stored when ``compute`` fails. A stored run
        is found in a store that cannot be written to as well.

        Args:
            kind: name of the experiment: lower-case letters, digits, ``-`` and ``_``.
            config: everything that decides the results, as JSON types. A
                top-level ``device`` of ``"auto"``, ``"cpu"`` or ``"cuda"`` enters
                the key as the device kind that it comes to.
            compute: called without arguments when there is no such run.
            code: names of the modules and packages whose source decides the
                results; they are found, not imported.
            libraries: distributions whose version decides the results, beside
                those that every run depends on.
            resumable: call ``compute`` with a path of its own, where it may keep what
                it needs to go on after an interruption. The path is the key's, so
                another configuration or code never finds it; the file is removed
                once the run is stored.

        Raises:
            TypeError: ``config`` or a result is of a type that cannot be stored.
            ValueError: an ill-formed ``kind`` or array name.
            ModuleNotFoundError: a name in ``code`` that does not exist.
            OSError: the store cannot be written to; the path is in the message.
            NotStored: within :func:`stored_only`, the run is not there, or is damaged.
        """
        settings = plain(config, "config")
        parts = key_parts(kind, settings, code, libraries)
        key = digest(parts)
        id = f"{kind}-{key[:12]}"
        run, damage = self._find(id, key)
        if run is None and _stored_only.get():
            begun = (self.folder / f"{id}{CHECKPOINT}").is_file()
            raise NotStored(id, damage, begun, partial(self._nearest, parts))
        if run is None:
            waiting = partial(self._say, id, "waiting", "another process is computing it")
            with locked(self.folder / f"{id}.lock", waiting):
                run, damage = self._find(id, key)  # another process may have been here
                if run is None:
                    facts = provenance(parts["device"], [*parts["versions"]])
                    facts |= {"key": key, "parts": parts, "seconds": 0.0}
                    started = Run(id, kind, settings, facts, {})
                    return self._computed(started, compute, self._why(started, damage), resumable)
        log_use(run, "stored")
        return run

    def _computed(
        self,
        started: Run,
        compute: Callable[..., Mapping[str, NDArray[Any]]],
        why: str,
        resumable: bool,
    ) -> Run:
        """The run that was ``started``, with its results; stored."""
        facts = started.provenance
        checkpoint, notes = (self.folder / f"{started.id}{end}" for end in (CHECKPOINT, STARTED))
        if resumable and checkpoint.exists():
            why = "an interrupted search goes on"
            facts["seconds"] = _seconds_before(checkpoint, notes)
        for left in self.folder.glob(f".{started.id}.*.partial"):
            left.unlink(missing_ok=True)  # of a process that was killed: the lock is ours
        self._say(started.id, "computing", why)
        start = time.perf_counter()
        if resumable:
            write_json(notes, {"config": started.config, "provenance": facts}, "store the run")
        try:
            arrays = check_arrays(compute(checkpoint) if resumable else compute())
        except BaseException:
            if not checkpoint.exists():
                notes.unlink(missing_ok=True)
            raise
        seconds = round(facts["seconds"] + time.perf_counter() - start, 3)
        facts |= {"date": now(), "seconds": seconds}
        run = replace(started, arrays=arrays)
        with replacing(self._path(run.id), "store the run", durable=True) as temporary:
            write_run(run, temporary)
        checkpoint.unlink(missing_ok=True)
        notes.unlink(missing_ok=True)
        log_use(run, "computed", why)
        return run

    def load(self, id: str) -> Run:
        """The stored run of this id.

        Raises:
            DamagedRun: it is truncated or altered.
            FileNotFoundError: there is none.
        """
        run, damage = self._find(id)
        if damage:
            raise DamagedRun(damage)
        if run is None:
            raise FileNotFoundError(f"no run {self._path(id)}")
        return run

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.npz"

    def _find(self, id: str, key: str | None = None) -> tuple[Run | None, str]:
        """The run, of this ``key`` or of whichever its id begins, or what is wrong with it."""
        try:
            run = read_run(self._path(id))
        except FileNotFoundError:
            return None, ""
        except DamagedRun as error:
            return None, str(error)
        found = str(run.provenance.get("key"))
        if found != (key or found) or not id.endswith(f"-{found[:12]}"):
            return None, "its key is another"
        if digest(run.provenance.get("parts", {})) != found:
            return None, "run.json does not have the parts of its key"
        return run, ""

    def _why(self, started: Run, damage: str) -> str:
        """Why it is computed; a damaged run is moved aside."""
        if damage:
            aside = set_aside(self._path(started.id))
            return f"the stored run was damaged ({damage}); moved to {aside.name}"
        nearest = {} if _quiet.get() else self._nearest(started.provenance["parts"])
        for phrases in nearest.values():
            rest = len(phrases) - 3
            listed = "; ".join(phrases[:3]) + (f"; and {rest} more" if rest > 0 else "")
            return f"no such run; the nearest differs in {listed}"
        return "no such run"

    def _nearest(self, parts: dict[str, Any]) -> dict[str, list[str]]:
        """The stored runs of this kind with the fewest differences → these, as phrases."""
        wanted, found = flat(parts), []
        for path in self.folder.glob(f"{parts['kind']}-*.npz"):
            try:
                status = path.stat()
                stored, values = _parts(path, status.st_mtime_ns, status.st_size)
            except (OSError, DamagedRun, LookupError, TypeError, AttributeError):
                continue
            if values.get("kind") == parts["kind"]:
                names = values.keys() | wanted.keys()
                differing = sum(values.get(name) != wanted.get(name) for name in names)
                found.append((differing, path.stem, stored))
        nearest = nsmallest(_NEAREST, found, key=lambda one: one[:2])
        return {id: explain(stored, parts) for _, id, stored in nearest}

    def _say(self, id: str, state: str, why: str) -> None:
        line = f"run {id}: {state}: {why}"
        if self._report is not None:
            self._report(line)
        elif RUN_LOG not in os.environ and not _quiet.get():
            print(line, flush=True)


@cache
def _parts(path: Path, modified: int, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key parts of a stored run, nested and flat; the time and the size say which version of it."""
    stored = dict(read_head(path)["provenance"]["parts"])
    return stored, flat(stored)


def _seconds_before(checkpoint: Path, notes: Path) -> float:
    """Computing time in a checkpoint: of each attempt, from its start to the last it wrote."""
    try:
        earlier = float(json.loads(notes.read_bytes())["provenance"]["seconds"])
        return earlier + max(0.0, checkpoint.stat().st_mtime - notes.stat().st_mtime)
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0


def default_store() -> RunStore:
    """The store in :func:`build_folder`."""
    return RunStore(build_folder() / "runs")
