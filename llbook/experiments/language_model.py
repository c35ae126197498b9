"""The language-model experiment of §4.3: from a configuration to the arrays that figures read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from llbook.data.stories import Corpus, load_corpus
from llbook.data.tokens import TOKENISER
from llbook.data.windows import StoryExamples, story_examples
from llbook.experiments.collecting import Collector
from llbook.experiments.perceptron import condense
from llbook.measures.law import (
    contributions,
    first_order_gap,
    future_contributions,
    similarity,
    zero_weight_share,
)
from llbook.optimal.adjoint import policy_gradient
from llbook.optimal.distributed import Shared, process_count, share, told
from llbook.optimal.process import constant_policy, train
from llbook.optimal.search import Epoch, search
from llbook.parameters import Parameters, Section
from llbook.runs.records import load_record, record_path, save_record
from llbook.runs.run import Run
from llbook.runs.store import default_store
from llbook.tasks.task import Task
from llbook.tasks.transformer import Architecture, Transformer, initial_parameters

__all__ = [
    "CODE",
    "LADDER",
    "LARGER",
    "RECORDED",
    "TABLE_2_ROW_1",
    "LanguageModelConfig",
    "build_task",
    "compute",
    "example_hashes",
    "example_texts",
    "language_model_run",
    "load_records",
    "precision_errors",
    "recorded_configs",
    "shared_run",
    "write_records",
]


class _Stories(Section):
    corpus: Literal["auto", "tinystories", "grammar"] = Field(
        "auto",
        description="the text: TinyStories by name, the built-in grammar, or whichever is at hand",
    )
    path: str = Field("", description="a file of stories (plain or .gz), in the place of `corpus`")
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
    attention_scale: Literal["head", "hidden"] = Field(
        "head", description="attention scores are divided by the root of this size"
    )
    initial_scale: float = Field(
        0.1, gt=0, le=100, description="standard deviation of the matrices of θ_0"
    )


class _LanguageTraining(Section):
    learning_rate: float = Field(0.1, gt=0, le=1e3, description="η of Eq. 1")
    steps: int = Field(80, ge=1, le=10**6, description="T, gradient steps of a training")


class _LanguageSearch(Section):
    epochs: int = Field(10, ge=0, le=10**6, description="updates of the policy")
    step_size: float = Field(8.0, ge=0, le=1e9, description="ε of Eq. 6, for `objective`")
    schedule: Literal["constant", "linear"] = Field(
        "linear", description="ε over the epochs: constant, or linear decay to zero"
    )
    objective: Literal["sum", "mean"] = Field(
        "mean", description="the J that ε belongs to: Σ_t L_dsr(θ_t), or that over T"
    )
    measure_every: int = Field(2, ge=1, le=10**6, description="epochs between measurements")


class _Computation(Section):
    micro_batch: int = Field(256, ge=1, le=2**20, description="the most examples computed at once")
    trajectory: Literal["memory", "host", "checkpoints"] = Field(
        "memory",
        description="θ_0 … θ_T on the device, in the CPU's memory, or √T of them, the rest replayed",
    )
    policy_storage: Literal["float32", "uint16", "uint8"] = Field(
        "float32", description="what γ is rounded to after each update, and stored as"
    )


class LanguageModelConfig(Parameters):
    """The language-model experiment; the defaults are those of `laptop`."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0")
    data: _Stories = _Stories()
    model: _LanguageModel = _LanguageModel()
    training: _LanguageTraining = _LanguageTraining()
    search: _LanguageSearch = _LanguageSearch()
    computation: _Computation = _Computation()
    precision: Literal["float32", "float64", "bfloat16", "tf32"] = Field(
        "float32", description="of matrix products; sums and parameters are at least float32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.model.hidden % self.model.heads:
            raise ValueError(
                f"heads must divide hidden, got {self.model.heads} heads for {self.model.hidden}"
            )
        return self


# The modules whose source decides what a run contains; the run store hashes them.
CODE = (
    "llbook.data",
    "llbook.tasks",
    "llbook.optimal",
    "llbook.measures",
    "llbook.experiments.collecting",
    "llbook.experiments.language_model",
)

# Settings whose runs are kept as records, as changes to the defaults of LanguageModelConfig.
RECORDED: dict[str, dict[str, Any]] = {
    "short": {"steps": 40, "size": 64, "vocabulary": 350},
    "laptop": {},
    "long": {"steps": 160, "size": 256, "vocabulary": 450},
}
SEEDS: dict[str, tuple[int, ...]] = dict.fromkeys(RECORDED, (0, 1, 2))

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

# Larger ones, recorded where somebody has done so: an hour of two cores; and, for a GPU, the rows of
# the paper's Table 2, the third of which is its main experiment. What a search keeps between two
# epochs is about T·N bytes then, so that it can go on elsewhere.
_ON_A_GPU = {"micro_batch": 1024, "policy_storage": "uint8", "precision": "tf32"}
_TABLE_2 = TABLE_2_ROW_1 | _ON_A_GPU
LARGER: dict[str, dict[str, Any]] = {
    "largest": {
        "steps": 300,
        "size": 512,
        "desired_size": 256,
        "vocabulary": 1000,
        "hidden": 64,
        "epochs": 8,
        "step_size": 1.0,
    },
    "table-2-row-1": _TABLE_2,
    "table-2-row-2": _TABLE_2 | {"steps": 2000, "size": 2**13, "vocabulary": 4500},
    "table-2-row-3": _TABLE_2 | {"steps": 4000, "size": 2**14, "vocabulary": 5000},
}
SEEDS |= dict.fromkeys(LARGER, (0,))

# The recorded settings in which T and N double from one to the next, as in the paper's Table 2.
LADDER = ("short", "laptop", "long")

HEAT_MAP_ROWS, HEAT_MAP_COLUMNS = 256, 200
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@lru_cache(maxsize=2)
def _corpus(source: str, path: str) -> Corpus:
    return load_corpus(source, path)


def load_examples(config: LanguageModelConfig) -> tuple[Corpus, StoryExamples]:
    """The text of a configuration and the examples cut from it."""
    data = config.data
    corpus = _corpus(data.corpus, data.path)
    return corpus, story_examples(
        corpus,
        size=data.size,
        desired_size=data.desired_size,
        length=data.length,
        vocabulary=data.vocabulary,
        perturbed_share=data.perturbed_share,
        perturbations=data.perturbations,
        seed=config.seed,
    )


def build_task(config: LanguageModelConfig, examples: StoryExamples) -> Transformer | Shared:
    """Model, θ_0 and examples of a configuration, on its device.

    Where ``torchrun`` started several processes, each gets its share of the examples.

    Raises:
        RuntimeError: ``device`` is ``"cuda"`` and there is none.
        ValueError: ``tf32`` without a GPU.
    """
    device = config.device
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device: got 'cuda', but PyTorch sees no CUDA device; use 'auto' or 'cpu'"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    architecture = Architecture(
        vocabulary=config.data.vocabulary,
        context=config.data.length,
        layers=config.model.layers,
        hidden=config.model.hidden,
        heads=config.model.heads,
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
    )
    return Shared(task, len(examples.training)) if shared else task


