"""Many parameter sets of one notebook's experiment, on Dask.

A *point* is a parameter set; its result is the stored run that the notebook
itself would take. So a point that is in the store is not computed again, a
failed one stops no other, and one whose worker is lost is given to another.
The table of results, a row per point, and a notebook that draws it lie in
``runs/sweeps/<notebook>-<first 12 digits of the points' SHA-256>/``: the same
sweep has the same place.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from llbook.experiments.experiment import registry
from llbook.parameters import ParameterError
from llbook.publish.executor import execute_once
from llbook.publish.kernel import Settings
from llbook.publish.notebooks import NotebookError
from llbook.publish.schema import Schema
from llbook.report.sweep import last_measures
from llbook.runs.files import scratch, unwritable, write_json, write_text
from llbook.runs.provenance import cores, device_kind, provenance
from llbook.runs.store import quietly, stored_only

__all__ = ["POINT_LIMIT", "Sweep", "SweepError", "sweep", "sweep_points"]

POINT_LIMIT = 10_000
"""Most points of a sweep."""

LOST_WORKERS = 3
"""How many workers may die over a point before it counts as failed."""

_PATIENCE = 10  # seconds for a scheduler to answer
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)\Z")
_NO_RANGE = re.compile(r"[-+.\deE]*\.\.[-+.\deE]*\Z")  # it may have been meant as one; no path is


class SweepError(RuntimeError):
    """A sweep that cannot be made; the message says why."""


@dataclass(frozen=True)
class Sweep:
    """What became of a sweep.

    Attributes:
        table: the CSV file of results.
        notebook: the executed notebook that draws it; None where no point has a result.
        failed: the points without a result, each with the reason.
    """

    table: Path
    notebook: Path | None
    failed: list[str]


def sweep_points(
    schema: Schema,
    axes: Iterable[tuple[str, str]],
    sets: Sequence[Mapping[str, Any]] = ({},),
    base: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Every parameter set with every combination of the axes' values, each once.

    Args:
        schema: the notebook's.
        axes: name and values: ``("seed", "0..9")``, ``("size", "512,4096")``.
        sets: what to combine them with.
        base: short name → value, changed in all of them beforehand.

    Returns:
        Short name → value for each point, checked.

    Raises:
        ParameterError: an unknown name, a bad value, none or too many points.
    """
    lists: dict[str, list[Any]] = {}
    for name, text in axes:
        short = schema.resolve(name, text)
        if short in lists:
            raise ParameterError(
                f"{schema.parameters[short].name}: given twice; expected one -p with all its values"
            )
        lists[short] = _values(schema.parameters[short].name, text)
    size = len(sets)
    for values in lists.values():
        size *= len(values)
    if not 1 <= size <= POINT_LIMIT:
        raise ParameterError(f"a sweep has 1 to {POINT_LIMIT:,} points, got {size:,}")
    points: list[dict[str, Any]] = []
    problems: dict[str, None] = {}
    for one in sets:
        for chosen in itertools.product(*lists.values()):
            given = [*(base or {}).items(), *one.items(), *zip(lists, chosen, strict=True)]
            try:
                point = schema.values(given)
            except ParameterError as error:
                problems |= dict.fromkeys(str(error).splitlines())
                continue
            if point not in points:
                points.append(point)
    if problems:
        raise ParameterError("\n".join(problems))
    return points


def _values(name: str, text: str) -> list[str]:
    values: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            raise ParameterError(
                f"{name}: got {text!r}; expected values with commas between, none of them empty"
            )
        if match := _RANGE.match(part):
            first, last = int(match[1]), int(match[2])
            if last < first:
                raise ParameterError(
                    f"{name}: got {part!r}; expected first..last, the last not below the first"
                )
            if (count := last - first + 1) > POINT_LIMIT:
                raise ParameterError(
                    f"a sweep has 1 to {POINT_LIMIT:,} points, got {count:,} values of {name}"
                )
            values += map(str, range(first, last + 1))
        elif _NO_RANGE.match(part):
            raise ParameterError(
                f"{name}: got {part!r}; expected first..last, both whole numbers, or values with "
                "commas between"
            )
        else:
            values.append(part)
    return values


