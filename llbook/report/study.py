"""A small study of settings, kept as one JSON file: what was tried before the defaults were chosen.

The file holds, for every trial, the flat parameters in which it differs from a
common base, and a few numbers of its outcome; no curves and no text. A training
that diverged is a trial like any other and is kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llbook.experiments.language_model import LanguageModelConfig
from llbook.runs.files import write_json
from llbook.runs.folders import records_folder
from llbook.runs.run import Run

__all__ = ["Study", "Trial", "load_study", "make_study", "study_path", "trial_of"]

Setting = bool | int | float | str


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Trial(_Part):
    """One search, or one training that diverged.

    Attributes:
        settings: flat parameter → value, where it differs from the study's base.
        auc: AUC/T on the test examples before and after the search, in nats.
        desired_auc: the same on the desired examples.
        cr: compression ratio after the search, in one unit.
        ar: acceleration ratio; None where the searched policy never gets there.
        seconds: wall time.

    All but the settings and the time are None where the training diverged.
    """

    settings: dict[str, Setting]
    auc: tuple[float, float] | None = None
    desired_auc: tuple[float, float] | None = None
    cr: float | None = None
    ar: float | None = None
    seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len({self.auc is None, self.desired_auc is None, self.cr is None}) != 1:
            raise ValueError("auc, desired_auc and cr are given together, or none of them")
        return self

    @property
    def diverged(self) -> bool:
        return self.auc is None

    @property
    def change(self) -> float:
        """AUC on the test examples, after over before, minus one; nan where it diverged."""
        return self.auc[1] / self.auc[0] - 1 if self.auc else math.nan

    @property
    def desired_change(self) -> float:
        """The same on the desired examples."""
        return self.desired_auc[1] / self.desired_auc[0] - 1 if self.desired_auc else math.nan


class Study(_Part):
    """Trials around one base.

    Attributes:
        base: flat parameters that all trials share, where they differ from the defaults.
        corpus: name, SHA-256 and number of the stories.
        provenance: ``commit``, ``device``, ``date`` and ``versions``, as a run has them.
        trials: in the order in which they were made.
    """

    base: dict[str, Setting]
    corpus: dict[str, Setting]
    provenance: dict[str, Any]
    trials: tuple[Trial, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for settings in (self.base, *(trial.settings for trial in self.trials)):
            LanguageModelConfig.from_flat(self.base | settings)
        return self

    @property
    def varied(self) -> tuple[str, ...]:
        """Parameters that differ between trials, in the configuration's order; never the seed."""
        usual = LanguageModelConfig().flat() | self.base
        names = {name for trial in self.trials for name in trial.settings} - {"seed"}
        return tuple(
            name
            for name in usual
            if name in names
            and len({trial.settings.get(name, usual[name]) for trial in self.trials}) > 1
        )

    def cells(self) -> list[tuple[dict[str, Setting], list[Trial]]]:
        """The trials by their values of :attr:`varied`: those of a group differ in the seed."""
        usual = LanguageModelConfig().flat() | self.base
        groups: dict[tuple[Setting, ...], list[Trial]] = {}
        for trial in self.trials:
            values = tuple((usual | trial.settings)[name] for name in self.varied)
            groups.setdefault(values, []).append(trial)
        return [
            (dict(zip(self.varied, values, strict=True)), group)
            for values, group in sorted(groups.items(), key=lambda item: item[0])
        ]

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the file: at once, or not at all."""
        path = study_path() if path is None else Path(path)
        write_json(path, self.model_dump(mode="json"))
        return path


def study_path() -> Path:
    """Where the study of the language-model experiment lies."""
    return records_folder() / "language-model-study.json"


def load_study(path: str | os.PathLike[str] | None = None) -> Study:
    """Read a study.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is not one, or names a parameter that is unknown or out of
            range; the message says where.
    """
    path = study_path() if path is None else Path(path)
    try:
        return Study.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ValueError(
            f"{path} is not a study: {where}: {first['msg']} (of {error.error_count()} errors)"
        ) from None


def trial_of(settings: Mapping[str, Setting], run: Run) -> Trial:
    """What a study keeps of a run."""
    history = {name: run.arrays[f"history_{name}"] for name in ("auc", "desired_auc", "cr", "ar")}
    ratio = float(history["ar"][-1])
    return Trial(
        settings=dict(settings),
        auc=(float(history["auc"][0]), float(history["auc"][-1])),
        desired_auc=(float(history["desired_auc"][0]), float(history["desired_auc"][-1])),
        cr=float(history["cr"][-1]),
        ar=None if math.isnan(ratio) else ratio,
        seconds=float(run.provenance["seconds"]),
    )


def make_study(
    base: Mapping[str, Setting],
    variations: Iterable[Mapping[str, Setting]],
    run: Callable[[LanguageModelConfig], Run],
) -> Study:
    """Run every variation of ``base``, one after the other.

    Args:
        base: flat parameters that all trials share.
        variations: flat parameters of each trial, beside those of the base.
        run: the experiment; a :class:`FloatingPointError` of its own is a trial that diverged.

    Raises:
        ParameterError: before anything is run, for a parameter that is unknown or out of range.
        ValueError: no trial at all, or not one that came to an end.
    """
    configs = [(dict(v), LanguageModelConfig.from_flat({**base, **v})) for v in variations]
    trials: list[Trial] = []
    finished: Run | None = None
    for settings, config in configs:
        try:
            result = run(config)
        except FloatingPointError:
            trials.append(Trial(settings=settings, seconds=0))
        else:
            finished = result
            trials.append(trial_of(settings, result))
    if finished is None:
        raise ValueError(f"expected a training that comes to an end, got {len(trials)} that do not")
    facts = finished.provenance
    return Study(
        base=dict(base),
        corpus={name: finished.config[f"corpus_{name}"] for name in ("name", "sha256", "stories")},
        provenance={
            name: facts[name] for name in ("commit", "dirty", "device", "date", "versions")
        },
        trials=tuple(trials),
    )
