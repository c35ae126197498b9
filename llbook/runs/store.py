"""The run store: what an experiment computed, on disk, with where it comes from.

A **run** is a directory ``<store>/<kind>-<first 12 digits of its key>/``:

``arrays.npz``
    the results, NumPy arrays;
``run.json``
    configuration, provenance, the parts of the key, the SHA-256 of ``arrays.npz`` and
    that of all this.

The key is the SHA-256 over everything that decides the results: kind,
configuration (precision and data included), the source of the code that
computes them, library versions, Python version and device kind. When a run is
not found, its key parts are held against those of the nearest stored run, and
the store says what differs.

A **record** is a run too costly to repeat in a build, kept with the book: one
``.npz`` file with the same content and a SHA-256 over it
(``book/records/NAME.npz``). Runs and records of before these checksums have
none, and are read without.

Folders: ``LLBOOK_BUILD`` (default ``build/`` of the repository) holds the
store, ``LLBOOK_RECORDS`` (default ``book/records/``) the records.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

import llbook

__all__ = [
    "RECORD_LIMIT",
    "DamagedRun",
    "Entry",
    "NotStored",
    "Run",
    "RunStore",
    "build_folder",
    "changes",
    "commit",
    "cores",
    "default_store",
    "device_kind",
    "device_name",
    "explain",
    "load_record",
    "locked",
    "provenance_line",
    "record_path",
    "records_folder",
    "repository_root",
    "save_record",
    "source_hashes",
    "stored_only",
    "versions",
]

RECORD_LIMIT = 4_000_000
"""Largest record, in bytes."""

LIBRARIES = ("torch", "numpy", "numba")
"""Libraries whose versions are part of every key."""

_LOG = "LLBOOK_RUN_LOG"
_HEAD = frozenset({"id", "kind", "config", "provenance", "arrays_sha256", "sha256"})
_KIND = re.compile(r"[a-z][a-z0-9_-]*\Z")
_ID = re.compile(r"[a-z][a-z0-9_-]*-[0-9a-f]{12}\Z")
_ARRAY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


class DamagedRun(ValueError):
    """A stored run or record that is truncated, altered or not one at all."""


class NotStored(LookupError):
    """A run that would have to be computed, see :func:`stored_only`.

    Attributes:
        id: what it would be stored as.
        damage: what is wrong with the stored run of this id; empty when there is none.
        nearest: stored run → the phrases of :func:`explain`, the fewest first.
    """

    def __init__(self, id: str, damage: str, nearest: dict[str, list[str]]) -> None:
        super().__init__(f"run {id} is not stored")
        self.id, self.damage, self.nearest = id, damage, nearest


_STORED_ONLY = ContextVar("_STORED_ONLY", default=False)


@contextmanager
def stored_only() -> Iterator[None]:
    """Within it, :meth:`RunStore.load_or_compute` raises :class:`NotStored` and computes nothing."""
    token = _STORED_ONLY.set(True)
    try:
        yield
    finally:
        _STORED_ONLY.reset(token)


@dataclass(frozen=True)
class Run:
    """What one experiment computed.

    Attributes:
        id: ``<kind>-<first 12 hexadecimal digits of the key>``.
        kind: the experiment, for example ``"perceptron"``.
        config: its configuration, as JSON holds it.
        provenance: ``date`` (UTC, ISO 8601), ``seconds`` of wall time, ``device``
            and ``device_kind``, ``commit`` (or None) and ``dirty``, ``versions``,
            ``python``, ``platform``, ``llbook``, and the key and its parts.
        arrays: name → array.
        recorded: whether it is a record kept with the book.
    """

    id: str
    kind: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    recorded: bool = False

    @property
    def age(self) -> timedelta:
        """Time since it was computed."""
        return datetime.now(UTC) - datetime.fromisoformat(self.provenance["date"])


@dataclass(frozen=True)
class Entry:
    """What lies in a store, as :meth:`RunStore.entries` lists it.

    Attributes:
        id: its name in the store.
        path: the run's folder, or a file.
        state: ``"stored"``; ``"interrupted"``, a checkpoint to go on from;
            ``"damaged"``, moved aside or without a readable ``run.json``;
            ``"unfinished"``, left by a process that was killed while it stored.
        size: bytes.
        modified: when it was written.
        config, provenance: those of ``run.json``; empty where that cannot be read.
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
        return self.id.lstrip(".").partition(".")[0].rpartition("-")[0]

    @property
    def age(self) -> timedelta:
        """Time since it was written."""
        return datetime.now(UTC) - self.modified

    def outdated(self) -> list[str]:
        """Why this machine, as it is now, would never ask for it; empty when it might.

        Phrases of :func:`explain` on code, library versions and Python. A file that is
        new in a package is not noticed.
        """
        parts = self.provenance.get("parts", {})
        known = {part: parts[part] for part in ("code", "versions", "python") if part in parts}
        now: dict[str, Any] = {
            "code": {},
            "versions": versions(known.get("versions", {})),
            "python": _python(),
        }
        for file in known.get("code", {}):
            module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            try:
                now["code"][file] = source_hashes([module])[file]
            except (LookupError, ModuleNotFoundError):
                continue
        return explain(known, {part: now[part] for part in known})


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
        resumable: bool = False,
    ) -> Run:
        """The stored run of this key, or a new one.

        Of several processes that ask for the same run, one computes and the
        others wait for it. Nothing is stored when ``compute`` fails.

        Args:
            kind: name of the experiment: lower-case letters, digits, ``-`` and ``_``.
            config: everything that decides the results, as JSON types. A
                top-level ``device`` of ``"auto"``, ``"cpu"`` or ``"cuda"`` enters
                the key as the device kind that it comes to.
            compute: called without arguments when there is no such run.
            code: names of the modules and packages whose source decides the
                results; they are found, not imported.
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
        if not _KIND.match(kind):
            raise ValueError(f"kind must be lower-case letters, digits, '-' and '_', got {kind!r}")
        config = _plain(config, "config")
        device = device_kind(config.get("device", "auto"))
        parts = {
            "kind": kind,
            "config": {key: value for key, value in config.items() if key != "device"},
            "code": source_hashes(code),
            "versions": versions(),
            "python": _python(),
            "device": device,
        }
        key = hashlib.sha256(_canonical(parts)).hexdigest()
        name = f"{kind}-{key[:12]}"
        path = self.folder / name
        if _STORED_ONLY.get():
            damage = ""
            if path.exists():
                try:
                    return _load(path, key)
                except DamagedRun as error:
                    damage = str(error)
            raise NotStored(name, damage, self._nearest(parts))
        waiting = partial(self._say, name, "waiting", "another process is computing it")
        with locked(self.folder / f"{name}.lock", waiting):
            why = ""
            if path.exists():
                try:
                    run = _load(path, key)
                except DamagedRun as error:
                    aside = self._move_aside(path)
                    why = f"the stored run was damaged ({error}); moved to {aside.name}"
                else:
                    self._log(name, "stored", "", run.provenance["seconds"])
                    return run
            why = why or self._why(parts)
            progress = self.folder / f"{name}.checkpoint.safetensors"
            earlier = 0.0
            if resumable and progress.exists():
                from llbook.optimal.checkpoint import seconds_so_far

                why = "an interrupted search goes on"
                earlier = seconds_so_far(progress)
            self._say(name, "computing", why)
            start = time.perf_counter()
            arrays = _check_arrays(compute(progress) if resumable else compute())
            seconds = earlier + time.perf_counter() - start
            provenance = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "device": device_name(device),
                "device_kind": device,
                **commit(),
                "versions": parts["versions"],
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
                "llbook": llbook.__version__,
                "key": key,
                "parts": parts,
            }
            run = Run(name, kind, dict(config), provenance, arrays)
            _store(run, path)
            progress.unlink(missing_ok=True)
            self._log(name, "computed", why, seconds)
            return run

    def load(self, id: str) -> Run:
        """The stored run of this id.

        Raises:
            DamagedRun: it is truncated or altered.
            FileNotFoundError: there is none.
        """
        path = self.folder / id
        if not path.is_dir():
            raise FileNotFoundError(f"no run {path}")
        return _load(path)

    def entries(self) -> list[Entry]:
        """All that lies in the store, the newest first. Checksums are not compared."""
        found = []
        for path in self.folder.glob("*"):
            id, state, head = path.name, "stored", {}
            if id.endswith(".checkpoint.safetensors"):
                id, state = id.removesuffix(".checkpoint.safetensors"), "interrupted"
            elif re.search(r"\.damaged-\d+\Z", id):
                state = "damaged"
            elif id.endswith(".partial"):
                state = "unfinished"
            elif not _ID.match(id) or not path.is_dir():
                continue
            try:
                size = sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())
                modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except FileNotFoundError:  # another process has just removed it
                continue
            if state == "stored":
                try:
                    head = json.loads((path / "run.json").read_bytes())
                    head = {name: dict(head[name]) for name in ("config", "provenance")}
                    modified = datetime.fromisoformat(head["provenance"]["date"])
                except (OSError, ValueError, LookupError, TypeError):
                    state, head = "damaged", {}
            found.append(Entry(id, path, state, size, modified, **head))
        return sorted(found, key=lambda entry: (entry.modified, entry.id), reverse=True)

    def remove(self, entry: Entry) -> None:
        """Remove what :meth:`entries` listed.

        Raises:
            Timeout: a process holds the run's lock: it computes or reads it.
            OSError: it cannot be removed; the path is in the message.
        """
        name = entry.id.lstrip(".").partition(".")[0]
        # the lock itself stays: another process may be waiting for it
        with FileLock(self.folder / f"{name}.lock", timeout=0):
            try:
                if entry.path.is_dir():
                    # gone at once for others, even where removing takes a while
                    aside = entry.path.with_name(f".{name}.removed.partial")
                    shutil.rmtree(aside, ignore_errors=True)
                    entry.path.rename(aside)
                    shutil.rmtree(aside)
                else:
                    entry.path.unlink(missing_ok=True)
            except OSError as error:
                raise _unwritable(error, entry.path, "remove the run") from error

    def _why(self, parts: dict[str, Any]) -> str:
        """What the nearest stored run of this kind has otherwise."""
        for differences in self._nearest(parts).values():
            return "no such run; the nearest differs in " + _some(differences)
        return "no such run"

    def _nearest(self, parts: dict[str, Any]) -> dict[str, list[str]]:
        """Stored run of this kind → what it has otherwise, the fewest differences first."""
        found = {}
        for file in sorted(self.folder.glob(f"{parts['kind']}-*/run.json")):
            try:
                stored = json.loads(file.read_bytes())["provenance"]["parts"]
                if stored["kind"] == parts["kind"]:
                    found[file.parent.name] = explain(stored, parts)
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue
        return dict(sorted(found.items(), key=lambda item: len(item[1])))

    def _move_aside(self, path: Path) -> Path:
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        try:
            path.rename(aside)
        except OSError as error:
            raise _unwritable(error, path, "move a damaged run aside") from error
        return aside

    def _say(self, name: str, state: str, why: str) -> None:
        line = f"run {name}: {state}: {why}"
        if self._report is not None:
            self._report(line)
        elif _LOG not in os.environ:
            print(line, flush=True)

    def _log(self, name: str, state: str, why: str, seconds: float) -> None:
        _log({"id": name, "state": state, "why": why, "seconds": round(seconds, 3)})


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
        if isinstance(error, Timeout):
            raise
        raise _unwritable(error, path.parent, "write to the folder") from error
    try:
        yield
    finally:
        lock.release()


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


def record_path(name: str) -> Path:
    """Where the record of this name lies."""
    return records_folder() / f"{name}.npz"


def default_store() -> RunStore:
    """The store in :func:`build_folder`."""
    return RunStore(build_folder() / "runs")


def device_kind(device: str = "auto") -> str:
    """``"cuda"`` or ``"cpu"``: what ``device`` comes to on this machine."""
    if device != "auto":
        return device
    if importlib.metadata.version("torch").endswith("+cpu"):
        return "cpu"  # without the second and a half that the import takes
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(kind: str) -> str:
    """What the device calls itself, for example the CPU's model and its number of cores."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA device"
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            name = found[1]
    except OSError:
        pass
    return f"{name.strip()}, {cores()} cores"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Distribution → installed version; ``"none"`` for those not installed."""
    found = {}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "none"
    return found


def source_hashes(modules: Sequence[str]) -> dict[str, str]:
    """Source file → SHA-256, for modules and packages (with all that they contain).

    Nothing is imported. Files are named from their top-level package on, with
    forward slashes, so that the result is the same wherever it is installed.

    Raises:
        ModuleNotFoundError: a name that does not exist.
    """
    hashes: dict[str, str] = {}
    for module in modules:
        top, *rest = module.split(".")
        spec = importlib.util.find_spec(top)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no source of {module!r}: {top!r} was not found", name=top)
        if not spec.submodule_search_locations:
            base, files = Path(spec.origin).parent, [Path(spec.origin)] if not rest else []
        else:
            base = Path(spec.origin).parent.parent
            path = Path(spec.origin).parent.joinpath(*rest)
            file = path.with_name(f"{path.name}.py")
            files = sorted(path.rglob("*.py")) if path.is_dir() else [file] * file.is_file()
        if not files:
            raise ModuleNotFoundError(f"no source of {module!r} was found", name=module)
        for source in files:
            content = source.read_bytes().replace(b"\r\n", b"\n")
            hashes[source.relative_to(base).as_posix()] = hashlib.sha256(content).hexdigest()
    return dict(sorted(hashes.items()))


def explain(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The parts in which two keys differ, one phrase each: ``"config: seed 0 → 3"``.

    Parts named ``code`` or ``files`` map files to hashes: for them the file alone is named.
    """
    phrases = []
    for part in sorted(stored.keys() | wanted.keys()):
        before, after = (_flat(mapping.get(part)) for mapping in (stored, wanted))
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name), after.get(name)
            if old == new:
                continue
            if _is_hash(old) or _is_hash(new):
                what = "changed" if old and new else "new" if new else "gone"
                phrases.append(f"{part} {what}: {name}" if name else f"{part} {what}")
                continue
            change = f"{'none' if old is None else old} → {'none' if new is None else new}"
            label = f"{part}: {name}" if part not in ("versions", "") else name
            phrases.append(f"{label or part} {change}" if name else f"{part} {change}")
    return phrases


