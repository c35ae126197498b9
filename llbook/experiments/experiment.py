"""What an experiment is, and which there are.

An experiment is one file: a configuration, how a task is made of it, what is measured of
its policies, and the settings that are recorded. All else is here, once: from a
configuration to arrays, to a run in the store, to a record kept with the book. A new one
needs one more line, in :data:`REGISTERED`.
"""

from __future__ import annotations

import hashlib
import json
import math
import pkgutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch.distributed

from llbook.experiments.collecting import Arrays, Collector, SearchConfig, collected
from llbook.optimal.distributed import process_count, start, told
from llbook.optimal.search import search
from llbook.runs.policies import Deposit, list_policy, save_policy
from llbook.runs.provenance import provenance
from llbook.runs.records import load_record, record_path, save_record
from llbook.runs.run import Run
from llbook.runs.store import default_store
from llbook.tasks.task import Task

__all__ = ["REGISTERED", "Experiment", "Recorded", "registry"]

REGISTERED: tuple[str, ...] = (
    "llbook.experiments.perceptron:PERCEPTRON",
    "llbook.experiments.language_model:LANGUAGE_MODEL",
    "llbook.experiments.explorer:PERCEPTRON",
    "llbook.experiments.explorer:LANGUAGE_MODEL",
    "llbook.experiments.inner:INNER",
    "llbook.experiments.inner:LANGUAGE_MODEL",
    "llbook.experiments.schedule:LANGUAGE_MODEL",
    "llbook.selection.experiment:SELECTION",
    "llbook.selection.experiment:LANGUAGE_MODEL",
)
"""Where every experiment is found: ``module:name``, a line each."""


def registry() -> dict[str, Experiment[Any]]:
    """Every registered experiment by its name; imports their modules."""
    found = map(pkgutil.resolve_name, REGISTERED)
    return {experiment.name: experiment for experiment in found}


