"""The language-model experiment of §4.3."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from llbook.data.stories import Corpus, load_corpus, text_file
from llbook.data.windows import StoryExamples, story_examples
from llbook.experiments.collecting import (
    Arrays,
    LawMeasures,
    SearchConfig,
    SearchParameters,
    TrainingParameters,
)
from llbook.experiments.experiment import Experiment, Recorded
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.distributed import Shared, process_count, share
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import Epoch
from llbook.parameters import FileName, Section
from llbook.tasks.language import Transformer
from llbook.tasks.task import Task
from llbook.tasks.transformer import Architecture, initial_parameters

__all__ = [
    "LADDER",
    "LANGUAGE_MODEL",
    "LONG",
    "QUARTER",
    "SHORT",
    "TABLE_2_ROW_1",
    "LanguageModelConfig",
    "LanguageModelMeasures",
    "build_task",
    "example_hashes",
    "example_texts",
    "language_model_run",
    "load_examples",
    "precision_errors",
]

HEAT_MAP_ROWS, HEAT_MAP_COLUMNS = 256, 200
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class _Stories(Section):
    corpus: Literal["auto", "tinystories", "grammar"] = Field(
        "auto",
        description="the text: TinyStories by name, the built-in grammar, or whichever is at hand",
    )
    path: FileName = Field(
        "", description="a file of stories (plain or .gz), in the place of `corpus`"
    )
    size: int = Field(128, ge=2, le=2**20, description="N, training examples")
    desired_size: int = Field(
        128, ge=1, le=2**20, description="K, desired and, again, test examples"
    )
    length: int = Field(32, ge=2, le=1024, description="L, tokens predicted in an example")
    vocabulary: int = Field(
        400, ge=8, le=32_000, description="V, token types, UNK and PAD included"
    )
    perturbed_share: float = Field(0.5, ge=0, le=1, description="share of training examples spoilt")
    perturbations: int = Field(20, ge=0, le=1000, description="edits of a spoilt example")


class _LanguageModel(Section):
    layers: int = Field(2, ge=1, le=48, description="blocks of the Transformer")
    hidden: int = Field(32, ge=2, le=8192, description="width of the residual stream")
    heads: int = Field(4, ge=1, le=128, description="attention heads; they divide `hidden`")
    activation: Literal["relu", "gelu"] = Field(
        "relu", description="of the feed-forward layers; J is smooth with gelu alone"
    )
    attention_scale: Literal["head", "hidden"] = Field(
        "head", description="attention scores are divided by the root of this size"
    )
    initial_scale: float = Field(
        0.1, gt=0, le=100, description="standard deviation of the matrices of θ_0"
    )


class _Computation(Section):
    micro_batch: int = Field(256, ge=1, le=2**20, description="the most examples computed at once")
    trajectory: Literal["memory", "host", "checkpoints"] = Field(
        "memory",
        description="θ_0 … θ_T on the device, in the CPU's memory, or √T of them, the rest replayed",
    )
    policy_storage: Literal["float32", "uint16", "uint8"] = Field(
        "float32", description="what γ is rounded to after each update, and stored as"
    )
    fused: bool = Field(
        False, description="on a GPU: operators made into fewer kernels by torch.compile"
    )


class LanguageModelConfig(SearchConfig):
    """The language-model experiment; the defaults are those of `laptop`."""

    data: _Stories = _Stories()
    model: _LanguageModel = _LanguageModel()
    training: TrainingParameters = TrainingParameters(learning_rate=0.1, steps=80)
    search: SearchParameters = SearchParameters(
        epochs=10, step_size=8.0, schedule="linear", objective="mean", measure_every=2
    )
    computation: _Computation = _Computation()
    precision: Literal["float32", "float64", "bfloat16", "tf32"] = Field(
        "float32", description="of matrix products; sums and parameters are at least float32"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.model.hidden % self.model.heads:
            raise ValueError(
                f"heads must divide hidden, got {self.model.heads} heads for {self.model.hidden}"
            )
        return self

    def search_options(self) -> dict[str, Any]:
        own = self.computation.model_dump(include={"trajectory", "policy_storage"})
        return super().search_options() | own


@lru_cache(maxsize=2)
def _read(source: str, path: str, file: Path | None, changed: int) -> Corpus:
    return load_corpus(source, path)


@lru_cache(maxsize=2)
def _cut(corpus: Corpus, data: _Stories, seed: int) -> StoryExamples:
    wanted = data.model_dump(exclude={"corpus", "path"})
    return story_examples(corpus, **wanted, seed=seed)


def _text(data: _Stories) -> Corpus:
    """The text of a configuration, read again where the environment now names another."""
    file = text_file(data.corpus, data.path)
    changed = file.stat().st_mtime_ns if file is not None and file.is_file() else 0
    return _read(data.corpus, data.path, file, changed)


def load_examples(config: LanguageModelConfig) -> tuple[Corpus, StoryExamples]:
    """The text of a configuration and the examples cut from it; the last ones are kept in memory."""
    corpus = _text(config.data)
    return corpus, _cut(corpus, config.data, config.seed)


def _text_facts(config: LanguageModelConfig) -> dict[str, Any]:
    corpus = _text(config.data)
    return {
        "corpus_name": corpus.name,
        "corpus_sha256": corpus.sha256,
        "corpus_stories": len(corpus.texts),
    }


def build_task(config: LanguageModelConfig) -> Transformer | Shared:
    """Model, θ_0 and examples of a configuration, on its device.

    Where ``torchrun`` started several processes, each gets its share of the examples.

    Raises:
        RuntimeError: ``device`` is ``"cuda"`` and there is none.
        TypeError: another configuration.
        ValueError: ``tf32`` without a GPU.
    """
    LanguageModelConfig.require(config)
    device, examples = config.torch_device(), load_examples(config)[1]
    architecture = Architecture(
        vocabulary=config.data.vocabulary,
        context=config.data.length,
        layers=config.model.layers,
        hidden=config.model.hidden,
        heads=config.model.heads,
        activation=config.model.activation,
        attention_scale=config.model.attention_scale,
        initial_scale=config.model.initial_scale,
    )
    wide = config.precision == "float64"
    initial = initial_parameters(
        architecture, config.seed, dtype=torch.float64 if wide else torch.float32
    )
    low = config.precision in ("bfloat16", "tf32")
    sets = {
        "training examples": examples.training,
        "desired examples": examples.desired,
        "test examples": examples.test,
    }
    if shared := process_count() > 1:
        sets = {what: part[share(len(part), what=what)] for what, part in sets.items()}
    task = Transformer(
        architecture,
        *(part.to(device) for part in sets.values()),
        initial=initial.to(device),
        learning_rate=config.training.learning_rate,
        micro_batch=config.computation.micro_batch,
        products=config.precision if low else "full",
        kernel="fused" if config.computation.fused and device == "cuda" else "auto",
    )
    return Shared(task, len(examples.training)) if shared else task


class LanguageModelMeasures(LawMeasures):
    """Beside those of every experiment, what concerns the text and what Fig. 4 shows of it.

    ``clean_weight`` (E, T), the weight on examples that were not perturbed; per training
    example (N,) ``perturbed``, ``edits``, ``story``, ``example_hash``, ``example_weight`` (Σ_t γ
    of the last policy) and ``example_contribution`` (mean CT over t); ``unknown_share`` (), of
    the tokens; ``weight_spread`` (Q, T), the quantiles ``weight_quantiles`` (Q,) of N γ_{n,t}
    over n; the ``heat_map`` is of examples whose contribution is positive at half of the steps
    or more, at ``heat_map_steps``, and ``heat_map_contributes`` says at which cells it is.
    """

    CURVES = (*LawMeasures.CURVES, "clean_weight")
    STEPS = (*LawMeasures.STEPS, "weight_spread")
    DROPPED = (
        *LawMeasures.DROPPED,
        *("heat_map", "heat_map_contributes", "heat_map_examples", "heat_map_steps"),
    )

    def __init__(self, task: Task, config: LanguageModelConfig) -> None:
        super().__init__(task, config)
        self.examples = load_examples(config)[1]
        self.clean = torch.from_numpy(~self.examples.perturbed).to(task.initial.device)

    def of_each(self, epoch: Epoch) -> tuple[dict[str, float], dict[str, Tensor]]:
        return {}, {"clean_weight": epoch.policy[:, self.clean].sum(1)}

    def of_last(self, epoch: Epoch, instant: Tensor) -> dict[str, Tensor]:
        policy = epoch.policy
        rows, columns = _heat_map_places(instant)
        quantiles = policy.new_tensor(QUANTILES)
        spread = [torch.quantile(row * policy.shape[1], quantiles) for row in policy]
        return {
            "example_weight": policy.sum(0),
            "example_contribution": instant.mean(0),
            "weight_spread": torch.stack(spread, 1),
            "weight_quantiles": quantiles,
            "heat_map": policy[columns][:, rows].T.contiguous(),
            "heat_map_contributes": (instant[columns][:, rows] > 0).T.contiguous(),
            "heat_map_examples": rows,
            "heat_map_steps": columns,
        }

    def arrays(self) -> Arrays:
        return super().arrays() | {
            "perturbed": self.examples.perturbed,
            "edits": self.examples.edits,
            "story": self.examples.story,
            "example_hash": example_hashes(self.examples),
            "unknown_share": np.array(self.examples.unknown_share),
        }


def _heat_map_places(instant: Tensor) -> tuple[Tensor, Tensor]:
    """Examples whose contribution is positive at most steps, and steps to show them at."""
    share = (instant > 0).sum(0).double() / len(instant)
    rows = (share >= 0.5).nonzero()[:HEAT_MAP_ROWS, 0]
    steps = np.unique(np.linspace(0, len(instant) - 1, HEAT_MAP_COLUMNS).round().astype(int))
    return rows, torch.from_numpy(steps).to(instant.device)


def example_hashes(examples: StoryExamples) -> np.ndarray:
    """A number for each training example, made from its tokens, shape (N,): no text."""
    hashes = [hashlib.sha256(row.tobytes()).digest()[:8] for row in examples.training.numpy()]
    return np.frombuffer(b"".join(hashes), dtype="<u8")


def precision_errors(config: LanguageModelConfig) -> dict[str, float]:
    """Relative error of ∂J/∂γ under conventional learning in each precision, against float64.

    Training and backward sweep both run in that precision, so that this is all of its error:
    ‖difference‖ / ‖∂J/∂γ‖ over every (t, n). TF32 is there where a GPU is.
    """

    def gradient(precision: str) -> Tensor:
        task = build_task(config.model_copy(update={"precision": precision}))
        policy = constant_policy(task, config.training.steps)
        process = train(task, policy, inner=config.inner.build())
        return policy_gradient(task, policy, process).double()

    exact = gradient("float64")
    others = ["float32", "bfloat16"] + ["tf32"] * (exact.device.type == "cuda")
    return {name: float((gradient(name) - exact).norm() / exact.norm()) for name in others}


def example_texts(config: LanguageModelConfig, indices: Sequence[int]) -> list[str]:
    """Training examples as the model sees them, decoded from the text at hand."""
    _, examples = load_examples(config)
    return [examples.vocabulary.decode(examples.training[int(n)].tolist()) for n in indices]


# The first row of Table 2.
TABLE_2_ROW_1: dict[str, Any] = {
    "corpus": "tinystories",
    "size": 4096,
    "desired_size": 512,
    "length": 64,
    "vocabulary": 4000,
    "hidden": 128,
    "heads": 8,
    "steps": 1000,
    "epochs": 15,
    "step_size": 0.4,
    "measure_every": 3,
}

# What a search keeps between two epochs is about T·N bytes then, so that it can go on elsewhere.
_ON_A_GPU = {"micro_batch": 1024, "policy_storage": "uint8", "precision": "tf32"}
_TABLE_2 = TABLE_2_ROW_1 | _ON_A_GPU
_LARGEST = {
    "steps": 300,
    "size": 512,
    "desired_size": 256,
    "vocabulary": 1000,
    "hidden": 64,
    "epochs": 8,
    "step_size": 1.0,
}

# What was tried before the defaults were chosen: the step size of the search for one training,
# then other trainings.
_STUDY = [
    {"epochs": 5, "initial_scale": scale, "learning_rate": rate, "step_size": step_size}
    for scale, rate, step_size in (
        *((0.1, 0.1, 8.0), (0.1, 0.1, 32.0), (0.1, 0.1, 128.0)),
        *((0.1, 0.2, 8.0), (0.1, 0.2, 32.0)),
        *((0.02, 0.05, 8.0), (0.02, 0.1, 8.0)),
    )
]

# T, with N = T/2: at T = 500 the test loss of conventional learning is least at step 275 with
# N = 128, and at step 175 with N = 64.
_RUNGS = (250, 500, 1000, 2000, 4000)

# The recorded settings in which T and N double from one to the next, as in the paper's Table 2.
LADDER = tuple(f"steps-{steps}" for steps in _RUNGS)


def _rung(steps: int) -> dict[str, Any]:
    """Settings of the ladder's training of so many steps.

    ε falls as T·N grows, as the curvature of J/T over policies does: at T = 500 an ε of 8, which
    serves at 250, makes the second update worse than the first. An epoch costs as T·N, and the
    first five of fifteen bring 86 to 90% of the fall of J (T = 500, 250): from T = 1,000 on they
    are all, at an ε that does not fall.
    """
    search: dict[str, Any] = {"epochs": 15, "measure_every": 5}
    if steps >= 1000:
        search |= {"epochs": 5, "schedule": "constant"}
    search["step_size"] = 8.0 * (250 / steps) ** 2
    return {"steps": steps, "size": steps // 2, "desired_size": 512} | search


# a search whose updates do not shrink as T grows
_TWO_STAGE: dict[str, Any] = {"method": "two-stage", "epochs": 16, "measure_every": 3}
# the shortest rung with another text; with a smooth activation, for which its ε is too large
_OTHERS: dict[str, dict[str, Any]] = {
    "grammar": {"corpus": "grammar"},
    "gelu": {"activation": "gelu"} | _TWO_STAGE,
}

# Of the rates of conventional learning the largest power of two at which its area is not decided
# by millionths of θ_0; see the sweep "edge".
QUARTER: dict[str, Any] = {"corpus": "tinystories", "learning_rate": 0.25}
# The linear fall to zero under which equal weights have the least area at `laptop`, in all three seeds;
# see the experiment "language-schedule".
FALLING = QUARTER | {"learning_rate": 0.7, "rate_schedule": "linear"}
_FROM_EQUAL = {"method": "two-stage", "start": "equal", "epochs": 40, "measure_every": 3}
# the area at several rates; σ of θ_0 changed by millionths
_EDGE = [
    {
        **{"corpus": "tinystories", "epochs": 0, "seed": seed},
        **{"learning_rate": rate, "initial_scale": 0.1 * (1 + millionths * 1e-6)},
    }
    for seed in (0, 1, 2)
    for rate in (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
    for millionths in range(5)
]

# sizes that other experiments take over
SHORT: dict[str, Any] = {"steps": 40, "size": 64, "vocabulary": 350}
LONG: dict[str, Any] = {"steps": 160, "size": 256, "vocabulary": 450}

LANGUAGE_MODEL = Experiment(
    name="language-model",
    config=LanguageModelConfig,
    build=build_task,
    measure=LanguageModelMeasures,
    code=("llbook.data", "llbook.tasks", "llbook.experiments.language_model"),
    recorded={
        "short-gelu": Recorded(SHORT | {"activation": "gelu"}, optional=True),
        "long-two-stage": Recorded(LONG | _TWO_STAGE, seeds=(0,)),
        **{
            f"steps-{steps}": Recorded(
                _rung(steps),
                seeds=(0, 1, 2) if steps <= 1000 else (0,),
                optional=True,  # minutes to hours of two cores
            )
            for steps in _RUNGS
        },
        **{
            f"steps-250-{name}": Recorded(_rung(250) | other, seeds=(0,), optional=True)
            for name, other in _OTHERS.items()
        },
        **{
            f"steps-{steps}-two-stage": Recorded(
                _rung(steps) | _TWO_STAGE, seeds=(0,), optional=True
            )
            for steps in (250, 500, 1000)
        },
        "short": Recorded(SHORT),
        "laptop": Recorded(),
        "long": Recorded(LONG),
        "laptop-quarter": Recorded(QUARTER, optional=True),
        "laptop-quarter-two-stage": Recorded(QUARTER | _FROM_EQUAL, optional=True),
        "long-quarter": Recorded(LONG | QUARTER, optional=True),
        "long-quarter-two-stage": Recorded(LONG | QUARTER | _FROM_EQUAL, optional=True),
        # an hour of two cores
        "largest": Recorded(_LARGEST, seeds=(0,), optional=True),
        # for a GPU: rows of the paper's Table 2, the third of which is its main experiment
        "table-2-row-1": Recorded(_TABLE_2, seeds=(0,), optional=True),
        "table-2-row-2": Recorded(
            _TABLE_2 | {"steps": 2000, "size": 2**13, "vocabulary": 4500}, (0,), optional=True
        ),
        "table-2-row-3": Recorded(
            _TABLE_2 | {"steps": 4000, "size": 2**14, "vocabulary": 5000}, (0,), optional=True
        ),
    },
    sweeps={"study": _STUDY, "edge": _EDGE},
    facts=_text_facts,
    known_by_facts=("data.corpus", "data.path", "computation.fused"),
    libraries=("mistral-common", "sentencepiece"),
    shared=True,
)
language_model_run = LANGUAGE_MODEL.run
load_records = LANGUAGE_MODEL.load_records