def sweep(
    schema: Schema,
    settings: Settings,
    points: Sequence[Mapping[str, Any]],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Sweep:
    """Compute every point that is not stored, write the table, draw it.

    Args:
        schema: of a notebook that makes a stored run.
        settings: folders and reporting; the notebook ``sweep`` draws the table.
        points: short name → value, of :func:`sweep_points`.
        scheduler: address of a running Dask scheduler. Its workers have this package, and
            ``LLBOOK_BUILD`` there names their store. Processes of this machine unless given.
        workers: how many such processes; one per core, or one in all where there is a GPU.
        progress: show a bar on stderr instead of reporting every point.

    Raises:
        SweepError: Dask is not installed, the scheduler does not answer, the table cannot
            be drawn.
        UnknownName: the notebook makes no stored run.
        OSError: the results cannot be written; the path is in the message.
    """
    experiment = schema.stored_experiment().name
    start = time.perf_counter()
    configs = [dict(schema.config(point).flat()) for point in points]
    found = ((number, _stored(experiment, config)) for number, config in enumerate(configs))
    rows = {number: row for number, row in found if row is not None}
    labels = _labels(points)
    waiting = [number for number in range(len(points)) if number not in rows]
    settings.report(f"{schema.notebook}: {len(points)} points, {len(rows)} of them stored")
    if waiting:
        batch = uuid.uuid4().hex  # names are common to all that use a scheduler
        with _cluster(settings.build, scheduler, workers, len(waiting)) as (client, threads):
            if scheduler is not None and not client.ncores():  # they may yet come, from a queue
                settings.report(f"scheduler {scheduler} has no workers so far: waiting for them")
            futures = {
                client.submit(
                    *(_compute, experiment, configs[n], threads),
                    key=f"llbook-{batch}-{n}",
                    pure=False,
                ): n
                for n in waiting
            }
            for number, row in _results(client, futures, progress):
                rows[number] = row
                if not progress:
                    what = f"computed in {row['seconds']:.1f} s" if not row["error"] else "failed"
                    settings.report(f"{len(rows)}/{len(points)} {labels[number]}: {what}")
    folder = _folder(settings.build, schema, configs)
    write_text(folder / "table.csv", _table(schema, configs, [rows[n] for n in range(len(points))]))
    text = yaml.safe_dump(
        [{schema.parameters[k].name: v for k, v in point.items()} for point in points],
        sort_keys=False,
        allow_unicode=True,
    )
    write_text(folder / "points.yaml", text)
    facts = {
        "notebook": schema.notebook,
        "seconds": round(time.perf_counter() - start, 3),
        "points": len(points),
        "scheduler": scheduler,
        **provenance(),
    }
    write_json(folder / "sweep.json", facts)
    failed = [f"{labels[n]}: {row['error']}" for n, row in sorted(rows.items()) if row["error"]]
    drawn = _draw(folder, settings) if len(failed) < len(points) else None
    return Sweep(folder / "table.csv", drawn, failed)


def _stored(experiment: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of a point that is in this process's store."""
    try:
        with stored_only():
            return _row(experiment, values, "stored")
    except Exception:
        # where it is not that it is not stored, it is for the point's own computation to say what is wrong with it
        return None


def _compute(experiment: str, values: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """The row of a point, in a worker; what fails is returned, since Dask need not try it again."""
    import numba
    import torch

    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    if (found := _stored(experiment, values)) is not None:
        return found
    try:
        with quietly():
            return _row(experiment, values, "computed")
    except Exception as error:
        return _failure(f"{type(error).__name__}: {error}")


def _row(experiment: str, values: Mapping[str, Any], state: str) -> dict[str, Any]:
    """What a point came to: the measures of the last epoch of its run."""
    found = registry()[experiment]
    run = found.run(found.config.from_flat(values))
    facts = {"run": run.id, "state": state, "seconds": run.provenance["seconds"], "error": ""}
    return facts | {"measures": last_measures(run)}


def _failure(error: str) -> dict[str, Any]:
    return {"run": "", "state": "failed", "seconds": "", "error": error, "measures": {}}


@contextmanager
def _cluster(
    build: Path, scheduler: str | None, workers: int | None, tasks: int
) -> Iterator[tuple[Any, int]]:
    """A Dask client, and how many threads a point may use."""
    try:
        import dask
        import distributed
    except ImportError:
        raise SweepError(
            "a sweep needs Dask, which is not installed: python -m pip install 'llbook[sweep]', "
            "or, in the repository, make setup"
        ) from None
    options = {
        "distributed.scheduler.allowed-failures": LOST_WORKERS,
        "logging.distributed": "critical",
    }
    with dask.config.set(options):
        if scheduler is not None:
            try:
                client = distributed.Client(scheduler, timeout=_PATIENCE, set_as_default=False)
            except (OSError, ValueError, ImportError) as error:
                raise SweepError(f"--scheduler {scheduler}: no answer ({error})") from None
            with client:
                yield client, 1
            return
        most = workers or (1 if device_kind() == "cuda" else cores())
        number = min(most, tasks)
        with (
            scratch(build, ".dask-") as folder,
            distributed.LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                processes=True,
                memory_limit=None,  # what a point needs is not Dask's to count
                dashboard_address=None,
                local_directory=str(folder),
                silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client, max(1, cores() // number)


def _results(
    client: Any, futures: Mapping[Any, int], progress: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    import distributed
    from tqdm import tqdm

    bar = tqdm(total=len(futures), unit="point", disable=not progress, file=sys.stderr)
    with bar:
        for future in distributed.as_completed(futures, loop=client.loop):
            if future.status == "finished":
                row = future.result()
            else:
                error = future.exception()
                row = _failure(f"{type(error).__name__}: {error}")
                if error is None:
                    row = _failure("the scheduler was lost; the next call skips what is stored")
                if isinstance(error, distributed.KilledWorker):
                    row = _failure(f"{LOST_WORKERS + 1} workers died over it")
            bar.update()
            yield futures[future], row


def _folder(build: Path, schema: Schema, configs: Sequence[Mapping[str, Any]]) -> Path:
    content = json.dumps([schema.notebook, *configs], sort_keys=True).encode()
    name = f"{schema.notebook.replace('/', '-')}-{hashlib.sha256(content).hexdigest()[:12]}"
    folder = build / "runs" / "sweeps" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, folder, "make the folder") from None
    return folder


def _table(
    schema: Schema, configs: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> str:
    """CSV: a line per point, a column per parameter, per fact of the run and per measure."""
    dotted = schema.model.parameters()
    measures = list(dict.fromkeys(name for row in rows for name in row["measures"]))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*dotted.values(), "run", "state", "seconds", "error", *measures])
    for config, row in zip(configs, rows, strict=True):
        facts = [row[name] for name in ("run", "state", "seconds", "error")]
        results = [row["measures"].get(name, "") for name in measures]
        writer.writerow([*(config[short] for short in dotted), *facts, *results])
    return file.getvalue()


def _draw(folder: Path, settings: Settings) -> Path:
    try:
        notebook, _ = execute_once(
            "sweep",
            settings,
            {"table": str(folder / "table.csv")},
            partial=folder / "failed.ipynb",
        )
    except NotebookError as error:
        raise SweepError(
            f"the results are in {folder / 'table.csv'}, not drawn:\n{error}"
        ) from None
    write_text(folder / "sweep.ipynb", nbformat.writes(notebook))
    return folder / "sweep.ipynb"


def _labels(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each point has that not all have."""
    names = list(dict.fromkeys(name for point in points for name in point))
    varying = [n for n in names if any(p.get(n) != points[0].get(n) for p in points)]
    return [
        ", ".join(f"{name} = {point[name]}" for name in varying if name in point) or "the point"
        for point in points
    ]
