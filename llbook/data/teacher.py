"""The perceptron's data: a Gaussian teacher, two input distributions (App. D.1).

The teacher T_w has independent entries N(0, √D). Training inputs come from
N(0, 3I), desired and test inputs from N(0.5·1, I), and the label of an input
is the sign of its product with the teacher.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Labelled", "TeacherData", "teacher_data"]


class Labelled(NamedTuple):
    """Inputs (n, D) and labels in {-1, +1}, shape (n,)."""

    inputs: Tensor
    labels: Tensor


class TeacherData(NamedTuple):
    """What :func:`teacher_data` returns; ``teacher`` has shape (D,)."""

    training: Labelled
    desired: Labelled
    test: Labelled
    teacher: Tensor


def teacher_data(
    *,
    size: int,
    desired_size: int,
    dimension: int,
    label_noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> TeacherData:
    """Draw a teacher, N training, K desired and K test examples.

    The draws are made on the CPU in float64 whatever ``dtype`` is, so that one
    seed is one data set in every precision and on every device.

    Args:
        size: N, number of training examples.
        desired_size: K, number of desired and, again, of test examples.
        dimension: D, number of inputs.
        label_noise: share of the *training* labels that are flipped, in [0, 0.5].
        seed: seed of the draw.
        dtype: type of the tensors returned.

    Raises:
        ValueError: a size below 1, or a noise outside [0, 0.5].
    """
    for name, value in (("size", size), ("desired_size", desired_size), ("dimension", dimension)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0.0 <= label_noise <= 0.5:
        raise ValueError(f"label_noise must lie in [0, 0.5], got {label_noise}")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # √D is the variance of the teacher's entries: N(0, √D·I)
    teacher = normal(dimension) * dimension**0.25

    def label(inputs: Tensor) -> Labelled:
        labels = torch.where(inputs @ teacher >= 0, 1.0, -1.0)
        return Labelled(inputs.to(dtype), labels.to(dtype))

    training = label(normal(size, dimension) * 3**0.5)
    desired = label(normal(desired_size, dimension) + 0.5)
    test = label(normal(desired_size, dimension) + 0.5)
    # drawn last, so that noise leaves everything before it as it was
    flip = torch.rand(size, generator=generator, dtype=torch.float64) < label_noise
    noisy = torch.where(flip, -training.labels, training.labels)
    return TeacherData(Labelled(training.inputs, noisy), desired, test, teacher.to(dtype))
