"""What lies below ``build/runs``, for ``llbook runs``: stored runs and executed notebooks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from llbook.experiments.experiment import registry
from llbook.publish.runner import executed_notebooks
from llbook.runs.store import Entry, RunStore, changes

__all__ = ["Prunable", "notebooks", "prunable", "show", "stored"]


def stored(build: Path) -> list[dict[str, Any]]:
    """A row per entry of the run store: id, state, parameters that differ from the defaults of
    their experiment, size in bytes, age in seconds, machine."""
    return [
        {
            "id": entry.id,
            "state": entry.state,
            "parameters": _changed(entry),
            "size": entry.size,
            "age": round(entry.age.total_seconds()),
            "machine": entry.provenance.get("device", "unknown"),
        }
        for entry in RunStore(build / "runs").entries()
    ]


def notebooks(build: Path) -> list[dict[str, Any]]:
    """A row per executed notebook, likewise."""
    return [
        {
            "id": folder.name,
            "state": facts["state"],
            "parameters": [f"{name} = {value}" for name, value in facts["changed"].items()],
            "size": _size(folder),
            "age": round(_age(facts["date"]).total_seconds()),
            "machine": facts.get("device", "unknown"),
        }
        for folder, facts in executed_notebooks(build).items()
    ]


def show(build: Path, id: str) -> dict[str, Any]:
    """All that is known of one run or executed notebook.

    Raises:
        LookupError: there is none, or several begin with ``id``.
        DamagedRun: the run's content does not have its checksum.
    """
    store, entries, folders = _everything(build)
    found = _one(id, [*entries, *folders])
    if found in folders:
        facts = dict(folders[found])
        lists = {"parameters": facts.pop("parameters"), "runs": facts.pop("runs", [])}
        lists["runs"] = {run["id"]: run["state"] for run in lists["runs"]}
        facts.pop("changed")
        return {"id": found, "folder": str(build / "runs" / "notebooks" / found), **facts, **lists}
    entry = entries[found]
    shown = {
        "id": found,
        "state": entry.state,
        "folder": str(entry.path),
        "size": entry.size,
        "age": round(entry.age.total_seconds()),
    }
    if entry.state != "stored":
        return shown
    run = store.load(found)
    provenance = {k: v for k, v in run.provenance.items() if k not in ("parts", "versions")}
    return {
        **shown,
        "outdated": entry.outdated() or "no",
        "parameters": dict(_flat(run.config)),
        "provenance": provenance | {f"{n} version": v for n, v in _versions(run).items()},
        "arrays": {name: f"{a.dtype} {a.shape}" for name, a in sorted(run.arrays.items())},
    }


@dataclass(frozen=True)
class Prunable:
    """Something to remove, why, and how; ``remove`` returns what prevented it, or nothing."""

    id: str
    size: int
    why: str
    remove: Callable[[], str]


def prunable(
    build: Path, ids: Sequence[str] = (), older_than: timedelta | None = None
) -> list[Prunable]:
    """What to remove: the runs named, or else those of no use.

    Raises:
        LookupError: there is no such run, or several begin so.
    """
    store, entries, folders = _everything(build)
    chosen = {_one(id, [*entries, *folders]): "named" for id in ids}
    for id, entry in entries.items() if not ids else ():
        if entry.state in ("damaged", "unfinished"):
            chosen[id] = entry.state
        elif outdated := entry.outdated():
            chosen[id] = outdated[0] + (f"; and {len(outdated) - 1} more" if outdated[1:] else "")
        elif older_than is not None and entry.age > older_than:
            chosen[id] = "old"
    for id, facts in folders.items() if not ids else ():
        if older_than is not None and _age(facts["date"]) > older_than:
            chosen[id] = "old"
    found = []
    for id, why in chosen.items():
        if id in folders:
            folder = build / "runs" / "notebooks" / id
            found.append(Prunable(id, _size(folder), why, partial(_remove_folder, folder)))
        else:
            entry = entries[id]
            found.append(Prunable(id, entry.size, why, partial(_remove_run, store, entry)))
    return found


def _everything(build: Path) -> tuple[RunStore, dict[str, Entry], dict[str, dict[str, Any]]]:
    store = RunStore(build / "runs")
    entries = {}
    for entry in store.entries():
        # a search that is interrupted has the name of the run that it will be
        name = entry.id if entry.state != "interrupted" else f"{entry.id}.checkpoint"
        entries[name] = entry
    return store, entries, {path.name: facts for path, facts in executed_notebooks(build).items()}


def _one(id: str, known: list[str]) -> str:
    if id in known:
        return id
    found = [name for name in known if name.startswith(id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise LookupError(f"{id!r} is the beginning of {len(found)}: {', '.join(found[:5])}")
    raise LookupError(f"no run {id!r}; `llbook runs` lists them")


def _remove_run(store: RunStore, entry: Entry) -> str:
    try:
        store.remove(entry)
    except Timeout:
        return f"{entry.id}: left, a process is using it"
    except OSError as error:
        return str(error)
    return ""


def _remove_folder(folder: Path) -> str:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        return f"{folder}: left, {error.strerror}"
    return ""


def _changed(entry: Entry) -> list[str]:
    experiment = registry().get(entry.kind)
    if experiment is None:
        return changes(entry.config, {})
    defaults = experiment.config().model_dump()
    return changes({k: v for k, v in entry.config.items() if k in defaults}, defaults)


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in config.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs


def _versions(run: Any) -> dict[str, str]:
    return run.provenance.get("versions", {})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _age(date: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(date)
