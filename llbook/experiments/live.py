"""What the live page trains: a perceptron in the plane, under three policies.

The page's script (``live.js``) repeats the search of the package in the browser, on examples that the
reader has moved. Here are its examples at rest, and the numbers that it is held against.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from llbook.data.teacher import Labelled, TeacherData, teacher_data
from llbook.optimal.process import train
from llbook.optimal.search import search
from llbook.optimal.starts import equal, greedy
from llbook.parameters import Parameters
from llbook.tasks.perceptron import Perceptron, initial_parameters
from llbook.tasks.task import Task

__all__ = ["GRID", "REACH", "LiveConfig", "Trained", "build_task", "compare", "plane_examples"]

REACH = 4
"""The plane that is shown is [-REACH, REACH]²; examples stay inside."""

GRID = 20
"""Places of examples are multiples of 1/GRID."""


class LiveConfig(Parameters):
    """A training in the plane, short enough to be searched in a page."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data and θ_0")
    size: int = Field(14, ge=2, le=64, description="N, training examples")
    desired_size: int = Field(40, ge=1, le=512, description="K, desired examples")
    label_noise: float = Field(0.2, ge=0, le=0.5, description="share of training labels flipped")
    steps: int = Field(80, ge=1, le=1000, description="T, gradient steps of a training")
    learning_rate: float = Field(0.1, gt=0, le=10, description="η")
    chosen: int = Field(1, ge=1, le=64, description="examples a step of the greedy policy")
    evaluations: int = Field(200, ge=5, le=2000, description="gradient evaluations of the search")
    rate: float = Field(0.3, gt=0, le=10, description="of mirror descent, in ln γ")


class Trained(NamedTuple):
    """A policy γ (T, N), and the desired losses under it, L(θ_0) … L(θ_T) in nats, (T + 1,)."""

    policy: Tensor
    losses: Tensor

    @property
    def area(self) -> float:
        """J = Σ_{t=1..T} L_dsr(θ_t), in nats."""
        return float(self.losses[1:].sum())


def plane_examples(config: LiveConfig) -> TeacherData:
    """The paper's Gaussian teacher in two dimensions, in float64, its inputs on the grid of the page."""
    data = teacher_data(
        size=config.size,
        desired_size=config.desired_size,
        dimension=2,
        label_noise=config.label_noise,
        seed=config.seed,
        dtype=torch.float64,
    )

    def on_grid(examples: Labelled) -> Labelled:
        inputs = (examples.inputs * GRID).round().div(GRID).clamp(-REACH, REACH)
        return examples._replace(inputs=inputs)

    return data._replace(training=on_grid(data.training), desired=on_grid(data.desired))


def build_task(config: LiveConfig, training: Labelled, desired: Labelled) -> Perceptron:
    """The task of these examples; losses are reported on the desired ones."""
    initial = initial_parameters("linear", 2, seed=config.seed, dtype=torch.float64)
    return Perceptron(
        training, desired, desired, initial=initial, learning_rate=config.learning_rate
    )


def compare(config: LiveConfig, task: Task) -> dict[str, Trained]:
    """The three policies of the page: ``equal``, ``greedy``, and ``searched`` by mirror descent."""
    steps, evaluations = config.steps, config.evaluations
    found = search(
        task,
        steps,
        epochs=evaluations,
        method="mirror",
        rate=config.rate,
        measure_every=evaluations,
    )
    policies = {
        "equal": equal(task, steps),
        "greedy": greedy(task, steps, chosen=config.chosen, equal_share=0.0),
        "searched": found.policy,
    }
    return {
        name: Trained(policy, task.trajectory_losses(train(task, policy).trajectory, task.desired))
        for name, policy in policies.items()
    }
