"""The small problems that the theory's chapters share."""

from __future__ import annotations

import torch

from llbook.data.teacher import teacher_data
from llbook.tasks.perceptron import Perceptron, initial_parameters

__all__ = ["small_perceptron"]


def small_perceptron(
    size: int,
    dimension: int,
    desired_size: int,
    *,
    label_noise: float = 0.0,
    seed: int = 0,
    learning_rate: float = 0.1,
) -> Perceptron:
    """A perceptron on the paper's Gaussian teacher, in float64, with θ_0 ~ N(0, I).

    Args:
        size: N.
        dimension: D.
        desired_size: K.
        label_noise: share of training labels that are flipped.
        seed: of data and θ_0.
        learning_rate: η.

    Raises:
        ValueError: as :func:`llbook.data.teacher.teacher_data` and
            :class:`llbook.tasks.perceptron.Perceptron`.
    """
    data = teacher_data(
        size=size,
        desired_size=desired_size,
        dimension=dimension,
        label_noise=label_noise,
        seed=seed,
        dtype=torch.float64,
    )
    initial = initial_parameters("normal", dimension, seed=seed, dtype=torch.float64)
    return Perceptron(
        data.training, data.desired, data.test, initial=initial, learning_rate=learning_rate
    )