def save_record(run: Run, path: str | os.PathLike[str]) -> Path:
    """Write a run as one record: the same run gives the same bytes.

    Args:
        run: what to keep. Its arrays may be fewer than were computed.
        path: a file whose name ends in ``.npz``.

    Raises:
        ValueError: another suffix, or more than :data:`RECORD_LIMIT` bytes; nothing is written.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a record's name ends in .npz, got {path}")
    arrays = _check_arrays(run.arrays)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _write_arrays(archive, arrays, zipfile.ZIP_DEFLATED)
        head = {"id": run.id, "kind": run.kind, "config": run.config, "provenance": run.provenance}
        head["sha256"] = _checksum(head, arrays)
        archive.writestr(_member("run.json", zipfile.ZIP_DEFLATED), _readable(head))
    size = buffer.tell()
    if size > RECORD_LIMIT:
        largest = max(arrays, key=lambda name: arrays[name].nbytes)
        raise ValueError(
            f"{path}: a record may have {RECORD_LIMIT:,} bytes, this one has {size:,}; "
            f"its largest array is {largest!r}, {arrays[largest].nbytes:,} bytes uncompressed"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(error, path, "write the record") from error
    return path


def load_record(path: str | os.PathLike[str]) -> Run:
    """Read a record: a path, or the bare name of one in :func:`records_folder`.

    Raises:
        FileNotFoundError: no such record.
        DamagedRun: the file is truncated, altered or not a record.
    """
    path = Path(path)
    if path.suffix != ".npz" and path.parent == Path():
        path = record_path(path.name)
    if not path.is_file():
        raise FileNotFoundError(f"no record {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            head = json.loads(archive.read("run.json"))
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in names
            }
        _verify(head, arrays)
        run = Run(
            head["id"], head["kind"], head["config"], head["provenance"], arrays, recorded=True
        )
        seconds = float(run.provenance["seconds"])
    except (
        *(zipfile.BadZipFile, zlib.error, LookupError, ValueError, TypeError, AttributeError),
        *(NotImplementedError, RuntimeError, EOFError, OSError),  # zipfile's, at flipped bytes
    ) as error:
        raise DamagedRun(f"{path}: not a complete record ({error})") from error
    _log({"id": run.id, "state": "recorded", "why": path.name, "seconds": seconds})
    return run


def provenance_line(run: Run, notebook: str, defaults: Mapping[str, Any]) -> str:
    """One line of small print for under a figure.

    Args:
        run: what the figure shows.
        notebook: name of the notebook that draws it.
        defaults: configuration to compare with, nested as ``run.config`` is;
            only parameters that differ are named.

    Returns:
        For example ``"perceptron · seed = 3 · run perceptron-0123456789ab · live run,
        2 cores, 2026-01-31, commit 0123456"``. A recorded run says so. The
        line names the day of the computation rather than whether it came out
        of the store, so that it stays true when the outputs are reused.
    """
    changed = changes(run.config, defaults)
    origin = [
        "recorded run" if run.recorded else "live run",
        str(run.provenance["device"]),
        str(run.provenance["date"])[:10],
    ]
    if commit := run.provenance.get("commit"):
        origin.append(f"commit {commit[:7]}" + " with changes" * bool(run.provenance["dirty"]))
    parts = [notebook, ", ".join(changed) or "default parameters", f"run {run.id}"]
    return " · ".join([*parts, ", ".join(origin)])


def changes(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The parameters of ``config`` that differ from ``defaults``: ``["seed = 3"]``."""
    flat, usual = _flat(config), _flat(_plain(defaults, "defaults"))
    return [
        f"{name.rpartition('.')[2]} = {_short(value)}"
        for name, value in flat.items()
        if value != usual.get(name)
    ]