class _Measure(Collector):
    """What figures need of each measured policy."""

    def __init__(self, task: Task, config: LanguageModelConfig, clean: Tensor) -> None:
        super().__init__()
        self.task, self.last_epoch, self.clean = task, config.search.epochs, clean

    def __call__(self, epoch: Epoch) -> None:
        policy = epoch.policy
        instant = contributions(self.task, epoch.process, examples=self.task.test)
        future = future_contributions(self.task, epoch.gradient)
        sim, future_sim = similarity(instant, policy), similarity(future, policy)
        self.append(
            epoch.measures
            | {
                "similarity": float(sim.nanmean()),
                "future_similarity": float(future_sim.nanmean()),
                "undefined_share": float(sim.isnan().double().mean()),
                "zero_weight_share": zero_weight_share(instant, policy),
                "support_share": float((policy != 0).double().mean()),
            },
            test_curves=epoch.test,
            similarity=sim,
            future_similarity=future_sim,
            clean_weight=policy[:, self.clean].sum(1),
        )
        if epoch.number == 0:
            self.last["first_desired"] = epoch.desired
        if epoch.number == self.last_epoch:
            gap = first_order_gap(future, policy)
            idle = instant <= 0
            rows, columns = _heat_map_places(instant)
            quantiles = policy.new_tensor(QUANTILES)
            spread = [torch.quantile(row * policy.shape[1], quantiles) for row in policy]
            self.last |= {
                "last_desired": epoch.desired,
                "gap": gap.absolute,
                "relative_gap": gap.relative,
                "future_mean": gap.mean,
                "support": (policy != 0).sum(1),
                "idle": idle.sum(1),
                "idle_without_weight": (idle & (policy == 0)).sum(1),
                "example_weight": policy.sum(0),
                "example_contribution": instant.mean(0),
                "weight_spread": torch.stack(spread, 1),
                "weight_quantiles": quantiles,
                "heat_map": policy[columns][:, rows].T.contiguous(),
                "heat_map_contributes": (instant[columns][:, rows] > 0).T.contiguous(),
                "heat_map_examples": rows,
                "heat_map_steps": columns,
            }


