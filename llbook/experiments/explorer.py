"""What the policy explorer shows: weights, contributions and losses of one searched policy, step by step.

A run of the experiments keeps summaries of its last policy, not the policy. The explorer therefore has
small searches of its own, and keeps of each a sample of examples at a sample of steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from llbook.experiments import language_model, perceptron
from llbook.experiments.collecting import Arrays, Collector
from llbook.experiments.experiment import C, Experiment
from llbook.experiments.language_model import LanguageModelConfig, load_examples
from llbook.experiments.perceptron import PerceptronConfig
from llbook.measures.law import contributions, similarity, support
from llbook.optimal.search import Epoch
from llbook.parameters import Parameters, Section
from llbook.runs.run import Run
from llbook.tasks.task import Task

__all__ = [
    "EXAMPLES",
    "LANGUAGE_MODEL",
    "PERCEPTRON",
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


def sample(task: Task, epoch: Epoch) -> dict[str, Tensor]:
    """What is kept of one policy.

    Contributions are taken on the test examples, as everywhere. Examples are chosen at even distances in
    the order of their total weight, and put in the order in which they are used: by the mean step of
    their weight, with those of no weight at the end. Measures of a step are over all examples.

    Args:
        task: the learning problem.
        epoch: the policy and the training under it.

    Returns:
        ``steps`` (S,), from 0 to T − 1; ``examples`` (M,); ``weights`` (M, S), γN; ``contributions``
        (M, S); per step (S,) ``support`` (how many of all weights are not zero), ``mean`` (of CT,
        weighted by γ), ``similarity`` (SIM_t; nan where undefined), ``idle`` (how many have CT ≤ 0),
        ``idle_without_weight`` (of these, with γ = 0); ``near_optimal`` (T + 1,), test losses in nats.
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
    return {
        "steps": steps,
        "examples": chosen,
        "weights": (policy[steps][:, chosen].T * size).float(),
        "contributions": instant[steps][:, chosen].T.float(),
        "support": support(policy).sum(1)[steps],
        "mean": (policy * instant).sum(1)[steps],
        "similarity": similarity(instant, policy)[steps],
        "idle": idle.sum(1)[steps],
        "idle_without_weight": (idle & ~support(policy)).sum(1)[steps],
        "near_optimal": epoch.test,
    }


class _Sample(Collector):
    """The sample of the last policy; ``conventional`` (T + 1,), test losses under equal weights."""

    def __call__(self, epoch: Epoch) -> None:
        super().__call__(epoch)
        if epoch.number == 0:
            self.last["conventional"] = epoch.test.clone()  # the search keeps it as well
        if epoch.final:
            self.last |= sample(self.task, epoch)


class _LanguageSample(_Sample):
    """And which of its examples are ``perturbed`` (M,)."""

    def __init__(self, task: Task, config: LanguageModelConfig) -> None:
        super().__init__(task, config)
        self.perturbed = load_examples(config)[1].perturbed

    def arrays(self) -> Arrays:
        arrays = super().arrays()
        return arrays | {"perturbed": self.perturbed[arrays["examples"]]}


def _explored(base: Experiment[C], measure: type[Collector]) -> Experiment[C]:
    """Small searches of an experiment, of which the sample is kept."""
    return replace(
        base,
        name=f"explorer-{base.name}",
        measure=measure,
        code=(*base.code, __name__),
        recorded={},
        sweeps={},
        shared=False,
    )


PERCEPTRON = _explored(perceptron.PERCEPTRON, _Sample)
LANGUAGE_MODEL = _explored(language_model.LANGUAGE_MODEL, _LanguageSample)


def perceptron_explorer(config: ExplorerConfig) -> Run:
    """The perceptron's sample, from the run store where it is already there."""
    own = config.perceptron.model_dump()
    once = {"seed": config.seed, "measure_every": config.perceptron.epochs}
    return PERCEPTRON.run(PerceptronConfig.from_flat(own | once))


def language_explorer(config: ExplorerConfig) -> Run:
    """The language model's sample; from the store as well."""
    own = {name.removeprefix("lm_"): v for name, v in config.language.model_dump().items()}
    once = {"seed": config.seed, "measure_every": config.language.lm_epochs}
    return LANGUAGE_MODEL.run(LanguageModelConfig.from_flat(own | once))


def _spaced(length: int, most: int) -> np.ndarray:
    """At most so many indices below ``length``, at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))
