"""What the policy explorer shows: weights, contributions and losses of one searched policy, step by step.

A run of the experiments keeps summaries of its last policy, not the policy. The explorer therefore has
small searches of its own, and keeps of each a sample of examples at a sample of steps.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from llbook.data.tokens import TOKENISER
from llbook.experiments import language_model, perceptron
from llbook.experiments.language_model import LanguageModelConfig
from llbook.experiments.perceptron import PerceptronConfig
from llbook.measures.law import contributions, similarity
from llbook.optimal.search import Epoch, search
from llbook.parameters import Parameters, Section
from llbook.runs.run import Run
from llbook.runs.store import default_store
from llbook.tasks.task import Task

__all__ = [
    "EXAMPLES",
    "STEPS",
    "ExplorerConfig",
    "language_explorer",
    "perceptron_explorer",
    "sample",
]

EXAMPLES = 256
"""At most so many examples are kept."""

STEPS = 100
"""At most so many steps are kept."""


class _ExplorerPerceptron(Section):
    size: int = Field(256, ge=2, le=2**20, description="N, training examples")
    desired_size: int = Field(
        512, ge=1, le=2**20, description="K, desired and, again, test examples"
    )
    dimension: int = Field(16, ge=1, le=2**14, description="D, inputs of the perceptron")
    steps: int = Field(200, ge=1, le=10**6, description="T, gradient steps of a training")
    epochs: int = Field(500, ge=1, le=10**6, description="updates of the policy")
    step_size: float = Field(5e-3, ge=0, le=1e9, description="ε on the sum J")


class _ExplorerLanguage(Section):
    lm_corpus: Literal["auto", "tinystories", "grammar"] = Field(
        "auto", description="the language model's text"
    )
    lm_size: int = Field(64, ge=2, le=2**20, description="N of the language model")
    lm_desired_size: int = Field(128, ge=1, le=2**20, description="K of the language model")
    lm_length: int = Field(32, ge=2, le=1024, description="L, tokens predicted in an example")
    lm_vocabulary: int = Field(350, ge=8, le=32_000, description="V, token types")
    lm_hidden: int = Field(32, ge=2, le=8192, description="width of the residual stream")
    lm_heads: int = Field(4, ge=1, le=128, description="attention heads; they divide `lm_hidden`")
    lm_steps: int = Field(40, ge=1, le=10**6, description="T of the language model")
    lm_epochs: int = Field(10, ge=1, le=10**6, description="updates of its policy")
    lm_step_size: float = Field(8.0, ge=0, le=1e9, description="ε on J/T, decaying to zero")


class ExplorerConfig(Parameters):
    """The two small searches of the policy explorer."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0 of both")
    perceptron: _ExplorerPerceptron = _ExplorerPerceptron()
    language: _ExplorerLanguage = _ExplorerLanguage()


_OWN = ("llbook.experiments.explorer",)


def sample(task: Task, epoch: Epoch, conventional: Tensor) -> dict[str, np.ndarray]:
    """What is kept of one policy.

    Contributions are taken on the test examples, as everywhere. Examples are chosen at even distances in
    the order of their total weight, and put in the order in which they are used: by the mean step of
    their weight, with those of no weight at the end. Measures of a step are over all examples.

    Args:
        task: the learning problem.
        epoch: the policy and the training under it.
        conventional: test losses L(θ_0) … L(θ_T) under equal weights, shape (T + 1,).

    Returns:
        ``steps`` (S,), from 0 to T − 1; ``examples`` (M,); ``weights`` (M, S), γN; ``contributions``
        (M, S); per step (S,) ``support`` (how many of all weights are not zero), ``mean`` (of CT,
        weighted by γ), ``similarity`` (SIM_t; nan where undefined), ``idle`` (how many have CT ≤ 0),
        ``idle_without_weight`` (of these, with γ = 0); ``near_optimal``, ``conventional`` (T + 1,), losses in nats.
    """
    policy = epoch.policy
    instant = contributions(task, epoch.process, examples=task.test)
    size = policy.shape[1]
    steps = torch.from_numpy(_spaced(len(policy), STEPS)).to(policy.device)
    total = policy.sum(0)
    chosen = total.argsort(descending=True)[_spaced(size, EXAMPLES)]
    at = torch.arange(len(policy), dtype=policy.dtype, device=policy.device)
    middle = at @ policy[:, chosen] / total[chosen].clamp(min=1e-30)
    middle[total[chosen] == 0] = torch.inf
    chosen = chosen[middle.argsort(stable=True)]
    idle = instant <= 0
    kept = {
        "steps": steps,
        "examples": chosen,
        "weights": (policy[steps][:, chosen].T * size).float(),
        "contributions": instant[steps][:, chosen].T.float(),
        "support": (policy != 0).sum(1)[steps],
        "mean": (policy * instant).sum(1)[steps],
        "similarity": similarity(instant, policy)[steps],
        "idle": idle.sum(1)[steps],
        "idle_without_weight": (idle & (policy == 0)).sum(1)[steps],
        "near_optimal": epoch.test,
        "conventional": conventional,
    }
    return {name: tensor.contiguous().cpu().numpy() for name, tensor in kept.items()}


def perceptron_explorer(config: ExplorerConfig) -> Run:
    """The perceptron's sample, from the run store where it is already there."""
    own = PerceptronConfig.from_flat({"seed": config.seed} | config.perceptron.model_dump())
    return default_store().load_or_compute(
        "explorer-perceptron",
        own.model_dump(),
        lambda: _searched(perceptron.build_task(own), own),
        (*perceptron.CODE, *_OWN),
    )


def language_explorer(config: ExplorerConfig) -> Run:
    """The language model's sample, and which of its examples are ``perturbed`` (M,); from the store as well."""
    changes = {name.removeprefix("lm_"): v for name, v in config.language.model_dump().items()}
    own = LanguageModelConfig.from_flat({"seed": config.seed} | changes)
    corpus, examples = language_model.load_examples(own)
    settings = own.model_dump()
    # the text is known by its checksum, wherever it lay
    settings["data"] = {k: v for k, v in settings["data"].items() if k not in ("corpus", "path")}

    def compute() -> dict[str, np.ndarray]:
        kept = _searched(language_model.build_task(own, examples), own)
        return kept | {"perturbed": examples.perturbed[kept["examples"]]}

    return default_store().load_or_compute(
        "explorer-language-model",
        settings | {"corpus_name": corpus.name, "corpus_sha256": corpus.sha256},
        compute,
        (*language_model.CODE, *_OWN),
        libraries=TOKENISER,
    )


def _searched(task: Task, config: Any) -> dict[str, np.ndarray]:
    kept: dict[str, Any] = {}

    def last(epoch: Epoch) -> None:
        if epoch.number == 0:
            kept["conventional"] = epoch.test.clone()
        if epoch.number == config.search.epochs:
            kept["sample"] = sample(task, epoch, kept["conventional"])

    search(
        task,
        config.training.steps,
        epochs=config.search.epochs,
        step_size=config.search.step_size,
        schedule=config.search.schedule,
        objective=config.search.objective,
        measure_every=max(1, config.search.epochs),
        callback=last,
    )
    return kept["sample"]


def _spaced(length: int, most: int) -> np.ndarray:
    """At most so many indices below ``length``, at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))