def _store(run: Run, path: Path) -> None:
    """Write a run's directory at once: complete or not at all."""
    # only the holder of the run's lock comes here, so the name is free to take
    unfinished = path.with_name(f".{path.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        with open(unfinished / "arrays.npz", "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                _write_arrays(archive, run.arrays, zipfile.ZIP_STORED)
            file.flush()
            os.fsync(file.fileno())
        with open(unfinished / "arrays.npz", "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        head = {
            "id": run.id,
            "kind": run.kind,
            "config": run.config,
            "provenance": run.provenance,
            "arrays_sha256": checksum,
        }
        head["sha256"] = _checksum(head)
        with open(unfinished / "run.json", "wb") as file:
            file.write(_readable(head))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        # what is removed after this is needed no more, even after a power cut
        _sync_folder(path)
        _sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise _unwritable(error, path, "store the run") from error


def _sync_folder(path: Path) -> None:
    """Put the names in a folder on disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _load(path: Path, key: str | None = None) -> Run:
    """Read a run and compare its checksums; of this ``key``, or of whichever its name begins."""
    try:
        head = json.loads((path / "run.json").read_bytes())
        found = head["provenance"]["key"]
        if found != (key or found) or not path.name.endswith(f"-{found[:12]}"):
            raise ValueError("its key is another")
        if hashlib.sha256(_canonical(head["provenance"]["parts"])).hexdigest() != found:
            raise ValueError("run.json does not have the parts of its key")
        _verify(head)
        with open(path / "arrays.npz", "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != head["arrays_sha256"]:
                raise ValueError("arrays.npz does not have the stored checksum")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        return Run(head["id"], head["kind"], head["config"], head["provenance"], arrays)
    except FileNotFoundError as error:
        raise DamagedRun(f"{Path(error.filename).name} is missing") from error
    except LookupError as error:
        raise DamagedRun(f"run.json lacks {error}") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise DamagedRun(f"{error.filename} is not what is stored there") from error
    except (ValueError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        raise DamagedRun(str(error)) from error


def _checksum(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> str:
    """SHA-256 over a head without its own, and over the arrays: name, type, shape and bytes."""
    digest = hashlib.sha256(_canonical({k: v for k, v in head.items() if k != "sha256"}))
    for name, array in sorted((arrays or {}).items()):
        digest.update(_canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _verify(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
    if unknown := head.keys() - _HEAD:
        raise ValueError(f"run.json has {', '.join(sorted(unknown))} unexpectedly")
    if "sha256" in head and head["sha256"] != _checksum(head, arrays):
        raise ValueError("the content does not have the stored checksum")


def _check_arrays(arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    if not isinstance(arrays, Mapping):
        raise TypeError(f"results must map names to arrays, got {type(arrays).__name__}")
    checked = {}
    for name, value in arrays.items():
        if not isinstance(name, str) or not _ARRAY.match(name):
            raise ValueError(f"an array's name is letters, digits, '.', '-' and '_', got {name!r}")
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r}: dtype {array.dtype} cannot be stored without pickle")
        checked[name] = array
    return checked


def _plain(value: Any, path: str) -> Any:
    """``value`` as JSON would give it back."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path}: keys must be strings, got {key!r}")
        return {key: _plain(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if not np.isfinite(value):
            raise ValueError(f"{path}: expected a finite number, got {value!r}")
        return value
    raise TypeError(
        f"{path}: expected JSON types (None, bool, int, float, str, list, dict), "
        f"got {value!r} of type {type(value).__name__}"
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {} if value is None and not prefix else {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _some(phrases: Sequence[str], most: int = 3) -> str:
    rest = len(phrases) - most
    return "; ".join(phrases[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _python() -> str:
    return "{}.{}".format(*sys.version_info)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _canonical(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _readable(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _write_arrays(
    archive: zipfile.ZipFile, arrays: Mapping[str, NDArray[Any]], compression: int
) -> None:
    for name in sorted(arrays):
        with archive.open(_member(f"{name}.npy", compression), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, arrays[name], allow_pickle=False)


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    # a fixed date: equal content gives equal bytes
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = compression
    info.external_attr = 0o644 << 16
    return info


def _unwritable(error: OSError, path: Path, what: str) -> OSError:
    return OSError(error.errno, f"cannot {what}: {error.strerror or error}", str(path))


def _log(entry: Mapping[str, Any]) -> None:
    if path := os.environ.get(_LOG):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def commit() -> dict[str, Any]:
    """The repository's commit and whether tracked files differ from it; None outside of git.

    Records are no source of a run, and change while several are written one after another.
    """
    root = repository_root()
    unknown = {"commit": None, "dirty": None}
    if root is None or not (root / ".git").exists():
        return unknown
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "-uno", "--", ".", ":(exclude)book/records"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"commit": commit, "dirty": bool(status)}