def _heat_map_places(instant: Tensor) -> tuple[Tensor, Tensor]:
    """Examples whose contribution is positive at most steps, and steps to show them at."""
    share = (instant > 0).double().mean(0)
    rows = (share >= 0.5).nonzero()[:HEAT_MAP_ROWS, 0]
    steps = np.unique(np.linspace(0, len(instant) - 1, HEAT_MAP_COLUMNS).round().astype(int))
    return rows, torch.from_numpy(steps).to(instant.device)


def compute(
    config: LanguageModelConfig,
    examples: StoryExamples | None = None,
    *,
    progress: bool = False,
    checkpoint: Path | None = None,
) -> dict[str, np.ndarray]:
    """Run the search and measure it.

    Contributions, SIM_t and the shares of zero weights are taken on the test
    examples, as the paper takes all its measures.

    Args:
        config: the experiment.
        examples: those of :func:`load_examples`, where they are already there.
        progress: show a progress bar.
        checkpoint: see :func:`llbook.optimal.search.search`.

    Returns:
        As :func:`llbook.experiments.perceptron.compute`, but for the desired
        similarity and the learned weights; and ``clean_weight`` (E, T), the weight
        on examples that were not perturbed; per training example (N,)
        ``perturbed``, ``edits``, ``story``, ``example_hash``, ``example_weight``
        (Σ_t γ of the last policy) and ``example_contribution`` (mean CT over t);
        ``weight_spread`` (Q, T), the quantiles ``weight_quantiles`` (Q,) of
        N γ_{n,t} over n; the ``heat_map`` is of examples whose contribution is
        positive at half of the steps or more, at ``heat_map_steps``, and
        ``heat_map_contributes`` says at which cells it is.
    """
    if examples is None:
        examples = load_examples(config)[1]
    task = build_task(config, examples)
    clean = torch.from_numpy(~examples.perturbed).to(task.initial.device)
    measure = _Measure(task, config, clean)
    search(
        task,
        config.training.steps,
        epochs=config.search.epochs,
        step_size=config.search.step_size,
        schedule=config.search.schedule,
        objective=config.search.objective,
        measure_every=config.search.measure_every,
        callback=measure,
        progress=progress,
        trajectory=config.computation.trajectory,
        checkpoint=checkpoint,
        policy_storage=config.computation.policy_storage,
    )
    arrays = measure.arrays()
    return arrays | {
        "curve_epochs": arrays["history_epoch"],
        "curve_steps": np.arange(config.training.steps + 1),
        "perturbed": examples.perturbed,
        "edits": examples.edits,
        "story": examples.story,
        "example_hash": example_hashes(examples),
    }


def example_hashes(examples: StoryExamples) -> np.ndarray:
    """A number for each training example, made from its tokens, shape (N,): no text."""
    hashes = [hashlib.sha256(row.tobytes()).digest()[:8] for row in examples.training.numpy()]
    return np.frombuffer(b"".join(hashes), dtype="<u8")


def language_model_run(
    config: LanguageModelConfig,
    *,
    progress: bool = False,
    before: Callable[[Path], object] | None = None,
) -> Run:
    """The run of a configuration, from the run store where it is already there.

    The text enters the run's configuration, and so its key, by its checksum. An
    interrupted search goes on from its last epoch.

    Args:
        config: the experiment.
        progress: show a progress bar.
        before: called before anything is computed, with the place of the checkpoint.
    """
    corpus, examples = load_examples(config)
    facts = {
        "corpus_name": corpus.name,
        "corpus_sha256": corpus.sha256,
        "corpus_stories": len(corpus.texts),
        "unknown_share": examples.unknown_share,
        "perturbed_measured": float(examples.perturbed.mean()),
        "mean_edits": float(examples.edits[examples.perturbed].mean())
        if examples.perturbed.any()
        else 0.0,
    }
    settings = config.model_dump()
    # where the text came from does not matter, once it is known which text it is
    settings["data"] = {k: v for k, v in settings["data"].items() if k not in ("corpus", "path")}

    def computed(path: Path) -> dict[str, np.ndarray]:
        if before is not None:
            before(path)
        return compute(config, examples, progress=progress, checkpoint=path)

    return default_store().load_or_compute(
        "language-model",
        settings | facts,
        computed,
        CODE,
        libraries=TOKENISER,
        resumable=True,
    )


