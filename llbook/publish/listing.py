"""What lies below ``build/runs``, for ``llbook runs``: stored runs and executed notebooks."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from llbook.experiments.experiment import Experiment, registry
from llbook.parameters import ParameterError, nearest
from llbook.publish.runner import executed_notebooks
from llbook.publish.schema import Schema, UnknownName
from llbook.publish.tables import readable
from llbook.runs.entries import Entry, entries
from llbook.runs.files import leftovers, remove, size
from llbook.runs.key import changes, flat
from llbook.runs.run import DamagedRun
from llbook.runs.store import NotStored, RunStore, stored_only

__all__ = ["Prunable", "notebooks", "prunable", "recorded", "show", "stored", "why"]


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
        for entry in entries(build / "runs")
    ]


def notebooks(build: Path) -> list[dict[str, Any]]:
    """A row per executed notebook, likewise."""
    return [
        {
            "id": folder.name,
            "state": facts["state"],
            "parameters": [f"{name} = {value}" for name, value in facts["changed"].items()],
            "size": size(folder),
            "age": round(_age(facts["date"]).total_seconds()),
            "machine": facts.get("device", "unknown"),
        }
        for folder, facts in executed_notebooks(build).items()
    ]


def show(build: Path, id: str) -> dict[str, Any]:
    """All that is known of one run or executed notebook.

    Raises:
        UnknownName: there is none, or several begin with ``id``.
        DamagedRun: the run's content does not have its checksum.
    """
    known, folders = _everything(build)
    found = _one(id, [*known, *folders])
    if found in folders:
        facts = dict(folders[found])
        lists = {"parameters": facts.pop("parameters"), "runs": facts.pop("runs", [])}
        lists["runs"] = {run["id"]: run["state"] for run in lists["runs"]}
        facts.pop("changed")
        return {"id": found, "folder": str(build / "runs" / "notebooks" / found), **facts, **lists}
    entry = known[found]
    shown = {
        "id": found,
        "state": entry.state,
        "folder": str(entry.path),
        "size": entry.size,
        "age": round(entry.age.total_seconds()),
    }
    if not entry.config:
        return shown
    facts = {k: v for k, v in entry.provenance.items() if k not in ("parts", "versions")}
    facts |= {f"{name} version": v for name, v in entry.provenance.get("versions", {}).items()}
    shown |= {
        "outdated": entry.outdated() or "no",
        "parameters": flat(entry.config),
        "provenance": facts,
    }
    if entry.state == "stored":
        try:
            arrays = RunStore(build / "runs").load(found).arrays
        except DamagedRun as error:
            raise DamagedRun(f"{found} is damaged: {error}; it will be computed anew") from None
        shown["arrays"] = {name: f"{a.dtype} {a.shape}" for name, a in sorted(arrays.items())}
    return shown


def why(schema: Schema, values: Mapping[str, Any]) -> list[str]:
    """Whether the run of a notebook is stored, and else how the nearest ones differ; in lines.

    Raises:
        UnknownName: the notebook shows no run.
    """
    try:
        with stored_only():
            run = schema.run(values)
    except NotStored as error:
        reason = f"the stored one is damaged: {error.damage}" if error.damage else "not stored"
        if error.begun:
            return [f"{error.id}: interrupted; it would go on from its checkpoint"]
        lines = [f"{error.id}: {reason}; it would be computed"]
        for id, differences in [*error.nearest.items()][:3]:
            lines.append(f"  {id} differs in (stored → asked for)")
            lines += [f"    {line}" for line in differences or ["nothing: its name is another's"]]
        return lines if error.nearest else [*lines, "  there is no run of its kind in the store"]
    return [f"{run.id}: stored, {readable('age', run.age.total_seconds())} old; it would be used"]


@dataclass(frozen=True)
class Prunable:
    """Something to remove, why, and how; ``remove`` returns what prevented it, or nothing."""

    id: str
    size: int
    why: str
    remove: Callable[[], str]


def recorded(patterns: Sequence[str] = ()) -> dict[str, Experiment[Any]]:
    """Recorded run or sweep → its experiment: of the names given, or of all.

    Args:
        patterns: names, which may hold ``*`` and ``?``.

    Raises:
        UnknownName: nothing is called so; the nearest is named.
    """
    known = {name: e for e in registry().values() for name in e.record_names()}
    chosen: dict[str, None] = {} if patterns else dict.fromkeys(known)
    for pattern in patterns:
        if not (found := fnmatch.filter(known, pattern)):
            hint = nearest(pattern, known)
            raise UnknownName(f"no recorded run is called {pattern!r}; {hint}")
        chosen |= dict.fromkeys(found)
    return {name: known[name] for name in chosen}


def prunable(
    build: Path, ids: Sequence[str] = (), older_than: float | None = None
) -> list[Prunable]:
    """What to remove: the runs named, or else those of no use.

    Args:
        build: the build folder.
        ids: beginnings of ids.
        older_than: days from which what could be used is removed as well; not beside ids.

    Raises:
        ParameterError: no number of days, or ids as well.
        UnknownName: there is no such run, or several begin so.
    """
    if older_than is not None and not older_than >= 0:
        raise ParameterError(f"older than: got {older_than:g}; expected days, at least 0")
    if older_than is not None and ids:
        raise ParameterError(
            f"older than: got {older_than:g} and runs by name; expected one of them"
        )
    known, folders = _everything(build)
    left = {
        path.relative_to(build).as_posix(): path
        for path in leftovers(build)
        if path.parent != build / "runs"  # those are among the entries
    }
    chosen = {_one(id, [*known, *folders]): "named" for id in ids}
    for id, entry in known.items() if not ids else ():
        if entry.state in ("damaged", "unfinished"):
            chosen[id] = entry.state
        elif outdated := entry.outdated():
            chosen[id] = outdated[0] + (f"; and {len(outdated) - 1} more" if outdated[1:] else "")
        elif older_than is not None and entry.age / timedelta(days=1) > older_than:
            chosen[id] = "old"
    for id, facts in folders.items() if not ids else ():
        if older_than is not None and _age(facts["date"]) / timedelta(days=1) > older_than:
            chosen[id] = "old"
    chosen |= dict.fromkeys(left if not ids else (), "unfinished")
    found = []
    for id, why in chosen.items():
        if id in known:
            found.append(Prunable(id, known[id].size, why, partial(_remove_run, known[id])))
        else:
            path = left.get(id, build / "runs" / "notebooks" / id)
            found.append(Prunable(id, size(path), why, partial(_remove, path)))
    return found


def _everything(build: Path) -> tuple[dict[str, Entry], dict[str, dict[str, Any]]]:
    # a search that is interrupted has the name of the run that it will be
    known = {
        entry.id if entry.state != "interrupted" else f"{entry.id}.checkpoint": entry
        for entry in entries(build / "runs")
    }
    return known, {path.name: facts for path, facts in executed_notebooks(build).items()}


def _one(id: str, known: list[str]) -> str:
    if id in known:
        return id
    found = [name for name in known if name.startswith(id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownName(f"{id!r} is the beginning of {len(found)}: {', '.join(found[:5])}")
    raise UnknownName(f"no run {id!r}; `llbook runs` lists them")


def _remove_run(entry: Entry) -> str:
    try:
        entry.remove()
    except Timeout:
        return f"{entry.id}: left, a process is using it"
    except OSError as error:
        return str(error)
    return ""


def _remove(path: Path) -> str:
    try:
        remove(path)
    except OSError as error:
        return f"{path}: left, {error.strerror}"
    return ""


def _changed(entry: Entry) -> list[str]:
    if (experiment := registry().get(entry.kind)) is None:
        return changes(entry.config, {})
    defaults = experiment.config().model_dump()
    return changes({k: v for k, v in entry.config.items() if k in defaults}, defaults)


def _age(date: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(date)