@dataclass(frozen=True)
class Recorded:
    """A setting whose runs are kept as records.

    Attributes:
        changes: flat parameters that differ from the configuration's defaults.
        seeds: a record for each.
        optional: there need not be a record: a larger setting, for those who have the machine.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    optional: bool = False


C = TypeVar("C", bound=SearchConfig)


def _no_facts(config: SearchConfig) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """A search over tasks that a configuration describes.

    Attributes:
        name: the kind of its runs, and how its records' names begin.
        config: its configuration.
        build: configuration → task, on the configuration's device.
        measure: what is collected of each measured policy, made from task and configuration.
        code: modules and packages whose source decides its results, beside those that
            all experiments share.
        recorded: settings that are kept as records, by name.
        sweeps: recorded sweeps, by name: flat parameters of each point, as changes to the
            defaults. One record holds a whole sweep.
        facts: what decides the results beside the configuration, as JSON types: a text's
            checksum.
        known_by_facts: dotted parameters that do not matter once the facts are known.
        libraries: distributions whose versions decide its results, beside those of every run.
        shared: whether several processes can share a search.
    """

    name: str
    config: type[C]
    build: Callable[[C], Task]
    measure: type[Collector]
    code: tuple[str, ...]
    recorded: Mapping[str, Recorded] = field(default_factory=dict)
    sweeps: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    facts: Callable[[C], dict[str, Any]] = _no_facts
    known_by_facts: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    shared: bool = False

    def all_code(self) -> tuple[str, ...]:
        """Modules and packages whose source decides its results."""
        return (*_CODE, *self.code)

    def compute(
        self, config: C, *, progress: bool = False, checkpoint: Path | None = None
    ) -> Arrays:
        """Search and measure: the arrays of a run, see :func:`~llbook.experiments.collecting.collected`."""
        task = self.build(config)
        return collected(
            task, config, self.measure(task, config), progress=progress, checkpoint=checkpoint
        )

    def run(self, config: C, *, progress: bool = False) -> Run:
        """The run of a configuration, from the run store where it is already there.

        An interrupted search goes on from its last epoch.
        """
        return self._run(config, progress, lambda path: None)

    def shared_run(self, config: C, *, progress: bool = False) -> Run | None:
        """:meth:`run` by all processes that ``torchrun`` started, which are joined, together.

        The store and the checkpoint have to be where all of them can read. The run is the
        same as that of one process but for rounding, and has the same key.

        Returns:
            The run, on the first process; None on the others.

        Raises:
            ValueError: an experiment that several processes cannot share; fewer examples of a
                set than processes; processes that read different texts.
        """
        start(config.device)
        if process_count() == 1:
            return self.run(config, progress=progress)
        if not self.shared:
            raise ValueError(f"{self.name}: several processes cannot share its search")
        rank = torch.distributed.get_rank()
        if rank != 0:
            if word := told():
                facts, path = json.loads(word)
                if (own := self.facts(config)) != facts:
                    raise ValueError(
                        f"process {rank} reads something else than the first: "
                        f"got {own}, expected {facts}"
                    )
                self.compute(config, checkpoint=Path(path))
            return None
        computing = False

        def begin(path: Path) -> None:
            nonlocal computing
            computing = True
            told(json.dumps([self.facts(config), str(path)]))

        run = self._run(config, progress, begin)
        if not computing:
            told(None)
        return run

    def recorded_configs(self, *, optional: bool = True) -> dict[str, C]:
        """Record name → configuration, for every setting and seed."""
        return {
            self.record_name(name, seed): self.config.from_flat({**setting.changes, "seed": seed})
            for name, setting in self.recorded.items()
            for seed in setting.seeds
            if optional or not setting.optional
        }

    def record_names(self, *, optional: bool = True) -> list[str]:
        """Of all records that :meth:`write_records` makes."""
        sweeps = [f"{self.name}-{sweep}" for sweep in self.sweeps]
        return [*self.recorded_configs(optional=optional), *sweeps]

    def record_name(self, setting: str, seed: int) -> str:
        """How a record is called."""
        return f"{self.name}-{setting}-seed{seed}"

    def write_records(self, names: Iterable[str] | None = None, *, progress: bool = True) -> None:
        """Make records anew: those named, or all that there have to be.

        Takes minutes to hours; those already in the run store are only written out.

        Raises:
            ValueError: a name that is no record's; before anything is run.
        """
        configs, known = self.recorded_configs(), self.record_names()
        chosen = self.record_names(optional=False) if names is None else list(names)
        for name in chosen:
            if name not in known:
                raise ValueError(f"no record is called {name!r}; there are: {', '.join(known)}")
        for name in chosen:
            if name in configs:
                run = self._condensed(configs[name], progress)
            else:
                run = self.sweep(name.removeprefix(f"{self.name}-"), progress=progress)
            save_record(run, record_path(name))

    def deposit(self, name: str, folder: Path, *, progress: bool = True) -> Deposit:
        """Search the policy of a recorded run anew, for a release: ``folder/NAME.npz``, and its line in the manifest.

        Takes as long as the run did; an interrupted search goes on from its last epoch.

        Raises:
            ValueError: a name that is no single run's.
            OSError: the folder cannot be written to.
        """
        config = self.recorded_configs().get(name)
        if config is None or type(self).compute is not Experiment.compute:
            raise ValueError(f"{name!r} is no recorded run of one policy")
        began, checkpoint = time.perf_counter(), folder / f"{name}.checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        found = search(
            self.build(config),
            config.training.steps,
            **config.search_options(),
            progress=progress,
            checkpoint=checkpoint,
        )
        settings = _without(config.settings(), self.known_by_facts) | self.facts(config)
        seconds = round(time.perf_counter() - began, 3)
        origin = provenance(config.device) | {"seconds": seconds, "history": found.history[-1]}
        of = Run(name, self.name, settings, origin, {})
        deposit = save_policy(found.policy, folder / f"{name}.npz", of=of)
        checkpoint.unlink(missing_ok=True)
        list_policy(name, deposit)
        return deposit

    def load_records(self, *, recompute: bool = False) -> dict[str, list[Run]]:
        """The recorded runs of every setting, in the order of its seeds.

        Of the optional settings, the seeds that somebody has recorded.

        Args:
            recompute: run each of them anew (or take it from the run store) instead of
                reading ``book/records``; hours on a CPU.
        """
        configs, found = self.recorded_configs(), {}
        for setting, recorded in self.recorded.items():
            names = [self.record_name(setting, seed) for seed in recorded.seeds]
            if recorded.optional:
                names = [name for name in names if record_path(name).is_file()]
            if not names:
                continue
            if recompute:
                found[setting] = [self._condensed(configs[name], True) for name in names]
            else:
                found[setting] = [load_record(record_path(name)) for name in names]
        return found

    def sweep(self, name: str, *, progress: bool = False) -> Run:
        """All runs of a recorded sweep as one, with a row per point.

        Returns:
            A run whose arrays are the parameters that differ between the M points, each (M,);
            ``history_*`` (M, 2), the measures of the first and of the last policy; ``course_*``
            (M, E), of all measured ones, the last one repeated where a point has fewer; ``seconds`` (M,). A search
            that diverged is a row of NaN. The other parameters are in its configuration.

        Raises:
            ValueError: no search came to an end.
        """
        configs = [self.config.from_flat(point) for point in self.sweeps[name]]
        runs = [self._run_unless_diverged(config, progress) for config in configs]
        done = [run for run in runs if run is not None]
        if not done:
            raise ValueError(
                f"{name}: expected a training that comes to an end, got {len(runs)} that do not"
            )
        rows = [config.flat() for config in configs]
        varied = [key for key in rows[0] if len({row[key] for row in rows}) > 1]
        arrays = {key: np.array([row[key] for row in rows]) for key in varied}
        for key in done[0].arrays:
            if key.startswith("history_"):
                ends = [run.arrays[key][[0, -1]] if run else (math.nan,) * 2 for run in runs]
                arrays[key] = np.array(ends)
                longest = max(len(run.arrays[key]) for run in done)
                course = [
                    np.pad(run.arrays[key], (0, longest - len(run.arrays[key])), "edge")
                    if run
                    else np.full(longest, math.nan)
                    for run in runs
                ]
                arrays[key.replace("history_", "course_")] = np.array(course, np.float32)
        seconds = [run.provenance["seconds"] if run else math.nan for run in runs]
        arrays["seconds"] = np.array(seconds)
        dotted = self.config.parameters()
        ids = [run.id if run else "diverged" for run in runs]
        kind = f"{self.name}-{name}"
        return Run(
            f"{kind}-{hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12]}",
            kind,
            _without(done[0].config, [dotted[key] for key in varied]),
            done[-1].provenance | {"seconds": round(float(np.nansum(seconds)), 3), "runs": ids},
            arrays,
        )

    def _run_unless_diverged(self, config: C, progress: bool) -> Run | None:
        try:
            return self.run(config, progress=progress)
        except FloatingPointError:
            return None

    def _condensed(self, config: C, progress: bool) -> Run:
        run = self.run(config, progress=progress)
        return replace(run, arrays=self.measure.condense(run.arrays))

    def _run(self, config: C, progress: bool, before: Callable[[Path], None]) -> Run:
        def compute(path: Path) -> Arrays:
            before(path)
            return self.compute(config, progress=progress, checkpoint=path)

        settings = _without(config.settings(), self.known_by_facts)
        return default_store().load_or_compute(
            self.name,
            settings | self.facts(config),
            compute,
            self.all_code(),
            libraries=self.libraries,
            resumable=True,
        )


# What decides the results of every experiment.
_CODE = (
    *("llbook.tasks.task", "llbook.tasks.identity", "llbook.optimal", "llbook.measures"),
    "llbook.experiments.collecting",
)


def _without(settings: Mapping[str, Any], dotted: Iterable[str]) -> dict[str, Any]:
    """Nested settings without those of these dotted names."""
    kept = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    for name in dotted:
        section, _, inner = name.rpartition(".")
        (kept.get(section, {}) if section else kept).pop(inner, None)
    return kept