def shared_run(config: LanguageModelConfig, *, progress: bool = False) -> Run | None:
    """:func:`language_model_run` by all processes that ``torchrun`` started, together.

    The store and the checkpoint have to be where all of them can read. The run is the
    same as that of one process but for rounding, and has the same key.

    Returns:
        The run, on the first process; None on the others.

    Raises:
        ValueError: fewer examples of a set than processes; processes that read
            different texts.
    """
    rank = torch.distributed.get_rank()
    if rank != 0:
        if word := told():
            text, path = word.split(" ", 1)
            corpus, examples = load_examples(config)
            if corpus.sha256 != text:
                raise ValueError(
                    f"process {rank} reads another text than the first: {corpus.notice} "
                    f"Its SHA-256 is {corpus.sha256}, expected {text}"
                )
            compute(config, examples, checkpoint=Path(path))
        return None
    computing = False

    def begin(path: Path) -> None:
        nonlocal computing
        computing = True
        told(f"{_corpus(config.data.corpus, config.data.path).sha256} {path}")

    run = language_model_run(config, progress=progress, before=begin)
    if not computing:
        told(None)
    return run


def precision_errors(config: LanguageModelConfig) -> dict[str, float]:
    """Relative error of ∂J/∂γ under conventional learning in each precision, against float64.

    Training and backward sweep both run in that precision, so that this is all of its error:
    ‖difference‖ / ‖∂J/∂γ‖ over every (t, n). TF32 is there where a GPU is.
    """
    examples = load_examples(config)[1]

    def gradient(precision: str) -> Tensor:
        task = build_task(config.model_copy(update={"precision": precision}), examples)
        policy = constant_policy(task, config.training.steps)
        return policy_gradient(task, policy, train(task, policy)).double()

    exact = gradient("float64")
    others = ["float32", "bfloat16"] + ["tf32"] * (exact.device.type == "cuda")
    return {name: float((gradient(name) - exact).norm() / exact.norm()) for name in others}


def example_texts(config: LanguageModelConfig, indices: Sequence[int]) -> list[str]:
    """Training examples as the model sees them, decoded from the text at hand."""
    _, examples = load_examples(config)
    return [examples.vocabulary.decode(examples.training[int(n)].tolist()) for n in indices]


def recorded_configs(*, larger: bool = False) -> dict[str, LanguageModelConfig]:
    """Record name → configuration, for every setting and seed.

    Args:
        larger: those of :data:`LARGER` too, of which there need not be a record.
    """
    settings = RECORDED | (LARGER if larger else {})
    return {
        _record_name(name, seed): LanguageModelConfig.from_flat(changes | {"seed": seed})
        for name, changes in settings.items()
        for seed in SEEDS[name]
    }


def _record_name(setting: str, seed: int) -> str:
    return f"language-model-{setting}-seed{seed}"


def write_records(names: Iterable[str] | None = None, *, progress: bool = True) -> None:
    """Make records anew, from the text at hand: all of :data:`RECORDED`, or those named.

    Takes minutes to hours. A search that is interrupted goes on from its last epoch.

    Raises:
        ValueError: a name that is no record's; before anything is run.
    """
    configs = recorded_configs(larger=True)
    chosen = list(recorded_configs() if names is None else names)
    for name in chosen:
        if name not in configs:
            raise ValueError(f"no record is called {name!r}; there are: {', '.join(configs)}")
    for name in chosen:
        run = language_model_run(configs[name], progress=progress)
        save_record(replace(run, arrays=_condense(run.arrays)), record_path(name))


def _condense(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As the perceptron's, with what is the language model's own thinned in the same way."""
    kept = condense(arrays)
    rows = np.searchsorted(arrays["curve_epochs"], kept["curve_epochs"])
    columns = kept["curve_steps"][:-1]
    kept["clean_weight"] = arrays["clean_weight"][np.ix_(rows, columns)]
    kept["weight_spread"] = arrays["weight_spread"][:, columns]
    return kept


def load_records() -> dict[str, list[Run]]:
    """The recorded runs of every setting, in the order of their seeds.

    Of the settings in :data:`LARGER`, those that somebody has recorded.
    """
    there = [
        name
        for name in LARGER
        if all(record_path(_record_name(name, seed)).is_file() for seed in SEEDS[name])
    ]
    return {
        name: [load_record(record_path(_record_name(name, seed))) for seed in SEEDS[name]]
        for name in (*RECORDED, *there)
    }
